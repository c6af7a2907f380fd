//! What rows of accounts say against one another and against the definitions.

use super::{
    Accounts, Customer, Discount, DiscountKind, Grant, Index, OneOff, Subject, Subscription,
    files::{Place, Read},
    problem::{PRINTED_MAX, Problem, from, shown},
    table::Table,
};
use crate::{
    definitions::{Definitions, PlanDefinition},
    error::{Error, Result},
    money::{Currency, Exact},
    parser::{did_you_mean, nearest},
    session,
};
use std::collections::{BTreeMap, BTreeSet};

/// Up to how many customers one is looked for that has nearly the name of one that is missing.
const CUSTOMERS_COMPARED: usize = 1_000;

/// The rows of an import, each list by key and time.
pub(super) struct New {
    pub(super) customers: Vec<(Customer, Place)>,
    pub(super) subjects: Vec<(Subject, Place)>,
    pub(super) subscriptions: Vec<(Subscription, Place)>,
    pub(super) grants: Vec<(Grant, Place)>,
    pub(super) one_offs: Vec<(OneOff, Place)>,
    pub(super) discounts: Vec<(Discount, Place)>,
}

/// What is wrong with the rows of an import beside those that are there: problems in which a new row has a part.
///
/// # Errors
/// A price cannot be read.
pub(super) fn check_new(
    all: &Index,
    before: &Accounts,
    new: &New,
    definitions: &Definitions,
    read: &mut Read<'_>,
) -> Result<()> {
    let mut whole = Whole::new(all, definitions, Some(new))?;
    whole.customers_are_known(new, read.unread_customers.as_ref());
    whole.keys_stay_with_their_customers(before, new);
    whole.plans_are_defined(new.subscriptions.iter().map(|(row, _)| row));
    whole.prices_are_defined(new.grants.iter().map(|(row, _)| row));
    whole.prices_are_defined(new.discounts.iter().map(|(row, _)| row));
    whole.amounts_can_be_paid(new);
    whole.rows_agree();
    for found in whole.found {
        if let Some(place) = found.place {
            let Found {
                column,
                problem,
                hint,
                ..
            } = found;
            read.problem(place, Some(column), problem, hint);
        }
    }
    Ok(())
}

/// What is wrong with accounts under these definitions: a plan or a price that is not defined any more, or that came to
/// contradict them. Subscriptions, grants and discounts that are over at `now_us` may be of what is not defined any more.
///
/// # Errors
/// A price cannot be read.
pub fn problems(accounts: &Index, definitions: &Definitions, now_us: i64) -> Result<Vec<Problem>> {
    let mut whole = Whole::new(accounts, definitions, None)?;
    let is_on = |ends_us: Option<i64>| ends_us.is_none_or(|ends| now_us < ends);
    let rows = accounts.subscriptions().flat_map(spans);
    whole.plans_are_defined(rows.filter(|span| is_on(span.to_us)).map(|span| span.row));
    let grants = accounts.grants().iter();
    whole.prices_are_defined(
        grants.filter(|row| is_on(row.expires_at_us) && is_on(row.voided_at_us)),
    );
    let discounts = accounts.discounts().iter();
    whole.prices_are_defined(discounts.filter(|row| is_on(row.ends_at_us)));
    whole.rows_agree();
    let problem = |found: Found| Problem {
        at: format!("accounts/{}: {}", found.table, shown(&found.key)),
        column: Some(found.column.to_owned()),
        problem: found.problem,
        hint: found.hint,
    };
    Ok(whole.found.into_iter().map(problem).collect())
}

/// A row of a subscription and how long it holds: until its own end or the next row.
#[derive(Clone, Copy)]
struct RowSpan<'a> {
    row: &'a Subscription,
    from_us: i64,
    to_us: Option<i64>,
}

fn spans(rows: &[Subscription]) -> impl Iterator<Item = RowSpan<'_>> {
    let next = rows.iter().skip(1).map(|row| Some(row.starts_at_us));
    let next = next.chain([None]);
    rows.iter().zip(next).map(|(row, next_us)| RowSpan {
        row,
        from_us: row.starts_at_us,
        to_us: match (row.ends_at_us, next_us) {
            (Some(ends), Some(next)) => Some(ends.min(next)),
            (ends, next) => ends.or(next),
        },
    })
}

/// What is wrong with a row.
struct Found {
    table: &'static str,
    key: String,
    /// Where the row was read; `None` of a row that is in the lake.
    place: Option<Place>,
    column: &'static str,
    problem: String,
    hint: String,
}

struct Whole<'a> {
    all: &'a Index,
    definitions: &'a Definitions,
    /// Prices that bill all usage of a customer on each of its subscriptions.
    usage_prices: BTreeSet<&'a str>,
    /// `None` when all rows are looked at as they are in the lake.
    new: Option<&'a New>,
    found: Vec<Found>,
}

/// A row with what it is of, whatever its table.
trait Judged: Table {
    fn new_rows(new: &New) -> &[(Self, Place)];
}

macro_rules! judged {
    ($($row:ident: $list:ident;)*) => {$(
        impl Judged for $row {
            fn new_rows(new: &New) -> &[(Self, Place)] {
                &new.$list
            }
        }
    )*};
}

judged! {
    Customer: customers;
    Subject: subjects;
    Subscription: subscriptions;
    Grant: grants;
    OneOff: one_offs;
    Discount: discounts;
}

/// A row whose amounts are of certain prices alone.
trait OfPrices: Judged {
    fn prices(&self) -> &[String];
}

impl OfPrices for Grant {
    fn prices(&self) -> &[String] {
        &self.applies_to
    }
}

impl OfPrices for Discount {
    fn prices(&self) -> &[String] {
        &self.applies_to
    }
}

impl<'a> Whole<'a> {
    fn new(all: &'a Index, definitions: &'a Definitions, new: Option<&'a New>) -> Result<Self> {
        Ok(Whole {
            all,
            definitions,
            usage_prices: usage_prices(definitions)?,
            new,
            found: Vec::new(),
        })
    }

    /// Where a row was read; `None` when it was there before.
    fn place<R: Judged>(&self, row: &R) -> Option<Place> {
        let rows = R::new_rows(self.new?);
        let found = rows.binary_search_by(|(other, _)| other.place().cmp(&row.place()));
        found.ok().map(|at| rows[at].1)
    }

    fn refuse<R: Judged>(
        &mut self,
        row: &R,
        column: &'static str,
        problem: String,
        hint: impl Into<String>,
    ) {
        self.found.push(Found {
            table: R::NAME,
            key: row.key().to_owned(),
            place: self.place(row),
            column,
            problem,
            hint: hint.into(),
        });
    }

    /// What two rows say against each other is a problem of the first that is new.
    fn refuse_one<R: Judged, S: Judged>(
        &mut self,
        (row, column): (&R, &'static str),
        (other, other_column): (&S, &'static str),
        problem: String,
        hint: &str,
    ) {
        match self.new.is_some() && self.place(row).is_none() {
            true => self.refuse(other, other_column, problem, hint),
            false => self.refuse(row, column, problem, hint),
        }
    }

    fn customers_are_known(&mut self, new: &New, unread: Option<&BTreeSet<String>>) {
        let Some(unread) = unread else {
            return;
        };
        self.customer_is_known::<Subject>(new, unread);
        self.customer_is_known::<Subscription>(new, unread);
        self.customer_is_known::<Grant>(new, unread);
        self.customer_is_known::<OneOff>(new, unread);
        self.customer_is_known::<Discount>(new, unread);
    }

    fn customer_is_known<R: Judged>(&mut self, new: &New, unread: &BTreeSet<String>) {
        let mut known: Vec<&str> = self.all.customers().take(CUSTOMERS_COMPARED + 1).collect();
        if known.len() > CUSTOMERS_COMPARED {
            known.clear();
        }
        for (row, _) in R::new_rows(new) {
            let customer = row.customer();
            if !self.all.customer(customer).is_empty() || unread.contains(customer) {
                continue;
            }
            let problem = format!("{} has no row in `customers`", shown(customer));
            let is_shown = self.found.len() < PRINTED_MAX;
            let near = nearest(customer, if is_shown { &known } else { &[] });
            let add = "add the customer to customers.csv, in this import or in one before";
            let hint = match near {
                Some(near) => format!("did you mean `{near}`? Else {add}"),
                None => add.to_owned(),
            };
            self.refuse(row, "customer", problem, hint);
        }
    }

    fn keys_stay_with_their_customers(&mut self, before: &Accounts, new: &New) {
        self.key_stays::<Grant>(before, new);
        self.key_stays::<OneOff>(before, new);
        self.key_stays::<Discount>(before, new);
    }

    fn key_stays<R: Judged>(&mut self, before: &Accounts, new: &New) {
        let before = R::rows(before);
        for (row, _) in R::new_rows(new) {
            let found = before.binary_search_by(|other| other.place().cmp(&row.place()));
            let Some(other) = found.ok().map(|at| before[at].customer()) else {
                continue;
            };
            if other != row.customer() {
                let problem = format!(
                    "{} is of customer {} already",
                    shown(row.key()),
                    shown(other)
                );
                let hint = "a later row may change what it says, not whose it is: give this one another name";
                self.refuse(row, "customer", problem, hint);
            }
        }
    }

    fn plans_are_defined<'r>(&mut self, rows: impl Iterator<Item = &'r Subscription>) {
        let plans = self.definitions.plans.iter();
        let plans: Vec<&str> = plans.map(|plan| plan.name.as_str()).collect();
        for row in rows {
            let Some(plan) = self.definitions.plan(&row.plan) else {
                let problem = format!("there is no plan {}", shown(&row.plan));
                self.refuse(
                    row,
                    "plan",
                    problem,
                    did_you_mean(&row.plan, "plans", &plans),
                );
                continue;
            };
            self.least_is_below_most(row, plan);
        }
    }

    fn least_is_below_most(&mut self, row: &Subscription, plan: &PlanDefinition) {
        let minimum = row.minimum.or(plan.terms.minimum);
        let maximum = row.maximum.or(plan.terms.maximum);
        if let (Some(minimum), Some(maximum)) = (minimum, maximum)
            && minimum > maximum
        {
            let column = match row.minimum {
                Some(_) => "minimum",
                None => "maximum",
            };
            let of = |own: Option<Exact>| match own {
                Some(_) => String::new(),
                None => format!(" of plan `{}`", plan.name),
            };
            let problem = format!(
                "the minimum{}, {minimum}, is above the maximum{}, {maximum}",
                of(row.minimum),
                of(row.maximum)
            );
            let hint = "write both, the minimum first up to the maximum";
            self.refuse(row, column, problem, hint);
        }
    }

    fn prices_are_defined<'r, R: OfPrices + 'r>(&mut self, rows: impl Iterator<Item = &'r R>) {
        let prices = self.definitions.prices.iter();
        let prices: BTreeSet<&str> = prices.map(|price| price.name.as_str()).collect();
        let known: Vec<&str> = prices.iter().copied().collect();
        for row in rows {
            for price in row.prices() {
                if !prices.contains(price.as_str()) {
                    let problem = format!("there is no price {}", shown(price));
                    let hint = did_you_mean(price, "prices", &known);
                    self.refuse(row, "applies_to", problem, hint);
                }
            }
        }
    }

    /// What cannot be paid to the last digit would leave a rest for ever.
    fn amounts_can_be_paid(&mut self, new: &New) {
        for (row, _) in &new.grants {
            let amounts = [
                ("amount", row.amount),
                ("rollover_min", row.rollover_min),
                ("rollover_max", row.rollover_max),
            ];
            for (column, amount) in amounts {
                self.amount_can_be_paid(row, column, amount, &row.currency);
            }
        }
        for (row, _) in &new.one_offs {
            self.amount_can_be_paid(row, "amount", row.amount, &row.currency);
        }
        for (row, _) in &new.discounts {
            if let Some(currency) = &row.currency {
                self.amount_can_be_paid(row, "value", row.value, currency);
            }
        }
        for (row, _) in &new.subscriptions {
            if let Some(plan) = self.definitions.plan(&row.plan) {
                let amounts = [("minimum", row.minimum), ("maximum", row.maximum)];
                for (column, amount) in amounts {
                    if let Some(amount) = amount {
                        self.amount_can_be_paid(row, column, amount, &plan.currency);
                    }
                }
            }
        }
    }

    fn amount_can_be_paid<R: Judged>(
        &mut self,
        row: &R,
        column: &'static str,
        amount: Exact,
        currency: &str,
    ) {
        let Ok(known) = Currency::parse(currency) else {
            return;
        };
        let digits = known.minor_digits();
        if amount.digits_at(digits).is_err() {
            let problem = format!("{amount} is finer than the minor unit of {currency}");
            let hint = match digits {
                0 => "write a whole number".to_owned(),
                digits => format!("write at most {digits} digits after the point"),
            };
            self.refuse(row, column, problem, hint);
        }
    }

    /// Rows of several tables beside one another.
    fn rows_agree(&mut self) {
        let all = self.all;
        for rows in all.subscriptions() {
            self.subscription_has_one_customer(rows);
            spans(rows).for_each(|span| self.subscription_is_in_the_currency(span));
        }
        for customer in all.customers() {
            let rows = all.subscriptions_of(customer).flat_map(spans);
            let mut rows: Vec<RowSpan<'_>> = rows.collect();
            if rows.len() > 1 {
                rows.sort_by_key(|span| span.from_us);
                self.usage_is_billed_once(customer, &rows);
                self.customer_has_one_currency(customer, &rows);
            }
        }
        for row in all.grants() {
            self.is_in_the_currency(row, "currency", &row.currency, Some(row.effective_at_us));
        }
        for row in all.one_offs() {
            self.is_in_the_currency(row, "currency", &row.currency, Some(row.date_us));
        }
        for row in all.discounts() {
            if let (DiscountKind::Fixed, Some(currency)) = (row.kind, &row.currency) {
                self.is_in_the_currency(row, "currency", currency, row.starts_at_us);
            }
        }
    }

    fn subscription_has_one_customer(&mut self, rows: &[Subscription]) {
        // The row that was there before is right, or else the first.
        let before = rows.iter().find(|row| self.place(*row).is_none());
        let Some(right) = before.or(rows.first()) else {
            return;
        };
        for row in rows.iter().filter(|row| row.customer != right.customer) {
            let problem = format!(
                "subscription {} is of customer {} already",
                shown(&row.subscription),
                shown(&right.customer)
            );
            let hint = "end it, and give the one of the other customer a name of its own";
            self.refuse(row, "customer", problem, hint);
        }
    }

    fn subscription_is_in_the_currency(&mut self, span: RowSpan<'_>) {
        let row = span.row;
        let Some(plan) = self.definitions.plan(&row.plan) else {
            return;
        };
        let customers = self.all.customer(&row.customer);
        if let Some(first) = customers.first()
            && first.valid_from_us > Some(span.from_us)
        {
            let problem = format!(
                "it begins before customer {} is there, which is{}",
                shown(&row.customer),
                from(first.valid_from_us)
            );
            let hint =
                "leave `valid_from` of the customer's first row empty, or write an earlier one";
            self.refuse_one((row, "starts_at"), (first, "valid_from"), problem, hint);
        }
        let next = customers.iter().skip(1).map(|row| row.valid_from_us);
        for (customer, until_us) in customers.iter().zip(next.chain([None])) {
            let begins_after = span
                .to_us
                .is_some_and(|to| customer.valid_from_us >= Some(to));
            let ends_before = until_us.is_some_and(|until| until <= span.from_us);
            let Some(currency) = &customer.currency else {
                continue;
            };
            if begins_after || ends_before || *currency == plan.currency {
                continue;
            }
            let problem = format!(
                "subscription {} is on plan `{}`, which is in {}, and customer {} is in {currency}{}",
                shown(&row.subscription),
                plan.name,
                plan.currency,
                shown(&row.customer),
                from(customer.valid_from_us),
            );
            let hint =
                "write a plan in the customer's currency, or the plan's currency into `customers`";
            self.refuse_one((row, "plan"), (customer, "currency"), problem, hint);
            return;
        }
    }

    /// Of rows by their starts, none bills what another bills at the same time.
    fn usage_is_billed_once(&mut self, customer: &str, rows: &[RowSpan<'_>]) {
        // The row that bills a price for longest, of those so far.
        let mut longest: BTreeMap<&str, RowSpan<'_>> = BTreeMap::new();
        for span in rows {
            let Some(plan) = self.definitions.plan(&span.row.plan) else {
                continue;
            };
            let prices = plan.prices.iter().map(String::as_str);
            let prices: Vec<&str> = prices
                .filter(|price| self.usage_prices.contains(price))
                .collect();
            let twice = prices.iter().find_map(|price| {
                let other = longest.get(price)?;
                let is_on = other.to_us.is_none_or(|to| span.from_us < to);
                let is_another = other.row.subscription != span.row.subscription;
                (is_on && is_another).then_some((*price, *other))
            });
            if let Some((price, other)) = twice {
                let problem = format!(
                    "subscriptions {} and {} of customer {} overlap and both bill price `{price}`: usage would be billed twice",
                    shown(&other.row.subscription),
                    shown(&span.row.subscription),
                    shown(customer)
                );
                let hint =
                    "end one before the other begins, or take the price out of one of the plans";
                self.refuse_one((span.row, "plan"), (other.row, "plan"), problem, hint);
            }
            for price in prices {
                let is_longer = longest.get(price).is_none_or(|other| {
                    other
                        .to_us
                        .is_some_and(|to| span.to_us.is_none_or(|own| own > to))
                });
                if is_longer {
                    longest.insert(price, *span);
                }
            }
        }
    }

    /// Of rows by their starts, none is on a plan in another currency than one at the same time; where `customers` says the
    /// currency, the plan was compared with that.
    fn customer_has_one_currency(&mut self, customer: &str, rows: &[RowSpan<'_>]) {
        let mut longest: BTreeMap<&str, RowSpan<'_>> = BTreeMap::new();
        for span in rows {
            let Some(plan) = self.definitions.plan(&span.row.plan) else {
                continue;
            };
            let own = self.all.customer_at(customer, span.from_us);
            if own.is_some_and(|own| own.currency.is_some()) {
                continue;
            }
            let other = longest.iter().find(|(currency, other)| {
                **currency != plan.currency && other.to_us.is_none_or(|to| span.from_us < to)
            });
            if let Some((currency, other)) = other {
                let problem = format!(
                    "customer {} has subscription {} in {} and {} in {currency} at the same time",
                    shown(customer),
                    shown(&span.row.subscription),
                    plan.currency,
                    shown(&other.row.subscription),
                );
                let other = *other;
                let hint = "a customer has one currency at a time: write a plan in the same one, or another customer";
                self.refuse_one((span.row, "plan"), (other.row, "plan"), problem, hint);
            }
            let is_longer = longest.get(plan.currency.as_str()).is_none_or(|other| {
                other
                    .to_us
                    .is_some_and(|to| span.to_us.is_none_or(|own| own > to))
            });
            if is_longer {
                longest.insert(&plan.currency, *span);
            }
        }
    }

    fn is_in_the_currency<R: Judged>(
        &mut self,
        row: &R,
        column: &'static str,
        currency: &str,
        at_us: Option<i64>,
    ) {
        let customer = row.customer();
        let rows = self.all.customer(customer);
        let at_us = at_us.unwrap_or(i64::MIN);
        let known = self.all.customer_at(customer, at_us).or(rows.first());
        let hint = "an amount pays or lowers what is billed in its own currency alone: write it in the customer's";
        if let Some(known) = known
            && let Some(own) = &known.currency
        {
            if own != currency {
                let problem = format!(
                    "{} is in {currency}, and customer {} is in {own}{}",
                    shown(row.key()),
                    shown(customer),
                    from(known.valid_from_us)
                );
                self.refuse_one((row, column), (known, "currency"), problem, hint);
            }
            return;
        }
        let Some((subscription, plan)) = self.plan_around(customer, at_us) else {
            return;
        };
        if plan.currency != currency {
            let problem = format!(
                "{} is in {currency}, and customer {} is in {} by plan `{}` of subscription {}",
                shown(row.key()),
                shown(customer),
                plan.currency,
                plan.name,
                shown(&subscription.subscription),
            );
            self.refuse_one((row, column), (subscription, "plan"), problem, hint);
        }
    }

    /// The plan of a customer at a time; where there is none, the next one, or else the last one.
    fn plan_around(
        &self,
        customer: &str,
        at_us: i64,
    ) -> Option<(&'a Subscription, &'a PlanDefinition)> {
        let rows = self.all.subscriptions_of(customer).flat_map(spans);
        let nearest = rows.min_by_key(|span| {
            let is_over = span.to_us.is_some_and(|to| to <= at_us);
            // Those that are on come first, then those to come by their starts, then those that are over, the last first.
            match (is_over, span.from_us <= at_us) {
                (false, true) => (0, 0),
                (false, false) => (1, i128::from(span.from_us)),
                (true, _) => (2, -i128::from(span.to_us.unwrap_or(i64::MAX))),
            }
        })?;
        let plan = self.definitions.plan(&nearest.row.plan)?;
        Some((nearest.row, plan))
    }
}

/// The prices that read a meter or an event type and not `subscription`, so that two subscriptions at one time bill the same
/// usage.
fn usage_prices(definitions: &Definitions) -> Result<BTreeSet<&str>> {
    let meters = definitions.meters.iter().map(|meter| meter.name.as_str());
    let events = definitions.event_types.iter();
    let events = events.map(|event_type| event_type.name.as_str());
    let usage: BTreeSet<&str> = meters.chain(events).collect();
    let state = session::context().state();
    let mut found = BTreeSet::new();
    for price in &definitions.prices {
        let read = session::statement(&state, &price.query)
            .and_then(|statement| state.resolve_table_references(&statement))
            .map_err(|source| Error::Price {
                price: price.name.clone(),
                at: price.at.clone(),
                source: Box::new(source),
            })?;
        let mut names = read.iter().map(|reference| reference.table());
        let is_usage = |name: &str| {
            usage.contains(name) || usage.contains(name.strip_suffix("_windows").unwrap_or(name))
        };
        if names.clone().any(is_usage) && !names.any(|name| name == "subscription") {
            found.insert(price.name.as_str());
        }
    }
    Ok(found)
}
