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
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde::{
    Serialize,
    ser::{SerializeMap, Serializer},
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use xxhash_rust::xxh3::Xxh3;

/// What one invoice was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Basis {
    /// The customer's usage, by meter and subject.
    pub usage: Vec<Usage>,
    /// What prices and rate tables were.
    pub rated_by: Arc<RatedBy>,
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
    let cells = cells(totals).map_err(engine)?;
    let measures = measures.iter().map(|name| (*name, &totals[*name]));
    let measures: Vec<(&str, &ArrayRef)> = measures.collect();
    let key = |row: usize| (customers.value(row), subjects.value(row));
    let mut rows: Vec<usize> = (0..totals.num_rows()).collect();
    rows.sort_by_key(|row| key(*row));
    let mut usage: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for rows in rows.chunk_by(|left, right| key(*left) == key(*right)) {
        let (customer, subject) = key(rows[0]);
        let mut quantities = BTreeMap::new();
        for (name, column) in &measures {
            if let Some(sum) = sum(column, rows) {
                quantities.insert((*name).to_owned(), sum.to_string());
            }
        }
        let lines = rows.iter().map(|row| text(&cells, *row));
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
fn sum(column: &ArrayRef, rows: &[usize]) -> Option<Exact> {
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
    let cells = cells(rows)?;
    let texts = (0..rows.num_rows()).map(|row| text(&cells, row));
    texts.collect()
}

/// What makes texts of the cells of each column.
fn cells(rows: &RecordBatch) -> Result<Vec<Cells<'_>>, ArrowError> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let cells = rows
        .columns()
        .iter()
        .map(|column| match column.as_string_opt() {
            Some(texts) => Ok(Cells::Texts(texts)),
            None => {
                let formatter = ArrayFormatter::try_new(column.as_ref(), &OPTIONS)?;
                Ok(Cells::Others(column, formatter))
            }
        });
    cells.collect()
}

/// The cells of a column.
enum Cells<'a> {
    Texts(&'a StringArray),
    Others(&'a ArrayRef, ArrayFormatter<'a>),
}

impl Cells<'_> {
    /// A cell as a text; NULL is not the same as the text `NULL` is.
    fn text(&self, row: usize) -> Result<String, ArrowError> {
        Ok(match self {
            Cells::Texts(texts) if texts.is_valid(row) => format!("={}", texts.value(row)),
            Cells::Others(column, text) if column.is_valid(row) => {
                format!("={}", text.value(row).try_to_string()?)
            }
            _ => String::new(),
        })
    }
}

/// A row as texts.
fn text(cells: &[Cells<'_>], row: usize) -> Result<Vec<String>, ArrowError> {
    cells.iter().map(|cells| cells.text(row)).collect()
}

impl Basis {
    /// As the column `basis` of `invoices` has it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Kept::of(self))
            .expect("maps whose keys are texts are JSON, and nothing else of it can fail")
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
            rated_by: Arc::new(RatedBy {
                plans: named_if_kept(value.get("plans"))?,
                prices: named_of(value.get("prices")?)?,
                rate_tables: named_of(value.get("rate_tables")?)?,
                reads: named_if_kept(value.get("reads"))?,
            }),
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

/// What [`Basis::to_json`] writes.
#[derive(Serialize)]
struct Kept<'a> {
    accounts: Option<i64>,
    begun: &'a [String],
    closed: Vec<(&'a str, i64, i64)>,
    corrected: BTreeMap<&'a str, Kept<'a>>,
    due: Option<i64>,
    instalment: Option<(&'a str, i64, u32)>,
    one_offs: &'a [String],
    plans: Hashes<'a>,
    prices: Hashes<'a>,
    rate_tables: Hashes<'a>,
    reads: &'a Named,
    usage: Vec<KeptUsage<'a>>,
    zone: Option<&'a str>,
}

#[derive(Serialize)]
struct KeptUsage<'a> {
    hash: &'a str,
    meter: &'a str,
    quantities: &'a BTreeMap<String, String>,
    subject: &'a str,
}

impl<'a> Kept<'a> {
    fn of(basis: &'a Basis) -> Self {
        let closed = basis.closed.iter();
        let corrected = basis.corrected.iter();
        let instalment = basis.instalment.as_ref();
        let usage = basis.usage.iter().map(|usage| KeptUsage {
            hash: &usage.hash,
            meter: &usage.meter,
            quantities: &usage.quantities,
            subject: &usage.subject,
        });
        Kept {
            accounts: basis.accounts,
            begun: &basis.begun,
            closed: closed
                .map(|(name, of)| (name.as_str(), of.start_us, of.end_us))
                .collect(),
            corrected: corrected
                .map(|(number, basis)| (number.as_str(), Kept::of(basis)))
                .collect(),
            due: basis.due_us,
            instalment: instalment.map(|of| (of.subscription.as_str(), of.start_us, of.place)),
            one_offs: &basis.one_offs,
            plans: Hashes(&basis.rated_by.plans),
            prices: Hashes(&basis.rated_by.prices),
            rate_tables: Hashes(&basis.rated_by.rate_tables),
            reads: &basis.rated_by.reads,
            usage: usage.collect(),
            zone: basis.zone.as_deref(),
        }
    }
}

/// By name one hash as a text, several as a list.
struct Hashes<'a>(&'a Named);

impl Serialize for Hashes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, hashes) in self.0 {
            let mut all = hashes.iter();
            match (all.next(), all.next()) {
                (Some(hash), None) => map.serialize_entry(name, hash)?,
                _ => map.serialize_entry(name, hashes)?,
            }
        }
        map.end()
    }
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
