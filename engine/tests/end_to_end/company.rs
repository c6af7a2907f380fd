//! A company of made-up customers, billed for fourteen months: each document is what an oracle in Python makes of the
//! raw events and the CSV files.
//!
//! `company/generate.py` makes up accounts and usage from a seed, `company/oracle.py` says what is owed by the rules of
//! `docs/invoices.md`, and shares no code with the engine. `TOLLGATE_COMPANY_CUSTOMERS` and `TOLLGATE_COMPANY_SEED` name
//! another company; `--nocapture` shows the times.

use arrow::array::AsArray;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;
use tollgate::{
    billing::{self, Asked, Which},
    catalog::Catalog,
    clock::ManualClock,
    config::Settings,
    dedupe,
    shard::{self, Options, Parts, Questions},
    telemetry::Progress,
    view::View,
};
use tollgate_connectors::{
    Message, Sequence,
    event::{DecodeOptions, Decoder},
    lake::Lake,
    memory::MemoryStream,
};
use tollgate_sql::{
    accounts::AccountsFile,
    invoice::{Invoice, LineItem, LineKind},
    money::Exact,
};

/// Of the price list.
const DEFINITIONS: [&str; 3] = ["definitions.sql", "model_rates.csv", "tax_rates.csv"];

/// How many customers there are and what they are made up from, unless the variables say otherwise.
const CUSTOMERS: &str = "300";
const SEED: &str = "1";

/// How many events come in one message.
const BATCH: usize = 500;

/// Documents by run, customer and period.
type Documents = BTreeMap<(u64, String, String), Value>;

#[tokio::test(flavor = "multi_thread")]
async fn a_company_owes_what_an_oracle_makes_of_its_events_and_files() {
    let Some(python) = python() else {
        println!("skipped: there is no python");
        return;
    };
    let variable = |name: &str, other: &str| env::var(name).unwrap_or_else(|_| other.to_owned());
    let seed = variable("TOLLGATE_COMPANY_SEED", SEED);
    let customers = variable("TOLLGATE_COMPANY_CUSTOMERS", CUSTOMERS);
    let company = Company::new(&python, &seed, &customers);
    let (expected, balances) = company.expected(&python);
    let billed = company.bill().await;
    let differences = differences(&expected, &billed);
    println!(
        "{} documents of {customers} customers from seed {seed}",
        expected.len()
    );
    assert!(differences.is_empty(), "seed {seed}:{differences}");
    assert_eq!(company.balances().await, balances, "seed {seed}");
    company.take_back_and_issue_again().await;
}

/// A file of the company's.
fn source(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/company");
    folder.join(name)
}

/// The python that runs the generator and the oracle: both need its standard library alone.
fn python() -> Option<OsString> {
    let named = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty());
    let mut pythons = named.into_iter().chain([OsString::from("python3")]);
    pythons.find(|python| {
        let zones = "import zoneinfo; zoneinfo.ZoneInfo('Australia/Lord_Howe')";
        let ran = Command::new(python).args(["-c", zones]).output();
        ran.is_ok_and(|ran| ran.status.success())
    })
}

/// What a script prints.
fn print_of(python: &OsString, arguments: &[&Path]) -> String {
    let since = Instant::now();
    let ran = Command::new(python).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    let script = arguments[0].file_name().unwrap().display();
    println!("{script} in {:.1?}", since.elapsed());
    String::from_utf8(ran.stdout).unwrap()
}

/// A folder with definitions, scripts, what was made up, and a lake.
struct Company {
    folder: tempfile::TempDir,
    settings: Settings,
    /// When the job runs, in microseconds.
    runs: Vec<i64>,
}

/// Messages, and how many were sent.
#[derive(Default)]
struct Stream {
    messages: MemoryStream,
    sent: u64,
}

impl Company {
    fn new(python: &OsString, seed: &str, customers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("definitions")).unwrap();
        for name in DEFINITIONS {
            fs::copy(source(name), path("definitions").join(name)).unwrap();
        }
        let arguments = [
            source("generate.py"),
            seed.into(),
            customers.into(),
            path("company"),
        ];
        print_of(python, &arguments.each_ref().map(PathBuf::as_path));
        let runs = fs::read_to_string(path("company").join("runs.json")).unwrap();
        let mut settings = Settings {
            base: folder.path().to_owned(),
            ..Settings::default()
        };
        settings.lake.url = format!("file://{}", path("lake").display());
        Company {
            settings,
            runs: serde_json::from_str(&runs).unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the oracle says: documents, and what is left of each grant.
    fn expected(&self, python: &OsString) -> (Documents, Value) {
        let arguments = [
            source("oracle.py"),
            self.path("company"),
            self.path("definitions"),
        ];
        let printed = print_of(python, &arguments.each_ref().map(PathBuf::as_path));
        let (documents, balances) = printed.trim_end().rsplit_once('\n').unwrap();
        let balances: Value = serde_json::from_str(balances).unwrap();
        let documents = documents.lines().map(|line| {
            let mut document: Map<String, Value> = serde_json::from_str(line).unwrap();
            let run = document.remove("run").unwrap().as_u64().unwrap();
            keyed(run, Value::Object(document))
        });
        (documents.collect(), balances["balances"].clone())
    }

    /// What the rows of `credit_ledger` add up to, by grant.
    async fn balances(&self) -> Value {
        let lake = self.lake().await;
        let rows = billing::credit_ledger(&lake, *self.runs.last().unwrap()).await;
        let rows = rows.unwrap();
        let accounts = billing::accounts::load(&lake).await.unwrap().indexed();
        let grants = accounts.grants().iter().map(|grant| grant.grant.clone());
        let mut sums: BTreeMap<String, Exact> = grants.map(|name| (name, Exact::ZERO)).collect();
        for row in 0..rows.num_rows() {
            let name = rows["grant"].as_string::<i32>().value(row);
            let amount = Exact::from_array(&rows["amount"], row).unwrap();
            let sum = sums.get_mut(name).unwrap();
            *sum = sum.checked_add(amount.unwrap()).unwrap();
        }
        let sums = sums.into_iter();
        Value::Object(
            sums.map(|(name, sum)| (name, Value::from(plain(sum))))
                .collect(),
        )
    }

    /// What the engine issues.
    async fn bill(&self) -> Documents {
        let mut stream = Stream::default();
        let mut all = Documents::new();
        for (number, at_us) in self.runs.iter().enumerate() {
            let run = u64::try_from(number).unwrap();
            let since = Instant::now();
            self.import(number, *at_us).await;
            self.meter(&mut stream, number, *at_us).await;
            let metered = since.elapsed();
            let issued = self.issue(*at_us, false).await;
            println!(
                "run {run}: metered in {metered:.1?}, issued in {:.1?}",
                since.elapsed() - metered
            );
            all.extend(issued.iter().map(|invoice| keyed(run, document(invoice))));
        }
        all
    }

    async fn lake(&self) -> Lake {
        Lake::open(&self.settings.lake.url, &self.settings.base)
            .await
            .unwrap()
    }

    async fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::load(&self.settings).await.unwrap())
    }

    /// Imports the files of a run.
    async fn import(&self, run: usize, at_us: i64) {
        let files = fs::read_dir(self.path(&format!("company/run-{run}"))).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "csv"));
        files.sort();
        let files: Vec<AccountsFile> = files
            .iter()
            .map(|file| AccountsFile {
                name: file.file_name().unwrap().to_str().unwrap().to_owned(),
                bytes: fs::read(file).unwrap(),
            })
            .collect();
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let clock = ManualClock::at(at_us);
        billing::accounts::import(&lake, &files, &catalog.definitions, "UTC", &clock)
            .await
            .unwrap();
    }

    /// Meters the usage that has arrived by a run: each message was stored when its last event happened.
    async fn meter(&self, stream: &mut Stream, run: usize, at_us: i64) {
        let events = self.path(&format!("company/run-{run}/events.ndjson"));
        let events = fs::read_to_string(events).unwrap();
        let events: Vec<&str> = events.lines().collect();
        for events in events.chunks(BATCH) {
            let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
            let stored: jiff::Timestamp = last["time"].as_str().unwrap().parse().unwrap();
            stream.sent += 1;
            stream.messages.append(Message {
                sequence: Sequence(stream.sent),
                ingest_time_us: stored.as_microsecond(),
                headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
                payload: (events.join("\n") + "\n").into(),
                unread: None,
            });
        }
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let mut tables = Vec::new();
        for meter in &catalog.meters {
            tables.push(catalog.create_meter(&lake, meter).await.unwrap());
        }
        let decoder = Decoder::new(catalog.events_schema(), "company", DecodeOptions::default());
        let parts = Parts {
            source: Box::new(stream.messages.source("company")),
            decoder: decoder.unwrap(),
            definitions: catalog.definitions.clone(),
            checks: catalog.checks.clone(),
            meters: catalog.meters.clone(),
            events: catalog.create_events(&lake).await.unwrap(),
            tables,
            clock: Arc::new(ManualClock::at(at_us)),
        };
        let (_stop, stopped) = watch::channel(false);
        let progress = watch::Sender::new(Progress::default());
        let options = Options {
            batch_bytes: 1_000_000,
            flush_interval_us: i64::MAX,
            flush_bytes: 64_000_000,
            windows_bytes: usize::MAX,
            dedupe: dedupe::Options {
                horizon_us: i64::MAX,
                memory_bytes: 10_000_000,
                directory: self.path("ids"),
            },
            until_end: true,
            start: None,
            replaces: Vec::new(),
        };
        let mut nobody = Questions::none();
        Box::pin(shard::run(parts, options, stopped, progress, &mut nobody))
            .await
            .unwrap();
    }

    /// Corrects everything, takes back the last document of every third customer, and issues what is due again: each customer owes in all
    /// what it owed, and nothing is left to correct.
    async fn take_back_and_issue_again(&self) {
        let at_us = *self.runs.last().unwrap();
        self.issue(at_us, true).await;
        let owed = "SELECT customer, currency, CAST(SUM(total) AS VARCHAR) AS total FROM invoices \
                    GROUP BY customer, currency ORDER BY customer, currency";
        let before = self.rows(owed).await;
        let last = "SELECT i.customer, i.number FROM invoices AS i JOIN \
                    (SELECT customer, MAX(serial) AS serial FROM invoices GROUP BY customer) AS l ON i.serial = l.serial \
                    ORDER BY i.customer";
        let since = Instant::now();
        let lake = self.lake().await;
        let accounts = billing::accounts::load(&lake).await.unwrap().indexed();
        let clock = ManualClock::at(at_us);
        let mut voids = 0;
        for row in self.rows(last).await.iter().step_by(3) {
            let void = billing::issue_void(&lake, &accounts, &row[1], (&clock, None));
            let void = void.await.unwrap();
            assert_eq!(void.voids.as_ref(), Some(&row[1]));
            voids += 1;
        }
        let again = self.issue(at_us, true).await;
        println!(
            "{voids} documents taken back, {} issued again in {:.1?}",
            again.len(),
            since.elapsed()
        );
        assert!(voids > 0 && again.len() >= voids);
        assert_eq!(self.rows(owed).await, before);
        assert_eq!(self.issue(at_us, true).await, []);
    }

    /// Rows of a query, all of whose columns are text.
    async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let view = View::open(self.catalog().await, &self.lake().await)
            .await
            .unwrap();
        let context = view.session(sql).await.unwrap();
        let frame = tollgate_sql::session::query(&context, sql).await.unwrap();
        let mut all = Vec::new();
        for rows in frame.collect().await.unwrap() {
            let text = |column: usize, row: usize| {
                let column = rows.column(column).as_string::<i32>();
                column.value(row).to_owned()
            };
            let columns = rows.num_columns();
            all.extend((0..rows.num_rows()).map(|row| {
                (0..columns)
                    .map(|column| text(column, row))
                    .collect::<Vec<_>>()
            }));
        }
        all
    }

    /// Issues all that is due, and corrects everything if that is asked for.
    async fn issue(&self, at_us: i64, corrects: bool) -> Vec<Invoice> {
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let accounts = billing::accounts::load(&lake).await.unwrap().indexed();
        let view = View::open(catalog, &lake).await.unwrap();
        let settings = &self.settings.billing;
        let asked = Asked {
            which: &Which::Due,
            customer: None,
            corrects,
        };
        let documents = billing::documents_of(&view, &lake, settings, &accounts, asked, at_us);
        let documents = Box::pin(documents).await.unwrap();
        assert!(documents.in_error.is_empty(), "{:#?}", documents.in_error);
        assert!(documents.waiting.is_empty(), "{:?}", documents.waiting);
        let clock = ManualClock::at(at_us);
        let issued = billing::issue_documents(&lake, documents, &clock).await;
        issued.unwrap().issued
    }
}

fn keyed(run: u64, document: Value) -> ((u64, String, String), Value) {
    let customer = document["customer"].as_str().unwrap().to_owned();
    ((run, customer, document["period"].to_string()), document)
}

/// A document in the words of the oracle.
fn document(invoice: &Invoice) -> Value {
    json!({
        "customer": invoice.customer,
        "period": [invoice.period.start_us, invoice.period.end_us],
        "currency": invoice.total.currency().code(),
        "lines": invoice.lines.iter().map(line).collect::<Vec<_>>(),
        "discount": invoice.discount.amount_text(),
        "promotional": invoice.promotional.amount_text(),
        "tax": invoice.tax.amount_text(),
        "total": invoice.total.amount_text(),
        "credits": invoice.credits.amount_text(),
        "amount_due": invoice.amount_due.amount_text(),
    })
}

fn line(line: &LineItem) -> Value {
    let is_tax = matches!(line.kind, LineKind::Tax | LineKind::TaxIncluded);
    let dimensions = line.dimensions.iter().map(|(name, value)| {
        let value = value.clone().unwrap_or_default();
        match is_tax && name == "rate_percent" {
            true => plain(Exact::parse(&value).unwrap()),
            false => value,
        }
    });
    json!({
        "kind": line.kind.as_str(),
        "price": line.price,
        "subscription": line.subscription,
        "dimensions": dimensions.collect::<Vec<_>>(),
        "quantity": line.quantity.map(plain),
        "amount": line.amount.amount_text(),
        "discount": line.discount.amount_text(),
        "promotional": line.promotional.amount_text(),
        "period": [line.period.start_us, line.period.end_us],
    })
}

fn plain(number: Exact) -> String {
    number.without_trailing_zeros().to_string()
}

/// How many documents differ, and how the first of them do.
fn differences(expected: &Documents, billed: &Documents) -> String {
    let mut text = String::new();
    let keys: BTreeSet<_> = expected.keys().chain(billed.keys()).collect();
    let differ: Vec<_> = keys
        .into_iter()
        .filter(|key| expected.get(*key) != billed.get(*key))
        .collect();
    for key in differ.iter().take(8) {
        let _ = write!(text, "\n{key:?}");
        match (expected.get(*key), billed.get(*key)) {
            (Some(expected), Some(billed)) => differing(expected, billed, "", &mut text),
            (Some(expected), None) => drop(write!(text, ": not issued: {expected}")),
            (None, billed) => drop(write!(text, ": issued: {billed:?}")),
        }
    }
    if !differ.is_empty() {
        let _ = write!(text, "\n{} documents differ", differ.len());
    }
    text
}

/// The parts of two values that are not alike.
fn differing(expected: &Value, billed: &Value, at: &str, text: &mut String) {
    match (expected, billed) {
        (Value::Object(expected), Value::Object(billed)) => {
            for (name, value) in expected {
                let other = billed.get(name).unwrap_or(&Value::Null);
                differing(value, other, &format!("{at} {name}"), text);
            }
        }
        (Value::Array(expected), Value::Array(billed)) if expected.len() == billed.len() => {
            for (place, (value, other)) in expected.iter().zip(billed).enumerate() {
                differing(value, other, &format!("{at} {place}"), text);
            }
        }
        _ if expected != billed => {
            let _ = write!(text, "\n {at}: expected {expected}, got {billed}");
        }
        _ => {}
    }
}
