//! Issued invoices as documents: what a row of `invoices` keeps of one, and what it would be now.

use super::{Drafts, draft_or_causes, standing::standing};
use crate::{
    customers::Customers,
    error::{Error, Result, query_error},
    tables,
    view::{View, one_batch},
};
use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray},
    datatypes::{Decimal128Type, TimestampMicrosecondType},
    error::ArrowError,
    json,
};
use datafusion::prelude::{Expr, SessionContext, col, lit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{
    Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{
    invoice::{
        self, Invoice,
        basis::Basis,
        changes::{Change, Issued, IssuedLine, change},
    },
    money::{Currency, Exact, Money, MoneyError},
    period::Period,
    schema::{
        self,
        invoices::{issued_invoices_schema, line_items_schema},
    },
};

/// An issued invoice, and what it is for.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) plan: String,
    pub(super) period: invoice::Period,
    pub(super) issued: Issued,
}

/// A document that was issued, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedAs {
    /// Its number.
    pub number: String,
    /// Who pays.
    pub customer: String,
    /// Its total.
    pub total: Money,
}

/// The documents with some ids, in the order of their numbers.
///
/// # Errors
/// The lake cannot be read.
pub async fn issued_as(lake: &Lake, ids: &BTreeSet<String>) -> Result<Vec<IssuedAs>> {
    let (Some(invoices), false) = (issued_table(lake).await?, ids.is_empty()) else {
        return Ok(Vec::new());
    };
    let ids = ids.iter().map(|id| lit(id.as_str())).collect();
    let mut all = Vec::new();
    for rows in rows_where(&invoices, col("invoice").in_list(ids, false)).await? {
        let text = |name: &str, row: usize| rows[name].as_string::<i32>().value(row).to_owned();
        for row in 0..rows.num_rows() {
            all.push(IssuedAs {
                number: text("number", row),
                customer: text("customer", row),
                total: total_of(&rows, row)?,
            });
        }
    }
    // Numbers of more digits are longer.
    all.sort_by(|a, b| (a.number.len(), &a.number).cmp(&(b.number.len(), &b.number)));
    Ok(all)
}

/// The total of the document in a row of issued invoices.
pub(super) fn total_of(rows: &RecordBatch, row: usize) -> Result<Money> {
    let totals = rows["total"].as_primitive::<Decimal128Type>();
    let total = Exact::from_decimal(totals.value(row), totals.scale());
    let currency = Currency::parse(rows["currency"].as_string::<i32>().value(row));
    let total = total.and_then(|total| Money::round(total, currency?));
    Ok(total.map_err(tollgate_sql::Error::from)?)
}

/// By what an invoice is rated: its billing period, its plan, and the zone of its calendar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RatedAs {
    pub(super) period: invoice::Period,
    pub(super) plan: String,
    pub(super) zone: String,
}

impl RatedAs {
    /// What a plan's drafts of a period are rated by.
    pub(super) fn of(period: &Period, plan: &str) -> Self {
        RatedAs {
            period: period.into(),
            plan: plan.to_owned(),
            zone: period.zone().to_owned(),
        }
    }
}

impl Document {
    /// By what it is rated: `zone` is today's, for a document that was issued before documents kept theirs.
    pub(super) fn rated_as(&self, zone: &str) -> RatedAs {
        let own = self.issued.basis.as_ref().and_then(|b| b.zone.as_deref());
        RatedAs {
            period: self.period,
            plan: self.plan.clone(),
            zone: own.unwrap_or(zone).to_owned(),
        }
    }

    /// What it would be now by these drafts, which are rated by what it is rated by.
    pub(super) fn now(&self, drafts: &Drafts) -> Result<Now> {
        let customer = &self.issued.customer;
        let mut in_error = drafts.in_error.iter();
        if let Some(known) = in_error.find(|known| known.customer == *customer) {
            return Ok(Now::Untold(known.reason.clone()));
        }
        let now = change(&self.issued, drafts.of(customer), &drafts.basis(customer)?);
        let now = now.map_err(tollgate_sql::Error::from)?;
        Ok(now.map_or(Now::Same, Now::Changed))
    }
}

/// What an issued invoice would be now.
#[derive(Debug)]
pub(super) enum Now {
    /// The same.
    Same,
    /// Another.
    Changed(Change),
    /// It cannot be told, for this reason.
    Untold(String),
}

/// The cause of what is unissued where it cannot be told.
pub(super) fn untold(reason: &str) -> String {
    format!("it cannot be told: {reason}")
}

/// What documents of some customers would be now, each by its own plan and calendar; those that would be the same are left out. `zone`
/// is today's, and `drafts` are known.
pub(super) async fn compare<'a>(
    view: &View,
    (documents, of): (&'a [Document], &Customers),
    zone: &str,
    drafts: Option<&Drafts>,
) -> Result<Vec<(&'a Document, Now)>> {
    let mut of_terms: BTreeMap<RatedAs, Vec<&Document>> = BTreeMap::new();
    for document in documents {
        let terms = of_terms.entry(document.rated_as(zone)).or_default();
        terms.push(document);
    }
    let mut compared = Vec::new();
    for (terms, documents) in of_terms {
        let drafted;
        let drafts = match drafts.filter(|drafts| drafts.rated_as() == terms) {
            Some(drafts) => drafts,
            None => {
                let customers = customers_of(&documents);
                drafted = draft_or_causes(view, &terms, of, customers).await?;
                &drafted
            }
        };
        for document in documents {
            match document.now(drafts)? {
                Now::Same => {}
                now => compared.push((document, now)),
            }
        }
    }
    compared.sort_by(|(a, _), (b, _)| a.issued.number.cmp(&b.issued.number));
    Ok(compared)
}

/// Who has these documents.
pub(super) fn customers_of(documents: &[&Document]) -> BTreeSet<String> {
    let customers = documents.iter();
    customers.map(|d| d.issued.customer.clone()).collect()
}

/// Issued documents that stand and for which something holds, in order of serial.
pub(super) async fn documents(invoices: &dyn Table, condition: Expr) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for batch in standing(rows_where(invoices, condition).await?)? {
        for row in 0..batch.num_rows() {
            documents.push(document(&batch, row)?);
        }
    }
    Ok(documents)
}

/// The document in a row of issued invoices.
pub(super) fn document(batch: &RecordBatch, row: usize) -> Result<Document> {
    let text = |name: &str| batch[name].as_string::<i32>().value(row).to_owned();
    let instant = |name: &str| {
        let instants = batch[name].as_primitive::<TimestampMicrosecondType>();
        instants.value(row)
    };
    let number = |error: MoneyError| Error::from(tollgate_sql::Error::from(error));
    let basis = batch
        .column_by_name("basis")
        .map(|column| column.as_string::<i32>());
    let basis = basis.filter(|basis| basis.is_valid(row));
    let total = batch["total"].as_primitive::<Decimal128Type>();
    Ok(Document {
        plan: text("plan"),
        period: invoice::Period {
            start_us: instant("period_start"),
            end_us: instant("period_end"),
        },
        issued: Issued {
            number: text("number"),
            customer: text("customer"),
            lines: issued_lines(&lines_of(&text("document"), &text("cut"))?)?,
            basis: basis.and_then(|basis| Basis::from_json(basis.value(row))),
            total: Exact::from_decimal(total.value(row), total.scale())
                .map_err(number)?
                .without_trailing_zeros(),
            currency: text("currency"),
        },
    })
}

/// Rows of `line_items` as they are compared.
fn issued_lines(lines: &RecordBatch) -> Result<Vec<IssuedLine>> {
    let number = |error: MoneyError| Error::from(tollgate_sql::Error::from(error));
    let mut all = Vec::with_capacity(lines.num_rows());
    for line in 0..lines.num_rows() {
        let text = |name: &str| {
            let column = lines[name].as_string::<i32>();
            column.is_valid(line).then(|| column.value(line).to_owned())
        };
        let quantity = text("quantity").map(|quantity| Exact::parse(&quantity));
        let amount = text("amount_exact").unwrap_or_default();
        all.push(IssuedLine {
            price: text("price").unwrap_or_default(),
            dimensions: text("dimensions").unwrap_or_default(),
            quantity: quantity.transpose().map_err(number)?,
            amount_exact: Exact::parse(&amount).map_err(number)?,
        });
    }
    Ok(all)
}

/// That an invoice is for exactly this period.
pub(super) fn within(period: &Period) -> Expr {
    let start = col("period_start").eq(schema::instant(period.start_us));
    start.and(col("period_end").eq(schema::instant(period.end_us)))
}

/// That an invoice is of one of some customers.
pub(super) fn of_customers(customers: &Customers) -> Expr {
    let condition = customers.condition(&col("customer"));
    condition.unwrap_or(lit(true))
}

/// The table of issued invoices, if there is one; columns that it lacks are NULL.
pub(super) async fn issued_table(lake: &Lake) -> Result<Option<DeltaTable>> {
    let (schema, none) = (issued_invoices_schema(), BTreeMap::new());
    let invoices = lake.existing_as(tables::INVOICES, &schema, &[], &none);
    Ok(invoices.await?)
}

/// Rows of issued invoices for which something holds, in order of serial.
pub(super) async fn rows_where(invoices: &dyn Table, condition: Expr) -> Result<Vec<RecordBatch>> {
    let doing = "reading issued invoices";
    let frame = SessionContext::new()
        .read_table(invoices.provider()?)
        .and_then(|frame| frame.filter(condition))
        .and_then(|frame| frame.sort(vec![col("serial").sort(true, false)]))
        .map_err(query_error(doing))?;
    frame.collect().await.map_err(query_error(doing))
}

/// The lines of each of some invoices as they are kept with it; `lines` are all of them. The cut is left out: it is no part of what
/// the customer is told, and moves with every event of any customer.
pub(super) fn documents_of(invoices: &[Invoice], lines: &RecordBatch) -> Result<Vec<String>> {
    let doing = "writing an invoice's document";
    let lines = without_cut(lines).map_err(query_error(doing))?;
    let mut documents = Vec::with_capacity(invoices.len());
    let mut from = 0;
    // The text of some at a time, which stays in the processor's memory while it is cut up.
    for invoices in invoices.chunks(TEXTS_AT_ONCE) {
        let count = invoices.iter().map(|invoice| invoice.lines.len()).sum();
        let mut bytes = Vec::new();
        let mut writer = json::LineDelimitedWriter::new(&mut bytes);
        let written = writer.write(&lines.slice(from, count));
        let written = written.and_then(|()| writer.finish());
        written.map_err(query_error(doing))?;
        from += count;
        let text = String::from_utf8(bytes).map_err(|_| Error::Contradiction {
            what: "JSON is UTF-8",
        })?;
        // A line feed within a value is an escape.
        let mut rows = text.split_inclusive('\n');
        let of = |invoice: &Invoice| rows.by_ref().take(invoice.lines.len()).collect();
        documents.extend(invoices.iter().map(of));
    }
    Ok(documents)
}

/// So many documents are written as one text.
const TEXTS_AT_ONCE: usize = 256;

fn without_cut(lines: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut lines = lines.clone();
    let cut = lines.schema().index_of("cut")?;
    lines.remove_column(cut);
    Ok(lines)
}

/// The rows of `line_items` of some issued invoices, from their documents.
pub(super) fn lines_in(invoices: &[RecordBatch]) -> Result<RecordBatch> {
    let mut lines = Vec::new();
    for batch in invoices {
        let documents = batch["document"].as_string::<i32>();
        let cuts = batch["cut"].as_string::<i32>();
        for row in 0..batch.num_rows() {
            lines.push(lines_of(documents.value(row), cuts.value(row))?);
        }
    }
    one_batch(&line_items_schema(), &lines)
}

/// The rows of `line_items` that a document holds.
fn lines_of(document: &str, cut: &str) -> Result<RecordBatch> {
    let doing = "reading an invoice's document";
    let empty = without_cut(&RecordBatch::new_empty(line_items_schema()));
    let schema = empty.map_err(query_error(doing))?.schema();
    let reader = json::ReaderBuilder::new(Arc::clone(&schema)).build(document.as_bytes());
    let batches = reader.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let lines = one_batch(&schema, &batches.map_err(query_error(doing))?)?;
    let mut columns = lines.columns().to_vec();
    let place = line_items_schema()
        .index_of("cut")
        .map_err(query_error(doing))?;
    let cuts = StringArray::from(vec![cut; lines.num_rows()]);
    columns.insert(place, Arc::new(cuts));
    RecordBatch::try_new(line_items_schema(), columns).map_err(query_error(doing))
}
