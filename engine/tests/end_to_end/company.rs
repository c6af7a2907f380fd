//! A company of made-up customers, billed for fourteen months: each document is what an oracle in Python makes of the
//! raw events and the CSV files.
//!
//! `company/generate.py` makes up accounts and usage from a seed, and troubles: usage that comes in a later run, rows of accounts that are
//! imported later than the time that they hold for, a price list that is changed, documents that are taken back, and a job that dies at
//! some of its durable steps and is given again. `company/oracle.py` says what is owed by the rules of `docs/invoices.md`, and shares no
//! code with the engine. `TOLLGATE_COMPANY_CUSTOMERS` and `TOLLGATE_COMPANY_SEED` name another company, and
//! `TOLLGATE_COMPANY_TROUBLES` some of its troubles, such as `late,voids`; `--nocapture` shows the times.

mod process;
mod stands;

use crate::books::Books;
use process::{Attempt, Job};
use serde::Deserialize;
use serde_json::Value;
use stands::{Documents, assert_alike, balances, differences, documents, keyed, unissued};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Of the price list.
const DEFINITIONS: [&str; 3] = ["definitions.sql", "model_rates.csv", "tax_rates.csv"];

/// How many customers there are and what they are made up from, unless the variables say otherwise.
const CUSTOMERS: &str = "32";
const SEED: &str = "1";
const TROUBLES: &str = "late,backdated,prices,voids,deaths";

/// How many bytes ranges of customers take in each run: what is on documents does not depend on it. A run that corrects everything takes
/// longest, and has one range.
const RANGES: [usize; 6] = [
    usize::MAX,
    20_000_000,
    usize::MAX,
    60_000_000,
    80_000_000,
    usize::MAX,
];

/// How long before a run documents are taken back, in microseconds.
const VOIDED_BEFORE_US: i64 = 3_600_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_company_owes_what_an_oracle_makes_of_its_events_and_files() {
    let Some(python) = python() else {
        println!("skipped: there is no python");
        return;
    };
    let variable = |name: &str, other: &str| env::var(name).unwrap_or_else(|_| other.to_owned());
    let seed = variable("TOLLGATE_COMPANY_SEED", SEED);
    let customers = variable("TOLLGATE_COMPANY_CUSTOMERS", CUSTOMERS);
    let troubles = variable("TOLLGATE_COMPANY_TROUBLES", TROUBLES);
    let mut company = Company::new(&python, [&seed, &customers, &troubles]);
    let expected = company.expected(&python);
    let looked_up = company.bill().await;
    let (books, at_us) = (&company.books, company.last_us());
    let differences = differences(&expected.documents, &documents(books).await);
    println!(
        "{} documents of {customers} customers from seed {seed} with {troubles}",
        expected.documents.len()
    );
    assert!(differences.is_empty(), "seed {seed}:{differences}");
    for (run, rows) in expected.unissued {
        assert_alike(
            &rows,
            &looked_up[&run],
            &format!("seed {seed}, unissued after run {run}"),
        );
    }
    assert_eq!(
        balances(books, at_us).await,
        expected.balances,
        "seed {seed}"
    );
    assert_eq!(books.issue(at_us, true, usize::MAX).await, []);
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
fn print_of(python: &OsString, script: &str, arguments: &[&Path]) -> String {
    let since = Instant::now();
    let mut command = Command::new(python);
    // What Python compiles of the oracle's modules is not left in the source tree.
    command.arg("-B").arg(source(script)).args(arguments);
    let ran = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    println!("{script} in {:.1?}", since.elapsed());
    String::from_utf8(ran.stdout).unwrap()
}

/// A run of the job, and what happens before it.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    /// When it is, in microseconds.
    #[serde(rename = "at")]
    at_us: i64,
    /// Whether it corrects everything.
    corrects: bool,
    /// Customers whose last document that stands is taken back, one after the other.
    voids: Vec<String>,
    /// What is changed of the price list.
    edits: Vec<Edit>,
    /// At which durable step the job dies, one attempt after the other.
    deaths: Vec<u64>,
    /// Whether it is looked up then what is unissued.
    looks: bool,
}

/// What the oracle says.
struct Expected {
    documents: Documents,
    /// By run, the rows of `unissued` after it.
    unissued: BTreeMap<usize, Vec<Value>>,
    /// What is left of each grant.
    balances: Value,
}

#[derive(Debug, Clone, Deserialize)]
struct Edit {
    file: String,
    before: String,
    after: String,
}

/// Books with what was made up.
struct Company {
    books: Books,
    runs: Vec<Run>,
}

impl Company {
    fn new(python: &OsString, [seed, customers, troubles]: [&str; 3]) -> Self {
        let books = Books::new();
        for name in DEFINITIONS {
            fs::copy(source(name), books.path("definitions").join(name)).unwrap();
        }
        let folder = books.path("company");
        let arguments = [
            Path::new(seed),
            Path::new(customers),
            &folder,
            Path::new(troubles),
        ];
        print_of(python, "generate.py", &arguments);
        let runs = fs::read_to_string(folder.join("runs.json")).unwrap();
        Company {
            runs: serde_json::from_str(&runs).unwrap(),
            books,
        }
    }

    fn last_us(&self) -> i64 {
        self.runs.last().unwrap().at_us
    }

    fn expected(&self, python: &OsString) -> Expected {
        let arguments = [self.books.path("company"), self.books.path("definitions")];
        let arguments = arguments.each_ref().map(PathBuf::as_path);
        let printed = print_of(python, "oracle.py", &arguments);
        let lines = printed.lines();
        let said: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (documents, others): (Vec<Value>, Vec<Value>) = said
            .into_iter()
            .partition(|said| said.get("number").is_some());
        let unissued = others.iter().filter_map(|said| {
            let run = usize::try_from(said.get("run")?.as_u64()?).unwrap();
            Some((run, said["unissued"].as_array()?.clone()))
        });
        Expected {
            documents: keyed(documents),
            unissued: unissued.collect(),
            balances: others.last().unwrap()["balances"].clone(),
        }
    }

    /// Lets each run happen, with what is before it. Returns what is unissued after some.
    async fn bill(&mut self) -> BTreeMap<usize, Vec<Value>> {
        let mut looked_up = BTreeMap::new();
        for (number, run) in self.runs.clone().iter().enumerate() {
            let since = Instant::now();
            let folder = self.books.path(&format!("company/run-{number}"));
            let died = self.take_back(run).await;
            self.books.import_folder(&folder, run.at_us).await;
            run.edits.iter().for_each(|edit| self.edit(edit));
            self.meter(&folder, run.at_us).await;
            let metered = since.elapsed();
            let died = died + self.issue(number, run).await;
            println!(
                "run {number}: {} taken back and metered in {metered:.1?}, issued in {:.1?}, died {died} times",
                run.voids.len(),
                since.elapsed() - metered
            );
            if run.looks {
                looked_up.insert(number, unissued(&self.books, run.at_us).await);
            }
        }
        looked_up
    }

    /// Takes back the last document of some customers; of the first one in a process that may die. Returns how often one died.
    async fn take_back(&self, run: &Run) -> usize {
        let at_us = run.at_us - VOIDED_BEFORE_US;
        let mut died = 0;
        for (place, customer) in run.voids.iter().enumerate() {
            let Some(number) = stands::last_of(&self.books, customer).await else {
                continue;
            };
            let job = Job::Void {
                customer: customer.clone(),
                number: number.clone(),
                at_us,
            };
            if place == 0 && !run.deaths.is_empty() {
                let attempt = process::attempt(&self.books, &job, run.deaths[0] % 12 + 1);
                died += usize::from(attempt == Attempt::Died);
                // It may have died when all was done.
                if stands::last_of(&self.books, customer).await.as_ref() != Some(&number) {
                    continue;
                }
            }
            job.run(&self.books).await;
        }
        died
    }

    fn edit(&self, edit: &Edit) {
        let path = self.books.path("definitions").join(&edit.file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&edit.before), "{edit:?}");
        fs::write(&path, text.replace(&edit.before, &edit.after)).unwrap();
    }

    /// Meters the usage that has arrived by a run. Each message was stored when the last of all events so far happened, so usage that is
    /// late comes after what is not.
    async fn meter(&mut self, folder: &Path, at_us: i64) {
        let events = fs::read_to_string(folder.join("events.ndjson")).unwrap();
        let events: Vec<&str> = events.lines().collect();
        let mut last_us = i64::MIN;
        let stored_us = |events: &[&str]| {
            for event in events {
                let event: Value = serde_json::from_str(event).unwrap();
                let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
                last_us = last_us.max(time.as_microsecond());
            }
            last_us
        };
        self.books.meter(&events, stored_us, at_us).await;
    }

    /// Issues what is due, in processes that may die, and then to the end. Returns how often one died.
    async fn issue(&self, number: usize, run: &Run) -> usize {
        let job = Job::Issue {
            at_us: run.at_us,
            corrects: run.corrects,
            bytes_max: RANGES[number],
        };
        let attempts = run.deaths.iter();
        let attempts = attempts.map(|step| process::attempt(&self.books, &job, *step));
        let died = attempts.filter(|attempt| *attempt == Attempt::Died).count();
        job.run(&self.books).await;
        died
    }
}
