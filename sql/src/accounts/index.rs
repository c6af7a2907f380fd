//! What the newest row says at an instant: account rows by key and time, each found without looking at all others.

use super::{Accounts, Customer, Discount, Grant, OneOff, Subject, Subscription};
use std::collections::BTreeSet;

/// The account rows that stand, by key and time. Of two rows with one key and time the one that was written later stands; of a
/// grant, a one-off and a discount, the last row of its key.
///
/// Made by [`Accounts::indexed`]. A look-up takes as long as a binary search over all rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    customers: List<Customer>,
    subjects: List<Subject>,
    subscriptions: List<Subscription>,
    grants: List<Grant>,
    one_offs: List<OneOff>,
    discounts: List<Discount>,
    serial: i64,
}

/// Who pays for a subject's usage in `[from_us, to_us)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payer<'a> {
    /// The first instant, in microseconds since the Unix epoch; `None` is since ever.
    pub from_us: Option<i64>,
    /// The first instant after it; `None` is until further notice.
    pub to_us: Option<i64>,
    /// Who pays.
    pub customer: &'a str,
}

impl Accounts {
    /// The rows that stand, to be looked up.
    ///
    /// ```
    /// use tollgate_sql::accounts::{Accounts, Subject};
    ///
    /// let pays = |customer: &str, valid_from_us| Subject {
    ///     subject: "bot".into(),
    ///     customer: customer.into(),
    ///     valid_from_us,
    /// };
    /// let accounts = Accounts {
    ///     subjects: vec![pays("acme", None), pays("globex", Some(10))],
    ///     ..Accounts::default()
    /// };
    /// let index = accounts.indexed();
    /// assert_eq!(index.payer_at("bot", 9), Some("acme"));
    /// assert_eq!(index.payer_at("bot", 10), Some("globex"));
    /// ```
    pub fn indexed(self) -> Index {
        Index {
            customers: List::of(self.customers),
            subjects: List::of(self.subjects),
            subscriptions: List::of(self.subscriptions),
            grants: List::of(self.grants),
            one_offs: List::of(self.one_offs),
            discounts: List::of(self.discounts),
            serial: self.serial,
        }
    }
}

/// No rows.
impl Default for Index {
    fn default() -> Self {
        Self::empty()
    }
}

impl Index {
    /// No rows.
    pub fn empty() -> Self {
        Accounts::default().indexed()
    }

    /// The number of the last import whose rows these are; 0 without any.
    pub fn serial(&self) -> i64 {
        self.serial
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        self.customers.rows.len()
            + self.subjects.rows.len()
            + self.subscriptions.rows.len()
            + self.grants.rows.len()
            + self.one_offs.rows.len()
            + self.discounts.rows.len()
    }

    /// Whether there is no row at all: then every subject is its own customer.
    pub fn is_empty(&self) -> bool {
        self.row_count() == 0
    }

    /// The rows that stand as lists, each by key and time.
    pub fn into_accounts(self) -> Accounts {
        Accounts {
            customers: self.customers.rows,
            subjects: self.subjects.rows,
            subscriptions: self.subscriptions.rows,
            grants: self.grants.rows,
            one_offs: self.one_offs.rows,
            discounts: self.discounts.rows,
            serial: self.serial,
        }
    }

    /// All that holds of some customers, and of the subjects that they pay for at some time.
    pub fn of_customers(&self, customers: &BTreeSet<&str>) -> Accounts {
        fn of<R: Row + Clone>(list: &List<R>, customers: &BTreeSet<&str>) -> Vec<R> {
            let groups = customers
                .iter()
                .flat_map(|customer| list.groups_of(customer));
            groups.flatten().cloned().collect()
        }
        Accounts {
            customers: of(&self.customers, customers),
            subjects: of(&self.subjects, customers),
            subscriptions: of(&self.subscriptions, customers),
            grants: of(&self.grants, customers),
            one_offs: of(&self.one_offs, customers),
            discounts: of(&self.discounts, customers),
            serial: self.serial,
        }
    }

    /// What holds at an instant: the newest row of each customer and subject, the subscriptions, grants and discounts that are in
    /// force, and the one-offs up to then.
    pub fn at(&self, at_us: i64) -> Accounts {
        let is_in = |from_us: Option<i64>, to_us: Option<i64>| {
            from_us <= Some(at_us) && to_us.is_none_or(|to| at_us < to)
        };
        let customers = self.customers.groups();
        let subjects = self.subjects.groups();
        let subscriptions = self.subscriptions.groups();
        let subscriptions = subscriptions.filter_map(|rows| newest_at(rows, at_us));
        let grants = self.grants.rows.iter().filter(|row| {
            is_in(Some(row.effective_at_us), row.expires_at_us) && is_in(None, row.voided_at_us)
        });
        let one_offs = self.one_offs.rows.iter();
        let discounts = self.discounts.rows.iter();
        Accounts {
            customers: customers
                .filter_map(|rows| newest_at(rows, at_us))
                .cloned()
                .collect(),
            subjects: subjects
                .filter_map(|rows| newest_at(rows, at_us))
                .cloned()
                .collect(),
            subscriptions: subscriptions
                .filter(|row| is_in(None, row.ends_at_us))
                .cloned()
                .collect(),
            grants: grants.cloned().collect(),
            one_offs: one_offs
                .filter(|row| row.date_us <= at_us)
                .cloned()
                .collect(),
            discounts: discounts
                .filter(|row| is_in(row.starts_at_us, row.ends_at_us))
                .cloned()
                .collect(),
            serial: self.serial,
        }
    }

    /// Every customer that has a row in `customers`, by name.
    pub fn customers(&self) -> impl Iterator<Item = &str> {
        self.customers
            .groups()
            .map(|rows| rows[0].customer.as_str())
    }

    /// What holds of a customer at an instant: the newest row that holds from it or from before. `None` before the first row.
    pub fn customer_at(&self, customer: &str, at_us: i64) -> Option<&Customer> {
        newest_at(self.customer(customer), at_us)
    }

    /// All that holds of a customer, by time; each row until the next one.
    pub fn customer(&self, customer: &str) -> &[Customer] {
        self.customers.rows_of(customer)
    }

    /// Every subject that has a row in `subjects`, by name.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.groups().map(|rows| rows[0].subject.as_str())
    }

    /// Who pays for a subject's usage at an instant. `None` before its first row and without one, even for a subject with the
    /// name of a customer.
    pub fn payer_at(&self, subject: &str, at_us: i64) -> Option<&str> {
        let row = newest_at(self.subjects.rows_of(subject), at_us)?;
        Some(&row.customer)
    }

    /// Who pays for a subject's usage, by time, without overlaps; times of one customer that follow one another are one.
    pub fn payers_of(&self, subject: &str) -> Vec<Payer<'_>> {
        let mut payers: Vec<Payer<'_>> = Vec::new();
        for row in self.subjects.rows_of(subject) {
            match payers.last_mut() {
                Some(last) if last.customer == row.customer => continue,
                Some(last) => last.to_us = row.valid_from_us,
                None => {}
            }
            payers.push(Payer {
                from_us: row.valid_from_us,
                to_us: None,
                customer: &row.customer,
            });
        }
        payers
    }

    /// The subjects that a customer pays for at some time, by name.
    pub fn subjects_of(&self, customer: &str) -> impl Iterator<Item = &str> {
        let groups = self.subjects.groups_of(customer);
        groups.map(|rows| rows[0].subject.as_str())
    }

    /// The rows of a subscription, by time. A row holds until its own end or the next row's start, whichever is first.
    pub fn subscription(&self, subscription: &str) -> &[Subscription] {
        self.subscriptions.rows_of(subscription)
    }

    /// All subscriptions by name, each as [`Index::subscription`] has it.
    pub fn subscriptions(&self) -> impl Iterator<Item = &[Subscription]> {
        self.subscriptions.groups()
    }

    /// The subscriptions of a customer by name, each as [`Index::subscription`] has it.
    pub fn subscriptions_of(&self, customer: &str) -> impl Iterator<Item = &[Subscription]> {
        self.subscriptions.groups_of(customer)
    }

    /// Whether a subscription of a customer goes on, or begins, after an instant.
    pub fn goes_on_after(&self, customer: &str, at_us: i64) -> bool {
        let mut last = self.subscriptions_of(customer).filter_map(<[_]>::last);
        last.any(|row| row.ends_at_us.is_none_or(|end_us| at_us < end_us))
    }

    /// A grant as it is now.
    pub fn grant(&self, grant: &str) -> Option<&Grant> {
        self.grants.rows_of(grant).first()
    }

    /// The grants of a customer, by name.
    pub fn grants_of(&self, customer: &str) -> impl Iterator<Item = &Grant> {
        self.grants.groups_of(customer).flatten()
    }

    /// All grants, by name.
    pub fn grants(&self) -> &[Grant] {
        &self.grants.rows
    }

    /// The one-offs of a customer, by name.
    pub fn one_offs_of(&self, customer: &str) -> impl Iterator<Item = &OneOff> {
        self.one_offs.groups_of(customer).flatten()
    }

    /// All one-offs, by name.
    pub fn one_offs(&self) -> &[OneOff] {
        &self.one_offs.rows
    }

    /// The discounts of a customer, by name.
    pub fn discounts_of(&self, customer: &str) -> impl Iterator<Item = &Discount> {
        self.discounts.groups_of(customer).flatten()
    }

    /// All discounts, by name.
    pub fn discounts(&self) -> &[Discount] {
        &self.discounts.rows
    }
}

/// The last row that holds from an instant or from before.
fn newest_at<R: Row>(rows: &[R], at_us: i64) -> Option<&R> {
    let after = rows.partition_point(|row| row.since_us() <= Some(at_us));
    rows[..after].last()
}

/// A row of accounts: what tells it from others, and who it is of.
pub(crate) trait Row {
    /// The value of its key column.
    fn key(&self) -> &str;
    /// By what rows are in order.
    fn place(&self) -> (&str, Option<i64>) {
        (self.key(), self.since_us())
    }
    /// The time that is a part of its key; `None` is since ever, and everything where only the last row of a key stands.
    fn since_us(&self) -> Option<i64>;
    /// Who pays.
    fn customer(&self) -> &str;
}

macro_rules! rows {
    ($($row:ident: $key:ident, $since:expr;)*) => {$(
        impl Row for $row {
            fn key(&self) -> &str {
                &self.$key
            }
            fn since_us(&self) -> Option<i64> {
                let since: fn(&Self) -> Option<i64> = $since;
                since(self)
            }
            fn customer(&self) -> &str {
                &self.customer
            }
        }
    )*};
}

rows! {
    Customer: customer, |row| row.valid_from_us;
    Subject: subject, |row| row.valid_from_us;
    Subscription: subscription, |row| Some(row.starts_at_us);
    Grant: grant, |_| None;
    OneOff: one_off, |_| None;
    Discount: discount, |_| None;
}

/// The rows of one table that stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List<R> {
    /// By key and time, which no two share.
    rows: Vec<R>,
    /// Places in `rows`, by customer and then in the order of `rows`.
    by_customer: Vec<usize>,
}

impl<R: Row> List<R> {
    fn of(mut rows: Vec<R>) -> Self {
        // Stable, so that rows with one key and time stay in the order in which they were written.
        rows.sort_by(|one, other| one.place().cmp(&other.place()));
        rows.reverse();
        rows.dedup_by(|earlier, kept| earlier.place() == kept.place());
        rows.reverse();
        let mut by_customer: Vec<usize> = (0..rows.len()).collect();
        by_customer.sort_by_key(|place| (rows[*place].customer(), *place));
        List { rows, by_customer }
    }

    fn rows_of(&self, key: &str) -> &[R] {
        let from = self.rows.partition_point(|row| row.key() < key);
        let rest = &self.rows[from..];
        // A key has few rows: counting them is quicker than searching for their end.
        let of_key = rest.iter().take_while(|row| row.key() == key).count();
        &rest[..of_key]
    }

    /// The rows of each key.
    fn groups(&self) -> impl Iterator<Item = &[R]> {
        self.rows.chunk_by(|one, next| one.key() == next.key())
    }

    /// All rows of each key that has a row of a customer.
    fn groups_of(&self, customer: &str) -> impl Iterator<Item = &[R]> {
        let name = |place: &usize| self.rows[*place].customer();
        let from = self
            .by_customer
            .partition_point(|place| name(place) < customer);
        let rest = &self.by_customer[from..];
        let places = &rest[..rest.partition_point(|place| name(place) == customer)];
        let groups = places.chunk_by(|one, next| self.rows[*one].key() == self.rows[*next].key());
        groups.map(|places| self.rows_of(self.rows[places[0]].key()))
    }
}

#[cfg(test)]
mod tests;
