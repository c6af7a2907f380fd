//! Two months, one after the other: usage is sent, metered and compared, and billed when the month is over. The second time, late
//! usage of the first month comes with it.

use super::{
    accounts::terms_of,
    check, feed,
    folder::{EVENTS, Folder},
    generator::{CUSTOMERS, Expected, Month, MonthSettings, stragglers},
    owed::{Book, Due},
    show,
};
use crate::{
    billing::{self, Asked, Which},
    catalog::Catalog,
    cli::{
        output,
        run::{stop_on_signal, supervise},
        statement::statement,
    },
    clock::{Clock, ManualClock, SystemClock},
    config::Settings,
    error::{Error, Result},
    shard::Questions,
    telemetry::Counts,
    view::View,
};
use std::sync::Arc;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{invoice::Invoice, period::Period, window::DAY_US};

/// Whose documents are shown line by line: it has base fee, seats, a discount, tax and credits.
const SHOWN: &str = "halcyon-health";
/// Of so many events one comes when its month is billed, and some of each customer in any case.
const STRAGGLER_ONE_IN: u64 = 200;
const STRAGGLERS_MIN: u64 = 5;

/// Where the story has come to.
pub(super) struct Story<'a> {
    folder: &'a Folder,
    /// Of the nats-server, if there is one.
    url: Option<&'a str>,
    catalog: Arc<Catalog>,
    months: &'a [Period; 2],
    seed: u64,
    /// What the customers must be billed, in the order of [`CUSTOMERS`].
    books: Vec<Book>,
}

impl<'a> Story<'a> {
    /// Before anything was sent.
    pub(super) fn begin(
        (folder, url): (&'a Folder, Option<&'a str>),
        catalog: Arc<Catalog>,
        months: &'a [Period; 2],
        seed: u64,
    ) -> Self {
        Story {
            folder,
            url,
            catalog,
            months,
            seed,
            books: CUSTOMERS.iter().map(|c| Book::new(terms_of(c))).collect(),
        }
    }

    /// Tells both months with so many events in all.
    ///
    /// # Errors
    /// A step fails, or a number is not what was generated.
    pub(super) async fn tell(&mut self, events: u64) -> Result<()> {
        let first = self.first_month(events / 2).await?;
        let each = events / STRAGGLER_ONE_IN / CUSTOMERS.len() as u64;
        self.second_month(&first, events - events / 2, each.max(STRAGGLERS_MIN))
            .await
    }

    /// Sends, meters and bills the first month; returns what was sent.
    async fn first_month(&mut self, events: u64) -> Result<Expected> {
        let settings = self.folder.write(self.url, EVENTS[0])?;
        let mut month = Month::new(self.month_settings(0, events));
        let sent = feed::send(month.by_ref(), &settings, events).await?;
        output::print(&format!("\n{}: {sent}\n", self.months[0]))?;
        let counts = meter(&settings, &self.catalog).await?;
        let view = self.view(&settings).await?;
        show::windows(&view).await?;
        show::set_aside(&view).await?;
        let month = month.expected();
        compare(&[month], &[month], &counts, &view).await?;
        let books = self.books.iter_mut().zip(&month.usage);
        let due = books.map(|(book, days)| book.first(days)).collect();
        self.bill(&settings, 0, due).await?;
        Ok(month.clone())
    }

    /// Sends, meters and bills the second month, with so many late events of each customer in the first.
    async fn second_month(&mut self, first: &Expected, events: u64, each: u64) -> Result<()> {
        let settings = self.folder.write(self.url, EVENTS[1])?;
        let (late, of_late) = stragglers(&self.month_settings(0, 0), each);
        let own = events.saturating_sub(of_late.events);
        let mut month = Month::new(self.month_settings(1, own));
        let sent = feed::send(month.by_ref().chain(late), &settings, events).await?;
        output::print(&format!(
            "\n{}: {sent}; {} of them are late events of {}\n",
            self.months[1], of_late.events, self.months[0]
        ))?;
        let counts = meter(&settings, &self.catalog).await?;
        let view = self.view(&settings).await?;
        let month = month.expected();
        compare(
            &[month, &of_late],
            &[first, &of_late, month],
            &counts,
            &view,
        )
        .await?;
        let mut first = first.clone();
        first.add(&of_late);
        let usage = first.usage.iter().zip(&month.usage);
        let books = self.books.iter_mut().zip(usage);
        let due = books.map(|(book, (first, second))| book.second(first, second));
        let due = due.collect();
        self.bill(&settings, 1, due).await
    }

    fn month_settings(&self, place: usize, events: u64) -> MonthSettings {
        let period = &self.months[place];
        MonthSettings {
            seed: self.seed.wrapping_add(place as u64),
            events,
            start_us: period.start_us,
            end_us: period.end_us,
            batch: feed::EVENTS_PER_MESSAGE,
        }
    }

    async fn view(&self, settings: &Settings) -> Result<View> {
        let lake = Lake::open(&settings.lake.url, &settings.base).await?;
        View::open(Arc::clone(&self.catalog), &lake).await
    }

    /// Issues what is due of a month, and fails unless all documents are then what each customer must be billed.
    async fn bill(&self, settings: &Settings, place: usize, due: Vec<Due>) -> Result<()> {
        let period = &self.months[place];
        let issued = self.issue(settings, period).await?;
        check::documents(&due, &self.view(settings).await?).await?;
        output::print(&show::documents(&issued, period))?;
        for invoice in issued.iter().filter(|invoice| invoice.customer == SHOWN) {
            let tiers = billing::tiers_of(&self.catalog, &invoice.lines).await?;
            output::print(&show::one(place, self.months))?;
            output::print(&statement(invoice, &tiers))?;
        }
        output::print(
            "\nEvery customer's discount, tax, total, credits and amount due are what integer arithmetic comes to.\n",
        )
    }

    /// As `tollgate invoice --due --finalize` does on the second day after the month.
    async fn issue(&self, settings: &Settings, period: &Period) -> Result<Vec<Invoice>> {
        let clock = ManualClock::at(period.end_us + DAY_US);
        let lake = Lake::open(&settings.lake.url, &settings.base).await?;
        let view = View::open(Arc::clone(&self.catalog), &lake).await?;
        let asked = Asked {
            which: &Which::Due,
            customer: None,
            corrects: false,
        };
        let (billing, now_us) = (&settings.billing, clock.now_us());
        let documents = billing::documents_of(&view, &lake, billing, asked, now_us);
        let documents = documents.await?;
        if !documents.in_error.is_empty() {
            let in_error = documents.in_error;
            return Err(Error::InError { in_error });
        }
        let issued = billing::issue_documents(&lake, documents, &clock).await?;
        Ok(issued.issued)
    }
}

/// Meters until the end of what was sent.
async fn meter(settings: &Settings, catalog: &Catalog) -> Result<Counts> {
    let started_us = SystemClock.now_us();
    let stop = stop_on_signal()?;
    let report = supervise(settings, catalog, true, stop.clone(), Questions::none())
        .await?
        .filter(|_| !*stop.borrow())
        .ok_or_else(|| {
            Error::Usage("the demo was stopped before it had metered everything".into())
        })?;
    output::print(&show::metered(&report, SystemClock.now_us() - started_us))?;
    Ok(report.counts)
}

/// Fails unless what was sent now became what was generated, and all that was sent adds up to it.
async fn compare(now: &[&Expected], all: &[&Expected], counts: &Counts, view: &View) -> Result<()> {
    check::counts(now, counts)?;
    check::totals(all, view).await?;
    output::print("\nEvery count and every customer's usage is what was generated.\n")
}
