//! One document of a customer: what its plans charge, in the order in which it becomes the total.

use super::{
    Invoice, InvoiceId, LineItem, LineKind, Period, Status,
    adjustments::{Correction, TaxOf, Taxed},
    amount_on,
    bounds::{Bounds, cap, top_up},
    discounts, place,
    shares::shares,
    taxes::{TaxRate, rate_at},
};
use crate::{
    accounts::{Discount, Grant, GrantKind, OneOff},
    credits::{self, Burn, Payment},
    definitions::{DiscountOrder, MinimumProration, PlanDefinition, TaxMode},
    error::{Error, Result},
    functions::prorate::sum_of_shares,
    money::{Currency, Exact, Money},
    rating::Charge,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    ops::Range,
    sync::Arc,
};

/// What a document is made for.
#[derive(Debug, Clone)]
pub struct Document<'a> {
    /// Its name for ever.
    pub id: InvoiceId,
    /// Who pays.
    pub customer: &'a str,
    /// The time that it is for.
    pub period: Period,
    /// Up to where usage is known, as [`super::Terms::cut`] says.
    pub cut: &'a str,
    /// ISO 4217 code of all of it.
    pub currency: &'a str,
    /// What is billed once, in order.
    pub one_offs: &'a [&'a OneOff],
    /// The customer's discounts.
    pub discounts: &'a [&'a Discount],
    /// Where the customer is taxed, and what is charged there.
    pub tax: Tax<'a>,
    /// The customer's grants; those in another currency pay nothing.
    pub grants: &'a [&'a Grant],
    /// What earlier documents burnt of them.
    pub burnt: &'a [Burn],
    /// Earlier documents that it corrects.
    pub corrections: &'a [Correction],
    /// What earlier documents billed of the same billing periods: it bills the rest.
    pub begun: &'a [LineItem],
}

/// Which taxes are charged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tax<'a> {
    /// From when on which region taxes the customer, in order of time; `None` where it has none and while it is exempt.
    pub regions: &'a [(i64, Option<&'a str>)],
    /// The rates of all regions.
    pub rates: &'a [TaxRate],
}

impl<'a> Tax<'a> {
    /// The region that taxes what is served up to an instant and with it.
    fn region_at(&self, at_us: i64) -> Option<&'a str> {
        let begun = self.regions.iter().rev();
        let mut begun = begun.skip_while(|(from_us, _)| *from_us > at_us);
        begun.next().and_then(|(_, region)| *region)
    }
}

/// What a plan charges for a billing period of one subscription.
#[derive(Debug, Clone, Copy)]
pub struct OfPlan<'a> {
    /// The plan whose prices gave the charges.
    pub plan: &'a PlanDefinition,
    /// The subscription; `None` without accounts.
    pub subscription: Option<&'a str>,
    /// The billing period.
    pub period: Period,
    /// The charges.
    pub charges: &'a [Charge],
    /// What they cost at most and at least; none for a period that only begins.
    pub bounds: Bounds,
    /// What counts against the bounds beside these charges: what was billed in advance for the same time.
    pub counted: Exact,
}

/// Makes the draft of one document.
///
/// Lines follow the order of the plans, in each that of its prices, then dimensions (NULL first), then time; a charge of zero
/// keeps its line, because its quantity is part of what the customer is told. Fixed charges of one price and
/// dimensions for times that follow one another are rounded cumulatively: what they come to up to the end of each, rounded,
/// less what was rounded before, so that three thirds of 10.00 are 10.00. Then come one-offs, the maximum and the minimum of
/// each plan, the adjustments of earlier documents, promotional credits, taxes, and prepaid credits.
///
/// # Errors
/// [`Error::Invoice`] for a charge of another customer, plan or currency, and for a region without a tax rate;
/// [`Error::Money`] for an amount or total that does not fit 38 digits.
pub fn document(document: Document<'_>, plans: &[OfPlan<'_>]) -> Result<Invoice> {
    let currency = Currency::parse(document.currency)?;
    let (mut lines, mut borne) = lines_and_taxes(&document, plans, currency)?;
    let rest = match document.begun {
        [] => None,
        begun => {
            let now = taxed(std::mem::take(&mut lines), std::mem::take(&mut borne));
            Some(rest_of(&document, begun, now))
        }
    };
    let mut adjusting = Vec::with_capacity(document.corrections.len());
    for correction in rest.iter().chain(document.corrections) {
        let first = lines.len();
        lines.extend(correction.differences(currency)?);
        adjusting.push((correction, first..lines.len()));
    }
    let mut burnt = document.burnt.to_vec();
    let mut back = vec![0; lines.len()];
    for (correction, places) in &adjusting {
        let of_lines = correction.promotional_back(&lines[places.clone()], currency)?;
        back[places.clone()].copy_from_slice(&of_lines);
    }
    // Without grants nothing is paid by any, nor given back to one.
    let has_grants = !document.grants.is_empty();
    let mut promotional = Vec::new();
    if has_grants {
        let net = (net_of(&lines)?, back.as_slice());
        let kind = GrantKind::Promotional;
        promotional = credited(&document, &mut burnt, kind, &lines, net)?;
    }
    for (line, paid) in lines.iter_mut().zip(&promotional) {
        line.promotional = *paid;
    }
    let mut taxes = tax_lines(&document, &borne, &lines, currency)?;
    for (correction, places) in &adjusting {
        for (tax, of_lines) in correction.taxes(&lines[places.clone()], currency)? {
            let mut all = vec![0; lines.len()];
            all[places.clone()].copy_from_slice(&of_lines);
            taxes.push((tax, all));
        }
    }
    let tax = sum(taxes.iter().map(|(line, _)| line.amount), currency)?;
    let mut prepaid = Vec::new();
    if has_grants {
        let owed = owed_of(&lines, &taxes)?;
        for (place, (correction, places)) in adjusting.iter().enumerate() {
            let instants = correction.instants();
            let (paid, by) = prepaid_at(&document, &instants)?;
            let pays = |price: Option<&str>| by.iter().any(|grant| credits::applies(grant, price));
            let is_paid =
                |price: Option<&str>, at_us: i64| instants.contains(&at_us) && pays(price);
            let before = (&adjusting[..place], lines.as_slice());
            let beside = owed_beside(correction, before, is_paid, currency)?;
            let paid = (paid.checked_sub(beside)?, &owed[places.clone()]);
            let of_lines = correction.prepaid_back(&lines[places.clone()], paid, pays, currency)?;
            back[places.clone()].copy_from_slice(&of_lines);
        }
        let owed = (owed, back.as_slice());
        prepaid = credited(&document, &mut burnt, GrantKind::Prepaid, &lines, owed)?;
    }
    let credits = sum(prepaid.into_iter(), currency)?;
    lines.extend(taxes.into_iter().map(|(line, _)| line));
    let discount = sum(lines.iter().map(|line| line.discount), currency)?;
    let promotional = sum(promotional.into_iter(), currency)?;
    let total = total(&lines, currency)?;
    let mut names: Vec<&str> = plans.iter().map(|of| of.plan.name.as_str()).collect();
    names.dedup();
    let invoice = Invoice {
        total,
        credits,
        amount_due: total.checked_sub(credits)?,
        burns: burnt.split_off(document.burnt.len()),
        promotional,
        id: document.id,
        number: None,
        customer: document.customer.to_owned(),
        plan: names.join(", "),
        period: document.period,
        status: Status::Draft,
        issued_at_us: None,
        issued_by: None,
        voids: None,
        cut: document.cut.to_owned(),
        discount,
        tax,
        lines,
    };
    check(&invoice)?;
    Ok(invoice)
}

/// What each line is to be paid with, in minor units: what it comes to, with its share of the taxes on top.
fn owed_of(lines: &[LineItem], taxes: &[(LineItem, Vec<i128>)]) -> Result<Vec<i128>> {
    let mut owed = net_of(lines)?;
    for (_, of_lines) in taxes.iter().filter(|(line, _)| line.kind == LineKind::Tax) {
        for (owed, share) in owed.iter_mut().zip(of_lines) {
            *owed += share;
        }
    }
    Ok(owed)
}

/// What earlier documents billed of the billing periods of a document, and what these come to now.
fn rest_of(document: &Document<'_>, begun: &[LineItem], now: Vec<Taxed>) -> Correction {
    Correction {
        number: None,
        period: document.period,
        issued: begun.to_vec(),
        now,
        beside: Vec::new(),
    }
}

/// The lines of a document before credits and taxes, each with the tax that it bears: charges, one-offs, discounts, the maximum and
/// the minimum of each plan.
///
/// # Errors
/// Those of [`document`].
pub fn priced(document: &Document<'_>, plans: &[OfPlan<'_>]) -> Result<Vec<Taxed>> {
    let currency = Currency::parse(document.currency)?;
    let (lines, taxes) = lines_and_taxes(document, plans, currency)?;
    Ok(taxed(lines, taxes))
}

/// Each line with the tax that it bears; without any taxes, none does.
fn taxed(lines: Vec<LineItem>, taxes: Vec<Option<TaxOf>>) -> Vec<Taxed> {
    let taxes = taxes.into_iter().chain(iter::repeat(None));
    let taxed = lines.into_iter().zip(taxes);
    taxed.map(|(line, tax)| Taxed { line, tax }).collect()
}

/// The same as lines, and the tax of each: no taxes where the customer has no region.
fn lines_and_taxes(
    document: &Document<'_>,
    plans: &[OfPlan<'_>],
    currency: Currency,
) -> Result<(Vec<LineItem>, Vec<Option<TaxOf>>)> {
    let mut lines = Vec::new();
    let mut of_plans = Vec::with_capacity(plans.len());
    for of_plan in plans {
        if of_plan.plan.currency != document.currency {
            let problem = format!(
                "it is in {}, and the rest of the document in {}",
                of_plan.plan.currency, document.currency
            );
            return Err(refused(document, &of_plan.plan.name, problem));
        }
        let first = lines.len();
        add_lines(document, of_plan, currency, &mut lines)?;
        of_plans.push(first..lines.len());
    }
    for one_off in document.one_offs {
        lines.push(one_off_line(document, one_off, currency)?);
    }
    let order = plans
        .first()
        .map(|of_plan| of_plan.plan.terms.discount_order);
    let order = order.unwrap_or(DiscountOrder::Listed);
    let mut of_plans: Vec<Vec<usize>> = of_plans.into_iter().map(Iterator::collect).collect();
    for (of_plan, places) in plans.iter().zip(&mut of_plans) {
        if of_plan.plan.terms.minimum_before_discounts {
            let minimum = minimum(of_plan, of_places(&lines, places), currency)?;
            places.extend(minimum.is_some().then_some(lines.len()));
            lines.extend(minimum);
        }
    }
    discounts::apply(&mut lines, document.discounts, order, currency)?;
    for (of_plan, mut places) in plans.iter().zip(of_plans) {
        let maximum = maximum(of_plan, of_places(&lines, &places), currency)?;
        places.extend(maximum.is_some().then_some(lines.len()));
        lines.extend(maximum);
        if !of_plan.plan.terms.minimum_before_discounts {
            let minimum = minimum(of_plan, of_places(&lines, &places), currency)?;
            lines.extend(minimum);
        }
    }
    let taxes = taxes_of(document, plans, &lines)?;
    Ok((lines, taxes))
}

/// The tax that each line bears; none of any where the customer has no region.
fn taxes_of(
    document: &Document<'_>,
    plans: &[OfPlan<'_>],
    lines: &[LineItem],
) -> Result<Vec<Option<TaxOf>>> {
    if document.tax.regions.is_empty() {
        return Ok(Vec::new());
    }
    let modes: BTreeMap<&str, TaxMode> = plans
        .iter()
        .flat_map(|of_plan| {
            of_plan
                .plan
                .prices
                .iter()
                .map(|price| (price.as_str(), of_plan.plan.terms.tax))
        })
        .collect();
    let mode = plans
        .first()
        .map_or(TaxMode::Excluded, |of_plan| of_plan.plan.terms.tax);
    let mode_of = |line: &LineItem| {
        let own = line.price.as_deref().and_then(|price| modes.get(price));
        own.copied().unwrap_or(mode)
    };
    let taxes = lines
        .iter()
        .map(|line| tax_of(document, line, mode_of(line)));
    taxes.collect()
}

/// The tax that a line bears: that of the last instant of its service period.
fn tax_of(document: &Document<'_>, line: &LineItem, mode: TaxMode) -> Result<Option<TaxOf>> {
    let last_us = line.period.last_us();
    let Some(region) = document.tax.region_at(last_us) else {
        return Ok(None);
    };
    let rate = rate_at(document.tax.rates, region, last_us).ok_or_else(|| {
        let at = jiff::Timestamp::from_microsecond(last_us).unwrap_or_default();
        let problem = format!("region `{region}` has no tax rate at {at}");
        refused(document, "", problem)
    })?;
    Ok(Some(TaxOf {
        region: region.to_owned(),
        rate_percent: rate.rate_percent,
        is_included: mode == TaxMode::Included,
    }))
}

fn refused(document: &Document<'_>, plan: &str, problem: String) -> Error {
    Error::Invoice {
        customer: document.customer.to_owned(),
        plan: plan.to_owned(),
        problem,
    }
}

fn sum(amounts: impl Iterator<Item = Money>, currency: Currency) -> Result<Money> {
    let mut sum = Money::zero(currency);
    for amount in amounts {
        sum = sum.checked_add(amount)?;
    }
    Ok(sum)
}

/// What each line comes to in minor units, without taxes.
fn net_of(lines: &[LineItem]) -> Result<Vec<i128>> {
    let net = lines.iter().map(|line| {
        let net = line.amount.checked_sub(line.discount)?;
        Ok(net.checked_sub(line.promotional)?.minor())
    });
    net.collect()
}

/// What is left to pay of each line when what lines below zero give back is taken off the others.
fn left_of(net: &[i128], currency: Currency) -> Result<Vec<i128>> {
    let all = |of: fn(i128) -> i128| {
        let amounts = net
            .iter()
            .map(|minor| Money::of_minor(of(*minor).max(0), currency));
        sum(amounts, currency)
    };
    let back = all(|minor| -minor)?
        .minor()
        .min(all(|minor| minor)?.minor());
    let weights: Vec<i128> = net.iter().map(|minor| (*minor).max(0)).collect();
    let given = shares(back, &weights);
    Ok(weights
        .iter()
        .zip(given)
        .map(|(owed, back)| owed - back)
        .collect())
}

/// What documents beside a corrected one come to, as far as it is wanted, by price and instant: those that are corrected before it, which are
/// at some places of the lines, as they are now, the others as they were issued.
fn owed_beside(
    correction: &Correction,
    (before, lines): (&[(&Correction, Range<usize>)], &[LineItem]),
    is_wanted: impl Fn(Option<&str>, i64) -> bool,
    currency: Currency,
) -> Result<Exact> {
    let mut owed = Exact::ZERO;
    for beside in &correction.beside {
        let mut before = before.iter();
        let before = before.find(|(other, _)| other.number.as_ref() == Some(&beside.number));
        let of_document = match before {
            Some((other, places)) => other.owed(&lines[places.clone()], &is_wanted, currency)?,
            None => beside.owed(&is_wanted, currency)?,
        };
        owed = owed.checked_add(of_document.to_exact().max(Exact::ZERO))?;
    }
    Ok(owed)
}

/// What prepaid grants paid at some instants before, and which.
fn prepaid_at<'a>(
    document: &Document<'a>,
    instants: &BTreeSet<i64>,
) -> Result<(Exact, Vec<&'a Grant>)> {
    let prepaid = document.grants.iter().copied();
    let prepaid = prepaid.filter(|grant| grant.kind == GrantKind::Prepaid);
    let (mut paid, mut by) = (Exact::ZERO, Vec::new());
    for grant in prepaid {
        let burnt = document.burnt.iter();
        let burnt =
            burnt.filter(|burn| burn.grant == grant.grant && instants.contains(&burn.at_us));
        let mut of_grant = Exact::ZERO;
        for burn in burnt {
            of_grant = of_grant.checked_add(burn.amount)?;
        }
        if !of_grant.is_zero() {
            paid = paid.checked_add(of_grant)?;
            by.push(grant);
        }
    }
    Ok((paid, by))
}

/// What grants of a kind pay of each line, below zero where an adjusting line gives back what they had paid. Of each line it is told
/// what it comes to, and how much of it goes back at most. Each burn is added to those before.
fn credited(
    document: &Document<'_>,
    burnt: &mut Vec<Burn>,
    kind: GrantKind,
    lines: &[LineItem],
    (mut net, back): (Vec<i128>, &[i128]),
) -> Result<Vec<Money>> {
    let currency = Currency::parse(document.currency)?;
    let back = given_back(document, burnt, kind, lines, back)?;
    for (net, back) in net.iter_mut().zip(&back) {
        *net -= back.minor();
    }
    let paid = pay(document, burnt, kind, lines, &left_of(&net, currency)?)?;
    let paid = paid.into_iter().zip(back);
    paid.map(|(paid, back)| Ok(paid.checked_add(back)?))
        .collect()
}

/// What goes back to grants of a kind of each line, at most so much in minor units, as amounts below zero.
fn given_back(
    document: &Document<'_>,
    burnt: &mut Vec<Burn>,
    kind: GrantKind,
    lines: &[LineItem],
    most: &[i128],
) -> Result<Vec<Money>> {
    let by_us = document.period.last_us();
    by_instant(
        document,
        burnt,
        lines,
        |place| most[place] > 0,
        |grants, burnt, at_us, places| {
            let currency = Currency::parse(document.currency)?;
            let less = places.iter().map(|place| {
                let less = Money::of_minor(most[*place], currency).to_exact();
                (lines[*place].price.as_deref(), less)
            });
            let less: Vec<(Option<&str>, Exact)> = less.collect();
            // A document that is for an earlier time than what it corrects says so now all the same.
            credits::give_back(grants, burnt, (at_us, by_us.max(at_us)), kind, &less)
        },
    )
}

/// What grants of a kind pay of each line.
fn pay(
    document: &Document<'_>,
    burnt: &mut Vec<Burn>,
    kind: GrantKind,
    lines: &[LineItem],
    owed: &[i128],
) -> Result<Vec<Money>> {
    by_instant(
        document,
        burnt,
        lines,
        |_| true,
        |grants, burnt, at_us, places| {
            let currency = Currency::parse(document.currency)?;
            let amounts = places.iter().map(|place| {
                let owed = Money::of_minor(owed[*place], currency).to_exact();
                (lines[*place].price.as_deref(), owed)
            });
            let amounts: Vec<(Option<&str>, Exact)> = amounts.collect();
            credits::pay(grants, burnt, at_us, kind, &amounts)
        },
    )
}

/// What payments come to of each line: those of all lines whose service period has the same last instant are made at once, of
/// the lines at some places. Each burn is added to those before.
fn by_instant(
    document: &Document<'_>,
    burnt: &mut Vec<Burn>,
    lines: &[LineItem],
    is_wanted: impl Fn(usize) -> bool,
    payments: impl Fn(&[&Grant], &[Burn], i64, &[usize]) -> Result<Vec<Payment>>,
) -> Result<Vec<Money>> {
    let currency = Currency::parse(document.currency)?;
    let mut paid = vec![Money::zero(currency); lines.len()];
    let grants = document.grants.iter().copied();
    let grants: Vec<&Grant> = grants
        .filter(|grant| grant.currency == document.currency)
        .collect();
    if grants.is_empty() {
        return Ok(paid);
    }
    let mut places: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (place, line) in lines
        .iter()
        .enumerate()
        .filter(|(place, _)| is_wanted(*place))
    {
        places.entry(line.period.last_us()).or_default().push(place);
    }
    for (at_us, places) in places {
        for payment in payments(&grants, burnt, at_us, &places)? {
            let place = places[payment.line];
            let money = Money::round(payment.burn.amount, currency)?;
            paid[place] = paid[place].checked_add(money)?;
            match burnt[document.burnt.len()..]
                .iter_mut()
                .find(|burn| burn.grant == payment.burn.grant && burn.at_us == payment.burn.at_us)
            {
                Some(burn) => burn.amount = burn.amount.checked_add(payment.burn.amount)?,
                None => burnt.push(payment.burn),
            }
        }
    }
    Ok(paid)
}

/// The lines less their discounts and promotional credits; a tax that they have in them adds nothing.
fn total(lines: &[LineItem], currency: Currency) -> Result<Money> {
    let mut total = Money::zero(currency);
    for line in lines
        .iter()
        .filter(|line| line.kind != LineKind::TaxIncluded)
    {
        total = total
            .checked_add(line.amount)?
            .checked_sub(line.discount)?
            .checked_sub(line.promotional)?;
    }
    Ok(total)
}

/// That the parts add up, each counted by itself: what is printed is what is owed.
pub(super) fn check(invoice: &Invoice) -> Result<()> {
    let currency = invoice.total.currency();
    let of = |is_wanted: fn(LineKind) -> bool| {
        let lines = invoice
            .lines
            .iter()
            .filter(move |line| is_wanted(line.kind));
        sum(lines.map(|line| line.amount), currency)
    };
    let net = of(|kind| !matches!(kind, LineKind::Tax | LineKind::TaxIncluded))?;
    let on_top = of(|kind| kind == LineKind::Tax)?;
    let parts = net
        .checked_sub(invoice.discount)?
        .checked_sub(invoice.promotional)?
        .checked_add(on_top)?;
    let mut burnt = Exact::ZERO;
    for burn in &invoice.burns {
        burnt = burnt.checked_add(burn.amount)?;
    }
    let paid = invoice.promotional.checked_add(invoice.credits)?.to_exact();
    match parts == invoice.total && burnt == paid {
        true => Ok(()),
        false => Err(Error::Invoice {
            customer: invoice.customer.clone(),
            plan: invoice.plan.clone(),
            problem: format!(
                "its parts add up to {parts}, and its total is {}",
                invoice.total
            ),
        }),
    }
}

fn add_lines(
    document: &Document<'_>,
    of_plan: &OfPlan<'_>,
    currency: Currency,
    lines: &mut Vec<LineItem>,
) -> Result<()> {
    let terms = super::Terms {
        customer: document.customer,
        plan: of_plan.plan,
        period: of_plan.period,
        cut: document.cut,
    };
    let mut placed = Vec::with_capacity(of_plan.charges.len());
    for charge in of_plan.charges {
        let service = charge.service.unwrap_or(of_plan.period);
        placed.push((place(&terms, charge)?, service, charge));
    }
    placed.sort_by_key(|(place, service, charge)| {
        let service = charge.is_fixed.then_some(*service);
        (
            *place,
            &charge.dimensions,
            service,
            charge.price_version,
            charge.quantity,
            charge.amount,
        )
    });
    lines.reserve(placed.len());
    // What charges of one price and dimensions come to so far, exactly and rounded, and until when.
    let mut so_far: Option<(&Charge, Period, Exact, Money)> = None;
    for (_, service, charge) in placed {
        let (exact, _) = amount_on(of_plan.plan, charge, currency)?;
        let goes_on = so_far.filter(|(before, until, ..)| {
            charge.is_fixed
                && before.price == charge.price
                && before.dimensions == charge.dimensions
                && until.end_us <= service.start_us
        });
        let (before, rounded_before) = match goes_on {
            Some((_, _, before, rounded)) => (before, rounded),
            None => (Exact::ZERO, Money::zero(currency)),
        };
        let sum = before.checked_add(exact)?;
        let settled = match goes_on {
            Some(_) => sum_of_shares(sum),
            None => sum,
        };
        let rounded = Money::round(settled, currency)?;
        lines.push(LineItem {
            kind: match (&charge.subscription, charge.is_fixed) {
                (None, _) => LineKind::Charge,
                (Some(_), _) if charge.is_unused => LineKind::Credit,
                (Some(_), true) => LineKind::Base,
                (Some(_), false) => LineKind::Usage,
            },
            price: Some(Arc::clone(&charge.price)),
            price_version: Some(charge.price_version),
            dimensions: Arc::clone(&charge.dimensions),
            quantity: charge.quantity,
            amount_exact: exact,
            amount: rounded.checked_sub(rounded_before)?,
            discount: Money::zero(currency),
            promotional: Money::zero(currency),
            period: service,
            subscription: charge.subscription.clone(),
            text: None,
            corrects: None,
        });
        so_far = Some((charge, service, sum, rounded));
    }
    Ok(())
}

fn one_off_line(document: &Document<'_>, one_off: &OneOff, currency: Currency) -> Result<LineItem> {
    if one_off.currency != document.currency {
        let problem = format!(
            "one-off `{}` is in {}, the document in {}",
            one_off.one_off, one_off.currency, document.currency
        );
        return Err(refused(document, "", problem));
    }
    let period = Period {
        start_us: one_off.date_us,
        end_us: one_off.date_us,
    };
    Ok(LineItem {
        amount_exact: one_off.amount,
        text: Some(one_off.text.clone()),
        ..LineItem::of(
            LineKind::OneOff,
            Money::round(one_off.amount, currency)?,
            period,
        )
    })
}

fn of_places<'a>(
    lines: &'a [LineItem],
    places: &'a [usize],
) -> impl Iterator<Item = &'a LineItem> + Clone {
    places.iter().map(|place| &lines[*place])
}

/// What lines come to after their discounts, with what counts beside them.
fn counted<'a>(
    of_plan: &OfPlan<'_>,
    lines: impl Iterator<Item = &'a LineItem>,
    currency: Currency,
) -> Result<Exact> {
    let mut net = Money::zero(currency);
    for line in lines {
        net = net.checked_add(line.amount)?.checked_sub(line.discount)?;
    }
    Ok(net.to_exact().checked_add(of_plan.counted)?)
}

/// What the maximum of a plan takes off its lines.
fn maximum<'a>(
    of_plan: &OfPlan<'_>,
    lines: impl Iterator<Item = &'a LineItem>,
    currency: Currency,
) -> Result<Option<LineItem>> {
    let Some(maximum) = of_plan.bounds.maximum else {
        return Ok(None);
    };
    let amount = cap(maximum, counted(of_plan, lines, currency)?, currency)?;
    Ok(bound_line(of_plan, LineKind::Maximum, amount))
}

/// What the minimum of a plan adds to its lines, the maximum's among them.
fn minimum<'a>(
    of_plan: &OfPlan<'_>,
    lines: impl Iterator<Item = &'a LineItem> + Clone,
    currency: Currency,
) -> Result<Option<LineItem>> {
    let Some(minimum) = of_plan.bounds.minimum else {
        return Ok(None);
    };
    let sum = match of_plan.plan.terms.minimum_proration {
        MinimumProration::Minimum => counted(of_plan, lines, currency)?,
        MinimumProration::MinimumLessFees => {
            let is_fee =
                |line: &&LineItem| line.kind == LineKind::Base || line.kind == LineKind::Credit;
            let usage = lines.filter(|line| !is_fee(line));
            let of_usage = OfPlan {
                counted: Exact::ZERO,
                ..*of_plan
            };
            counted(&of_usage, usage, currency)?
        }
    };
    let amount = top_up(minimum, sum, currency)?;
    Ok(bound_line(of_plan, LineKind::Minimum, amount))
}

/// A line of a plan's bounds; none of nothing.
fn bound_line(of_plan: &OfPlan<'_>, kind: LineKind, amount: Money) -> Option<LineItem> {
    (amount != Money::zero(amount.currency())).then(|| LineItem {
        subscription: of_plan.subscription.map(Arc::from),
        text: Some(of_plan.plan.name.clone()),
        ..LineItem::of(kind, amount, of_plan.period)
    })
}

/// One line for each tax that a document's own lines, its first ones, bear, with each line's share of it in minor units. `lines` have what
/// promotional credits pay of them, and may have more after the own ones.
fn tax_lines(
    document: &Document<'_>,
    borne: &[Option<TaxOf>],
    lines: &[LineItem],
    currency: Currency,
) -> Result<Vec<(LineItem, Vec<i128>)>> {
    let mut taxable: BTreeMap<&TaxOf, Vec<i128>> = BTreeMap::new();
    if borne.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let net = net_of(lines)?;
    for (place, tax) in borne.iter().enumerate() {
        if let Some(tax) = tax {
            let of_tax = taxable.entry(tax);
            let of_tax = of_tax.or_insert_with(|| vec![0; lines.len()]);
            of_tax[place] = net[place];
        }
    }
    let mut made = Vec::new();
    for (tax, of_lines) in taxable {
        let amounts = of_lines
            .iter()
            .map(|minor| Money::of_minor(*minor, currency));
        let sum = sum(amounts, currency)?;
        let line = LineItem {
            dimensions: tax.dimensions(),
            quantity: Some(sum.to_exact()),
            ..LineItem::of(tax.kind(), tax.of(sum)?, document.period)
        };
        let weights: Vec<i128> = of_lines.iter().map(|minor| (*minor).max(0)).collect();
        let shares = shares(line.amount.minor(), &weights);
        made.push((line, shares));
    }
    Ok(made)
}
