//! The tables of accounts in the lake: how an import lands whole or not at all, and which rows count.
//!
//! ```text
//!  files + rows that count ──import (pure)──▶ new rows
//!      each table      stage, commit        rows of an import that is not there yet: no reader counts them
//!      `imports`       commit its row       the import is there; compare-and-swap on its number
//! ```
//!
//! A crash before the last commit leaves rows that never count, and the same import made again has another id. Two imports at
//! once were both checked against the same rows, so the second is refused.

mod by_range;

use crate::{
    clock::Clock,
    customers::Customers,
    error::{Error, Result, query_error},
    keys::hex,
    tables::{IMPORTS, accounts_table},
};
pub use by_range::ByRange;

use arrow::{
    array::{
        AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    compute::{cast, concat_batches, filter_record_batch},
    datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType},
};
use datafusion::prelude::{Expr, SessionContext, col, lit};
use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{
    Attempt, CommitId, Error as ConnectorError, Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{
    accounts::{self, Accounts, AccountsFile, Import, Subject, TABLES, stored_rows_of},
    definitions::Definitions,
    schema::{
        self,
        accounts::{accounts_schema, imports_schema, stored_accounts_schema},
    },
};

/// The `txn` app id, in `accounts/imports`, of the number of the last import.
const SERIAL_MARK: &str = "accounts/serial";

/// The column by which the rows of files stand together: what one customer has is read without the others'.
const TOGETHER: &str = "customer";

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// How many rows were written, by table.
    pub written: BTreeMap<&'static str, usize>,
    /// How many rows the files have.
    pub read: usize,
    /// How many rows were written by the same request before; nothing was written now.
    pub again: Option<usize>,
}

/// What a request is known by that may be made again: its key, and what it says.
///
/// The id of its import begins with both, so that it has come to count if and only if there is such an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    key: String,
    content: String,
}

impl Request {
    /// By the key that the caller chose, and the parts of what it says.
    pub fn new(key: &[u8], parts: &[&[u8]]) -> Self {
        let mut content = Sha256::new();
        for part in parts {
            // 64 bits hold any length, so that no two requests run together the same way.
            content.update((part.len() as u64).to_le_bytes());
            content.update(part);
        }
        Request {
            key: hex(&Sha256::digest(key)),
            content: hex(&content.finalize()),
        }
    }

    /// An id for an import of it. One that was cut off left rows under another id, so each is new.
    fn import_id(&self) -> String {
        let new = uuid::Uuid::now_v7().simple();
        format!("{}-{}-{new}", self.key, self.content)
    }

    /// Its import among those that count, if it was made before.
    ///
    /// # Errors
    /// The key was used for something else.
    fn found_in(&self, counted: &Counted) -> Result<Option<usize>> {
        let mut made = counted.imports.range(self.key.clone()..);
        let Some((id, rows)) = made.next().filter(|(id, _)| id.starts_with(&self.key)) else {
            return Ok(None);
        };
        let rest = id[self.key.len()..].trim_start_matches('-');
        match rest.starts_with(&self.content) {
            true => Ok(Some(usize::try_from(*rows).unwrap_or_default())),
            false => Err(Error::KeyReused),
        }
    }
}

/// Whether anything was imported: then usage is billed by subscription, and not on the default plan.
///
/// # Errors
/// The lake cannot be read.
pub async fn are_there(lake: &Lake) -> Result<bool> {
    Ok(Counted::of(lake).await?.serial > 0)
}

/// All rows that count, in the order in which they were written.
///
/// # Errors
/// The lake cannot be read.
pub async fn load(lake: &Lake) -> Result<Accounts> {
    load_counted(lake, &Counted::of(lake).await?, &Customers::All, None).await
}

/// The rows that counted when an import was the last one, of some customers as [`load_of`] has those of one.
///
/// # Errors
/// The lake cannot be read.
pub(super) async fn load_until(
    lake: &Lake,
    serial: i64,
    customers: &Customers,
) -> Result<Accounts> {
    load_counted(lake, &Counted::until(lake, serial).await?, customers, None).await
}

/// The rows of one customer that count, and all rows of the subjects that it pays for at some time: with whom they are before and
/// after. Others' rows are not read.
///
/// # Errors
/// The lake cannot be read.
pub async fn load_of(lake: &Lake, customer: &str) -> Result<Accounts> {
    let customers = Customers::One(customer.to_owned());
    load_counted(lake, &Counted::of(lake).await?, &customers, None).await
}

/// Those of some customers; `moved` are the subjects that have rows of several customers, where that is known.
async fn load_counted(
    lake: &Lake,
    counted: &Counted,
    customers: &Customers,
    moved: Option<&BTreeSet<String>>,
) -> Result<Accounts> {
    let Some(of_customers) = customers.condition(&col("customer")) else {
        let (accounts, _) = load_where(lake, counted, |_| lit(true)).await?;
        return Ok(accounts);
    };
    let (mut accounts, files) = load_where(lake, counted, |_| of_customers.clone()).await?;
    let has_others = |row: &mut Subject| moved.is_none_or(|moved| moved.contains(&row.subject));
    let subjects = accounts.subjects.extract_if(.., has_others);
    let subjects: BTreeSet<String> = subjects.map(|row| row.subject).collect();
    if let Some(table) = files.get("subjects")
        && !subjects.is_empty()
    {
        let names = || subjects.iter().map(|name| lit(name.as_str()));
        let of_subjects = match subjects.len() <= NAMED_MAX {
            true => col("subject").in_list(names().collect(), false),
            false => lit(true),
        };
        // Where all are read, others are left out before they become rows.
        let rows = counted.rows(table, of_subjects).await?.into_iter();
        let rows = rows.map(|rows| {
            let names = cast(&rows["subject"], &DataType::Utf8)?;
            let names = names.as_string::<i32>().iter();
            let is_wanted = names.map(|name| name.map(|name| subjects.contains(name)));
            filter_record_batch(&rows, &is_wanted.collect::<BooleanArray>())
        });
        let rows = rows.collect::<Result<Vec<_>, _>>();
        accounts.take_in("subjects", &rows.map_err(query_error("reading accounts"))?)?;
    }
    Ok(accounts)
}

/// Which of some customers had a row for each of some subjects, be it replaced since: who pays now, and who was to pay before an edit.
///
/// # Errors
/// The lake cannot be read.
pub(super) async fn ever_payers(
    lake: &Lake,
    customers: &Customers,
    subjects: &BTreeSet<&str>,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut payers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let counted = Counted::of(lake).await?;
    let (Some(table), false) = (existing(lake, "subjects").await?, subjects.is_empty()) else {
        return Ok(payers);
    };
    let of_customers = customers.condition(&col("customer")).unwrap_or(lit(true));
    let mut accounts = Accounts::default();
    accounts.take_in("subjects", &counted.rows(&table, of_customers).await?)?;
    for row in accounts.subjects {
        if subjects.contains(row.subject.as_str()) {
            payers.entry(row.subject).or_default().insert(row.customer);
        }
    }
    Ok(payers)
}

/// From how many subjects on all are read, and those that are not asked for left out.
const NAMED_MAX: usize = 500;

/// The rows of a table that count, with `written_at`.
///
/// # Errors
/// The lake cannot be read.
pub async fn relation(lake: &Lake, table: &str) -> Result<RecordBatch> {
    let schema = relation_schema(table)?;
    let counted = Counted::of(lake).await?;
    let rows = match existing(lake, table).await? {
        Some(files) => counted.rows(&files, lit(true)).await?,
        None => Vec::new(),
    };
    let doing = "reading accounts";
    let columns = schema.fields().iter();
    let columns: Vec<&str> = columns.map(|field| field.name().as_str()).collect();
    let rows = rows.iter().map(|rows| {
        let places = columns.iter().map(|name| rows.schema().index_of(name));
        let rows = rows.project(&places.collect::<Result<Vec<_>, _>>()?)?;
        let columns = rows.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        RecordBatch::try_new(
            SchemaRef::clone(&schema),
            columns.collect::<Result<_, _>>()?,
        )
    });
    let rows: Vec<RecordBatch> = rows.collect::<Result<_, _>>().map_err(query_error(doing))?;
    concat_batches(&schema, &rows).map_err(query_error(doing))
}

/// The columns of a table of accounts as a relation.
///
/// # Errors
/// There is no such table, which is a bug.
pub fn relation_schema(table: &str) -> Result<SchemaRef> {
    let schema = accounts_schema(table).ok_or(NO_TABLE)?;
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let written_at = arrow::datatypes::Field::new("written_at", schema::timestamp(), false);
    fields.push(Arc::new(written_at));
    Ok(Arc::new(arrow::datatypes::Schema::new(fields)))
}

const NO_TABLE: Error = Error::Contradiction {
    what: "every table of accounts has a schema",
};

/// Checks files as a whole and writes the rows that say something new: all of them, or none.
///
/// # Errors
/// [`tollgate_sql::Error::Accounts`] with everything that is wrong, before anything is written; another import landed at the same
/// time; the lake cannot be read or written. Importing the files again is safe after any of them.
pub async fn import(
    lake: &Lake,
    files: &[AccountsFile],
    definitions: &Definitions,
    zone: &str,
    clock: &dyn Clock,
) -> Result<Imported> {
    import_as(lake, files, definitions, zone, (None, clock)).await
}

/// The same of a request that may come again: one that came to count before writes nothing, whatever was written since.
///
/// # Errors
/// Those of [`import`]; [`Error::KeyReused`] when its key is that of another request.
pub async fn import_as(
    lake: &Lake,
    files: &[AccountsFile],
    definitions: &Definitions,
    zone: &str,
    (request, clock): (Option<&Request>, &dyn Clock),
) -> Result<Imported> {
    let counted = Counted::of(lake).await?;
    if let Some(request) = request
        && let again @ Some(_) = request.found_in(&counted)?
    {
        return Ok(Imported {
            written: BTreeMap::new(),
            read: 0,
            again,
        });
    }
    let (before, _) = load_where(lake, &counted, |_| lit(true)).await?;
    let Import { rows, read } = accounts::import(&before, files, definitions, zone)?;
    let mut imported = Imported {
        written: BTreeMap::new(),
        read,
        again: None,
    };
    let id = match request {
        Some(request) => request.import_id(),
        None => uuid::Uuid::now_v7().simple().to_string(),
    };
    // Later for each import, so that it says which of two rows was written later.
    let written_at_us = clock
        .now_us()
        .max(counted.last_written_us.saturating_add(1));
    for table in TABLES {
        let batch = stored_rows_of(&rows, table, &id, written_at_us).ok_or(NO_TABLE)??;
        if batch.num_rows() > 0 {
            imported.written.insert(table, batch.num_rows());
            write(lake, table, batch, &id).await?;
        }
    }
    // A request that may come again is known by its import, also when all of it stood already.
    if !imported.written.is_empty() || request.is_some() {
        let rows = imported.written.values().sum();
        count_in(lake, &counted, &id, written_at_us, rows).await?;
    }
    Ok(imported)
}

/// Writes the rows of an import that is not there yet.
async fn write(lake: &Lake, table: &str, rows: RecordBatch, id: &str) -> Result<()> {
    let schema = stored_accounts_schema(table).ok_or(NO_TABLE)?;
    let name = accounts_table(table);
    let files = lake.table(&name, &schema, &[], &BTreeMap::new()).await?;
    let mut files = files.keeping_together(TOGETHER);
    let attempt = attempt(id, BTreeMap::new());
    let staged = files.stage(&attempt.commit_id, &[rows]).await?;
    files.commit(&attempt, &staged).await?;
    Ok(())
}

/// Makes an import count, unless another one came to count since its rows were checked.
async fn count_in(
    lake: &Lake,
    checked_against: &Counted,
    id: &str,
    written_at_us: i64,
    rows: usize,
) -> Result<()> {
    let mut imports = lake
        .table(IMPORTS, &imports_schema(), &[], &BTreeMap::new())
        .await?;
    let last = imports.mark(SERIAL_MARK).unwrap_or(0);
    if last != checked_against.serial {
        return Err(Error::ImportedMeanwhile);
    }
    let serial = last + 1;
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let written_at = TimestampMicrosecondArray::from(vec![written_at_us]);
    let row = RecordBatch::try_new(
        imports_schema(),
        vec![
            Arc::new(Int64Array::from(vec![serial])),
            Arc::new(StringArray::from(vec![id])),
            Arc::new(written_at.with_data_type(schema::timestamp())),
            Arc::new(Int64Array::from(vec![rows])),
        ],
    );
    let row = row.map_err(query_error("writing accounts"))?;
    let marks = BTreeMap::from([(SERIAL_MARK.to_owned(), serial)]);
    let attempt = attempt(id, marks);
    let staged = imports.stage(&attempt.commit_id, &[row]).await?;
    match imports.commit(&attempt, &staged).await {
        Ok(_) => Ok(()),
        Err(ConnectorError::Fenced { .. }) => Err(Error::ImportedMeanwhile),
        Err(error) => Err(error.into()),
    }
}

fn attempt(id: &str, marks: BTreeMap<String, i64>) -> Attempt {
    Attempt {
        commit_id: CommitId(format!("accounts-{id}")),
        marks,
        info: BTreeMap::new(),
    }
}

/// The imports that count.
struct Counted {
    serial: i64,
    /// How many rows each wrote, by its id.
    imports: BTreeMap<String, i64>,
    last_written_us: i64,
    /// What every table is read in: making one takes longer than reading a small table.
    context: SessionContext,
}

impl Counted {
    /// Read before any table: the rows of an import that is there were committed before.
    async fn of(lake: &Lake) -> Result<Self> {
        Self::until(lake, i64::MAX).await
    }

    /// The imports up to one.
    async fn until(lake: &Lake, last: i64) -> Result<Self> {
        let mut counted = Counted {
            serial: 0,
            imports: BTreeMap::new(),
            last_written_us: i64::MIN,
            context: SessionContext::new(),
        };
        let (schema, none) = (imports_schema(), BTreeMap::new());
        let table = lake.existing_as(IMPORTS, &schema, &[], &none);
        let Some(table) = table.await? else {
            return Ok(counted);
        };
        counted.serial = table.mark(SERIAL_MARK).unwrap_or(0).min(last);
        let is_known = col("serial").lt_eq(lit(last));
        for batch in rows_where(&counted.context, &table, is_known).await? {
            let ids = batch["import"].as_string::<i32>().iter().flatten();
            let rows = batch["rows"].as_primitive::<Int64Type>().values().iter();
            let ids = ids.map(str::to_owned).zip(rows.copied());
            counted.imports.extend(ids);
            let times = batch["written_at"].as_primitive::<TimestampMicrosecondType>();
            let last = times.values().iter().max().copied();
            counted.last_written_us = counted.last_written_us.max(last.unwrap_or(i64::MIN));
        }
        Ok(counted)
    }

    /// The rows of a table that count, of those for which something holds.
    async fn rows(&self, table: &dyn Table, condition: Expr) -> Result<Vec<RecordBatch>> {
        let batches = rows_where(&self.context, table, condition).await?;
        self.counting(&batches)
    }

    /// Some columns of the rows of a table that count.
    async fn columns(&self, table: &dyn Table, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let doing = "reading accounts";
        let columns: Vec<&str> = columns.iter().copied().chain(["import"]).collect();
        let frame = self
            .context
            .read_table(table.provider()?)
            .and_then(|frame| frame.select_columns(&columns))
            .map_err(query_error(doing))?;
        self.counting(&frame.collect().await.map_err(query_error(doing))?)
    }

    fn counting(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let counted = batches.iter().map(|batch| {
            let ids = batch["import"].as_string::<i32>().iter();
            let is_counted = ids.map(|id| id.map(|id| self.imports.contains_key(id)));
            filter_record_batch(batch, &is_counted.collect::<BooleanArray>())
        });
        let counted = counted.collect::<Result<Vec<_>, _>>();
        counted.map_err(query_error("reading accounts"))
    }
}

/// The rows of each table that count, of those for which its condition holds, and the tables.
async fn load_where(
    lake: &Lake,
    counted: &Counted,
    condition: impl Fn(&str) -> Expr,
) -> Result<(Accounts, BTreeMap<&'static str, DeltaTable>)> {
    let (mut accounts, mut tables) = (Accounts::default(), BTreeMap::new());
    accounts.serial = counted.serial;
    // Rows of imports that do not count are not worth reading, nor tables without any other.
    if counted.imports.is_empty() {
        return Ok((accounts, tables));
    }
    // Beside one another: a question about one customer waits for the store more than for anything else.
    let read = TABLES.map(async |table| {
        let Some(files) = existing(lake, table).await? else {
            return Ok(None);
        };
        let rows = counted.rows(&files, condition(table)).await?;
        Ok::<_, Error>(Some((table, files, rows)))
    });
    for (table, files, rows) in try_join_all(read).await?.into_iter().flatten() {
        accounts.take_in(table, &rows)?;
        tables.insert(table, files);
    }
    Ok((accounts, tables))
}

async fn existing(lake: &Lake, table: &str) -> Result<Option<DeltaTable>> {
    let schema = stored_accounts_schema(table).ok_or(NO_TABLE)?;
    let name = accounts_table(table);
    let none = BTreeMap::new();
    Ok(lake.existing_as(&name, &schema, &[], &none).await?)
}

async fn rows_where(
    context: &SessionContext,
    table: &dyn Table,
    condition: Expr,
) -> Result<Vec<RecordBatch>> {
    let doing = "reading accounts";
    let frame = context
        .read_table(table.provider()?)
        .and_then(|frame| frame.filter(condition))
        .map_err(query_error(doing))?;
    frame.collect().await.map_err(query_error(doing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    async fn lake(folder: &tempfile::TempDir) -> Lake {
        let url = format!("file://{}", folder.path().display());
        Lake::open(&url, folder.path()).await.unwrap()
    }

    async fn import_texts(lake: &Lake, texts: &[(&str, &str)], clock: &dyn Clock) {
        let file = |(table, text): &(&str, &str)| AccountsFile {
            name: format!("{table}.csv"),
            bytes: text.as_bytes().to_vec(),
        };
        let files: Vec<AccountsFile> = texts.iter().map(file).collect();
        let definitions = Definitions::default();
        import(lake, &files, &definitions, "UTC", clock)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn of_one_customer_is_loaded_what_all_rows_say_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder).await;
        assert_eq!(load_of(&lake, "a").await.unwrap(), Accounts::default());
        // A clock that stands still, and then goes back: of two imports the second was written later all the same.
        let clock = ManualClock::at(1_000);
        let subjects = "subject,customer,valid_from\ns1,a,\ns1,b,2026-02-01\ns2,b,\ns3,c,\ns4,c,\ns4,a,2026-01-01\n";
        let customers = "customer,name\na,A\nb,B\nc,C\n";
        import_texts(
            &lake,
            &[("customers", customers), ("subjects", subjects)],
            &clock,
        )
        .await;
        import_texts(&lake, &[("customers", "customer,name\na,A2\n")], &clock).await;
        clock.advance(-500);
        let grants = "grant,customer,amount,currency,effective_at\ng1,a,1,USD,2026-01-01\ng2,b,2,USD,2026-01-01\n";
        import_texts(&lake, &[("grants", grants)], &clock).await;
        let grants = "grant,customer,amount,currency,effective_at,voided_at\ng1,a,1,USD,2026-01-01,2026-03-01\n";
        import_texts(&lake, &[("grants", grants)], &clock).await;
        import_texts(&lake, &[("customers", "customer,name\na,A3\n")], &clock).await;
        let all = load(&lake).await.unwrap();
        let names = all.customers.iter().filter(|row| row.customer == "a");
        let names: Vec<&str> = names.filter_map(|row| row.name.as_deref()).collect();
        assert_eq!(names, ["A", "A2", "A3"]);
        let whole = all.indexed();
        for (customer, subjects) in [
            ("a", &["s1", "s4"][..]),
            ("b", &["s1", "s2"]),
            ("c", &["s3", "s4"]),
            ("d", &[]),
        ] {
            let own = load_of(&lake, customer).await.unwrap();
            let is_own = |name: &String| name == customer;
            assert!(own.customers.iter().all(|row| is_own(&row.customer)));
            assert!(own.grants.iter().all(|row| is_own(&row.customer)));
            let own = own.indexed();
            assert_eq!(own.customer(customer), whole.customer(customer));
            assert_eq!(own.subjects().collect::<Vec<_>>(), subjects);
            for subject in subjects {
                assert_eq!(own.payers_of(subject), whole.payers_of(subject));
            }
            let grants = own.grants_of(customer).collect::<Vec<_>>();
            assert_eq!(grants, whole.grants_of(customer).collect::<Vec<_>>());
        }
        let relation = relation(&lake, "customers").await.unwrap();
        let times = relation["written_at"].as_primitive::<TimestampMicrosecondType>();
        let mut times = times.values().to_vec();
        times.sort_unstable();
        assert_eq!(times, [1_000, 1_000, 1_000, 1_001, 1_004]);
    }

    /// Subjects of which every third one passes from one customer to the next, more than are named one by one.
    fn moving_subjects() -> String {
        let mut text = "subject,customer,valid_from\n".to_owned();
        for number in 0..1_800 {
            let customer = number % 10;
            text += &format!("s{number:04},c{customer},\n");
            if number % 3 == 0 {
                text += &format!("s{number:04},c{},2026-02-01\n", (customer + 1) % 10);
            }
        }
        text
    }

    #[tokio::test]
    async fn a_range_has_what_all_rows_say_of_its_customers_as_of_when_it_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(&folder).await;
        let clock = ManualClock::at(1_000);
        let customers: String = (0..10)
            .map(|number| format!("c{number},C{number}\n"))
            .collect();
        let customers = format!("customer,name\n{customers}");
        let files = [("customers", customers), ("subjects", moving_subjects())];
        let files = files
            .each_ref()
            .map(|(table, text)| (*table, text.as_str()));
        import_texts(&lake, &files, &clock).await;
        let whole = load(&lake).await.unwrap().indexed();
        let by_range = ByRange::begin(&lake, None).await.unwrap();
        // What is imported from here on belongs to the next job.
        let later = [
            ("customers", "customer,name\nc3,Other\nnew,New\n"),
            (
                "subjects",
                "subject,customer,valid_from\ns0003,new,2026-03-01\n",
            ),
        ];
        import_texts(&lake, &later, &clock).await;
        assert_eq!(by_range.names.iter().count(), 10);
        assert_eq!(by_range.subjects.iter().count(), 1_800);
        let range = Customers::between(Some("c3".into()), Some("c6".into()));
        let own = by_range.of(&range).await.unwrap();
        assert_eq!(own.customers().collect::<Vec<_>>(), ["c3", "c4", "c5"]);
        for customer in ["c3", "c4", "c5"] {
            assert_eq!(own.customer(customer), whole.customer(customer));
            let subjects: Vec<&str> = own.subjects_of(customer).collect();
            assert_eq!(subjects, whole.subjects_of(customer).collect::<Vec<_>>());
            // 180 of its own, and 60 that it has from the customer before.
            assert_eq!(subjects.len(), 240, "{customer}");
            for subject in subjects {
                assert_eq!(own.payers_of(subject), whole.payers_of(subject));
            }
        }
        assert_eq!(
            own.customer_at("c3", 0).unwrap().name.as_deref(),
            Some("C3")
        );
    }
}
