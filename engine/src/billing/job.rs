//! The invoice job over subscriptions: the documents that are due, rated, assembled and issued once.

use super::{
    Issued, NUMBER_MARK,
    billed::{Billed, sum_on},
    burnt::Burnt,
    commit_invoices,
    credits::check_burns,
    cut, derive_line_items,
    documents::{self, issued_table, of_customer, rows_where, untold},
    due::{Due, due_of, is_of_month},
    issued_meanwhile,
    kept::{Inputs, keep},
    subscribed::{Charged, Rated, rate_due},
    tables_to_issue,
};
use crate::{
    clock::Clock,
    config::BillingSettings,
    error::{Error, Faulty, InError, Result, chain},
    tables,
    view::View,
};
use arrow::array::AsArray;
use datafusion::prelude::lit;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    accounts::{Customer, Discount, Grant, Index, OneOff},
    credits::Burn,
    definitions::{MinimumProration, PlanDefinition},
    functions::prorate::{SHARE_DIGITS, sum_of_shares},
    invoice::{
        self, Invoice,
        basis::{Basis, RatedBy},
        bounds::{self, Bounds},
        changes::{Cause, Change, change},
        document::{Document, OfPlan, Tax, document},
        taxes::{self, TaxRate},
        unissued::Unissued,
    },
    money::{Currency, Exact, Money, Rounding, share},
    period::Period,
    rating::Charge,
    subscriptions::Cycle,
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
    /// When each is due, and what it is made from, as JSON.
    made: Vec<(i64, String)>,
    /// What all of them are rated by.
    inputs: Inputs,
    /// Customers who get none until their usage, a price or an account is mended, and why.
    pub in_error: BTreeSet<InError>,
    /// Customers whose document of the same time was issued before.
    pub already: Vec<String>,
    /// The number of the last document that was issued when these were made.
    last: i64,
    /// When documents are due that wait: for that time, or for usage that may still be on its way.
    pub waiting: BTreeSet<i64>,
}

/// Makes the documents of subscriptions that are asked for, of one customer or all.
///
/// # Errors
/// The lake cannot be read; a price fails and it cannot be told for which customer; the month is not one.
pub async fn documents_of(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    accounts: &Index,
    asked: (&Which, Option<&str>),
    now_us: i64,
) -> Result<Documents> {
    // All of it by one snapshot: what is issued from here on is seen by the number when these are.
    let (mut last, mut rows) = (0, Vec::new());
    if let Some(invoices) = issued_table(lake).await? {
        last = invoices.mark(NUMBER_MARK).unwrap_or(0);
        rows = rows_where(&invoices, of_customer(asked.1)).await?;
    }
    let ids = rows
        .iter()
        .flat_map(|rows| rows["invoice"].as_string::<i32>().iter().flatten());
    let issued: BTreeSet<String> = ids.map(str::to_owned).collect();
    let before = (&issued, Billed::of(&rows)?, Burnt::in_rows(&rows)?);
    let documents = made_after(view, settings, accounts, asked, now_us, before).await?;
    Ok(Documents { last, ..documents })
}

/// The documents that are asked for after those that are issued, with what these billed and burnt.
async fn made_after(
    view: &View,
    settings: &BillingSettings,
    accounts: &Index,
    (which, customer): (&Which, Option<&str>),
    now_us: i64,
    (issued, mut billed, mut burnt): (&BTreeSet<String>, Billed, Burnt),
) -> Result<Documents> {
    let mut documents = Documents::default();
    let due = asked_for(
        view,
        settings,
        accounts,
        (which, customer),
        now_us,
        &mut documents,
    )?;
    let is_issued = |due: &Due| {
        issued.contains(invoice::InvoiceId::of_document(&due.customer, due.at_us).as_str())
    };
    let (before, due): (Vec<Due>, Vec<Due>) = due.into_iter().partition(is_issued);
    documents.already = before.into_iter().map(|due| due.customer).collect();
    let (rated, found) = rate_due(view, accounts, due).await?;
    documents.in_error.extend(found.in_error);
    documents.inputs = found.inputs;
    let cut = cut(view).await?;
    let (rates, rated_by_taxes) = tax_rates(view, settings, &mut documents.inputs)?;
    for rated in rated {
        let customer = &rated.due.customer;
        if documents
            .in_error
            .iter()
            .any(|known| known.customer == *customer)
        {
            continue;
        }
        let before = (&billed, burnt.of_customer(customer));
        match assembled((view, accounts), &rates, before, &rated, &cut) {
            Ok(None) => {}
            Ok(Some(invoice)) => {
                billed.add(&invoice.lines);
                burnt.add(customer, &invoice.burns);
                let mut basis = basis_of(&rated);
                if !invoice.tax.to_exact().is_zero() {
                    basis.rated_by.extend(&rated_by_taxes);
                }
                documents.invoices.push(invoice);
                documents.made.push((rated.due.at_us, basis.to_json()));
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
    let due: BTreeSet<i64> = documents.made.iter().map(|(at_us, _)| *at_us).collect();
    for at_us in due {
        if at_us > now_us || !is_complete(view, at_us).await? {
            documents.waiting.insert(at_us);
        }
    }
    Ok(documents)
}

/// What is due, in order of time and customer. Customers whose subscriptions make no sense are in error.
fn asked_for(
    view: &View,
    settings: &BillingSettings,
    accounts: &Index,
    (which, customer): (&Which, Option<&str>),
    now_us: i64,
    documents: &mut Documents,
) -> Result<Vec<Due>> {
    let zone = &settings.time_zone;
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
        match due_of(accounts, definitions, zone, customer, time) {
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
            Which::Month(month) => is_of_month(&due, month, zone)?,
            Which::Due => due.issued_from_us(definitions) <= now_us,
        };
        asked_for.extend(is_asked_for.then_some(due));
    }
    asked_for.sort_by(|a, b| (a.at_us, &a.customer).cmp(&(b.at_us, &b.customer)));
    Ok(asked_for)
}

/// The document; `None` when there is nothing to bill.
fn assembled(
    (view, accounts): (&View, &Index),
    rates: &[TaxRate],
    (billed, burnt): (&Billed, &[Burn]),
    rated: &Rated,
    cut: &str,
) -> Result<Option<Invoice>> {
    let due = &rated.due;
    let discounts: Vec<&Discount> = accounts.discounts_of(&due.customer).collect();
    let mut all = Vec::new();
    for charged in &rated.charged {
        let plan = view.catalog().definitions.plan(&charged.plan);
        let plan = plan.ok_or(Error::Contradiction {
            what: "a plan with charges is defined",
        })?;
        let cycle = charged.cycle_of(due);
        let of = (cycle.subscription.as_str(), plan);
        let charges = match charged.is_opening {
            true => billed.left(of, cycle, &charged.charges, &discounts)?,
            false => {
                let mut charges = charged.charges.clone();
                charges.extend(billed.left(of, cycle, &charged.in_advance, &discounts)?);
                charges
            }
        };
        all.push((plan, charged, cycle, charges));
    }
    let mut plans = Vec::with_capacity(all.len());
    for (plan, charged, cycle, charges) in &all {
        plans.push(OfPlan {
            plan,
            subscription: Some(&cycle.subscription),
            period: (&cycle.period).into(),
            charges,
            bounds: match charged.is_opening {
                true => Bounds::default(),
                false => bounds_of(plan, cycle, charged)?,
            },
            counted: match charged.is_opening {
                true => Exact::ZERO,
                false => billed.in_advance((&cycle.subscription, plan), cycle)?,
            },
        });
    }
    let first_currency = plans.first().map(|of_plan| of_plan.plan.currency.as_str());
    let one_off = due
        .one_offs
        .first()
        .map(|one_off| one_off.currency.as_str());
    let Some(currency) = first_currency.or(one_off) else {
        return Ok(None);
    };
    let customer = accounts.customer(&due.customer).iter();
    let regions: Vec<(i64, Option<&str>)> = customer.map(taxed_from).collect();
    let one_offs: Vec<&OneOff> = due.one_offs.iter().collect();
    let grants: Vec<&Grant> = accounts.grants_of(&due.customer).collect();
    let of = Document {
        id: invoice::InvoiceId::of_document(&due.customer, due.at_us),
        customer: &due.customer,
        period: due.period(),
        cut,
        currency,
        one_offs: &one_offs,
        discounts: &discounts,
        tax: Tax {
            regions: &regions,
            rates,
        },
        grants: &grants,
        burnt,
    };
    let invoice = document(of, &plans)?;
    check_burns(&grants, burnt, &invoice.burns)?;
    Ok((!invoice.lines.is_empty()).then_some(invoice))
}

/// From when on a row of a customer says which region taxes it; none of an exempt customer.
fn taxed_from(row: &Customer) -> (i64, Option<&str>) {
    let region = row.tax_region.as_deref();
    let region = region.filter(|_| !row.tax_exempt);
    (row.valid_from_us.unwrap_or(i64::MIN), region)
}

/// What a plan costs at most and at least for the days that a subscription is on it.
fn bounds_of(plan: &PlanDefinition, cycle: &Cycle, charged: &Charged) -> Result<Bounds> {
    let part = cycle.parts.iter().find(|part| part.plan == plan.name);
    let segments = part.map_or(&[][..], |part| part.segments.as_slice());
    let days = cycle.period.days_ended();
    let whole_fee = match plan.terms.minimum_proration {
        MinimumProration::Minimum => Exact::ZERO,
        MinimumProration::MinimumLessFees => whole_fee(plan, cycle, charged)?,
    };
    let mut bounds = Bounds::default();
    let add = |sum: &mut Option<Exact>, amount: Exact| -> Result<()> {
        let before = sum.unwrap_or(Exact::ZERO);
        let after = before
            .checked_add(amount)
            .map_err(tollgate_sql::Error::from)?;
        *sum = Some(after);
        Ok(())
    };
    for segment in segments {
        if let Some(minimum) = segment.minimum.or(plan.terms.minimum) {
            let minimum = bounds::less_fees(minimum, whole_fee, segment.active_days, days)?;
            add(&mut bounds.minimum, minimum)?;
        }
        if let Some(maximum) = segment.maximum.or(plan.terms.maximum) {
            let maximum = bounds::for_days(maximum, segment.active_days, days)?;
            add(&mut bounds.maximum, maximum)?;
        }
    }
    Ok(Bounds {
        minimum: bounds.minimum.map(sum_of_shares),
        maximum: bounds.maximum.map(sum_of_shares),
    })
}

/// What the fixed prices of a plan cost for a whole period, by what they cost in the last segment.
fn whole_fee(plan: &PlanDefinition, cycle: &Cycle, charged: &Charged) -> Result<Exact> {
    let segments = cycle.parts.iter().filter(|part| part.plan == plan.name);
    let Some(last) = segments.flat_map(|part| &part.segments).next_back() else {
        return Ok(Exact::ZERO);
    };
    let of_last = |charge: &&Charge| {
        charge.is_fixed
            && charge
                .service
                .is_some_and(|service| service.start_us == last.from_us)
    };
    let fixed = charged.charges.iter().chain(&charged.in_advance);
    let currency = Currency::parse(&plan.currency).map_err(tollgate_sql::Error::from)?;
    let sum = sum_on(plan, fixed.filter(of_last))?;
    let (days, active) = (
        Exact::from(cycle.period.days_ended()),
        Exact::from(last.active_days),
    );
    if active == Exact::ZERO {
        return Ok(Exact::ZERO);
    }
    let whole = share(sum, days, active, SHARE_DIGITS, Rounding::HalfAway);
    let whole = whole.and_then(|whole| Money::round(whole, currency));
    Ok(whole.map_err(tollgate_sql::Error::from)?.to_exact())
}

/// The rows of the rate table of taxes, and what a document with taxes is rated by for them.
///
/// # Errors
/// It has no columns `region` and `rate_percent`.
fn tax_rates(
    view: &View,
    settings: &BillingSettings,
    inputs: &mut Inputs,
) -> Result<(Vec<TaxRate>, RatedBy)> {
    let mut rated_by = RatedBy::default();
    let catalog = view.catalog();
    let tables = catalog
        .definitions
        .rate_tables
        .iter()
        .zip(&catalog.rate_tables);
    let mut named = tables.filter(|(table, _)| table.name == settings.tax_rates);
    let Some((table, rows)) = named.next() else {
        return Ok((Vec::new(), rated_by));
    };
    let rates = taxes::rates_of(table, rows)?;
    inputs.note_rate_table((table, rows), &mut rated_by)?;
    Ok((rates, rated_by))
}

fn basis_of(rated: &Rated) -> Basis {
    let cycles = rated.due.closing.iter().chain(&rated.due.opening);
    Basis {
        usage: rated.usage.clone(),
        rated_by: rated.rated_by.clone(),
        zone: cycles.map(|cycle| cycle.period.zone().to_owned()).next(),
    }
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
///
/// All documents are made afresh in order of time, as if none had been issued, and compared one by one. So the rows of a customer
/// add up to what all of it comes to now, less what was billed; a customer for whom that is zero has none.
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
    let asked = (&Which::Due, None);
    let nothing = (&BTreeSet::new(), Billed::default(), Burnt::default());
    let now = made_after(view, settings, accounts, asked, now_us, nothing).await?;
    let mut issued = BTreeMap::new();
    if let Some(invoices) = lake.existing(tables::INVOICES).await? {
        for (id, document) in identified(&invoices).await? {
            issued.insert(id, document);
        }
    }
    let mut rows: BTreeMap<String, Vec<Unissued>> = BTreeMap::new();
    for (invoice, (_, basis)) in now.invoices.iter().zip(&now.made) {
        let row = match issued.remove(invoice.id.as_str()) {
            None => Some(Unissued::of_draft(invoice)),
            Some(document) => {
                let basis = Basis::from_json(basis).unwrap_or_default();
                let change = change(&document.issued, Some(invoice), &basis);
                let change = change.map_err(tollgate_sql::Error::from)?;
                let change = change.map(|change| match change.causes.as_slice() {
                    // Usage, prices and rate tables are as they were.
                    [Cause::Rating] => Change {
                        causes: vec![Cause::Accounts],
                        ..change
                    },
                    _ => change,
                });
                change.map(|change| Unissued::of_change(&change, &document.plan, document.period))
            }
        };
        if let Some(row) = row {
            rows.entry(row.customer.clone()).or_default().push(row);
        }
    }
    for known in &now.in_error {
        let row = Unissued {
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
        };
        // What is known of other documents says nothing of all.
        rows.insert(known.customer.clone(), vec![row]);
    }
    // A document that would not be made any more; invoices from before there were accounts count as issued.
    for (id, document) in issued {
        let customer = &document.issued.customer;
        let before = invoice::InvoiceId::new(customer, &document.plan, document.period);
        if before.as_str() == id || now.in_error.iter().any(|known| known.customer == *customer) {
            continue;
        }
        let change = change(&document.issued, None, &Basis::default());
        if let Some(change) = change.map_err(tollgate_sql::Error::from)? {
            let row = Unissued::of_change(&change, &document.plan, document.period);
            rows.entry(row.customer.clone()).or_default().push(row);
        }
    }
    let is_zero = |rows: &Vec<Unissued>| {
        let mut amounts = rows.iter().map(|row| row.amount);
        let sum = amounts.try_fold(Exact::ZERO, |sum, amount| sum.checked_add(amount?).ok());
        sum.is_some_and(Exact::is_zero)
    };
    rows.retain(|_, rows| !is_zero(rows));
    Ok(rows.into_values().flatten().collect())
}

/// Issued documents by their ids.
async fn identified(invoices: &dyn Table) -> Result<Vec<(String, documents::Document)>> {
    let mut all = Vec::new();
    for batch in rows_where(invoices, lit(true)).await? {
        let ids = batch["invoice"].as_string::<i32>();
        for row in 0..batch.num_rows() {
            all.push((ids.value(row).to_owned(), documents::document(&batch, row)?));
        }
    }
    Ok(all)
}

/// Issues documents that do not wait, in order.
///
/// # Errors
/// Another job issued at the same time; the lake cannot be written. Running it again is safe after any of them.
pub async fn issue_documents(
    lake: &Lake,
    documents: Documents,
    clock: &dyn Clock,
) -> Result<Issued> {
    let (mut invoices, mut line_items) = tables_to_issue(lake).await?;
    // What another job issued since may be these very documents, or have billed or burnt what they do.
    if invoices.mark(NUMBER_MARK).unwrap_or(0) != documents.last {
        return Err(issued_meanwhile());
    }
    let now_us = clock.now_us();
    let mut outcome = Issued {
        already: documents.already,
        ..Issued::default()
    };
    let mut bases = Vec::new();
    for (draft, (at_us, basis)) in documents.invoices.into_iter().zip(documents.made) {
        if !documents.waiting.contains(&at_us) {
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
