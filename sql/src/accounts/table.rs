//! The columns of each table of accounts, once for files, for the lake and for queries: their names, what a cell may say and
//! what an empty one means.

use super::{
    Accounts, Customer, Discount, DiscountKind, Grant, GrantKind, OneOff, Subject, Subscription,
    index::Row,
};
use crate::money::Exact;
use std::vec;

/// What one cell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Text(String),
    Whole(i64),
    Flag(bool),
    /// Microseconds since the Unix epoch.
    Instant(i64),
    Amount(Exact),
}

/// What a cell may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name by which rows find one another.
    Name,
    /// Any text.
    Text,
    /// An ISO 4217 code.
    Currency,
    /// An IANA name.
    Zone,
    /// Names of prices, with `;` between them.
    Prices,
    /// How long a recurrence is, such as `month`.
    Length,
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number, this or more.
    Whole(i64),
    /// An instant, or a day.
    Instant,
    /// An amount with the sign that it may have.
    Amount(Sign),
}

/// Which amounts a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Any,
    NotNegative,
    Positive,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) empty: Empty,
}

/// What an empty cell means, and a column that a file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    /// It is refused.
    Refused,
    /// Nothing.
    Null,
    /// The same as this cell.
    Says(&'static str),
}

const fn required(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        empty: Empty::Refused,
    }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        empty: Empty::Null,
    }
}

const fn with_default(name: &'static str, kind: Kind, cell: &'static str) -> Column {
    Column {
        name,
        kind,
        empty: Empty::Says(cell),
    }
}

const CUSTOMER: Column = required("customer", Kind::Name);
const CURRENCY: Column = optional("currency", Kind::Currency);
const PRICES: Column = optional("applies_to", Kind::Prices);

/// What is wrong with a row by itself: column, problem, hint.
pub(crate) type RowProblem = (&'static str, String, String);

/// A table of accounts.
pub(crate) trait Table: Row + Clone + PartialEq + Sized {
    /// Its name, which its files have too.
    const NAME: &'static str;
    /// In order. The first is the key.
    const COLUMNS: &'static [Column];

    /// The row that these cells say, in order of the columns.
    fn of(values: Values) -> Self;
    /// What its cells say, in order of the columns.
    fn values(&self) -> Vec<Value>;
    /// What contradicts itself.
    fn problems(&self) -> Vec<RowProblem>;
    /// Its rows among all.
    fn rows(accounts: &Accounts) -> &Vec<Self>;
    /// The same to be changed.
    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self>;
}

/// The cells of a row, each checked to be what its column takes; what is not there is the least that the type says.
pub(crate) struct Values(pub(crate) vec::IntoIter<Value>);

impl Values {
    fn maybe_text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn text(&mut self) -> String {
        self.maybe_text().unwrap_or_default()
    }

    fn whole(&mut self) -> i64 {
        match self.0.next() {
            Some(Value::Whole(number)) => number,
            _ => 0,
        }
    }

    fn flag(&mut self) -> bool {
        matches!(self.0.next(), Some(Value::Flag(true)))
    }

    fn maybe_instant(&mut self) -> Option<i64> {
        match self.0.next() {
            Some(Value::Instant(us)) => Some(us),
            _ => None,
        }
    }

    fn instant(&mut self) -> i64 {
        self.maybe_instant().unwrap_or_default()
    }

    fn maybe_amount(&mut self) -> Option<Exact> {
        match self.0.next() {
            Some(Value::Amount(amount)) => Some(amount),
            _ => None,
        }
    }

    fn amount(&mut self) -> Exact {
        self.maybe_amount().unwrap_or(Exact::ZERO)
    }

    fn names(&mut self) -> Vec<String> {
        let text = self.text();
        names_in(&text).map(str::to_owned).collect()
    }
}

/// The names in a cell.
pub(crate) fn names_in(cell: &str) -> impl Iterator<Item = &str> {
    cell.split([';', ' ', '\t']).filter(|name| !name.is_empty())
}

fn maybe<T>(value: Option<T>, of: impl Fn(T) -> Value) -> Value {
    value.map_or(Value::Null, of)
}

fn names(names: &[String]) -> Value {
    match names {
        [] => Value::Null,
        names => Value::Text(names.join(";")),
    }
}

impl Table for Customer {
    const NAME: &'static str = "customers";
    const COLUMNS: &'static [Column] = &[
        CUSTOMER,
        optional("name", Kind::Text),
        optional("email", Kind::Text),
        CURRENCY,
        optional("time_zone", Kind::Zone),
        optional("tax_region", Kind::Name),
        with_default("tax_exempt", Kind::Flag, "false"),
        optional("valid_from", Kind::Instant),
    ];

    fn of(mut values: Values) -> Self {
        Customer {
            customer: values.text(),
            name: values.maybe_text(),
            email: values.maybe_text(),
            currency: values.maybe_text(),
            time_zone: values.maybe_text(),
            tax_region: values.maybe_text(),
            tax_exempt: values.flag(),
            valid_from_us: values.maybe_instant(),
        }
    }

    fn values(&self) -> Vec<Value> {
        let text = |text: &Option<String>| maybe(text.clone(), Value::Text);
        vec![
            Value::Text(self.customer.clone()),
            text(&self.name),
            text(&self.email),
            text(&self.currency),
            text(&self.time_zone),
            text(&self.tax_region),
            Value::Flag(self.tax_exempt),
            maybe(self.valid_from_us, Value::Instant),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        Vec::new()
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.customers
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.customers
    }
}

impl Table for Subject {
    const NAME: &'static str = "subjects";
    const COLUMNS: &'static [Column] = &[
        required("subject", Kind::Name),
        CUSTOMER,
        optional("valid_from", Kind::Instant),
    ];

    fn of(mut values: Values) -> Self {
        Subject {
            subject: values.text(),
            customer: values.text(),
            valid_from_us: values.maybe_instant(),
        }
    }

    fn values(&self) -> Vec<Value> {
        vec![
            Value::Text(self.subject.clone()),
            Value::Text(self.customer.clone()),
            maybe(self.valid_from_us, Value::Instant),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        Vec::new()
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.subjects
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.subjects
    }
}

impl Table for Subscription {
    const NAME: &'static str = "subscriptions";
    const COLUMNS: &'static [Column] = &[
        required("subscription", Kind::Name),
        CUSTOMER,
        required("plan", Kind::Name),
        with_default("seats", Kind::Whole(0), "1"),
        required("starts_at", Kind::Instant),
        optional("ends_at", Kind::Instant),
        optional("trial_ends_at", Kind::Instant),
        optional("anchor", Kind::Instant),
        optional("minimum", Kind::Amount(Sign::NotNegative)),
        optional("maximum", Kind::Amount(Sign::NotNegative)),
    ];

    fn of(mut values: Values) -> Self {
        Subscription {
            subscription: values.text(),
            customer: values.text(),
            plan: values.text(),
            seats: values.whole(),
            starts_at_us: values.instant(),
            ends_at_us: values.maybe_instant(),
            trial_ends_at_us: values.maybe_instant(),
            anchor_us: values.maybe_instant(),
            minimum: values.maybe_amount(),
            maximum: values.maybe_amount(),
        }
    }

    fn values(&self) -> Vec<Value> {
        vec![
            Value::Text(self.subscription.clone()),
            Value::Text(self.customer.clone()),
            Value::Text(self.plan.clone()),
            Value::Whole(self.seats),
            Value::Instant(self.starts_at_us),
            maybe(self.ends_at_us, Value::Instant),
            maybe(self.trial_ends_at_us, Value::Instant),
            maybe(self.anchor_us, Value::Instant),
            maybe(self.minimum, Value::Amount),
            maybe(self.maximum, Value::Amount),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        let mut found = Vec::new();
        found.extend(ends_too_early(
            ("starts_at", Some(self.starts_at_us)),
            ("ends_at", self.ends_at_us),
        ));
        if self
            .trial_ends_at_us
            .is_some_and(|ends| ends < self.starts_at_us)
        {
            found.push((
                "trial_ends_at",
                "the trial ends before `starts_at`".to_owned(),
                "write the first instant after the trial, or nothing where there is none"
                    .to_owned(),
            ));
        }
        found
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.subscriptions
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.subscriptions
    }
}

impl Table for Grant {
    const NAME: &'static str = "grants";
    const COLUMNS: &'static [Column] = &[
        required("grant", Kind::Name),
        CUSTOMER,
        required("amount", Kind::Amount(Sign::Positive)),
        required("currency", Kind::Currency),
        with_default("priority", Kind::Whole(i64::MIN), "0"),
        required("effective_at", Kind::Instant),
        optional("expires_at", Kind::Instant),
        PRICES,
        with_default("kind", Kind::OneOf(&["prepaid", "promotional"]), "prepaid"),
        optional("recurs_every", Kind::Length),
        with_default("rollover_min", Kind::Amount(Sign::NotNegative), "0"),
        with_default("rollover_max", Kind::Amount(Sign::NotNegative), "0"),
        optional("voided_at", Kind::Instant),
    ];

    fn of(mut values: Values) -> Self {
        Grant {
            grant: values.text(),
            customer: values.text(),
            amount: values.amount(),
            currency: values.text(),
            priority: values.whole(),
            effective_at_us: values.instant(),
            expires_at_us: values.maybe_instant(),
            applies_to: values.names(),
            kind: match values.text().as_str() {
                "promotional" => GrantKind::Promotional,
                _ => GrantKind::Prepaid,
            },
            recurs_every: values.maybe_text(),
            rollover_min: values.amount(),
            rollover_max: values.amount(),
            voided_at_us: values.maybe_instant(),
        }
    }

    fn values(&self) -> Vec<Value> {
        let kind = match self.kind {
            GrantKind::Prepaid => "prepaid",
            GrantKind::Promotional => "promotional",
        };
        vec![
            Value::Text(self.grant.clone()),
            Value::Text(self.customer.clone()),
            Value::Amount(self.amount),
            Value::Text(self.currency.clone()),
            Value::Whole(self.priority),
            Value::Instant(self.effective_at_us),
            maybe(self.expires_at_us, Value::Instant),
            names(&self.applies_to),
            Value::Text(kind.to_owned()),
            maybe(self.recurs_every.clone(), Value::Text),
            Value::Amount(self.rollover_min),
            Value::Amount(self.rollover_max),
            maybe(self.voided_at_us, Value::Instant),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        let mut found = Vec::new();
        found.extend(ends_too_early(
            ("effective_at", Some(self.effective_at_us)),
            ("expires_at", self.expires_at_us),
        ));
        if self.rollover_min > self.rollover_max {
            found.push((
                "rollover_min",
                format!(
                    "{} is above `rollover_max`, {}",
                    self.rollover_min, self.rollover_max
                ),
                "write the most that a recurrence carries over into `rollover_max`".to_owned(),
            ));
        }
        found
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.grants
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.grants
    }
}

impl Table for OneOff {
    const NAME: &'static str = "one_offs";
    const COLUMNS: &'static [Column] = &[
        required("one_off", Kind::Name),
        CUSTOMER,
        required("amount", Kind::Amount(Sign::Any)),
        required("currency", Kind::Currency),
        optional("text", Kind::Text),
        required("date", Kind::Instant),
    ];

    fn of(mut values: Values) -> Self {
        let one_off = values.text();
        OneOff {
            customer: values.text(),
            amount: values.amount(),
            currency: values.text(),
            text: values.maybe_text().unwrap_or_else(|| one_off.clone()),
            date_us: values.instant(),
            one_off,
        }
    }

    fn values(&self) -> Vec<Value> {
        vec![
            Value::Text(self.one_off.clone()),
            Value::Text(self.customer.clone()),
            Value::Amount(self.amount),
            Value::Text(self.currency.clone()),
            Value::Text(self.text.clone()),
            Value::Instant(self.date_us),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        Vec::new()
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.one_offs
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.one_offs
    }
}

impl Table for Discount {
    const NAME: &'static str = "discounts";
    const COLUMNS: &'static [Column] = &[
        required("discount", Kind::Name),
        CUSTOMER,
        required("kind", Kind::OneOf(&["percent", "fixed"])),
        required("value", Kind::Amount(Sign::NotNegative)),
        CURRENCY,
        optional("starts_at", Kind::Instant),
        optional("ends_at", Kind::Instant),
        PRICES,
        with_default("position", Kind::Whole(i64::MIN), "0"),
    ];

    fn of(mut values: Values) -> Self {
        let (discount, customer, kind) = (values.text(), values.text(), values.text());
        let (value, currency) = (values.amount(), values.maybe_text());
        let kind = match kind.as_str() {
            "fixed" => DiscountKind::Fixed,
            _ => DiscountKind::Percent,
        };
        Discount {
            discount,
            customer,
            kind,
            value,
            // Per cent of dollars are per cent of yen.
            currency: currency.filter(|_| kind == DiscountKind::Fixed),
            starts_at_us: values.maybe_instant(),
            ends_at_us: values.maybe_instant(),
            applies_to: values.names(),
            position: values.whole(),
        }
    }

    fn values(&self) -> Vec<Value> {
        let kind = match self.kind {
            DiscountKind::Percent => "percent",
            DiscountKind::Fixed => "fixed",
        };
        vec![
            Value::Text(self.discount.clone()),
            Value::Text(self.customer.clone()),
            Value::Text(kind.to_owned()),
            Value::Amount(self.value),
            maybe(self.currency.clone(), Value::Text),
            maybe(self.starts_at_us, Value::Instant),
            maybe(self.ends_at_us, Value::Instant),
            names(&self.applies_to),
            Value::Whole(self.position),
        ]
    }

    fn problems(&self) -> Vec<RowProblem> {
        let mut found = Vec::new();
        let (from, to) = (
            ("starts_at", self.starts_at_us),
            ("ends_at", self.ends_at_us),
        );
        found.extend(ends_too_early(from, to));
        match self.kind {
            DiscountKind::Percent if self.value > Exact::from(100_i64) => found.push((
                "value",
                format!("{} per cent is more than everything", self.value),
                "write a number from 0 to 100".to_owned(),
            )),
            DiscountKind::Fixed if self.currency.is_none() => found.push((
                "currency",
                "empty, but a fixed discount is an amount".to_owned(),
                "write its currency, such as USD".to_owned(),
            )),
            DiscountKind::Percent | DiscountKind::Fixed => {}
        }
        found
    }

    fn rows(accounts: &Accounts) -> &Vec<Self> {
        &accounts.discounts
    }

    fn rows_mut(accounts: &mut Accounts) -> &mut Vec<Self> {
        &mut accounts.discounts
    }
}

fn ends_too_early(
    (from, from_us): (&str, Option<i64>),
    (to, to_us): (&'static str, Option<i64>),
) -> Option<RowProblem> {
    (from_us? >= to_us?).then(|| {
        (
            to,
            format!("it is not after `{from}`"),
            format!("`{to}` is the first instant that does not count; leave it empty until further notice"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::TABLES;

    /// The rows of the page's table below a heading: its first cell's names, and its last cell.
    fn told(page: &str, table: &str) -> Vec<(String, String)> {
        let (_, section) = page.split_once(&format!("\n### {table}\n")).unwrap();
        let section = section.split("\n#").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let mut told = Vec::new();
        for row in rows {
            let cells: Vec<&str> = row.split(" | ").collect();
            let names = cells[0].split('`').skip(1).step_by(2);
            let empty = cells.last().unwrap().trim_end_matches(" |");
            told.extend(names.map(|name| (name.to_owned(), empty.to_owned())));
        }
        told
    }

    #[test]
    fn the_page_tells_every_column_in_order_and_what_an_empty_cell_means() {
        let page = include_str!("../../../docs/accounts.md");
        for table in TABLES {
            let columns = crate::accounts::with_table!(table, R => R::COLUMNS).unwrap();
            let told = told(page, table);
            let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
            let expected: Vec<&str> = columns.iter().map(|column| column.name).collect();
            assert_eq!(names, expected, "{table}");
            for ((name, empty), column) in told.iter().zip(columns) {
                let plain = empty.trim_matches('`');
                match column.empty {
                    Empty::Refused => assert_eq!(plain, "refused", "{table}.{name}"),
                    Empty::Says(default) => assert_eq!(plain, default, "{table}.{name}"),
                    Empty::Null => assert_ne!(plain, "refused", "{table}.{name}"),
                }
            }
        }
    }
}
