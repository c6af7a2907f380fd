//! The invoice job over subscriptions: the documents that are due, rated, assembled and issued once.

use super::{
    Issued,
    accounts::ByRange,
    assembly::{MadeBy, TaxRates},
    billed::Billed,
    burnt::Burnt,
    corrections::{Compared, Correcter, Correcting, Corrections, without_issued},
    cut,
    documents::{issued_table, of_customers, rows_where, untold},
    due::{Due, due_of, is_of_month},
    instalments::{instalments, take_back, take_up},
    issued::{Head, History},
    kept::Inputs,
    numbering::{NUMBER_MARK, Numbering, issued_meanwhile},
    ranges::{DOCUMENT_BYTES, InRanges, LINE_BYTES, Weighed, compares_customers},
    standing::{Taken, standing},
    starts::{Calendar, Starts},
    subscribed::{Found, Rated, rate_due},
};
use crate::{
    clock::Clock,
    config::BillingSettings,
    customers::Customers,
    error::{Faulty, InError, Result, chain},
    view::View,
};
use arrow::array::{RecordBatch, StringArray};
use futures::FutureExt;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tollgate_connectors::{
    Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{
    accounts::Index,
    invoice::{
        self, Invoice,
        adjustments::Correction,
        basis::Basis,
        unissued::{Unissued, changed},
    },
    period::Period,
};

/// Which documents a job makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those whose last instant lies in a month, `YYYY-MM`, by the customer's zone.
    Month(String),
    /// All that were due by now and are not issued, each after the delay of its plans.
    Due,
}

/// The documents of subscriptions, none of which is issued.
#[derive(Debug, Default)]
pub struct Documents {
    /// In the order of customers, and of each customer of time.
    pub invoices: Vec<Invoice>,
    /// When each is due, which an instalment is at once, and what it is made from, as JSON.
    made: Vec<(Option<i64>, String)>,
    /// Customers who get none until their usage, a price or an account is mended, and why.
    pub in_error: BTreeSet<InError>,
    /// Customers whose document of the same time was issued before.
    pub already: Vec<String>,
    /// The ids of these documents.
    pub issued_before: BTreeSet<String>,
    /// What all of them are rated by.
    inputs: Inputs,
    /// Issued documents that these were compared with.
    compared: Vec<Compared>,
    /// The number of the last document that was issued when these were made.
    last: i64,
    /// Customers of whom something is due that waits until a job is asked to correct.
    left_out: BTreeSet<String>,
    /// What the issued documents took in memory that were read for these.
    read_bytes: usize,
    accounts: Arc<Index>,
    /// When documents are due that wait: for that time, or for usage that may still be on its way.
    pub waiting: BTreeSet<i64>,
    /// Who issues them, if that is to be kept.
    pub issued_by: Option<String>,
}

impl Documents {
    /// Those that do not wait.
    pub fn to_issue(&self) -> Vec<&Invoice> {
        let made = self.invoices.iter().zip(&self.made);
        let to_issue = made.filter(|(_, (at_us, _))| !waits(&self.waiting, *at_us));
        to_issue.map(|(invoice, _)| invoice).collect()
    }

    /// Sorts them by customer. What is on a document depends on those of the same customer alone, so numbers do not depend on which
    /// other customers are in the range.
    fn sort(&mut self) {
        let invoices = std::mem::take(&mut self.invoices).into_iter();
        let mut all: Vec<_> = invoices.zip(std::mem::take(&mut self.made)).collect();
        all.sort_by(|(one, _), (other, _)| one.customer.cmp(&other.customer));
        (self.invoices, self.made) = all.into_iter().unzip();
    }

    /// What is known of their customers.
    pub fn accounts(&self) -> &Arc<Index> {
        &self.accounts
    }

    fn take_in(&mut self, found: Found) {
        self.in_error.extend(found.in_error);
        self.inputs.extend(found.inputs);
    }
}

/// Whether a document waits that is due then, when documents wait that are due at these times.
fn waits(waiting: &BTreeSet<i64>, at_us: Option<i64>) -> bool {
    at_us.is_some_and(|at_us| waiting.contains(&at_us))
}

/// What a job is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Which documents.
    pub which: &'a Which,
    /// Of which customer; `None` of all.
    pub customer: Option<&'a str>,
    /// Whether issued documents are corrected by all that has changed since, not by usage alone.
    pub corrects: bool,
}

/// Makes the documents of subscriptions that are asked for, of one customer or all at once. What issued documents lack or have too much is
/// on the customer's first document; without one, on a document of its own where a job is asked to correct, and where no subscription
/// of the customer goes on.
///
/// # Errors
/// The lake cannot be read; a price fails and it cannot be told for which customer; the month is not one.
pub async fn documents_of(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    asked: Asked<'_>,
    now_us: i64,
) -> Result<Documents> {
    let accounts = Arc::new(ByRange::begin(lake, asked.customer).await?);
    let shared = Box::pin(Shared::begin(
        view, lake, settings, &accounts, asked, now_us,
    ));
    let shared = shared.await?;
    Box::pin(shared.documents(&Customers::named(asked.customer))).await
}

/// The documents of subscriptions that are asked for, of one range of customers after the other.
pub struct DocumentsInRanges(InRanges<Documents>);

/// What the ranges of a job share.
struct Shared {
    view: View,
    lake: Lake,
    settings: BillingSettings,
    accounts: Arc<ByRange>,
    starts: Starts,
    invoices: Option<DeltaTable>,
    which: Which,
    corrects: bool,
    now_us: i64,
}

impl DocumentsInRanges {
    /// Begins with the first customer. All documents are made by what was issued by now, and by accounts as they were.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn begin(
        view: &View,
        lake: &Lake,
        settings: &BillingSettings,
        accounts: &Arc<ByRange>,
        asked: Asked<'_>,
        now_us: i64,
    ) -> Result<Self> {
        let known_bytes = settings.max_bytes.0 / KNOWN_PART;
        let knowing = view.knowing(known_bytes);
        let shared = Box::pin(Shared::begin(
            &knowing, lake, settings, accounts, asked, now_us,
        ));
        let shared = Arc::new(shared.await?);
        let names = shared.accounts.names.clone();
        let plans = view.catalog().definitions.plans.iter();
        let plans = plans.filter(|plan| shared.accounts.plans.contains(&plan.name));
        let prices: BTreeSet<&String> = plans.flat_map(|plan| &plan.prices).collect();
        let is_billed = |price: &str| prices.iter().any(|known| *known == price);
        let bytes_max = match compares_customers(view.catalog(), is_billed).await? {
            true => usize::MAX,
            false => settings.max_bytes.0 - known_bytes,
        };
        let only = asked.customer.map(str::to_owned);
        let make = move |customers| {
            let shared = Arc::clone(&shared);
            let customers = only.clone().map_or(customers, Customers::One);
            async move { shared.documents(&customers).await }.boxed()
        };
        Ok(DocumentsInRanges(InRanges::new(names, bytes_max, make)))
    }

    /// The documents of the next customers, in the order of their names; `None` when all are made.
    ///
    /// # Errors
    /// Those of [`documents_of`].
    pub async fn next(&mut self) -> Result<Option<Documents>> {
        self.0.next().await
    }

    /// Of how many customers documents are made, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        self.0.progress()
    }
}

/// What part of the memory for documents totals may take that are known for the next range.
const KNOWN_PART: usize = 4;

impl Shared {
    async fn begin(
        view: &View,
        lake: &Lake,
        settings: &BillingSettings,
        accounts: &Arc<ByRange>,
        asked: Asked<'_>,
        now_us: i64,
    ) -> Result<Self> {
        let invoices = issued_table(lake).await?;
        let starts = match asked.customer {
            Some(customer) => {
                let own = accounts.of(&Customers::named(asked.customer)).await?;
                Starts::of_one(invoices.as_ref(), settings, (&own, customer)).await?
            }
            None => Starts::in_table(invoices.as_ref(), settings).await?,
        };
        Ok(Shared {
            view: view.clone(),
            lake: lake.clone(),
            settings: settings.clone(),
            accounts: Arc::clone(accounts),
            starts,
            invoices,
            which: asked.which.clone(),
            corrects: asked.corrects,
            now_us,
        })
    }

    async fn documents(&self, customers: &Customers) -> Result<Documents> {
        let accounts = self.accounts.of(customers).await?;
        let job = Job {
            view: &self.view,
            lake: &self.lake,
            settings: &self.settings,
            accounts: &accounts,
            names: &self.accounts.names,
            starts: &self.starts,
            invoices: self.invoices.as_ref(),
            which: &self.which,
            corrects: self.corrects,
            now_us: self.now_us,
        };
        let mut documents = job.documents(customers).await?;
        documents.accounts = accounts;
        Ok(documents)
    }
}

/// What a row of accounts takes in memory with all that it is read from, nearly.
const ACCOUNT_BYTES: usize = 1_000;

impl Weighed for Documents {
    fn bytes(&self) -> usize {
        let lines = self.invoices.iter().map(|invoice| invoice.lines.len());
        let lines: usize = lines.sum();
        let accounts = self.accounts.row_count() * ACCOUNT_BYTES;
        self.read_bytes + accounts + lines * LINE_BYTES + self.invoices.len() * DOCUMENT_BYTES
    }
}

/// What documents are made by.
#[derive(Clone, Copy)]
struct Job<'a> {
    view: &'a View,
    lake: &'a Lake,
    settings: &'a BillingSettings,
    accounts: &'a Index,
    /// The customers of whom something may be due, in order.
    names: &'a StringArray,
    starts: &'a Starts,
    /// The documents that were issued when the job began.
    invoices: Option<&'a DeltaTable>,
    which: &'a Which,
    corrects: bool,
    now_us: i64,
}

impl<'a> Job<'a> {
    fn calendar(&self) -> Calendar<'a> {
        Calendar {
            zone: &self.settings.time_zone,
            starts: self.starts,
        }
    }

    /// Makes the documents of some customers, each customer's in the order of their time.
    async fn documents(&self, customers: &Customers) -> Result<Documents> {
        // All of it by one snapshot: what is issued from here on is seen by the number when these are.
        let (mut last, mut all) = (0, Vec::new());
        if let Some(invoices) = self.invoices {
            last = invoices.mark(NUMBER_MARK).unwrap_or(0);
            all = rows_where(invoices, of_customers(customers)).await?;
        }
        let read_bytes = all.iter().map(RecordBatch::get_array_memory_size).sum();
        let (burnt, mut taken) = (Burnt::in_rows(&all)?, Taken::of(&all));
        let rows = standing(all)?;
        let history = History::of(&rows, &taken);
        taken.extend(history.instalment_ids());
        let mut documents = Documents {
            last,
            read_bytes,
            ..Documents::default()
        };
        let due = self.due(customers, &history, &mut documents)?;
        let cut = cut(self.view).await?;
        let rates = TaxRates::of(self.view.catalog(), self.settings, &mut documents.inputs)?;
        let made_by = MadeBy {
            view: self.view,
            accounts: self.accounts,
            rates: &rates,
            cut: &cut,
        };
        let (corrections, rated) = self
            .rated(customers, (&history, due), &rates, &cut, &mut documents)
            .await?;
        let mut before = SoFar {
            billed: Billed::of(&rows)?,
            burnt,
            taken,
            corrections,
        };
        let rated = self
            .with_instalments(
                customers,
                (&history, rated),
                made_by,
                &before,
                &mut documents,
            )
            .await?;
        self.assemble(rated, made_by, &mut before, &mut documents)?;
        documents.sort();
        self.note_waiting(&mut documents).await?;
        Ok(documents)
    }

    /// What is due and not issued.
    fn due(
        &self,
        customers: &Customers,
        history: &History<'_>,
        documents: &mut Documents,
    ) -> Result<Vec<Due>> {
        let issued: BTreeMap<(&str, i64), &str> = history
            .heads
            .iter()
            .map(|head| ((head.customer, head.at_us), head.id))
            .collect();
        let id_of = |due: &Due| issued.get(&(due.customer.as_str(), due.at_us)).copied();
        let due = self.asked_for(customers, documents)?;
        let (before, due): (Vec<Due>, Vec<Due>) =
            due.into_iter().partition(|due| id_of(due).is_some());
        let ids = before.iter().filter_map(id_of).map(str::to_owned);
        documents.issued_before = ids.collect();
        documents.already = before.into_iter().map(|due| due.customer).collect();
        match self.corrects {
            true => Ok(due),
            false => {
                let (due, left_out) = without_issued(history, due)?;
                documents.left_out = left_out;
                Ok(due)
            }
        }
    }

    /// What issued documents lack now, by customer, and what is due, rated.
    async fn rated(
        &self,
        customers: &Customers,
        (history, due): (&History<'_>, Vec<Due>),
        rates: &TaxRates,
        cut: &str,
        documents: &mut Documents,
    ) -> Result<(BTreeMap<String, Vec<Compared>>, Vec<Rated>)> {
        let correcter = Correcter {
            view: self.view,
            lake: self.lake,
            accounts: self.accounts,
            customers,
            settings: self.settings,
            calendar: self.calendar(),
            rates,
            cut,
            now_us: self.now_us,
        };
        let (correcting, is_asked_for) = corrected_by(self, &history.heads)?;
        let corrections = correcter.corrections(history, correcting, is_asked_for);
        let Corrections { of_customer, found } = corrections.await?;
        documents.take_in(found);
        let (mut rated, found) = rate_due(self.view, self.accounts, due).await?;
        documents.take_in(found);
        if !self.corrects {
            let in_advance = correcter.in_advance();
            let in_error = in_advance.leave_out_reaching_back(history, &mut rated);
            documents.in_error.extend(in_error.await?);
        }
        Ok((of_customer, rated))
    }

    /// What is rated with the instalments that it takes up, those that are due or taken back, and documents of nothing but corrections.
    async fn with_instalments(
        &self,
        customers: &Customers,
        (history, mut rated): (&History<'_>, Vec<Rated>),
        made_by: MadeBy<'_>,
        before: &SoFar,
        documents: &mut Documents,
    ) -> Result<Vec<Rated>> {
        let (calendar, now_us) = (self.calendar(), self.now_us);
        let begun = history.begun()?;
        take_up(&begun, &mut rated);
        if *self.which == Which::Due {
            let billed = (&begun, &before.billed);
            let running = instalments(made_by, calendar, billed, customers, now_us);
            let (running, found) = running.await?;
            documents.take_in(found);
            rated.extend(running);
            if self.corrects {
                let by = (self.accounts, made_by.definitions());
                take_back(&begun, by, calendar, now_us, &mut rated)?;
            }
        }
        rated.extend(self.alone(&rated, &before.corrections, &documents.left_out));
        Ok(rated)
    }

    /// Assembles documents of what is rated, in its order.
    fn assemble(
        &self,
        rated: Vec<Rated>,
        made_by: MadeBy<'_>,
        before: &mut SoFar,
        documents: &mut Documents,
    ) -> Result<()> {
        let mut rated = VecDeque::from(rated);
        while let Some(rated_now) = rated.pop_front() {
            let customer = &rated_now.due.customer;
            let mut in_error = documents.in_error.iter();
            if in_error.any(|known| known.customer == *customer) {
                continue;
            }
            let compared = before.corrections.remove(customer).unwrap_or_default();
            let first = compared.iter().find(|compared| compared.is_other);
            let first = first.map(|compared| compared.currency.clone());
            let currency = made_by.currency(&rated_now).or(first);
            let (compared, others): (Vec<Compared>, Vec<Compared>) = compared
                .into_iter()
                .partition(|compared| Some(&compared.currency) == currency.as_ref());
            if others.iter().any(|compared| compared.is_other) {
                // A document is in one currency: these are on the next one, or on one of their own.
                if !rated.iter().any(|rated| rated.due.customer == *customer) {
                    let at_us = self.now_us.max(rated_now.due.at_us).saturating_add(1);
                    rated.push_back(Rated::nothing(customer, at_us));
                }
                before.corrections.insert(customer.clone(), others);
            }
            before.assemble_one(&rated_now, made_by, compared, documents);
        }
        Ok(())
    }

    /// Documents of nothing but corrections: of customers who have no other document, where a job is asked to correct, where no later
    /// document is to come, and where the one that is due waits for a correction of what was edited.
    fn alone(
        &self,
        rated: &[Rated],
        corrections: &BTreeMap<String, Vec<Compared>>,
        left_out: &BTreeSet<String>,
    ) -> Vec<Rated> {
        let with_others: BTreeSet<&str> = rated
            .iter()
            .map(|rated| rated.due.customer.as_str())
            .collect();
        let customers = corrections.keys().filter(|customer| {
            !with_others.contains(customer.as_str())
                && (self.corrects
                    || left_out.contains(*customer)
                    || !self.accounts.goes_on_after(customer, self.now_us))
        });
        customers
            .map(|customer| Rated::nothing(customer, self.now_us))
            .collect()
    }

    /// What is due, in order of time and customer. Customers whose subscriptions make no sense are in error.
    fn asked_for(&self, customers: &Customers, documents: &mut Documents) -> Result<Vec<Due>> {
        let definitions = &self.view.catalog().definitions;
        let (calendar, time) = (self.calendar(), self.time()?);
        let places = customers.places_in(self.names);
        let mut all = Vec::new();
        for customer in places.map(|place| self.names.value(place)) {
            match due_of(self.accounts, definitions, calendar, customer, time) {
                Ok(due) => all.extend(due),
                Err(error) => {
                    documents.in_error.insert(InError {
                        customer: customer.to_owned(),
                        what: Faulty::Invoice,
                        reason: chain(&error),
                    });
                }
            }
        }
        let mut asked_for = Vec::with_capacity(all.len());
        for due in all {
            let is_asked_for = match self.which {
                Which::Month(month) => is_of_month(&due, month, calendar.zone)?,
                Which::Due => due.issued_from_us(definitions) <= self.now_us,
            };
            asked_for.extend(is_asked_for.then_some(due));
        }
        asked_for.sort_by(|a, b| (a.at_us, &a.customer).cmp(&(b.at_us, &b.customer)));
        Ok(asked_for)
    }

    /// The time that has what is asked for: every zone's month lies in that of a month.
    fn time(&self) -> Result<(i64, i64)> {
        Ok(match self.which {
            Which::Month(month) => {
                let month = Period::month(month, "UTC")?;
                let day_us = tollgate_sql::window::DAY_US;
                (
                    month.start_us.saturating_sub(day_us),
                    month.end_us.saturating_add(day_us),
                )
            }
            Which::Due => (i64::MIN, self.now_us),
        })
    }

    /// Notes when documents are due that wait.
    async fn note_waiting(&self, documents: &mut Documents) -> Result<()> {
        let due = documents.made.iter();
        let due: BTreeSet<i64> = due.filter_map(|(at_us, _)| *at_us).collect();
        for at_us in due {
            if at_us > self.now_us || !is_complete(self.view, at_us).await? {
                documents.waiting.insert(at_us);
            }
        }
        Ok(())
    }
}

/// What was billed before a document, and what is to be on it beside what is due.
struct SoFar {
    billed: Billed,
    burnt: Burnt,
    taken: Taken,
    corrections: BTreeMap<String, Vec<Compared>>,
}

impl SoFar {
    /// Makes a document, which is before the next ones then.
    fn assemble_one(
        &mut self,
        rated: &Rated,
        made_by: MadeBy<'_>,
        compared: Vec<Compared>,
        documents: &mut Documents,
    ) {
        let customer = &rated.due.customer;
        let differing = compared.iter().filter(|compared| compared.is_other);
        let corrections: Vec<Correction> = differing
            .map(|compared| compared.correction.clone())
            .collect();
        let differences = compared.iter().flat_map(|compared| &compared.differences);
        self.billed.add(differences);
        let before = (&self.billed, self.burnt.of_customer(customer));
        match made_by.invoice(rated, before, &corrections) {
            Ok(None) => {}
            Ok(Some(mut invoice)) => {
                invoice.id = self.taken.unused(&invoice.id);
                let own = invoice.lines.iter();
                self.billed.add(own.filter(|line| line.corrects.is_none()));
                self.burnt.add(customer, &invoice.burns);
                documents.invoices.push(invoice);
                let corrected = compared.iter();
                let corrected =
                    corrected.map(|compared| (compared.number.clone(), compared.basis.clone()));
                let basis = Basis {
                    corrected: corrected.collect(),
                    ..made_by.basis(rated)
                };
                let at_us = complete_at(rated, &compared);
                documents.made.push((at_us, basis.to_json()));
                documents.compared.extend(compared);
            }
            Err(error) => {
                documents.in_error.insert(InError {
                    customer: customer.clone(),
                    what: Faulty::Invoice,
                    reason: format!("no invoice can be made of its charges: {}", chain(&error)),
                });
            }
        }
    }
}

/// When what is on a document is complete: at the end of what is corrected, if nothing else is billed; `None` of what waits for nothing.
fn complete_at(rated: &Rated, compared: &[Compared]) -> Option<i64> {
    let others = compared.iter().filter(|compared| compared.is_other);
    let last_us = others.map(|compared| compared.at_us).max();
    match (&rated.instalment, rated.is_nothing()) {
        (Some(_), _) => None,
        // Instalments that are taken back wait for nothing.
        (None, true) if !rated.begun.is_empty() => last_us,
        (None, true) => Some(last_us.unwrap_or(rated.due.at_us)),
        (None, false) => Some(rated.due.at_us),
    }
}

/// What is corrected, and of which documents: those of a month belong to it by the zone of their customer when their period began, as
/// [`is_of_month`] says.
fn corrected_by<'a>(
    job: &Job<'a>,
    heads: &[Head<'_>],
) -> Result<(Correcting, impl Fn(&Head<'_>) -> bool + use<'a>)> {
    let (accounts, default_zone) = (job.accounts, job.settings.time_zone.as_str());
    let zone_of = move |head: &Head<'_>| {
        let rows = accounts.customer(head.customer);
        let customer = accounts.customer_at(head.customer, head.period.start_us);
        // The first zone is that of the time before its row too.
        let customer = customer.or(rows.first());
        let zone = customer.and_then(|customer| customer.time_zone.as_deref());
        zone.unwrap_or(default_zone)
    };
    let (correcting, month) = match (job.corrects, job.which) {
        (false, _) => (Correcting::Usage, None),
        (true, Which::Due) => (Correcting::Everything, None),
        (true, Which::Month(month)) => (Correcting::Everything, Some(month)),
    };
    let mut months: BTreeMap<&str, Period> = BTreeMap::new();
    if let Some(month) = month {
        for zone in heads.iter().map(zone_of).collect::<BTreeSet<_>>() {
            months.insert(zone, Period::month(month, zone)?);
        }
    }
    let is_of_all = month.is_none();
    let is_asked_for = move |head: &Head<'_>| {
        let month = months.get(zone_of(head));
        is_of_all
            || month.is_some_and(|month| month.start_us < head.at_us && head.at_us <= month.end_us)
    };
    Ok((correcting, is_asked_for))
}

/// Whether every shard is caught up to an instant, with all windows before it closed.
async fn is_complete(view: &View, at_us: i64) -> Result<bool> {
    let until = Period::of(
        invoice::Period {
            start_us: at_us.saturating_sub(1),
            end_us: at_us,
        },
        "UTC",
    )?;
    Ok(view.unfinished_shard(&until).await?.is_none())
}

/// What no document has billed of what was due by now: documents that are not issued, and what issued ones lack or have too much.
/// It is what a job would issue now that is asked to correct.
///
/// # Errors
/// The lake cannot be read; a price fails and it cannot be told for which customer.
pub(super) async fn unissued_documents(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    now_us: i64,
) -> Result<Vec<Unissued>> {
    let asked = Asked {
        which: &Which::Due,
        customer: None,
        corrects: true,
    };
    let accounts = Arc::new(ByRange::begin(lake, None).await?);
    let job = DocumentsInRanges::begin(view, lake, settings, &accounts, asked, now_us);
    let (mut job, mut rows) = (job.await?, Vec::new());
    while let Some(documents) = job.next().await? {
        rows.extend(unissued_of(&documents, now_us)?);
    }
    rows.sort_by(|a, b| {
        (&a.customer, a.period, &a.number).cmp(&(&b.customer, b.period, &b.number))
    });
    // One reason is enough to say of a customer.
    rows.dedup_by(|a, b| a.customer == b.customer && a.amount.is_none() && b.amount.is_none());
    Ok(rows)
}

/// What documents say that is unissued.
fn unissued_of(documents: &Documents, now_us: i64) -> Result<Vec<Unissued>> {
    let mut compared: BTreeMap<&str, Vec<&Compared>> = BTreeMap::new();
    for of in &documents.compared {
        compared.entry(&of.customer).or_default().push(of);
    }
    let mut rows = Vec::new();
    for invoice in &documents.invoices {
        let mut left = invoice.total.to_exact();
        let compared = compared.get(invoice.customer.as_str());
        for compared in compared.into_iter().flatten() {
            let amount = invoice.corrected(&compared.number);
            let amount = amount.map_err(tollgate_sql::Error::from)?;
            left = left
                .checked_sub(amount)
                .map_err(tollgate_sql::Error::from)?;
            if !amount.is_zero() {
                rows.push(Unissued {
                    customer: invoice.customer.clone(),
                    plan: compared.plan.clone(),
                    period: compared.correction.period,
                    number: Some(compared.number.clone()),
                    currency: invoice.total.currency().code().to_owned(),
                    amount: Some(amount),
                    cause: changed(&compared.causes),
                });
            }
        }
        if invoice.lines.iter().any(|line| line.corrects.is_none()) {
            rows.push(Unissued {
                amount: Some(left),
                ..Unissued::of_draft(invoice)
            });
        }
    }
    for known in &documents.in_error {
        rows.push(Unissued {
            customer: known.customer.clone(),
            plan: String::new(),
            period: invoice::Period {
                start_us: now_us,
                end_us: now_us,
            },
            number: None,
            currency: String::new(),
            amount: None,
            cause: untold(&known.reason),
        });
    }
    Ok(rows)
}

/// Documents of subscriptions that are being issued, part by part.
pub struct Issuing {
    numbering: Numbering,
    /// The serial of the last document before these.
    last: i64,
    inputs: Inputs,
}

impl Issuing {
    /// Begins: nothing is issued before [`Issuing::commit`].
    ///
    /// # Errors
    /// The lake cannot be read or written.
    pub async fn begin(lake: &Lake, clock: &dyn Clock) -> Result<Self> {
        let numbering = Numbering::begin(lake, clock.now_us()).await?;
        Ok(Issuing {
            last: numbering.last(),
            numbering,
            inputs: Inputs::default(),
        })
    }

    /// Numbers documents that do not wait, and writes them where no reader sees them yet; returns them.
    ///
    /// # Errors
    /// Another job issued since these were made; the lake cannot be written.
    pub async fn add(&mut self, documents: Documents) -> Result<Vec<Invoice>> {
        // What another job issued since may be these very documents, or have billed or burnt what they do.
        if self.last != documents.last {
            return Err(issued_meanwhile());
        }
        let Documents {
            invoices,
            made,
            waiting,
            inputs,
            issued_by,
            ..
        } = documents;
        let (mut issued, mut bases) = (Vec::new(), Vec::new());
        for (mut draft, (at_us, basis)) in invoices.into_iter().zip(made) {
            if !waits(&waiting, at_us) {
                draft.issued_by.clone_from(&issued_by);
                issued.push(draft);
                bases.push(basis);
            }
        }
        self.inputs.extend(inputs);
        self.numbering.add(&mut issued, bases).await?;
        Ok(issued)
    }

    /// Issues all that was added.
    ///
    /// # Errors
    /// Another job issued since; the lake cannot be written. Running the job again is safe after any of them.
    pub async fn commit(self, lake: &Lake) -> Result<()> {
        self.numbering.commit(lake, &self.inputs).await
    }
}

/// Issues documents that do not wait, in order.
///
/// # Errors
/// Another job issued at the same time; the lake cannot be written. Running it again is safe after any of them.
pub async fn issue_documents(
    lake: &Lake,
    mut documents: Documents,
    clock: &dyn Clock,
) -> Result<Issued> {
    let mut issuing = Issuing::begin(lake, clock).await?;
    let already = std::mem::take(&mut documents.already);
    let issued = issuing.add(documents).await?;
    issuing.commit(lake).await?;
    Ok(Issued {
        issued,
        already,
        ..Issued::default()
    })
}
