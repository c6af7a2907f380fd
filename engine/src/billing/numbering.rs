//! Documents on their way into the lake: numbered and staged part by part, and there all at once.
//!
//! ```text
//!  part ─▶ numbers ─▶ files of `invoices` and `line_items` that no reader sees ┐   each part is dropped when it is written
//!  part ─▶ …                                                                   ┤
//!                                            what they were rated by is kept ◀─┤
//!                                            commit `invoices`: the point of no return, compare-and-swap on the last number
//!                                            commit `line_items`
//! ```
//!
//! A crash before the first commit leaves files that no reader ever sees. Between the two, `line_items` lacks the lines of the last
//! documents, and whoever issues next derives them from these documents before anything else.

use super::{
    burnt,
    documents::{documents_of, lines_in, rows_where},
    kept::{Inputs, keep},
};
use crate::{
    error::{Error, Result, query_error},
    tables,
};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::prelude::{Expr, col, lit};
use futures::future::join;
use std::{collections::BTreeMap, iter, sync::Arc};
use tollgate_connectors::{
    Attempt, CommitId, Error as ConnectorError, Table,
    lake::{DeltaTable, Lake, Staged},
};
use tollgate_sql::{
    invoice::{
        CREDIT_NOTE, Invoice, Status, VOID,
        tables::{invoices_batch, line_items_batch},
    },
    schema::invoices::{issued_invoices_schema, line_items_schema},
};

/// The `txn` app id, in `invoices` and in `line_items`, of the last number they hold.
pub(super) const NUMBER_MARK: &str = "invoices/number";

/// The `txn` app id, in `invoices`, of how many of them are credit notes, which have numbers of their own.
const CREDIT_NOTES_MARK: &str = "invoices/credit_notes";

/// So many issued documents are read at once.
const READ_AT_ONCE: i64 = 20_000;

/// Documents that are numbered, and come to be when they are committed.
pub(super) struct Numbering {
    invoices: DeltaTable,
    line_items: DeltaTable,
    commit_id: CommitId,
    parts: usize,
    staged_invoices: Staged,
    staged_lines: Staged,
    /// The serial of the last document, and how many are credit notes.
    last: i64,
    credit_notes: i64,
    now_us: i64,
}

impl Numbering {
    /// Begins after the last document that was issued, whose lines are in `line_items` then.
    ///
    /// # Errors
    /// The lake cannot be read or written.
    pub(super) async fn begin(lake: &Lake, now_us: i64) -> Result<Self> {
        let (invoices, line_items) = tables_to_issue(lake).await?;
        let nonce = uuid::Uuid::now_v7().simple();
        Ok(Numbering {
            last: invoices.mark(NUMBER_MARK).unwrap_or(0),
            credit_notes: invoices.mark(CREDIT_NOTES_MARK).unwrap_or(0),
            invoices,
            line_items,
            commit_id: CommitId(format!("invoices-{nonce}")),
            parts: 0,
            staged_invoices: Staged::default(),
            staged_lines: Staged::default(),
            now_us,
        })
    }

    /// The issued documents that these come after.
    pub(super) fn issued(&self) -> &DeltaTable {
        &self.invoices
    }

    /// The serial of the last document that was issued or added.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// Numbers documents, each with what it was made from, and writes them to files that no reader sees yet.
    ///
    /// # Errors
    /// The lake cannot be written.
    pub(super) async fn add(&mut self, invoices: &mut [Invoice], bases: Vec<String>) -> Result<()> {
        if invoices.is_empty() {
            return Ok(());
        }
        let serials = self.number(invoices);
        let lines = [line_items_batch(invoices)?];
        let part = CommitId(format!("{}-{}", self.commit_id.0, self.parts));
        self.parts += 1;
        // Lines are encoded on other threads while rows are made of them.
        let documents = async {
            let rows = rows_of(invoices, &lines[0], serials, bases)?;
            Ok::<_, Error>(self.invoices.stage(&part, &[rows]).await?)
        };
        let (of_lines, of_documents) = join(self.line_items.stage(&part, &lines), documents).await;
        self.staged_invoices.extend(of_documents?);
        self.staged_lines.extend(of_lines?);
        Ok(())
    }

    /// Gives documents the next numbers of their series; returns their serials.
    fn number(&mut self, invoices: &mut [Invoice]) -> Vec<i64> {
        let mut serials = Vec::with_capacity(invoices.len());
        for invoice in invoices {
            self.last += 1;
            serials.push(self.last);
            let is_credit_note = matches!(invoice.kind(), CREDIT_NOTE | VOID);
            self.credit_notes += i64::from(is_credit_note);
            invoice.number = Some(match is_credit_note {
                true => format!("CN-{:06}", self.credit_notes),
                false => format!("INV-{:06}", self.last - self.credit_notes),
            });
            invoice.status = Status::Final;
            invoice.issued_at_us = Some(self.now_us);
        }
        serials
    }

    /// Makes all that was added visible at once, by what it was rated by; without any, does nothing.
    ///
    /// # Errors
    /// Another job issued since these were begun; the lake cannot be written.
    pub(super) async fn commit(mut self, lake: &Lake, inputs: &Inputs) -> Result<()> {
        if self.staged_invoices.files.is_empty() {
            return Ok(());
        }
        keep(lake, inputs).await?;
        let number = (NUMBER_MARK, self.last);
        let marks = [number, (CREDIT_NOTES_MARK, self.credit_notes)];
        let attempt = attempt(self.commit_id.clone(), &marks);
        commit(&mut self.invoices, &attempt, &self.staged_invoices).await?;
        let attempt = self::attempt(self.commit_id, &[number]);
        let written = commit(&mut self.line_items, &attempt, &self.staged_lines).await;
        if written.is_err() {
            // A job that began in between may have derived these lines.
            self.line_items.refresh().await?;
            if self.line_items.mark(NUMBER_MARK) >= Some(self.last) {
                return Ok(());
            }
        }
        written
    }
}

/// Rows of `invoices` as they are kept.
fn rows_of(
    invoices: &[Invoice],
    lines: &RecordBatch,
    serials: Vec<i64>,
    bases: Vec<String>,
) -> Result<RecordBatch> {
    let mut columns = invoices_batch(invoices)?.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(serials)));
    let documents = documents_of(invoices, lines)?;
    columns.push(Arc::new(StringArray::from(documents)));
    columns.push(Arc::new(StringArray::from(bases)));
    let burns = invoices
        .iter()
        .map(|invoice| burnt::text_of(&invoice.burns));
    columns.push(Arc::new(burns.collect::<StringArray>()));
    let rows = RecordBatch::try_new(issued_invoices_schema(), columns);
    rows.map_err(query_error("writing invoices"))
}

/// The tables `invoices` and `line_items`, the second with every line of the first.
async fn tables_to_issue(lake: &Lake) -> Result<(DeltaTable, DeltaTable)> {
    let (documents, lines) = (issued_invoices_schema(), line_items_schema());
    let none = BTreeMap::new();
    let invoices = lake.table(tables::INVOICES, &documents, &[], &none).await?;
    let invoices = invoices.keeping_together("customer");
    let mut line_items = lake.table(tables::LINE_ITEMS, &lines, &[], &none).await?;
    derive_line_items(&invoices, &mut line_items).await?;
    Ok((invoices, line_items))
}

/// Writes the lines of every invoice whose lines are not in `line_items` yet, of some invoices after the others. `invoices` may
/// have been read before another job issued: then `line_items` has more than it.
async fn derive_line_items(invoices: &dyn Table, line_items: &mut dyn Table) -> Result<()> {
    let issued = invoices.mark(NUMBER_MARK).unwrap_or(0);
    let derived = line_items.mark(NUMBER_MARK).unwrap_or(0);
    if issued <= derived {
        return Ok(());
    }
    let nonce = uuid::Uuid::now_v7().simple();
    let attempt = attempt(
        CommitId(format!("line-items-{nonce}")),
        &[(NUMBER_MARK, issued)],
    );
    let mut staged = Staged::default();
    for (part, serials) in parts_from(derived, issued).enumerate() {
        let lines = lines_in(&rows_where(invoices, serials).await?)?;
        let part = CommitId(format!("{}-{part}", attempt.commit_id.0));
        staged.extend(line_items.stage(&part, &[lines]).await?);
    }
    commit(line_items, &attempt, &staged).await
}

/// The serials of all issued documents, of some after the others.
pub(super) fn parts_of(invoices: &dyn Table) -> impl Iterator<Item = Expr> {
    parts_from(0, invoices.mark(NUMBER_MARK).unwrap_or(0))
}

/// The serials after one and up to another, of some after the others.
fn parts_from(mut after: i64, until: i64) -> impl Iterator<Item = Expr> {
    iter::from_fn(move || {
        let from = after;
        after = from.saturating_add(READ_AT_ONCE).min(until);
        let serial = || col("serial");
        (from < until).then(|| serial().gt(lit(from)).and(serial().lt_eq(lit(after))))
    })
}

fn attempt(commit_id: CommitId, marks: &[(&str, i64)]) -> Attempt {
    let marks = marks
        .iter()
        .map(|(name, number)| ((*name).to_owned(), *number));
    Attempt {
        commit_id,
        marks: marks.collect(),
        info: BTreeMap::new(),
    }
}

/// Commits what is staged. A conflict means that another job issued.
async fn commit(table: &mut dyn Table, attempt: &Attempt, staged: &Staged) -> Result<()> {
    match table.commit(attempt, staged).await {
        Ok(_) => Ok(()),
        Err(ConnectorError::Fenced { .. }) => Err(issued_meanwhile()),
        Err(error) => Err(error.into()),
    }
}

/// Another job issued documents since this one read them.
pub(super) fn issued_meanwhile() -> Error {
    Error::Billing {
        problem: "another invoice job issued at the same time".into(),
        hint: "run it again: what is issued is not issued twice".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn documents_that_were_read_before_another_job_issued_take_no_lines_back() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open("lake", folder.path()).await.unwrap();
        let (invoices, mut line_items) = tables_to_issue(&lake).await.unwrap();
        let theirs = attempt(CommitId("theirs".into()), &[(NUMBER_MARK, 1)]);
        commit(&mut line_items, &theirs, &Staged::default())
            .await
            .unwrap();
        derive_line_items(&invoices, &mut line_items).await.unwrap();
        line_items.refresh().await.unwrap();
        assert_eq!(line_items.mark(NUMBER_MARK), Some(1));
    }
}
