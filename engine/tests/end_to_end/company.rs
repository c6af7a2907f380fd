//! A company of made-up customers, billed for fourteen months: each document is what an oracle in Python makes of the
//! raw events and the CSV files.
//!
//! `company/generate.py` makes up accounts and usage from a seed, `company/oracle.py` says what is owed by the rules of
//! `docs/invoices.md`, and shares no code with the engine. `TOLLGATE_COMPANY_CUSTOMERS` and `TOLLGATE_COMPANY_SEED` name
//! another company; `--nocapture` shows the times.

use crate::books::Books;
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
    time::Instant,
};
use tollgate::billing;
use tollgate_sql::{
    invoice::{Invoice, LineItem, LineKind},
    money::Exact,
};

/// Of the price list.
const DEFINITIONS: [&str; 3] = ["definitions.sql", "model_rates.csv", "tax_rates.csv"];

/// How many customers there are and what they are made up from, unless the variables say otherwise.
const CUSTOMERS: &str = "300";
const SEED: &str = "1";

/// How many bytes ranges of customers take in each run: what is on documents does not depend on it.
const RANGES: [usize; 5] = [usize::MAX, 20_000_000, 60_000_000, usize::MAX, 80_000_000];

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
    let mut company = Company::new(&python, &seed, &customers);
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

/// Books with what was made up.
struct Company {
    books: Books,
    /// When the job runs, in microseconds.
    runs: Vec<i64>,
}

impl Company {
    fn new(python: &OsString, seed: &str, customers: &str) -> Self {
        let books = Books::new();
        for name in DEFINITIONS {
            fs::copy(source(name), books.path("definitions").join(name)).unwrap();
        }
        let arguments = [
            source("generate.py"),
            seed.into(),
            customers.into(),
            books.path("company"),
        ];
        print_of(python, &arguments.each_ref().map(PathBuf::as_path));
        let runs = fs::read_to_string(books.path("company").join("runs.json")).unwrap();
        Company {
            runs: serde_json::from_str(&runs).unwrap(),
            books,
        }
    }

    /// What the oracle says: documents, and what is left of each grant.
    fn expected(&self, python: &OsString) -> (Documents, Value) {
        let arguments = [
            source("oracle.py"),
            self.books.path("company"),
            self.books.path("definitions"),
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
        let lake = self.books.lake().await;
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
    async fn bill(&mut self) -> Documents {
        let mut all = Documents::new();
        for (number, at_us) in self.runs.clone().into_iter().enumerate() {
            let run = u64::try_from(number).unwrap();
            let since = Instant::now();
            let folder = self.books.path(&format!("company/run-{run}"));
            self.books.import_folder(&folder, at_us).await;
            self.meter(&folder, at_us).await;
            let metered = since.elapsed();
            let issued = self.books.issue(at_us, false, RANGES[number]).await;
            println!(
                "run {run}: metered in {metered:.1?}, issued in {:.1?}",
                since.elapsed() - metered
            );
            all.extend(issued.iter().map(|invoice| keyed(run, document(invoice))));
        }
        all
    }

    /// Meters the usage that has arrived by a run: each message was stored when its last event happened.
    async fn meter(&mut self, folder: &Path, at_us: i64) {
        let events = fs::read_to_string(folder.join("events.ndjson")).unwrap();
        let events: Vec<&str> = events.lines().collect();
        let stored_us = |last: &str| {
            let last: Value = serde_json::from_str(last).unwrap();
            let stored: jiff::Timestamp = last["time"].as_str().unwrap().parse().unwrap();
            stored.as_microsecond()
        };
        self.books.meter(&events, stored_us, at_us).await;
    }

    /// Corrects everything, takes back the last document of every third customer, and issues what is due again: each customer owes in all
    /// what it owed, and nothing is left to correct.
    async fn take_back_and_issue_again(&self) {
        let (books, at_us) = (&self.books, *self.runs.last().unwrap());
        books.issue(at_us, true, usize::MAX).await;
        let owed = "SELECT customer, currency, CAST(SUM(total) AS VARCHAR) AS total FROM invoices \
                    GROUP BY customer, currency ORDER BY customer, currency";
        let before = books.rows(owed).await;
        let last = "SELECT i.customer, i.number FROM invoices AS i JOIN \
                    (SELECT customer, MAX(serial) AS serial FROM invoices GROUP BY customer) AS l ON i.serial = l.serial \
                    ORDER BY i.customer";
        let since = Instant::now();
        let mut voids = 0;
        for row in books.rows(last).await.iter().step_by(3) {
            assert!(books.void(&row[0], &row[1], at_us).await);
            voids += 1;
        }
        let again = books.issue(at_us, true, usize::MAX).await;
        println!(
            "{voids} documents taken back, {} issued again in {:.1?}",
            again.len(),
            since.elapsed()
        );
        assert!(voids > 0 && again.len() >= voids);
        assert_eq!(books.rows(owed).await, before);
        assert_eq!(books.issue(at_us, true, usize::MAX).await, []);
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
