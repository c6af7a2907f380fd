//! Issued documents of subscriptions as they stand: their lines, the instalments that they took up, the lines of later ones that
//! correct them, and by what they are compared.

use super::{documents::lines_in, standing::Taken};
use crate::error::Result;
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use std::collections::BTreeMap;
use tollgate_sql::{
    invoice::{
        self, InvoiceId, LineItem, basis::Basis, instalments::Instalment, tables::line_items_of,
    },
    money::Currency,
};

/// What tells issued documents of subscriptions apart, without their lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) serial: i64,
    /// Where it stands among the documents of its customer: one that was issued again has the place of the one that was voided.
    pub(super) turn: i64,
    pub(super) id: &'a str,
    pub(super) number: &'a str,
    pub(super) customer: &'a str,
    pub(super) plan: &'a str,
    pub(super) currency: &'a str,
    pub(super) issued_at_us: i64,
    pub(super) period: invoice::Period,
    pub(super) at_us: i64,
    pub(super) cut: &'a str,
    /// Where its row is.
    place: (usize, usize),
}

/// The heads of documents of subscriptions, and those of instalments, each in order of serial; and when the last invoice of each name ends
/// that was issued before there were accounts.
fn heads<'a>(
    rows: &'a [RecordBatch],
    taken: &Taken,
) -> (Vec<Head<'a>>, Vec<Head<'a>>, BTreeMap<&'a str, i64>) {
    let (mut heads, mut instalments) = (Vec::new(), Vec::new());
    let mut before_accounts: BTreeMap<&str, i64> = BTreeMap::new();
    for (batch, rows) in rows.iter().enumerate() {
        let text = |name: &str, row: usize| rows[name].as_string::<i32>().value(row);
        let instant = |name: &str, row: usize| {
            rows[name]
                .as_primitive::<TimestampMicrosecondType>()
                .value(row)
        };
        let serial = |row: usize| rows["serial"].as_primitive::<Int64Type>().value(row);
        for row in 0..rows.num_rows() {
            let customer = text("customer", row);
            let period = invoice::Period {
                start_us: instant("period_start", row),
                end_us: instant("period_end", row),
            };
            let is_due = |at_us: &i64| {
                InvoiceId::of_document(customer, *at_us).as_str() == text("invoice", row)
            };
            // Mostly when what closes is over.
            let due = [period.end_us, period.start_us].into_iter().find(is_due);
            let basis = match due {
                Some(_) => None,
                None => basis_in(rows, row),
            };
            // The document says it where its id does not: it closes nothing, or was issued again.
            let due = due.or(basis.as_ref().and_then(|basis| basis.due_us));
            let is_instalment = basis.is_some_and(|basis| basis.instalment.is_some());
            let head = |at_us: i64| Head {
                serial: serial(row),
                turn: taken.first(customer, at_us).unwrap_or(serial(row)),
                id: text("invoice", row),
                number: text("number", row),
                issued_at_us: instant("issued_at", row),
                customer,
                plan: text("plan", row),
                currency: text("currency", row),
                period,
                at_us,
                cut: text("cut", row),
                place: (batch, row),
            };
            match (is_instalment, due) {
                (true, _) => instalments.push(head(period.end_us)),
                (false, Some(at_us)) => heads.push(head(at_us)),
                (false, None) => {
                    let end_us = before_accounts.entry(customer).or_insert(i64::MIN);
                    *end_us = (*end_us).max(period.end_us);
                }
            }
        }
    }
    heads.sort_by_key(|head| head.serial);
    instalments.sort_by_key(|head| head.serial);
    (heads, instalments, before_accounts)
}

/// What the document of a row was made from, if it says so.
fn basis_in(rows: &RecordBatch, row: usize) -> Option<Basis> {
    let bases = rows["basis"].as_string::<i32>();
    let basis = bases.is_valid(row).then(|| bases.value(row));
    basis.and_then(Basis::from_json)
}

/// An issued document with its lines, and what it was made from.
pub(super) struct Document<'a> {
    pub(super) head: Head<'a>,
    /// Its own lines, and those that correct others.
    pub(super) lines: Vec<LineItem>,
    /// The own lines of the instalments of which it billed the rest.
    begun: Vec<LineItem>,
    /// The lines of instalments that correct it.
    later: Vec<LineItem>,
    /// By what it stands now: what it was made from, or what the last document that corrected it was.
    pub(super) basis: Option<Basis>,
    /// What it was made from.
    pub(super) own_basis: Option<Basis>,
}

impl<'a> Document<'a> {
    pub(super) fn currency(&self) -> Result<Currency> {
        let currency = Currency::parse(self.head.currency);
        Ok(currency.map_err(tollgate_sql::Error::from)?)
    }

    /// All documents of a customer, in their turn.
    fn of(rows: &[RecordBatch], heads: Vec<Head<'a>>, instalments: &[Issued]) -> Result<Vec<Self>> {
        let mut documents: Vec<Document<'a>> = Vec::with_capacity(heads.len());
        for head in heads {
            let (lines, basis) = content(rows, &head)?;
            let begun = instalments.iter().filter(|instalment| {
                let begun = basis.as_ref().map_or(&[][..], |basis| &basis.begun);
                begun.contains(&instalment.number)
            });
            let begun = begun.flat_map(|instalment| instalment.lines.iter().cloned());
            let later = instalments.iter().flat_map(|of| &of.correcting);
            let later = later.filter(|line| is_correction_of(line, head.number));
            documents.push(Document {
                begun: begun.collect(),
                later: later.cloned().collect(),
                own_basis: basis.clone(),
                head,
                lines,
                basis,
            });
        }
        let own = documents.iter().filter_map(|document| {
            let basis = document.own_basis.as_ref()?;
            Some((document.head.serial, basis.corrected.clone()))
        });
        let of_instalments = instalments
            .iter()
            .map(|of| (of.serial, of.corrected.clone()));
        let mut corrected: Vec<_> = own.chain(of_instalments).collect();
        corrected.sort_by_key(|(serial, _)| *serial);
        for (number, basis) in corrected.into_iter().flat_map(|(_, corrected)| corrected) {
            let mut known = documents.iter_mut();
            if let Some(known) = known.find(|known| known.head.number == number) {
                known.basis = Some(basis);
            }
        }
        documents.sort_by_key(|document| document.head.turn);
        Ok(documents)
    }

    /// The number of the last import of accounts by which it stands, and when it was issued; `None` when it does not say.
    pub(super) fn known(&self) -> Option<(i64, i64)> {
        let serial = self.basis.as_ref()?.accounts?;
        Some((serial, self.head.issued_at_us))
    }

    /// The number of the last import of accounts that it knew itself, and when it was issued.
    pub(super) fn known_at_first(&self) -> Option<(i64, i64)> {
        let serial = self.own_basis.as_ref()?.accounts?;
        Some((serial, self.head.issued_at_us))
    }

    /// What was issued for it: its own lines, with those of its instalments, and those of later documents and instalments.
    pub(super) fn issued(&self, all: &[Document<'_>]) -> Vec<LineItem> {
        let own = self.begun.iter().chain(&self.lines);
        let own = own.filter(|line| line.corrects.is_none());
        let later = all.iter().flat_map(|document| &document.lines);
        let later = later.filter(|line| is_correction_of(line, self.head.number));
        own.chain(&self.later).chain(later).cloned().collect()
    }
}

/// Whether a line corrects the document with a number.
pub(super) fn is_correction_of(line: &LineItem, number: &str) -> bool {
    let corrects = line.corrects.as_ref();
    corrects.is_some_and(|of| of.number == number)
}

/// The lines of a document, and what it was made from.
fn content(rows: &[RecordBatch], head: &Head<'_>) -> Result<(Vec<LineItem>, Option<Basis>)> {
    let (batch, row) = head.place;
    let of_row = rows[batch].slice(row, 1);
    let lines = line_items_of(&lines_in(std::slice::from_ref(&of_row))?)?;
    Ok((lines, basis_in(&of_row, 0)))
}

/// An instalment that was issued.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    serial: i64,
    pub(super) number: String,
    pub(super) instalment: Instalment,
    /// Its own lines.
    pub(super) lines: Vec<LineItem>,
    /// Its lines that correct documents.
    correcting: Vec<LineItem>,
    /// By what documents that it corrected stand, by number.
    corrected: BTreeMap<String, Basis>,
}

/// All issued documents of subscriptions, told apart once.
pub(super) struct History<'a> {
    rows: &'a [RecordBatch],
    /// In order of serial; without instalments.
    pub(super) heads: Vec<Head<'a>>,
    /// Documents of billing periods that were not over, in order of serial.
    instalments: Vec<Head<'a>>,
    /// When the last invoice of each name ends that was issued before there were accounts.
    before_accounts: BTreeMap<&'a str, i64>,
}

impl<'a> History<'a> {
    pub(super) fn of(rows: &'a [RecordBatch], taken: &Taken) -> Self {
        let (heads, instalments, before_accounts) = heads(rows, taken);
        History {
            rows,
            heads,
            instalments,
            before_accounts,
        }
    }

    /// The ids of instalments, each with its serial.
    pub(super) fn instalment_ids(&self) -> impl Iterator<Item = (&'a str, i64)> {
        self.instalments.iter().map(|head| (head.id, head.serial))
    }

    /// When the last invoice of each name ends that was issued before there were accounts.
    pub(super) fn before_accounts(&self) -> BTreeMap<String, i64> {
        let ends = self.before_accounts.iter();
        ends.map(|(name, end_us)| ((*name).to_owned(), *end_us))
            .collect()
    }

    /// The instalments of customers for whom something holds, each in order of serial.
    fn instalments_of(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<&'a str, Vec<Issued>>> {
        let mut of_customer: BTreeMap<&str, Vec<Issued>> = BTreeMap::new();
        for head in &self.instalments {
            if !is_wanted(head.customer) {
                continue;
            }
            let (lines, basis) = content(self.rows, head)?;
            let Some(basis) = basis else { continue };
            let (correcting, lines) = lines.into_iter().partition(|line| line.corrects.is_some());
            let issued = basis.instalment.map(|instalment| Issued {
                serial: head.serial,
                number: head.number.to_owned(),
                instalment,
                lines,
                correcting,
                corrected: basis.corrected,
            });
            let of_customer = of_customer.entry(head.customer).or_default();
            of_customer.extend(issued);
        }
        Ok(of_customer)
    }

    /// The instalments of which no document has billed the rest yet, by customer.
    pub(super) fn begun(&self) -> Result<BTreeMap<&'a str, Vec<Issued>>> {
        let mut begun = self.instalments_of(|_| true)?;
        let documents = self.by_customer(|customer| begun.contains_key(customer))?;
        for (customer, documents) in documents {
            let taken_up = documents.iter().flat_map(|document| &document.own_basis);
            let taken_up: Vec<&String> = taken_up.flat_map(|basis| &basis.begun).collect();
            if let Some(instalments) = begun.get_mut(customer) {
                instalments.retain(|instalment| !taken_up.contains(&&instalment.number));
            }
        }
        Ok(begun)
    }

    /// The documents of customers for whom something holds, each in their turn.
    pub(super) fn by_customer(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<&'a str, Vec<Document<'a>>>> {
        let mut of_customer: BTreeMap<&str, Vec<Head<'a>>> = BTreeMap::new();
        for head in self.heads.iter().filter(|head| is_wanted(head.customer)) {
            of_customer.entry(head.customer).or_default().push(*head);
        }
        let instalments = self.instalments_of(&is_wanted)?;
        let documents = of_customer.into_iter().map(|(customer, heads)| {
            let instalments = instalments.get(customer);
            let instalments = instalments.map_or(&[][..], Vec::as_slice);
            Ok((customer, Document::of(self.rows, heads, instalments)?))
        });
        documents.collect()
    }
}
