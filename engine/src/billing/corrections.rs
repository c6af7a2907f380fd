//! Issued documents that later ones correct: which they are, and what they would be now.
//!
//! | | usage alone | everything |
//! |---|---|---|
//! | which documents | those for whose time panes or events were committed after their cut | all |
//! | by what | the accounts that the document knew; none whose prices, rate tables or plans are others now | what is known now |
//! | fixed prices | as they were issued | made anew |
//!
//! Usage alone is corrected by every job. Everything else waits in `unissued` until a job is asked to correct it.

use super::{
    accounts,
    advance::InAdvance,
    assembly::{MadeBy, TaxRates},
    billed::{Billed, is_fixed},
    due::{Due, due_of},
    issued::{Document, Head, History},
    kept::{self, Inputs, restore},
    starts::Calendar,
    subscribed::{Charged, Found, Rated, rate_due},
};
use crate::{
    config::BillingSettings,
    customers::Customers,
    error::{Error, Faulty, InError, Result, chain, query_error},
    view::{View, referenced},
};
use arrow::{
    array::AsArray,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::Index,
    definitions::PlanDefinition,
    invoice::{
        self, LineItem, LineKind,
        adjustments::{Beside, Correction, Taxed, standing},
        basis::{Basis, RatedBy},
        changes::{Cause, causes},
    },
    rating::Charge,
    session,
    subscriptions::Cycle,
    window::DAY_US,
};

/// The position of each shard.
type Cuts = BTreeMap<String, i64>;

/// What is corrected of issued documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Correcting {
    /// Usage that came since.
    Usage,
    /// Whatever has changed since.
    Everything,
}

/// Issued documents that are another now, by customer, each in the order in which they were issued, and what was found beside them.
/// With everything, those that are the same are among them.
pub(super) struct Corrections {
    pub(super) of_customer: BTreeMap<String, Vec<Compared>>,
    pub(super) found: Found,
}

/// An issued document and what it would be now.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) number: String,
    pub(super) customer: String,
    pub(super) plan: String,
    /// ISO 4217 code.
    pub(super) currency: String,
    /// When it was due.
    pub(super) at_us: i64,
    pub(super) correction: Correction,
    /// What it is made from now.
    pub(super) basis: Basis,
    /// Why it is another, if it is.
    pub(super) causes: Vec<Cause>,
    /// What it lacks, without credits and taxes.
    pub(super) differences: Vec<LineItem>,
    /// Whether it is another: by these, or by its taxes alone.
    pub(super) is_other: bool,
}

impl Compared {
    fn of(
        document: &Document<'_>,
        (issued, beside): (Vec<LineItem>, Vec<Beside>),
        (now, basis): (Vec<Taxed>, Basis),
    ) -> Result<Self> {
        let correction = Correction {
            number: Some(document.head.number.to_owned()),
            period: document.head.period,
            issued,
            now,
            beside,
        };
        let currency = document.currency()?;
        let differences = correction.differences(currency)?;
        let is_other = !differences.is_empty() || !correction.taxes(&[], currency)?.is_empty();
        Ok(Compared {
            number: document.head.number.to_owned(),
            customer: document.head.customer.to_owned(),
            plan: document.head.plan.to_owned(),
            currency: document.head.currency.to_owned(),
            at_us: document.head.at_us,
            causes: causes(document.basis.as_ref().unwrap_or(&basis), &basis),
            differences,
            is_other,
            correction,
            basis,
        })
    }
}

/// What is due without billing periods of which a document that was due at another time has billed some time, and without one-offs
/// that one has billed: an account or a plan was changed since, and what that comes to waits until a job is asked to correct. With it,
/// the customers of whom something is left out.
pub(super) fn without_issued(
    issued: &History<'_>,
    due: Vec<Due>,
) -> Result<(Vec<Due>, BTreeSet<String>)> {
    let mut periods: BTreeMap<&str, Vec<(i64, invoice::Period)>> = BTreeMap::new();
    for head in &issued.heads {
        periods
            .entry(head.customer)
            .or_default()
            .push((head.at_us, head.period));
    }
    let is_near = |due: &Due| {
        let others = periods.get(due.customer.as_str()).into_iter().flatten();
        let mut others = others.filter(|(at_us, _)| *at_us != due.at_us);
        others.any(|(_, period)| {
            due.closing
                .iter()
                .any(|cycle| meet(*period, cycle.closed()))
        })
    };
    let near: BTreeSet<String> = due
        .iter()
        .filter(|due| is_near(due) || !due.one_offs.is_empty())
        .map(|due| due.customer.clone())
        .collect();
    let documents = issued.by_customer(|customer| near.contains(customer))?;
    let mut left_out = BTreeSet::new();
    let left = due.into_iter().map(|mut due| {
        let documents = documents.get(due.customer.as_str());
        let documents = documents.map_or(&[][..], Vec::as_slice);
        let closed = documents
            .iter()
            .flat_map(|document| document.basis.iter().flat_map(|basis| &basis.closed));
        let closed: Vec<&(String, invoice::Period)> = closed.collect();
        due.closing.retain(|cycle| {
            let mut own = closed
                .iter()
                .filter(|(subscription, _)| *subscription == cycle.subscription);
            !own.any(|(_, period)| meet(*period, cycle.closed()))
        });
        due.one_offs.retain(|one_off| {
            let mut documents = documents.iter().flat_map(|document| &document.basis);
            !documents.any(|basis| basis.one_offs.contains(&one_off.one_off))
        });
        if due.is_nothing() {
            left_out.insert(due.customer.clone());
        }
        due
    });
    let left = left.filter(|due| !due.is_nothing()).collect();
    Ok((left, left_out))
}

fn meet(one: invoice::Period, other: invoice::Period) -> bool {
    one.start_us < other.end_us && other.start_us < one.end_us
}

/// By what corrections are made.
#[derive(Clone, Copy)]
pub(super) struct Correcter<'a> {
    pub(super) view: &'a View,
    pub(super) lake: &'a Lake,
    pub(super) accounts: &'a Index,
    /// Whose documents these are.
    pub(super) customers: &'a Customers,
    pub(super) settings: &'a BillingSettings,
    pub(super) calendar: Calendar<'a>,
    pub(super) rates: &'a TaxRates,
    pub(super) cut: &'a str,
    pub(super) now_us: i64,
}

/// That it cannot be told what a customer's documents would be now.
fn untold_of(customer: &str, error: &Error) -> InError {
    InError {
        customer: customer.to_owned(),
        what: Faulty::Invoice,
        reason: chain(error),
    }
}

impl Correcter<'_> {
    /// What is another now of issued documents. With everything, customers of whom it cannot be told are in error.
    ///
    /// # Errors
    /// The lake cannot be read, or a price fails and it cannot be told for which customer.
    pub(super) async fn corrections(
        &self,
        issued: &History<'_>,
        correcting: Correcting,
        is_asked_for: impl Fn(&Head<'_>) -> bool,
    ) -> Result<Corrections> {
        let heads = &issued.heads;
        let touched = match correcting {
            Correcting::Usage => self.touched(heads).await?,
            Correcting::Everything => heads
                .iter()
                .filter(|head| is_asked_for(head))
                .map(|head| head.serial)
                .collect(),
        };
        let touched = self.since_start(heads, touched);
        let of_touched = heads.iter().filter(|head| touched.contains(&head.serial));
        let of_touched: BTreeSet<&str> = of_touched.map(|head| head.customer).collect();
        let documents = issued.by_customer(|customer| of_touched.contains(customer))?;
        match correcting {
            Correcting::Usage => self.of_usage(&documents, &touched).await,
            Correcting::Everything => self.of_everything(&documents, &touched).await,
        }
    }

    /// Those of some documents, by serial, that are for no time before their customer is billed.
    fn since_start(&self, heads: &[Head<'_>], serials: BTreeSet<i64>) -> BTreeSet<i64> {
        let is_since = |head: &&Head<'_>| {
            let starts = self.calendar.starts;
            starts.of_customer(self.accounts, head.customer) <= head.period.start_us
        };
        let since = heads.iter().filter(|head| serials.contains(&head.serial));
        since.filter(is_since).map(|head| head.serial).collect()
    }

    /// Documents by the usage of now and all else as they were made.
    async fn of_usage(
        &self,
        documents: &BTreeMap<&str, Vec<Document<'_>>>,
        touched: &BTreeSet<i64>,
    ) -> Result<Corrections> {
        let mut by_accounts: BTreeMap<i64, Vec<&Document<'_>>> = BTreeMap::new();
        for document in documents.values().flatten() {
            let known = document.known();
            if let (Some((serial, _)), true) = (known, touched.contains(&document.head.serial)) {
                by_accounts.entry(serial).or_default().push(document);
            }
        }
        let (mut compared, mut found) = (Vec::new(), Found::default());
        for (serial, of_accounts) in by_accounts {
            let known;
            let accounts = match serial == self.accounts.serial() {
                true => self.accounts,
                false => {
                    known = accounts::load_until(self.lake, serial, self.customers).await?;
                    &known.indexed()
                }
            };
            let by_now = self.made_by(accounts);
            let others = by_now
                .of_usage(&of_accounts, documents, &mut compared)
                .await?;
            let mut by_rated_by: BTreeMap<&RatedBy, Vec<&Document<'_>>> = BTreeMap::new();
            for document in others {
                let basis = document.basis.as_ref();
                if let Some(basis) = basis {
                    by_rated_by
                        .entry(&basis.rated_by)
                        .or_default()
                        .push(document);
                }
            }
            for (rated_by, documents_of) in by_rated_by {
                let Some(kept) = restore(self.lake, rated_by).await? else {
                    found.in_error.extend(documents_of.iter().map(|document| InError {
                        customer: document.head.customer.to_owned(),
                        what: Faulty::Invoice,
                        reason: format!(
                            "usage of {} came late, and what it was rated by is not in the lake's folder `{}` any more: bring the folder back",
                            document.head.number,
                            kept::FOLDER
                        ),
                    }));
                    continue;
                };
                let catalog = Arc::new(kept.catalog(self.view.catalog()));
                let view = View::open(Arc::clone(&catalog), self.lake).await?;
                let rates = TaxRates::of(&catalog, self.settings, &mut Inputs::default())?;
                let as_then = Made {
                    made_by: MadeBy {
                        view: &view,
                        accounts,
                        rates: &rates,
                        cut: self.cut,
                    },
                    calendar: self.calendar,
                };
                as_then
                    .of_usage(&documents_of, documents, &mut compared)
                    .await?;
            }
        }
        let mut of_customer: BTreeMap<String, Vec<Compared>> = BTreeMap::new();
        compared.sort_by_key(|(serial, _)| *serial);
        for (_, compared) in compared {
            let of_customer = of_customer.entry(compared.customer.clone());
            of_customer.or_default().push(compared);
        }
        Ok(Corrections { of_customer, found })
    }

    /// Documents by all that is known now, each after those that were issued before it.
    async fn of_everything(
        &self,
        documents: &BTreeMap<&str, Vec<Document<'_>>>,
        touched: &BTreeSet<i64>,
    ) -> Result<Corrections> {
        let made = self.made_by(self.accounts);
        let (mut due, mut in_error) = (Vec::new(), Vec::new());
        for document in documents.values().flatten() {
            if touched.contains(&document.head.serial) {
                match made.due(document, self.now_us) {
                    Ok(of_document) => due.extend(of_document),
                    Err(error) => in_error.push(untold_of(document.head.customer, &error)),
                }
            }
        }
        let (mut rated, mut found) = rate_due(self.view, self.accounts, due).await?;
        found.in_error.extend(in_error);
        self.in_advance()
            .without_ordinary(documents.values().flatten(), &mut rated)
            .await?;
        let rated: BTreeMap<(&str, i64), &Rated> = rated
            .iter()
            .map(|rated| ((rated.due.customer.as_str(), rated.due.at_us), rated))
            .collect();
        let mut all: BTreeMap<String, Vec<Compared>> = BTreeMap::new();
        for (customer, documents) in documents {
            if found.is_in_error(customer) {
                continue;
            }
            match made.all_of(documents, touched, &rated) {
                Ok(compared) => {
                    all.insert((*customer).to_owned(), compared);
                }
                Err(error) => {
                    found.in_error.insert(untold_of(customer, &error));
                }
            }
        }
        Ok(Corrections {
            of_customer: all,
            found,
        })
    }

    /// By what prices in advance are rated again.
    pub(super) fn in_advance(&self) -> InAdvance<'_> {
        InAdvance {
            view: self.view,
            lake: self.lake,
            accounts: self.accounts,
            customers: self.customers,
            calendar: self.calendar,
        }
    }

    fn made_by<'a>(&'a self, accounts: &'a Index) -> Made<'a> {
        Made {
            made_by: MadeBy {
                view: self.view,
                accounts,
                rates: self.rates,
                cut: self.cut,
            },
            calendar: self.calendar,
        }
    }

    /// Documents, by serial, for whose time usage of a subject of theirs came after their cut. There may be some that are the same.
    async fn touched(&self, heads: &[Head<'_>]) -> Result<BTreeSet<i64>> {
        let mut touched = BTreeSet::new();
        let mut of_customer: BTreeMap<&str, Vec<(&Head<'_>, Cuts)>> = BTreeMap::new();
        let mut first: Option<Cuts> = None;
        // Documents in advance and of one-offs have no usage.
        let of_usage = |head: &&Head<'_>| head.period.end_us <= head.at_us;
        let heads = || heads.iter().filter(of_usage);
        for head in heads() {
            let cut: Cuts = serde_json::from_str(head.cut).unwrap_or_default();
            let first = first.get_or_insert_with(|| cut.clone());
            // A shard that a document did not know has all to come.
            first.retain(|shard, _| cut.contains_key(shard));
            for (shard, known) in first {
                *known = (*known).min(cut.get(shard).copied().unwrap_or(i64::MIN));
            }
            of_customer
                .entry(head.customer)
                .or_default()
                .push((head, cut));
        }
        let (Some(first), Some(last)) = (first, heads().map(|head| head.period.end_us).max())
        else {
            return Ok(touched);
        };
        let came = self.came(&first, last).await?;
        let subjects = came.iter().map(|came| came.subject.as_str()).collect();
        let payers = accounts::ever_payers(self.lake, self.customers, &subjects).await?;
        for came in came {
            for payer in payers.get(&came.subject).into_iter().flatten() {
                for (head, cut) in of_customer.get(payer.as_str()).into_iter().flatten() {
                    let is_known = cut.get(&came.shard).is_some_and(|cut| came.cut <= *cut);
                    if !is_known
                        && came.from_us < head.period.end_us
                        && head.period.start_us < came.until_us
                    {
                        touched.insert(head.serial);
                    }
                }
            }
        }
        Ok(touched)
    }

    /// Usage that came after a cut, of time before an instant.
    async fn came(&self, cut: &Cuts, before_us: i64) -> Result<Vec<Came>> {
        let mut came = Vec::new();
        let known = cut.iter().map(|(shard, cut)| {
            format!("(shard = '{}' AND {{}} > {cut})", shard.replace('\'', "''"))
        });
        let names = cut
            .keys()
            .map(|shard| format!("'{}'", shard.replace('\'', "''")));
        let names: Vec<String> = names.collect();
        let mut later: Vec<String> = known.collect();
        later.push(match names.is_empty() {
            true => "true".to_owned(),
            false => format!("shard NOT IN ({})", names.join(", ")),
        });
        let later = later.join(" OR ");
        let before = format!("to_timestamp_micros({before_us})");
        for meter in &self.view.catalog().meters {
            // A session may reach as far as its events do: what came may join two of them.
            let slack_us = if meter.has_sessions() { 31 * DAY_US } else { 0 };
            let sql = format!(
                "SELECT subject, shard, MAX(cut) AS cut, window_start AS from_time, MAX(window_end) AS until_time FROM \"{}_panes\" \
                 WHERE ({}) AND window_start < {before} GROUP BY subject, shard, window_start",
                meter.definition().name,
                later.replace("{}", "cut"),
            );
            came.extend(self.read(&sql, slack_us).await?);
        }
        if self.reads_events()? {
            let sql = format!(
                "SELECT subject, shard, MAX(sequence) AS cut, event_time AS from_time, event_time + INTERVAL '1 microsecond' AS until_time \
                 FROM events WHERE status IN ('ok', 'late') AND ({}) AND event_time < {before} GROUP BY subject, shard, event_time",
                later.replace("{}", "sequence"),
            );
            came.extend(self.read(&sql, 0).await?);
        }
        Ok(came)
    }

    async fn read(&self, sql: &str, slack_us: i64) -> Result<Vec<Came>> {
        let doing = "looking for usage that came after documents were issued";
        let context = self.view.session(sql).await?;
        let frame = session::query(&context, sql)
            .await
            .map_err(query_error(doing))?;
        let mut came = Vec::new();
        for rows in frame.collect().await.map_err(query_error(doing))? {
            let texts = |name: &str| rows[name].as_string::<i32>();
            let (subjects, shards) = (texts("subject"), texts("shard"));
            let cuts = rows["cut"].as_primitive::<Int64Type>();
            let instants = |name: &str| rows[name].as_primitive::<TimestampMicrosecondType>();
            let (from, until) = (instants("from_time"), instants("until_time"));
            came.extend((0..rows.num_rows()).map(|row| Came {
                subject: subjects.value(row).to_owned(),
                shard: shards.value(row).to_owned(),
                cut: cuts.value(row),
                from_us: from.value(row).saturating_sub(slack_us),
                until_us: until.value(row).saturating_add(slack_us),
            }));
        }
        Ok(came)
    }

    /// Whether a price reads events.
    fn reads_events(&self) -> Result<bool> {
        let definitions = &self.view.catalog().definitions;
        let context = session::context();
        for price in &definitions.prices {
            let read = referenced(&context, &price.query)?;
            if definitions
                .event_types
                .iter()
                .any(|event_type| read.contains(&event_type.name))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Usage of a subject in some time that was committed at a cut of a shard.
struct Came {
    subject: String,
    shard: String,
    cut: i64,
    from_us: i64,
    until_us: i64,
}

/// By what documents are made again.
#[derive(Clone, Copy)]
struct Made<'a> {
    made_by: MadeBy<'a>,
    calendar: Calendar<'a>,
}

impl Made<'_> {
    /// What is due at a document's time, if anything is, by what a job knows of later times that runs until an instant.
    fn due(&self, document: &Document<'_>, until_us: i64) -> Result<Option<Due>> {
        let MadeBy { view, accounts, .. } = self.made_by;
        let definitions = &view.catalog().definitions;
        let time = (
            document.head.at_us.saturating_sub(1),
            until_us.max(document.head.at_us),
        );
        let due = due_of(
            accounts,
            definitions,
            self.calendar,
            document.head.customer,
            time,
        )?;
        Ok(due.into_iter().find(|due| due.at_us == document.head.at_us))
    }

    /// The documents of one customer by all that is known now, each after those that were issued before it.
    fn all_of(
        &self,
        documents: &[Document<'_>],
        touched: &BTreeSet<i64>,
        rated: &BTreeMap<(&str, i64), &Rated>,
    ) -> Result<Vec<Compared>> {
        let made_by = self.made_by;
        let mut all = Vec::with_capacity(documents.len());
        let mut billed = Billed::default();
        for document in documents {
            let issued = document.issued(documents);
            if touched.contains(&document.head.serial) {
                let now = match rated.get(&(document.head.customer, document.head.at_us)) {
                    Some(rated) => {
                        let discounts = made_by.discounts(document.head.customer);
                        let cycles = made_by.cycles(rated, |plan, charged, cycle| {
                            billed.left_of(
                                (made_by.definitions(), plan),
                                charged,
                                cycle,
                                &discounts,
                            )
                        })?;
                        (made_by.lines(rated, &cycles)?, made_by.basis(rated))
                    }
                    // Accounts are such that it would not be made any more.
                    None => (Vec::new(), made_by.basis_of_none(document.basis.as_ref())),
                };
                let beside = self.beside(document, &issued, documents);
                let compared = Compared::of(document, (issued.clone(), beside), now)?;
                billed.add(&compared.differences);
                all.push(compared);
            }
            billed.add(&issued);
        }
        Ok(all)
    }

    /// Documents by the usage of now, each with its serial; returns those that were made by other prices, rate tables or plans.
    async fn of_usage<'d>(
        &self,
        of: &[&'d Document<'d>],
        all: &BTreeMap<&str, Vec<Document<'_>>>,
        compared: &mut Vec<(i64, Compared)>,
    ) -> Result<Vec<&'d Document<'d>>> {
        let MadeBy { view, accounts, .. } = self.made_by;
        // What is in error by the definitions of now may not be by those of then.
        let due = of
            .iter()
            .map(|document| self.due(document, document.head.issued_at_us));
        let due: Vec<Due> = due.filter_map(Result::ok).flatten().collect();
        let (rated, found) = rate_due(view, accounts, due).await?;
        let mut others = Vec::new();
        for document in of {
            let is_in_error = found.is_in_error(document.head.customer);
            let mut rated = rated.iter();
            let rated = rated.find(|rated| {
                rated.due.customer == document.head.customer
                    && rated.due.at_us == document.head.at_us
            });
            let all = all
                .get(document.head.customer)
                .map_or(&[][..], Vec::as_slice);
            let of_usage = match rated {
                Some(rated) if !is_in_error => self.document_of_usage(rated, document, all),
                Some(_) | None => Ok(None),
            };
            match of_usage {
                Ok(Some(of_usage)) if of_usage.is_other => {
                    compared.push((document.head.serial, of_usage));
                }
                Ok(Some(_)) => {}
                // What cannot be told by then either is told by `unissued`.
                Ok(None) | Err(_) => others.push(*document),
            }
        }
        Ok(others)
    }

    /// A document by the usage of now; `None` when it was made by other prices, rate tables or plans.
    fn document_of_usage(
        &self,
        rated: &Rated,
        document: &Document<'_>,
        all: &[Document<'_>],
    ) -> Result<Option<Compared>> {
        let basis = self.made_by.basis(rated);
        let before = document.basis.as_ref().map(|basis| &basis.rated_by);
        if !before.is_some_and(|before| is_alike(before, &basis.rated_by)) {
            return Ok(None);
        }
        let issued = document.issued(all);
        let mut billed = Billed::default();
        let before = all.iter();
        let before = before.filter(|known| known.head.turn < document.head.turn);
        for before in before {
            billed.add(&before.issued(all));
        }
        let Some(now) = self.lines_of_usage(rated, document, (&issued, &billed))? else {
            return Ok(None);
        };
        let beside = self.beside(document, &issued, all);
        Compared::of(document, (issued, beside), (now, basis)).map(Some)
    }

    /// Other documents with lines whose service periods end with those that were issued for one; none where no grant can have paid either.
    fn beside(
        &self,
        document: &Document<'_>,
        issued: &[LineItem],
        all: &[Document<'_>],
    ) -> Vec<Beside> {
        let grants = self.made_by.accounts.grants_of(document.head.customer);
        if grants.count() == 0 {
            return Vec::new();
        }
        let charges = issued.iter().filter(|line| !line.kind.is_tax());
        let instants: BTreeSet<i64> = charges.map(|line| line.period.last_us()).collect();
        let is_beside = |line: &LineItem| {
            !line.kind.is_tax()
                && line.corrects.is_none()
                && instants.contains(&line.period.last_us())
        };
        let others = all.iter().filter(|other| {
            other.head.number != document.head.number && other.lines.iter().any(is_beside)
        });
        let others = others.map(|other| Beside {
            number: other.head.number.to_owned(),
            issued: other.issued(all),
        });
        others.collect()
    }

    /// What a document's lines would be by the usage of now, with fixed prices as they were issued.
    fn lines_of_usage(
        &self,
        rated: &Rated,
        document: &Document<'_>,
        (issued, billed): (&[LineItem], &Billed),
    ) -> Result<Option<Vec<Taxed>>> {
        let mut fixed = standing(issued, document.currency()?)?;
        fixed.retain(|line| is_fixed(line.kind));
        // To the plan that was in force; what was given back stands for the whole period.
        let definitions = &self.made_by.view.catalog().definitions;
        let mut of_charged: Vec<Vec<LineItem>> = rated.charged.iter().map(|_| Vec::new()).collect();
        for line in fixed {
            let is_of = |in_force: bool| {
                rated.charged.iter().position(|charged| {
                    let plan = definitions.plan(&charged.plan);
                    plan.is_some_and(|plan| {
                        is_of(&line, plan, charged, charged.cycle_of(&rated.due), in_force)
                    })
                })
            };
            let Some(place) = is_of(true).or_else(|| is_of(false)) else {
                return Ok(None);
            };
            of_charged[place].push(line);
        }
        let mut of_charged = of_charged.into_iter();
        let cycles = self.made_by.cycles(rated, |plan, charged, cycle| {
            let usage = charged.charges.iter().filter(|charge| !charge.is_fixed);
            let mut charges: Vec<Charge> = match charged.is_opening {
                true => Vec::new(),
                false => usage.cloned().collect(),
            };
            // In the order of what is charged.
            let own = of_charged.next().unwrap_or_default().into_iter();
            charges.extend(own.map(|line| charge_of(line, cycle, plan)));
            Ok((
                charges,
                billed.counted((definitions, plan), charged, cycle)?,
            ))
        })?;
        Ok(Some(self.made_by.lines(rated, &cycles)?))
    }
}

fn is_alike(before: &RatedBy, now: &RatedBy) -> bool {
    before.prices == now.prices
        && before.rate_tables == now.rate_tables
        && before.plans == now.plans
}

/// Whether a line of a fixed price is of a plan in a billing period, of the time in which it is in force.
fn is_of(
    line: &LineItem,
    plan: &PlanDefinition,
    charged: &Charged,
    cycle: &Cycle,
    in_force: bool,
) -> bool {
    let has = |names: &[String]| {
        let mut names = names.iter();
        line.price
            .as_deref()
            .is_some_and(|price| names.any(|name| name == price))
    };
    let of_plan = has(&plan.prices) && (!charged.is_opening || has(&plan.terms.in_advance));
    let start_us = line.period.start_us;
    let part = cycle.parts.iter().find(|part| part.plan == plan.name);
    let mut segments = part.into_iter().flat_map(|part| &part.segments);
    let is_in_force =
        segments.any(|segment| segment.from_us <= start_us && start_us < segment.until_us);
    of_plan
        && (is_in_force || !in_force)
        && line.subscription.as_deref() == Some(&cycle.subscription)
        && cycle.period.start_us <= start_us
        && start_us < cycle.period.end_us
}

/// The charge of a line of a fixed price, as it was rounded.
fn charge_of(line: LineItem, cycle: &Cycle, plan: &PlanDefinition) -> Charge {
    Charge {
        customer: cycle.customer.as_str().into(),
        is_unused: line.kind == LineKind::Credit,
        is_fixed: true,
        amount: line.amount.to_exact(),
        currency: plan.currency.as_str().into(),
        service: Some(line.period),
        price: line.price.unwrap_or_default(),
        price_version: line.price_version.unwrap_or_default(),
        dimensions: line.dimensions,
        quantity: line.quantity,
        subscription: line.subscription,
    }
}
