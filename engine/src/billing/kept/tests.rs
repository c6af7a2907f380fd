use super::*;
use crate::billing::versions::parts_of;
use tollgate_sql::{
    definitions::{Definitions, OnChange, RateTable, SourceFile},
    period::Period,
};

const DEFINITIONS: &str = "
CREATE RATE TABLE rates (
    model VARCHAR, rate DECIMAL(38, 18), valid_from DATE, valid_to DATE, PRIMARY KEY (model, PERIOD valid_from, valid_to)
) WITH (location = 'rates.csv');
CREATE RATE TABLE fees (amount DECIMAL(9, 2) NOT NULL) WITH (location = 'fees.csv');
CREATE PRICE fee WITH (currency = 'USD') AS SELECT customer, 1 AS amount FROM subscription;
CREATE OR REPLACE PRICE fee WITH (currency = 'USD', effective_from = '2026-10-15', on_change = 'split') AS
SELECT customer, 2 AS amount FROM subscription;
CREATE PRICE other WITH (currency = 'USD') AS SELECT customer, 3 AS amount FROM subscription;
CREATE PLAN pro WITH (currency = 'USD', minimum = 10) AS (fee, other);
CREATE PLAN payg WITH (currency = 'USD') AS (other);
";
const RATES: &str = "model,rate,valid_from,valid_to\na,0.1,2026-01-01,\nb,0.000000000000000002,2026-01-01,2026-11-01\n";

fn catalog(definitions: &str, rates: &str) -> Catalog {
    let file = SourceFile {
        name: "all.sql".into(),
        text: definitions.into(),
    };
    let definitions = Definitions::parse(&[file]).unwrap();
    let rows = |table: usize, text: &str| {
        let table = &definitions.rate_tables[table];
        table.read_csv(&table.location, text.as_bytes()).unwrap()
    };
    Catalog {
        checks: Vec::new(),
        meters: Vec::new(),
        rate_tables: vec![rows(0, rates), rows(1, "amount\n7.00\n")],
        definitions,
    }
}

/// What October on the plan `pro` is rated by, with a rate table that it reads.
fn inputs(catalog: &Catalog, month: &str) -> (Inputs, RatedBy) {
    let (mut inputs, mut rated_by) = (Inputs::default(), RatedBy::default());
    let period = Period::month(month, "Europe/Berlin").unwrap();
    let definitions = &catalog.definitions;
    let plan = definitions.plan("pro").unwrap();
    let parts = parts_of(catalog, "fee", &period).unwrap();
    inputs.note_plan(plan, &mut rated_by);
    inputs.note_price("fee", &parts, plan, &mut rated_by);
    let table = (&definitions.rate_tables[0], &catalog.rate_tables[0]);
    inputs.note_rate_table(table, &mut rated_by).unwrap();
    (inputs, rated_by)
}

async fn lake(folder: &tempfile::TempDir) -> Lake {
    let url = format!("file://{}", folder.path().display());
    Lake::open(&url, folder.path()).await.unwrap()
}

/// Every file below what is kept, with its bytes.
fn files(folder: &tempfile::TempDir) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.path().join(FOLDER)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder.path()).unwrap();
                    let name = name.to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
    }
    files
}

/// The parts of a month by a catalog, as the version's number and its first instant.
fn parts(catalog: &Catalog, month: &str) -> Vec<(u32, i64)> {
    let period = Period::month(month, "Europe/Berlin").unwrap();
    let parts = parts_of(catalog, "fee", &period).unwrap();
    let parts = parts.iter();
    parts
        .map(|part| (part.price.version, part.from_us))
        .collect()
}

#[tokio::test]
async fn what_is_kept_is_there_once_and_comes_back_whatever_was_edited_since() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder).await;
    let then = catalog(DEFINITIONS, RATES);
    let (inputs, rated_by) = inputs(&then, "2026-10");
    assert!(restore(&lake, &rated_by).await.unwrap().is_none());
    let (one, two) = tokio::join!(keep(&lake, &inputs), keep(&lake, &inputs));
    one.unwrap();
    two.unwrap();
    let written = files(&folder);
    let hash = |named: &BTreeMap<String, BTreeSet<String>>, name: &str| {
        named[name].first().unwrap().to_owned()
    };
    let names = [
        format!("rated_by/plans/pro/{}.json", hash(&rated_by.plans, "pro")),
        format!("rated_by/prices/fee/{}.json", hash(&rated_by.prices, "fee")),
        format!(
            "rated_by/rate_tables/rates/{}.parquet",
            hash(&rated_by.rate_tables, "rates")
        ),
    ];
    assert_eq!(written.keys().cloned().collect::<Vec<_>>(), names);
    keep(&lake, &inputs).await.unwrap();
    assert_eq!(files(&folder), written);

    // Another text, another first day, another minimum, another rate and another file.
    let edited = DEFINITIONS
        .replace("1 AS amount", "9 AS amount")
        .replace("2026-10-15", "2026-10-20")
        .replace("minimum = 10", "minimum = 99")
        .replace("rates.csv", "new.csv");
    let now = catalog(&edited, &RATES.replace("0.1", "0.5"));
    let kept = restore(&lake, &rated_by).await.unwrap().unwrap();
    let restored = kept.catalog(&now);
    assert_eq!(parts(&restored, "2026-10"), parts(&then, "2026-10"));
    assert_ne!(parts(&now, "2026-10"), parts(&then, "2026-10"));
    let of = |catalog: &Catalog, name: &str| -> Vec<(u32, Option<String>, OnChange, String)> {
        let prices = catalog.definitions.prices.iter();
        let prices = prices.filter(|price| price.name == name);
        prices
            .map(|price| {
                let from = price.effective_from.map(|day| day.to_string());
                (price.version, from, price.on_change, price.query.clone())
            })
            .collect()
    };
    assert_eq!(of(&restored, "fee"), of(&then, "fee"));
    assert_eq!(of(&restored, "other"), of(&now, "other"));
    let plan = restored.definitions.plan("pro").unwrap();
    assert_eq!(
        plan.terms.minimum,
        then.definitions.plan("pro").unwrap().terms.minimum
    );
    assert_eq!(plan.prices, ["fee", "other"]);
    assert!(restored.definitions.plan("payg").is_some());
    // Rows stay with their tables, be the order another.
    let rows = |catalog: &Catalog, name: &str| {
        let mut tables = catalog
            .definitions
            .rate_tables
            .iter()
            .zip(&catalog.rate_tables);
        let (table, rows) = tables.find(|(table, _)| table.name == name).unwrap();
        assert_eq!(table.schema(), rows.schema());
        // Where its location is written is not kept.
        let table = RateTable {
            location_at: table.at.clone(),
            ..table.clone()
        };
        (format!("{table:?}"), rows.clone())
    };
    assert_eq!(rows(&restored, "rates"), rows(&then, "rates"));
    assert_eq!(rows(&restored, "fees"), rows(&now, "fees"));
    assert_eq!(restored.rate_tables.len(), 2);
}

#[tokio::test]
async fn a_price_that_was_two_things_in_one_document_has_all_its_versions() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder).await;
    let then = catalog(&DEFINITIONS.replace(", on_change = 'split'", ""), RATES);
    let (mut all, mut rated_by) = inputs(&then, "2026-10");
    let (november, by_november) = inputs(&then, "2026-11");
    all.extend(november);
    rated_by.extend(&by_november);
    assert_eq!(rated_by.prices["fee"].len(), 2);
    keep(&lake, &all).await.unwrap();
    let now = catalog(&DEFINITIONS.replace("2026-10-15", "2026-12-01"), RATES);
    let kept = restore(&lake, &rated_by).await.unwrap().unwrap();
    let restored = kept.catalog(&now);
    for (month, version) in [("2026-10", 1), ("2026-11", 2)] {
        assert_eq!(parts(&restored, month), parts(&then, month));
        assert_eq!(parts(&restored, month)[0].0, version);
    }
    // The first version that a document was rated by was there at its start, whatever day it was given.
    let kept = restore(&lake, &by_november).await.unwrap().unwrap();
    assert_eq!(kept.prices[0].version, 2);
    assert_eq!(parts(&kept.catalog(&now), "2026-09")[0].0, 2);
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder).await;
    let then = catalog(DEFINITIONS, RATES);
    let (inputs, rated_by) = inputs(&then, "2026-10");
    keep(&lake, &inputs).await.unwrap();
    let written = files(&folder);
    assert_eq!(written.len(), 3);
    for (name, bytes) in &written {
        let path = folder.path().join(name);
        let edited = match std::str::from_utf8(bytes) {
            Ok(text) => text.replace("\"10\"", "\"11\"").replace("1 AS", "8 AS"),
            Err(_) => "PAR1".to_owned(),
        };
        std::fs::write(&path, edited).unwrap();
        let error = restore(&lake, &rated_by).await.unwrap_err().to_string();
        let expected = format!(
            "{}{name} is not what issued documents were rated by: its content does not have the hash of its name\n  \
             hint: put the file back from a copy of the lake",
            lake.url()
        );
        assert_eq!(error, expected);
        // One that is gone is as if it had never been kept.
        std::fs::remove_file(&path).unwrap();
        assert!(restore(&lake, &rated_by).await.unwrap().is_none());
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(restore(&lake, &rated_by).await.unwrap().is_some());
}
