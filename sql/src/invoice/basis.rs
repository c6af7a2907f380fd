//! What an invoice was made from, as its document keeps it: the usage it billed, the prices it was rated by and
//! the rate tables they joined. From it a later run tells what has changed since, and why.
//!
//! ```json
//! {"usage":[{"meter":"tokens","subject":"acme","quantities":{"calls":"3","input":"1200"},"hash":"…"}],
//!  "plans":{"pro":"…"},"prices":{"tokens_by_model":"…"},"rate_tables":{"model_rates":"…"},
//!  "reads":{"tokens_by_model":["model_rates"]},"zone":"Europe/Berlin","accounts":7,
//!  "due":1769904000000000,"closed":[["s1",1767225600000000,1769904000000000]],"one_offs":["setup"],"corrected":{"INV-000001":{…}},
//!  "instalment":null,"begun":["INV-000007"]}
//! ```
//! A price that was one thing in the period that closed and another in the one that opened has a list of hashes. `corrected`
//! has, by number, what each earlier document that this one corrects is made from now. `zone`, `reads`, `plans`, `accounts`,
//! `due`, `closed`, `one_offs`, `instalment` and `begun` are missing in documents that were issued before they were kept.
//! Hashes are XXH3-64 in 16 hex digits over texts with their lengths, so that they mean the same in every build.

use super::{Period, instalments::Instalment};
use crate::{
    error::{Error, Result},
    money::Exact,
};
use arrow::{
    array::{AsArray, RecordBatch},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::Xxh3;

/// What one invoice was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Basis {
    /// The customer's usage, by meter and subject.
    pub usage: Vec<Usage>,
    /// What prices and rate tables were.
    pub rated_by: RatedBy,
    /// The zone by whose calendar the billing period was; `None` where that was not kept.
    pub zone: Option<String>,
    /// The number of the last import of accounts that was known; `None` without accounts, and where that was not kept.
    pub accounts: Option<i64>,
    /// When it was due, in microseconds since the Unix epoch; `None` where that was not kept.
    pub due_us: Option<i64>,
    /// The billing periods that it closed, by subscription; none in documents that were issued before that was kept.
    pub closed: Vec<(String, Period)>,
    /// The names of the one-offs that it billed; none in documents that were issued before that was kept.
    pub one_offs: Vec<String>,
    /// What earlier documents are made from now, by number, as far as this one was compared with them.
    pub corrected: BTreeMap<String, Basis>,
    /// Which instalment it is of a billing period that was not over.
    pub instalment: Option<Instalment>,
    /// The numbers of earlier documents that billed a part of its billing periods.
    pub begun: Vec<String>,
}

/// What one subject used of one meter in the billing period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The meter.
    pub meter: String,
    /// Who used it.
    pub subject: String,
    /// Each numeric measure, added up over all dimensions, as text. For people: which of two rows moved, only
    /// the hash tells.
    pub quantities: BTreeMap<String, String>,
    /// A hash of all rows, with their dimensions.
    pub hash: String,
}

/// Texts of one kind by name.
pub type Named = BTreeMap<String, BTreeSet<String>>;

/// Plans, prices and rate tables by name, each as a hash of what it was; several where it was more than one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RatedBy {
    /// A hash of everything that each plan says.
    pub plans: Named,
    /// A hash of each price's versions and queries.
    pub prices: Named,
    /// A hash of the rows of each rate table that the prices read.
    pub rate_tables: Named,
    /// The rate tables that each price reads, by which a line names those that it was made from. A price without any
    /// is not in it.
    pub reads: Named,
}

impl RatedBy {
    /// Adds what another part of the same invoice was rated by.
    pub fn extend(&mut self, other: &RatedBy) {
        for (own, others) in [
            (&mut self.plans, &other.plans),
            (&mut self.prices, &other.prices),
            (&mut self.rate_tables, &other.rate_tables),
            (&mut self.reads, &other.reads),
        ] {
            for (name, texts) in others {
                let known = own.entry(name.clone()).or_default();
                known.extend(texts.iter().cloned());
            }
        }
    }
}

/// The usage of every customer in the totals of one meter: columns `customer`, `subject`, dimensions and
/// `measures`.
///
/// # Errors
/// [`Error::Engine`] for a column that has no text.
pub fn usage_of(
    meter: &str,
    measures: &[&str],
    totals: &RecordBatch,
) -> Result<BTreeMap<String, Vec<Usage>>> {
    let customers = totals["customer"].as_string::<i32>();
    let subjects = totals["subject"].as_string::<i32>();
    let formatters = formatters(totals).map_err(engine)?;
    let key = |row: usize| (customers.value(row), subjects.value(row));
    let mut rows: Vec<usize> = (0..totals.num_rows()).collect();
    rows.sort_by_key(|row| key(*row));
    let mut usage: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for rows in rows.chunk_by(|left, right| key(*left) == key(*right)) {
        let (customer, subject) = key(rows[0]);
        let mut quantities = BTreeMap::new();
        for measure in measures {
            if let Some(sum) = sum(totals, measure, rows) {
                quantities.insert((*measure).to_owned(), sum.to_string());
            }
        }
        let lines = rows.iter().map(|row| text(totals, &formatters, *row));
        let mut lines: Vec<Vec<String>> = lines.collect::<Result<_, _>>().map_err(engine)?;
        lines.sort();
        usage.entry(customer.to_owned()).or_default().push(Usage {
            meter: meter.to_owned(),
            subject: subject.to_owned(),
            quantities,
            hash: hash(lines.iter().flatten().map(String::as_str)),
        });
    }
    Ok(usage)
}

/// The sum of a numeric measure over some rows; `None` when it is not numeric, NULL in all of them, or more than
/// 38 digits: the hash tells whether it moved all the same.
fn sum(totals: &RecordBatch, measure: &str, rows: &[usize]) -> Option<Exact> {
    let column = &totals[measure];
    let values = rows
        .iter()
        .map(|row| Exact::from_array(column.as_ref(), *row));
    let values: Vec<Option<Exact>> = values.collect::<Result<_, _>>().ok()?;
    let mut values = values.into_iter().flatten();
    let first = values.next()?;
    values.try_fold(first, |sum, value| sum.checked_add(value).ok())
}

/// A hash of the rows of a table, whatever their order.
///
/// # Errors
/// [`Error::Engine`] for a column that has no text.
pub fn rows_hash(rows: &RecordBatch) -> Result<String> {
    let mut texts = texts(rows).map_err(engine)?;
    texts.sort();
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    Ok(hash(
        names.chain(texts.iter().flatten().map(String::as_str)),
    ))
}

/// XXH3-64 over texts, each with its length, in 16 hex digits.
pub fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Xxh3::new();
    for text in texts {
        hash.update(&(text.len() as u128).to_le_bytes());
        hash.update(text.as_bytes());
    }
    format!("{:016x}", hash.digest())
}

/// Each row as texts.
fn texts(rows: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let formatters = formatters(rows)?;
    let texts = (0..rows.num_rows()).map(|row| text(rows, &formatters, row));
    texts.collect()
}

/// What makes texts of the cells of each column.
fn formatters(rows: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>, ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let columns = rows.columns().iter();
    let formatters = columns.map(|column| ArrayFormatter::try_new(column.as_ref(), &OPTIONS));
    formatters.collect()
}

/// A row as texts; NULL is not the same as the text `NULL` is.
fn text(
    rows: &RecordBatch,
    formatters: &[ArrayFormatter<'_>],
    row: usize,
) -> Result<Vec<String>, ArrowError> {
    let cells = formatters.iter().zip(rows.columns());
    let cells = cells.map(|(text, column)| match column.is_null(row) {
        true => Ok(String::new()),
        false => Ok(format!("={}", text.value(row).try_to_string()?)),
    });
    cells.collect()
}

impl Basis {
    /// As the column `basis` of `invoices` has it.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    fn to_value(&self) -> Value {
        let usage = self.usage.iter().map(|usage| {
            json!({
                "meter": usage.meter,
                "subject": usage.subject,
                "quantities": usage.quantities,
                "hash": usage.hash,
            })
        });
        json!({
            "usage": usage.collect::<Vec<Value>>(),
            "plans": hashes_json(&self.rated_by.plans),
            "prices": hashes_json(&self.rated_by.prices),
            "rate_tables": hashes_json(&self.rated_by.rate_tables),
            "reads": self.rated_by.reads,
            "zone": self.zone,
            "accounts": self.accounts,
            "due": self.due_us,
            "one_offs": self.one_offs,
            "instalment": self.instalment.as_ref().map(|of| json!([of.subscription, of.start_us, of.place])),
            "begun": self.begun,
            "closed": self.closed.iter().map(|(name, of)| json!([name, of.start_us, of.end_us])).collect::<Vec<_>>(),
            "corrected": self.corrected.iter().map(|(number, basis)| (number.clone(), basis.to_value())).collect::<Map<_, _>>(),
        })
    }

    /// Reads [`Basis::to_json`]; `None` when it is something else.
    pub fn from_json(text: &str) -> Option<Self> {
        Self::from_value(&serde_json::from_str(text).ok()?)
    }

    fn from_value(value: &Value) -> Option<Self> {
        let usage = value.get("usage")?.as_array()?.iter().map(|usage| {
            Some(Usage {
                meter: usage.get("meter")?.as_str()?.to_owned(),
                subject: usage.get("subject")?.as_str()?.to_owned(),
                quantities: texts_of(usage.get("quantities")?.as_object()?)?,
                hash: usage.get("hash")?.as_str()?.to_owned(),
            })
        });
        Some(Basis {
            usage: usage.collect::<Option<_>>()?,
            rated_by: RatedBy {
                plans: named_if_kept(value.get("plans"))?,
                prices: named_of(value.get("prices")?)?,
                rate_tables: named_of(value.get("rate_tables")?)?,
                reads: named_if_kept(value.get("reads"))?,
            },
            zone: value.get("zone").and_then(Value::as_str).map(str::to_owned),
            accounts: value.get("accounts").and_then(Value::as_i64),
            due_us: value.get("due").and_then(Value::as_i64),
            one_offs: names_if_kept(value.get("one_offs"))?,
            instalment: match value.get("instalment") {
                None | Some(Value::Null) => None,
                Some(of) => Some(Instalment {
                    subscription: of.get(0)?.as_str()?.to_owned(),
                    start_us: of.get(1)?.as_i64()?,
                    place: u32::try_from(of.get(2)?.as_u64()?).ok()?,
                }),
            },
            begun: names_if_kept(value.get("begun"))?,
            closed: match value.get("closed") {
                Some(closed) => closed_of(closed)?,
                None => Vec::new(),
            },
            corrected: match value.get("corrected") {
                Some(corrected) => {
                    let corrected = corrected.as_object()?.iter();
                    let corrected = corrected
                        .map(|(number, basis)| Some((number.clone(), Self::from_value(basis)?)));
                    corrected.collect::<Option<_>>()?
                }
                None => BTreeMap::new(),
            },
        })
    }
}

fn closed_of(value: &Value) -> Option<Vec<(String, Period)>> {
    let closed = value.as_array()?.iter().map(|of| {
        let period = Period {
            start_us: of.get(1)?.as_i64()?,
            end_us: of.get(2)?.as_i64()?,
        };
        Some((of.get(0)?.as_str()?.to_owned(), period))
    });
    closed.collect()
}

fn engine(source: ArrowError) -> Error {
    Error::Engine {
        doing: "reading what an invoice is made from",
        source: Box::new(source.into()),
    }
}

/// One hash as a text, several as a list.
fn hashes_json(named: &Named) -> Value {
    let hashes = named.iter().map(|(name, hashes)| {
        let mut all = hashes.iter();
        let value = match (all.next(), all.next()) {
            (Some(hash), None) => json!(hash),
            _ => json!(hashes),
        };
        (name.clone(), value)
    });
    Value::Object(hashes.collect())
}

fn names_if_kept(value: Option<&Value>) -> Option<Vec<String>> {
    let names = value.and_then(Value::as_array).into_iter().flatten();
    names.map(|name| Some(name.as_str()?.to_owned())).collect()
}

fn named_if_kept(value: Option<&Value>) -> Option<Named> {
    value.map_or(Some(Named::new()), named_of)
}

fn named_of(value: &Value) -> Option<Named> {
    let names = value.as_object()?.iter().map(|(name, texts)| {
        let texts: Option<BTreeSet<String>> = match texts {
            Value::Array(list) => {
                let texts = list.iter();
                texts.map(|text| text.as_str().map(str::to_owned)).collect()
            }
            text => Some(BTreeSet::from([text.as_str()?.to_owned()])),
        };
        Some((name.clone(), texts?))
    });
    names.collect()
}

fn texts_of(object: &Map<String, Value>) -> Option<BTreeMap<String, String>> {
    let pairs = object.iter();
    pairs
        .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}
