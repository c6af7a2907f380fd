//! The invoice job over subscriptions: the documents that are due, rated, assembled and issued once.

use super::{
    Issued, NUMBER_MARK,
    assembly::{MadeBy, TaxRates},
    billed::Billed,
    burnt::Burnt,
    commit_invoices,
    corrections::{Compared, Correcter, Correcting, Corrections, without_issued},
    cut, derive_line_items,
    documents::{issued_table, of_customer, rows_where, untold},
    due::{Due, due_of, is_of_month},
    instalments::{instalments, take_back, take_up},
    issued::{Head, History},
    issued_meanwhile,
    kept::{Inputs, keep},
    standing::{Taken, standing},
    starts::{Calendar, Starts},
    subscribed::{Found, Rated, rate_due},
    tables_to_issue,
};
use crate::{
    clock::Clock,
    config::BillingSettings,
    error::{Faulty, InError, Result, chain},
    view::View,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tollgate_connectors::{Table, lake::Lake};
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
    /// In order of time and customer.
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
    /// When documents are due that wait: for that time, or for usage that may still be on its way.
    pub waiting: BTreeSet<i64>,
    /// Who issues them, if that is to be kept.
    pub issued_by: Option<String>,
}

impl Documents {
    /// Those that do not wait.
    pub fn to_issue(&self) -> Vec<&Invoice> {
        let made = self.invoices.iter().zip(&self.made);
        let to_issue = made.filter(|(_, (at_us, _))| !self.waits(*at_us));
        to_issue.map(|(invoice, _)| invoice).collect()
    }

    fn waits(&self, at_us: Option<i64>) -> bool {
        at_us.is_some_and(|at_us| self.waiting.contains(&at_us))
    }

    fn take_in(&mut self, found: Found) {
        self.in_error.extend(found.in_error);
        self.inputs.extend(found.inputs);
    }
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

/// Makes the documents of subscriptions that are asked for, of one customer or all. What issued documents lack or have too much is on
/// the customer's first document; without one, on a document of its own where a job is asked to correct, and where no subscription
/// of the customer goes on.
///
/// # Errors
/// The lake cannot be read; a price fails and it cannot be told for which customer; the month is not one.
pub async fn documents_of(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    accounts: &Index,
    asked: Asked<'_>,
    now_us: i64,
) -> Result<Documents> {
    // All of it by one snapshot: what is issued from here on is seen by the number when these are.
    let (mut last, mut all) = (0, Vec::new());
    if let Some(invoices) = issued_table(lake).await? {
        last = invoices.mark(NUMBER_MARK).unwrap_or(0);
        all = rows_where(&invoices, of_customer(asked.customer)).await?;
    }
    let (mut burnt, mut taken) = (Burnt::in_rows(&all)?, Taken::of(&all));
    let rows = standing(all)?;
    let history = History::of(&rows, &taken);
    taken.extend(history.instalment_ids());
    let issued: BTreeMap<(&str, i64), &str> = history
        .heads
        .iter()
        .map(|head| ((head.customer, head.at_us), head.id))
        .collect();
    let id_of = |due: &Due| issued.get(&(due.customer.as_str(), due.at_us)).copied();
    let mut before_accounts = history.before_accounts();
    if let Some(customer) = asked.customer {
        before_accounts.extend(Starts::of_subjects(lake, accounts, customer).await?);
    }
    let starts = Starts::new(settings, before_accounts)?;
    let calendar = Calendar {
        zone: &settings.time_zone,
        starts: &starts,
    };
    let mut documents = Documents {
        last,
        ..Documents::default()
    };
    let due = asked_for(view, calendar, accounts, asked, now_us, &mut documents)?;
    let (before, due): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| id_of(due).is_some());
    let ids = before.iter().filter_map(id_of).map(str::to_owned);
    documents.issued_before = ids.collect();
    documents.already = before.into_iter().map(|due| due.customer).collect();
    let due = match asked.corrects {
        true => due,
        false => without_issued(&history, due)?,
    };
    let cut = cut(view).await?;
    let rates = TaxRates::of(view.catalog(), settings, &mut documents.inputs)?;
    let correcter = Correcter {
        view,
        lake,
        accounts,
        customer: asked.customer,
        settings,
        calendar,
        rates: &rates,
        cut: &cut,
        now_us,
    };
    let (correcting, is_asked_for) = corrected_by(asked, accounts, calendar.zone, &history.heads)?;
    let Corrections {
        of_customer: mut corrections,
        found,
    } = correcter
        .corrections(&history, correcting, is_asked_for)
        .await?;
    documents.take_in(found);
    let (mut rated, found) = rate_due(view, accounts, due).await?;
    documents.take_in(found);
    if !asked.corrects {
        correcter
            .in_advance()
            .leave_out_reaching_back(&history, &mut rated)
            .await?;
    }
    let made_by = MadeBy {
        view,
        accounts,
        rates: &rates,
        cut: &cut,
    };
    let mut billed = Billed::of(&rows)?;
    let begun = history.begun()?;
    take_up(&begun, &mut rated);
    if *asked.which == Which::Due {
        let before = (&begun, &billed);
        let (running, found) =
            instalments(made_by, calendar, before, asked.customer, now_us).await?;
        documents.take_in(found);
        rated.extend(running);
    }
    if asked.corrects && *asked.which == Which::Due {
        let by = (accounts, &view.catalog().definitions);
        take_back(&begun, by, calendar, now_us, &mut rated)?;
    }
    rated.extend(alone(accounts, &rated, &corrections, asked, now_us));
    let mut rated = VecDeque::from(rated);
    while let Some(rated_now) = rated.pop_front() {
        let customer = &rated_now.due.customer;
        if documents
            .in_error
            .iter()
            .any(|known| known.customer == *customer)
        {
            continue;
        }
        let compared = corrections.remove(customer).unwrap_or_default();
        let first = compared.iter().find(|compared| compared.is_other);
        let first = first.map(|compared| compared.currency.clone());
        let currency = made_by.currency(&rated_now).or(first);
        let (compared, others): (Vec<Compared>, Vec<Compared>) = compared
            .into_iter()
            .partition(|compared| Some(&compared.currency) == currency.as_ref());
        if others.iter().any(|compared| compared.is_other) {
            // A document is in one currency: these are on the next one, or on one of their own.
            if !rated.iter().any(|rated| rated.due.customer == *customer) {
                let at_us = now_us.max(rated_now.due.at_us).saturating_add(1);
                rated.push_back(Rated::nothing(customer, at_us));
            }
            corrections.insert(customer.clone(), others);
        }
        let differing = compared.iter().filter(|compared| compared.is_other);
        let corrections: Vec<Correction> = differing
            .map(|compared| compared.correction.clone())
            .collect();
        billed.add(compared.iter().flat_map(|compared| &compared.differences));
        let before = (&billed, burnt.of_customer(customer));
        match made_by.invoice(&rated_now, before, &corrections) {
            Ok(None) => {}
            Ok(Some(mut invoice)) => {
                invoice.id = taken.unused(&invoice.id);
                billed.add(invoice.lines.iter().filter(|line| line.corrects.is_none()));
                burnt.add(customer, &invoice.burns);
                documents.invoices.push(invoice);
                // Complete at the end of what is corrected, if nothing else is billed.
                let others = compared.iter().filter(|compared| compared.is_other);
                let last_us = others.map(|compared| compared.at_us).max();
                let at_us = match (&rated_now.instalment, rated_now.is_nothing()) {
                    (Some(_), _) => None,
                    // Instalments that are taken back wait for nothing.
                    (None, true) if !rated_now.begun.is_empty() => last_us,
                    (None, true) => Some(last_us.unwrap_or(rated_now.due.at_us)),
                    (None, false) => Some(rated_now.due.at_us),
                };
                let corrected = compared.iter();
                let corrected =
                    corrected.map(|compared| (compared.number.clone(), compared.basis.clone()));
                let basis = Basis {
                    corrected: corrected.collect(),
                    ..made_by.basis(&rated_now)
                };
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
    let due = documents.made.iter();
    let due: BTreeSet<i64> = due.filter_map(|(at_us, _)| *at_us).collect();
    for at_us in due {
        if at_us > now_us || !is_complete(view, at_us).await? {
            documents.waiting.insert(at_us);
        }
    }
    Ok(documents)
}

/// What is corrected, and of which documents: those of a month belong to it by the zone of their customer when their period began, as
/// [`is_of_month`] says.
fn corrected_by<'a>(
    asked: Asked<'_>,
    accounts: &'a Index,
    default_zone: &'a str,
    heads: &[Head<'_>],
) -> Result<(Correcting, impl Fn(&Head<'_>) -> bool + 'a)> {
    let zone_of = move |head: &Head<'_>| {
        let rows = accounts.customer(head.customer);
        let customer = accounts.customer_at(head.customer, head.period.start_us);
        // The first zone is that of the time before its row too.
        let customer = customer.or(rows.first());
        let zone = customer.and_then(|customer| customer.time_zone.as_deref());
        zone.unwrap_or(default_zone)
    };
    let (correcting, month) = match (asked.corrects, asked.which) {
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

/// Documents of nothing but corrections: of customers who have no other document, where a job is asked to correct, and where no
/// later document is to come.
fn alone(
    accounts: &Index,
    rated: &[Rated],
    corrections: &BTreeMap<String, Vec<Compared>>,
    asked: Asked<'_>,
    now_us: i64,
) -> Vec<Rated> {
    let with_others: BTreeSet<&str> = rated
        .iter()
        .map(|rated| rated.due.customer.as_str())
        .collect();
    let customers = corrections.keys().filter(|customer| {
        !with_others.contains(customer.as_str())
            && (asked.corrects || !accounts.goes_on_after(customer, now_us))
    });
    customers
        .map(|customer| Rated::nothing(customer, now_us))
        .collect()
}

/// What is due, in order of time and customer. Customers whose subscriptions make no sense are in error.
fn asked_for(
    view: &View,
    calendar: Calendar<'_>,
    accounts: &Index,
    Asked {
        which, customer, ..
    }: Asked<'_>,
    now_us: i64,
    documents: &mut Documents,
) -> Result<Vec<Due>> {
    let definitions = &view.catalog().definitions;
    let time = match which {
        Which::Month(month) => {
            // Every zone's month lies in it.
            let month = Period::month(month, "UTC")?;
            let day_us = tollgate_sql::window::DAY_US;
            (
                month.start_us.saturating_sub(day_us),
                month.end_us.saturating_add(day_us),
            )
        }
        Which::Due => (i64::MIN, now_us),
    };
    let mut customers: BTreeSet<&str> = accounts.customers().collect();
    customers.extend(
        accounts
            .subscriptions()
            .map(|rows| rows[0].customer.as_str()),
    );
    customers.retain(|known| customer.is_none_or(|asked| asked == *known));
    let mut all = Vec::new();
    for customer in customers {
        match due_of(accounts, definitions, calendar, customer, time) {
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
        let is_asked_for = match which {
            Which::Month(month) => is_of_month(&due, month, calendar.zone)?,
            Which::Due => due.issued_from_us(definitions) <= now_us,
        };
        asked_for.extend(is_asked_for.then_some(due));
    }
    asked_for.sort_by(|a, b| (a.at_us, &a.customer).cmp(&(b.at_us, &b.customer)));
    Ok(asked_for)
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
    accounts: &Index,
    now_us: i64,
) -> Result<Vec<Unissued>> {
    let asked = Asked {
        which: &Which::Due,
        customer: None,
        corrects: true,
    };
    let documents = documents_of(view, lake, settings, accounts, asked, now_us).await?;
    let mut rows = Vec::new();
    for invoice in &documents.invoices {
        let mut left = invoice.total.to_exact();
        let compared = documents.compared.iter();
        for compared in compared.filter(|compared| compared.customer == invoice.customer) {
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
    rows.sort_by(|a, b| {
        (&a.customer, a.period, &a.number).cmp(&(&b.customer, b.period, &b.number))
    });
    // One reason is enough to say of a customer.
    rows.dedup_by(|a, b| a.customer == b.customer && a.amount.is_none() && b.amount.is_none());
    Ok(rows)
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
    let (mut invoices, mut line_items) = tables_to_issue(lake).await?;
    // What another job issued since may be these very documents, or have billed or burnt what they do.
    if invoices.mark(NUMBER_MARK).unwrap_or(0) != documents.last {
        return Err(issued_meanwhile());
    }
    let now_us = clock.now_us();
    let mut outcome = Issued {
        already: std::mem::take(&mut documents.already),
        ..Issued::default()
    };
    let mut bases = Vec::new();
    let drafts = std::mem::take(&mut documents.invoices).into_iter();
    for (mut draft, (at_us, basis)) in drafts.zip(std::mem::take(&mut documents.made)) {
        if !documents.waits(at_us) {
            draft.issued_by.clone_from(&documents.issued_by);
            outcome.issued.push(draft);
            bases.push(basis);
        }
    }
    if !outcome.issued.is_empty() {
        keep(lake, &documents.inputs).await?;
        commit_invoices(&mut invoices, &mut outcome.issued, bases, now_us).await?;
        derive_line_items(&invoices, &mut line_items).await?;
    }
    Ok(outcome)
}
