//! What one customer has used, owes and has left by now: its usage, the drafts of its running billing periods, and its grants. It issues
//! nothing.

use super::{
    assembly::{MadeBy, TaxRates},
    billed::Billed,
    burnt::Burnt,
    cut,
    documents::{issued_table, of_customers, rows_where},
    draft_of,
    due::{running, running_due},
    instalments::take_up,
    issued::History,
    standing::{Taken, standing},
    starts::{Calendar, Starts},
    subscribed::rate_due,
};
use crate::{
    config::BillingSettings,
    customers::Customers,
    error::{Error, InError, Result},
    view::{Paid, View},
};
use arrow::array::RecordBatch;
use std::collections::BTreeSet;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{Grant, Index},
    credits::available,
    definitions::Definitions,
    invoice::{self, Invoice},
    money::Exact,
    period::Period,
    subscriptions::Cycle,
};

/// One customer, and by what it is billed.
#[derive(Debug, Clone, Copy)]
pub struct OfCustomer<'a> {
    /// What was used.
    pub view: &'a View,
    /// What was issued.
    pub lake: &'a Lake,
    /// How it is billed.
    pub settings: &'a BillingSettings,
    /// The rows of the customer; `None` when there are no accounts, so that every subject is its own customer.
    pub accounts: Option<&'a Index>,
    /// Who it is.
    pub customer: &'a str,
    /// What time it is, in microseconds.
    pub now_us: i64,
}

/// What a customer used of one meter in some time.
#[derive(Debug)]
pub struct Used {
    /// The place of the meter among all.
    pub meter: usize,
    /// The time.
    pub time: invoice::Period,
    /// `customer, subject, dimensions…, measures…`.
    pub rows: RecordBatch,
}

/// What is left of a grant.
#[derive(Debug)]
pub struct Left<'a> {
    /// The grant.
    pub grant: &'a Grant,
    /// How much can still be burnt; zero while it is not in force.
    pub amount: Exact,
}

impl OfCustomer<'_> {
    fn one(&self) -> Customers {
        Customers::One(self.customer.to_owned())
    }

    fn definitions(&self) -> &Definitions {
        &self.view.catalog().definitions
    }

    /// What was used in some time, or in the billing periods that run now, by meter and time. Usage of a subject counts while the
    /// customer pays for it.
    ///
    /// # Errors
    /// The lake cannot be read; a meter does not know the time; [`Error::InError`] when usage in it cannot be told.
    pub async fn usage(&self, time: Option<invoice::Period>) -> Result<Vec<Used>> {
        let times = match time {
            Some(time) => BTreeSet::from([time]),
            None => self.running_times().await?,
        };
        let mut used = Vec::new();
        for time in times {
            let period = Period::of(time, &self.settings.time_zone)?;
            let totals = match self.accounts {
                None => self.view.customer_totals(&period, &self.one()).await?,
                Some(accounts) => {
                    let paid = paid_by(accounts, self.customer);
                    self.view.paid_totals(&period, paid).await?
                }
            };
            check(totals.in_error)?;
            let of_meters = totals.meters.into_iter().enumerate();
            used.extend(of_meters.map(|(meter, rows)| Used { meter, time, rows }));
        }
        Ok(used)
    }

    /// The times of the billing periods that run, each from when a plan is in force; the calendar month when none does.
    async fn running_times(&self) -> Result<BTreeSet<invoice::Period>> {
        let running = match self.accounts {
            None => Vec::new(),
            Some(accounts) => {
                let starts = self.starts(accounts).await?;
                let calendar = self.calendar(&starts);
                let definitions = self.definitions();
                running(accounts, definitions, calendar, self.customer, self.now_us)?
            }
        };
        let times: BTreeSet<_> = running.iter().map(Cycle::closed).collect();
        match times.is_empty() {
            true => Ok(BTreeSet::from([(&self.month()?).into()])),
            false => Ok(times),
        }
    }

    /// The calendar month.
    fn month(&self) -> Result<Period> {
        Ok(Period::month_at(self.now_us, &self.settings.time_zone)?)
    }

    fn calendar<'s>(&'s self, starts: &'s Starts) -> Calendar<'s> {
        Calendar {
            zone: &self.settings.time_zone,
            starts,
        }
    }

    /// From when on the customer is billed here.
    async fn starts(&self, accounts: &Index) -> Result<Starts> {
        let invoices = issued_table(self.lake).await?;
        let of_one = (accounts, self.customer);
        Starts::of_one(invoices.as_ref(), self.settings, of_one).await
    }

    /// What the running billing periods come to so far: the drafts that would close them, each of the periods that close together.
    /// What instalments have billed of a period is not billed again.
    ///
    /// # Errors
    /// The lake cannot be read; [`Error::InError`] when usage or a price is in error for the customer.
    pub async fn spend(&self) -> Result<Vec<Invoice>> {
        match self.accounts {
            Some(accounts) => self.spend_of_subscriptions(accounts).await,
            None => {
                let period = self.settings.since_start(&self.month()?)?;
                let (view, customer) = (self.view, self.customer);
                let drafts = draft_of(view, self.settings, &period, customer).await?;
                check(drafts.in_error())?;
                Ok(drafts.invoices)
            }
        }
    }

    async fn spend_of_subscriptions(&self, accounts: &Index) -> Result<Vec<Invoice>> {
        let all = match issued_table(self.lake).await? {
            Some(invoices) => rows_where(&invoices, of_customers(&self.one())).await?,
            None => Vec::new(),
        };
        let (mut burnt, taken) = (Burnt::in_rows(&all)?, Taken::of(&all));
        let rows = standing(all)?;
        let history = History::of(&rows, &taken);
        let starts = self.starts(accounts).await?;
        let (calendar, definitions) = (self.calendar(&starts), self.definitions());
        let due = running_due(accounts, definitions, calendar, self.customer, self.now_us)?;
        let (mut rated, found) = rate_due(self.view, accounts, due).await?;
        check(found.in_error)?;
        take_up(&history.begun()?, &mut rated);
        let mut inputs = found.inputs;
        let rates = TaxRates::of(self.view.catalog(), self.settings, &mut inputs)?;
        let cut = cut(self.view).await?;
        let made_by = MadeBy {
            view: self.view,
            accounts,
            rates: &rates,
            cut: &cut,
        };
        let (mut billed, mut drafts) = (Billed::of(&rows)?, Vec::new());
        for rated in &rated {
            let before = (&billed, burnt.of_customer(self.customer));
            if let Some(draft) = made_by.invoice(rated, before, &[])? {
                billed.add(&draft.lines);
                burnt.add(self.customer, &draft.burns);
                drafts.push(draft);
            }
        }
        Ok(drafts)
    }

    /// The customer's grants by name, and what is left of each after what issued documents burnt.
    ///
    /// # Errors
    /// The lake cannot be read, or an amount does not fit.
    pub async fn balances(&self) -> Result<Vec<Left<'_>>> {
        let Some(accounts) = self.accounts else {
            return Ok(Vec::new());
        };
        let burnt = Burnt::of(self.lake, &self.one()).await?;
        let burnt = burnt.of_customer(self.customer);
        let grants = accounts.grants_of(self.customer);
        let left = grants.map(|grant| {
            let amount = available(grant, burnt, self.now_us)?;
            Ok(Left { grant, amount })
        });
        left.collect()
    }
}

/// Refuses to say what something comes to of which a part cannot be told.
fn check(in_error: impl IntoIterator<Item = InError>) -> Result<()> {
    let in_error: BTreeSet<InError> = in_error.into_iter().collect();
    match in_error.is_empty() {
        true => Ok(()),
        false => Err(Error::InError { in_error }),
    }
}

/// When a customer pays for which subjects.
fn paid_by(accounts: &Index, customer: &str) -> Paid {
    let mut paid = Paid::default();
    for subject in accounts.subjects_of(customer) {
        let payers = accounts.payers_of(subject).into_iter();
        let own = payers.filter(|payer| payer.customer == customer);
        let times = own.map(|payer| {
            (
                payer.from_us.unwrap_or(i64::MIN),
                payer.to_us.unwrap_or(i64::MAX),
            )
        });
        paid.add(subject, customer, times.collect());
    }
    paid
}
