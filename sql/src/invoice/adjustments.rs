//! Adjustments: what an issued document lacks now, or has too much, as lines of a later one. Pure.
//!
//! An issued document never changes. What its lines would be now is made again in full, and compared with all that was issued for
//! it: its own lines, and the lines of later documents that corrected it. So over any number of corrections the sum of what was
//! issued is one rating of what is known now.
//!
//! | of the document | the difference |
//! |---|---|
//! | lines, maximum, minimum, discounts | an `adjustment` for each price, dimensions and service period whose amount or discount is another |
//! | promotional and prepaid credits | what is added is paid by grants like any line; what is taken back goes back to the grant that paid it, as [`crate::credits::give_back`] says |
//! | taxes | a `tax` for each rate: tax now less the tax that was issued |
//!
//! A document that bills the rest of a period of which others billed a part is the same difference, as lines of its own.

use super::{
    LineItem, LineKind, Period,
    shares::shares,
    taxes::{included, on_top},
};
use crate::{
    error::Result,
    money::{Currency, Exact, Money},
    rating::Dimensions,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a line corrects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrects {
    /// The number of the document.
    pub number: String,
    /// The kind of its line.
    pub kind: LineKind,
}

/// The tax that a line bears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaxOf {
    /// In per cent.
    pub rate_percent: Exact,
    /// Whether the line has it in it.
    pub is_included: bool,
    /// The region whose rate it is.
    pub region: String,
}

impl TaxOf {
    /// The kind of the tax's line.
    pub(super) fn kind(&self) -> LineKind {
        match self.is_included {
            true => LineKind::TaxIncluded,
            false => LineKind::Tax,
        }
    }

    /// The tax of an amount.
    pub(super) fn of(&self, taxable: Money) -> Result<Money> {
        match self.is_included {
            true => included(self.rate_percent, taxable),
            false => on_top(self.rate_percent, taxable),
        }
    }

    /// The dimensions of the tax's line, by which [`TaxOf::of_line`] reads it back.
    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions::from([
            (REGION.into(), Some(self.region.clone())),
            (RATE.into(), Some(self.rate_percent.to_string())),
        ])
    }

    /// The tax that a line is; `None` of any other line.
    fn of_line(line: &LineItem) -> Option<Self> {
        let is_included = match line.kind {
            LineKind::Tax => false,
            LineKind::TaxIncluded => true,
            _ => return None,
        };
        let dimension = |wanted: &str| {
            let mut named = line.dimensions.iter().filter(|(name, _)| **name == *wanted);
            named.next().and_then(|(_, value)| value.clone())
        };
        Some(TaxOf {
            region: dimension(REGION)?,
            rate_percent: Exact::parse(&dimension(RATE)?).ok()?,
            is_included,
        })
    }
}

const REGION: &str = "region";
const RATE: &str = "rate_percent";

/// A line, and the tax that it bears; `None` without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taxed {
    /// The line, before credits and taxes.
    pub line: LineItem,
    /// Its tax.
    pub tax: Option<TaxOf>,
}

/// An issued document that a later one corrects, or what was issued of a period of which a document bills the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Its number; `None` of a billing period that goes on with the document that is made: these lines are its own.
    pub number: Option<String>,
    /// The time that it is for.
    pub period: Period,
    /// Its lines, and the lines of later documents that corrected it.
    pub issued: Vec<LineItem>,
    /// What its lines would be now, as `document::priced` makes them.
    pub now: Vec<Taxed>,
    /// Other issued documents with lines whose service periods end with those of its own: what a grant paid at these instants may be of
    /// either.
    pub beside: Vec<Beside>,
}

/// An issued document beside one that is corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its number.
    pub number: String,
    /// Its lines, and the lines of later documents that corrected it.
    pub issued: Vec<LineItem>,
}

impl Beside {
    /// What its lines come to as they were issued, with their shares of the tax, as far as they are wanted: by price and the last instant
    /// of the service period.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub(super) fn owed(
        &self,
        is_wanted: impl Fn(Option<&str>, i64) -> bool,
        currency: Currency,
    ) -> Result<Money> {
        let stand = standing(&self.issued, currency)?;
        let mut left = Vec::with_capacity(stand.len());
        for line in &stand {
            let net = line.amount.checked_sub(line.discount)?;
            left.push((line, net.checked_sub(line.promotional)?.minor()));
        }
        let mut tax = Money::zero(currency);
        let on_top = self.issued.iter();
        for line in on_top.filter(|line| line.kind == LineKind::Tax) {
            tax = tax.checked_add(line.amount)?;
        }
        let weights: Vec<i128> = left.iter().map(|(_, left)| (*left).max(0)).collect();
        let taxes = shares(tax.minor(), &weights);
        let mut owed = Money::zero(currency);
        for ((line, left), tax) in left.iter().zip(taxes) {
            if is_wanted(line.price.as_deref(), line.period.last_us()) {
                owed = owed.checked_add(Money::of_minor(*left, currency))?;
                owed = owed.checked_add(Money::of_minor(tax, currency))?;
            }
        }
        Ok(owed)
    }
}

/// What tells a line of one document from its others.
type Key<'a> = (
    LineKind,
    Option<&'a str>,
    Option<&'a str>,
    &'a Dimensions,
    Period,
    Option<&'a str>,
);

/// What stands of some lines and of those that correct them: one line for each price, dimensions and service period, in the order
/// in which they come. Taxes are left out.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn standing(lines: &[LineItem], currency: Currency) -> Result<Vec<LineItem>> {
    let own = || lines.iter().filter(|line| !line.kind.is_tax());
    let sums = sums(own(), currency)?;
    let mut seen = BTreeSet::new();
    let first = own().filter(|line| seen.insert(key(line)));
    let standing = first.filter_map(|line| {
        let sum = sums.get(&key(line))?;
        Some(LineItem {
            kind: line.billed_kind(),
            quantity: sum.quantity,
            amount_exact: sum.exact,
            amount: sum.amount,
            discount: sum.discount,
            promotional: sum.promotional,
            corrects: None,
            ..line.clone()
        })
    });
    Ok(standing.collect())
}

/// What lines of one key come to.
#[derive(Debug, Clone, Copy)]
struct Sum {
    quantity: Option<Exact>,
    exact: Exact,
    amount: Money,
    discount: Money,
    promotional: Money,
}

impl Correction {
    /// What the document lacks now, or has too much where it is below zero: a line for each price, dimensions and service period
    /// whose amount or discount is another, in the order of what it would be now, then of what was issued. Taxes are not among
    /// them: see [`Correction::taxes`].
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub fn differences(&self, currency: Currency) -> Result<Vec<LineItem>> {
        let issued = || self.issued_lines();
        let now = || self.now.iter().map(|taxed| &taxed.line);
        let (before, after) = (sums(issued(), currency)?, sums(now(), currency)?);
        let nothing = Sum::nothing(currency);
        let mut seen = BTreeSet::new();
        let mut lines = Vec::new();
        for line in now().chain(issued()) {
            let key = key(line);
            if !seen.insert(key) {
                continue;
            }
            let of = |sums: &BTreeMap<Key<'_>, Sum>| sums.get(&key).copied().unwrap_or(nothing);
            let difference = of(&after).less(&of(&before))?;
            // What a document says for the first time of its own period is a line, be it of zero.
            let is_told = !before.contains_key(&key) && self.number.is_none();
            if difference.amount.minor() == 0 && difference.discount.minor() == 0 && !is_told {
                continue;
            }
            lines.push(LineItem {
                kind: match self.number {
                    Some(_) => LineKind::Adjustment,
                    None => line.billed_kind(),
                },
                quantity: difference.quantity,
                amount_exact: difference.exact,
                amount: difference.amount,
                discount: difference.discount,
                promotional: Money::zero(currency),
                corrects: self.corrects(line.billed_kind()),
                ..line.clone()
            });
        }
        Ok(lines)
    }

    /// Taxes now less the taxes that were issued, a line for each rate whose tax is another, with each adjusting line's share of
    /// it. `adjusting` are the [`Correction::differences`], with what promotional credits pay of them.
    ///
    /// Credits count as they were issued, and with what the differences added or gave back: never more than there is to pay.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub fn taxes(
        &self,
        adjusting: &[LineItem],
        currency: Currency,
    ) -> Result<Vec<(LineItem, Vec<i128>)>> {
        let zero = Money::zero(currency);
        let tax_of = self.tax_of();
        let taxable = self.taxable(&tax_of, &self.left(adjusting, currency)?, currency)?;
        let mut issued: BTreeMap<TaxOf, (Exact, Money)> = BTreeMap::new();
        for line in &self.issued {
            if let Some(tax) = TaxOf::of_line(line) {
                let (quantity, amount) = issued.entry(tax).or_insert((Exact::ZERO, zero));
                *quantity = quantity.checked_add(line.quantity.unwrap_or(Exact::ZERO))?;
                *amount = amount.checked_add(line.amount)?;
            }
        }
        let mut rates: Vec<&TaxOf> = taxable.keys().chain(issued.keys()).collect();
        rates.sort();
        rates.dedup();
        let mut lines = Vec::new();
        for tax in rates {
            let taxable = taxable.get(tax).copied().unwrap_or(zero);
            let (quantity, amount) = issued.get(tax).copied().unwrap_or((Exact::ZERO, zero));
            let difference = tax.of(taxable)?.checked_sub(amount)?;
            if difference == zero {
                continue;
            }
            let line = LineItem {
                dimensions: tax.dimensions(),
                quantity: Some(taxable.to_exact().checked_sub(quantity)?),
                corrects: self.corrects(tax.kind()),
                ..LineItem::of(tax.kind(), difference, self.period)
            };
            let bears = |line: &LineItem| tax_of.get(&key(line)).is_none_or(|of| *of == tax);
            lines.push((line, spread(difference, adjusting, bears)?));
        }
        Ok(lines)
    }
}

/// What the lines of a document come to now.
type Left<'a> = BTreeMap<Key<'a>, Money>;

impl Correction {
    /// How much of each adjusting line below zero goes back to promotional grants, in minor units: what they paid of it beyond what
    /// it comes to now. What was paid otherwise comes back first.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub(super) fn promotional_back(
        &self,
        adjusting: &[LineItem],
        currency: Currency,
    ) -> Result<Vec<i128>> {
        let before = sums(self.issued_lines(), currency)?;
        let now = sums(self.now.iter().map(|taxed| &taxed.line), currency)?;
        let mut back = Vec::with_capacity(adjusting.len());
        for line in adjusting {
            let (less, key) = (line.amount.checked_sub(line.discount)?.minor(), key(line));
            let paid = before.get(&key).map_or(0, |sum| sum.promotional.minor());
            let left = match now.get(&key) {
                Some(sum) => sum.amount.checked_sub(sum.discount)?.minor().max(0),
                None => 0,
            };
            back.push((paid - left).clamp(0, (-less).max(0)));
        }
        Ok(back)
    }

    /// How much of each adjusting line below zero goes back to prepaid grants, in minor units: what they paid of the document, `paid`,
    /// without what documents beside it come to, beyond what the lines of prices that they pay come to now with their taxes. `net` is what each line comes to with its share of
    /// the taxes.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub(super) fn prepaid_back(
        &self,
        adjusting: &[LineItem],
        (paid, net): (Exact, &[i128]),
        pays: impl Fn(Option<&str>) -> bool,
        currency: Currency,
    ) -> Result<Vec<i128>> {
        let owed = self.owed(adjusting, |price, _| pays(price), currency)?;
        let beyond = paid.checked_sub(owed.to_exact().max(Exact::ZERO))?;
        let mut beyond = Money::round(beyond.max(Exact::ZERO), currency)?.minor();
        let back = net.iter().map(|net| {
            let back = (-net).clamp(0, beyond);
            beyond -= back;
            back
        });
        Ok(back.collect())
    }

    /// What its lines come to now with their taxes, as far as they are wanted: by price and the last instant of the service period.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits.
    pub(super) fn owed(
        &self,
        adjusting: &[LineItem],
        is_wanted: impl Fn(Option<&str>, i64) -> bool,
        currency: Currency,
    ) -> Result<Money> {
        let mut left = self.left(adjusting, currency)?;
        left.retain(|(_, _, price, _, period, _), _| is_wanted(*price, period.last_us()));
        let mut owed = Money::zero(currency);
        for amount in left.values() {
            owed = owed.checked_add(*amount)?;
        }
        for (tax, taxable) in self.taxable(&self.tax_of(), &left, currency)? {
            if !tax.is_included {
                owed = owed.checked_add(tax.of(taxable)?)?;
            }
        }
        Ok(owed)
    }

    /// What a line of a kind corrects.
    fn corrects(&self, kind: LineKind) -> Option<Corrects> {
        let number = self.number.clone();
        number.map(|number| Corrects { number, kind })
    }

    /// What was issued, without taxes.
    fn issued_lines(&self) -> impl Iterator<Item = &LineItem> {
        self.issued.iter().filter(|line| !line.kind.is_tax())
    }

    /// The last instants of the service periods of its lines, at which grants paid them.
    pub(super) fn instants(&self) -> BTreeSet<i64> {
        self.issued_lines()
            .map(|line| line.period.last_us())
            .collect()
    }

    /// The tax that the lines of each key bear now.
    fn tax_of(&self) -> BTreeMap<Key<'_>, &TaxOf> {
        let taxed = self.now.iter();
        let taxed = taxed.filter_map(|taxed| Some((key(&taxed.line), taxed.tax.as_ref()?)));
        taxed.collect()
    }

    /// What its lines come to now, less what promotional credits paid of them and pay of these adjusting lines: never more than
    /// there is to pay.
    fn left(&self, adjusting: &[LineItem], currency: Currency) -> Result<Left<'_>> {
        let credited = sums(self.issued_lines().chain(adjusting), currency)?;
        let mut left = BTreeMap::new();
        for (key, sum) in sums(self.now.iter().map(|taxed| &taxed.line), currency)? {
            let net = sum.amount.checked_sub(sum.discount)?;
            let paid = credited.get(&key).map_or(0, |sum| sum.promotional.minor());
            let paid = Money::of_minor(paid.min(net.minor().max(0)), currency);
            left.insert(key, net.checked_sub(paid)?);
        }
        Ok(left)
    }

    /// What each tax is on now.
    fn taxable(
        &self,
        tax_of: &BTreeMap<Key<'_>, &TaxOf>,
        left: &Left<'_>,
        currency: Currency,
    ) -> Result<BTreeMap<TaxOf, Money>> {
        let mut taxable: BTreeMap<TaxOf, Money> = BTreeMap::new();
        for (key, tax) in tax_of {
            if let Some(left) = left.get(key) {
                let of_rate = taxable.entry((*tax).clone());
                let of_rate = of_rate.or_insert(Money::zero(currency));
                *of_rate = of_rate.checked_add(*left)?;
            }
        }
        Ok(taxable)
    }
}

/// Each line's share of a tax, in minor units: of those that move the same way as the tax, else of the first.
fn spread(tax: Money, lines: &[LineItem], bears: impl Fn(&LineItem) -> bool) -> Result<Vec<i128>> {
    let is_less = tax.minor() < 0;
    let mut weights = Vec::with_capacity(lines.len());
    for line in lines {
        let net = line.amount.checked_sub(line.discount)?;
        let net = net.checked_sub(line.promotional)?.minor();
        let moves = (net < 0) == is_less && bears(line);
        weights.push(if moves { net.abs() } else { 0 });
    }
    let mut spread = shares(tax.minor(), &weights);
    if let (true, Some(first)) = (
        weights.iter().all(|weight| *weight == 0),
        spread.first_mut(),
    ) {
        *first = tax.minor();
    }
    Ok(spread)
}

fn key(line: &LineItem) -> Key<'_> {
    (
        line.billed_kind(),
        line.subscription.as_deref(),
        line.price.as_deref(),
        &line.dimensions,
        line.period,
        line.text.as_deref(),
    )
}

fn sums<'a>(
    lines: impl Iterator<Item = &'a LineItem>,
    currency: Currency,
) -> Result<BTreeMap<Key<'a>, Sum>> {
    let mut sums: BTreeMap<Key<'a>, Sum> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(key(line)).or_insert(Sum::nothing(currency));
        sum.quantity = match (sum.quantity, line.quantity) {
            (Some(sum), Some(quantity)) => Some(sum.checked_add(quantity)?),
            (sum, quantity) => sum.or(quantity),
        };
        sum.exact = sum.exact.checked_add(line.amount_exact)?;
        sum.amount = sum.amount.checked_add(line.amount)?;
        sum.discount = sum.discount.checked_add(line.discount)?;
        sum.promotional = sum.promotional.checked_add(line.promotional)?;
    }
    Ok(sums)
}

impl Sum {
    fn nothing(currency: Currency) -> Self {
        let zero = Money::zero(currency);
        Sum {
            quantity: None,
            exact: Exact::ZERO,
            amount: zero,
            discount: zero,
            promotional: zero,
        }
    }

    fn less(&self, before: &Sum) -> Result<Sum> {
        let quantity = match (self.quantity, before.quantity) {
            (None, None) => None,
            (after, before) => {
                let of = |quantity: Option<Exact>| quantity.unwrap_or(Exact::ZERO);
                Some(of(after).checked_sub(of(before))?)
            }
        };
        Ok(Sum {
            quantity,
            exact: self.exact.checked_sub(before.exact)?,
            amount: self.amount.checked_sub(before.amount)?,
            discount: self.discount.checked_sub(before.discount)?,
            promotional: self.promotional.checked_sub(before.promotional)?,
        })
    }
}

#[cfg(test)]
mod tests;
