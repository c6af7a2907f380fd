//! Invoices equal what plain integer arithmetic says, to the cent, are issued once, and survive a
//! crash between the two commits that issue them.

use crate::{
    real_data::{self, AZURE, ByModel, MOONCAKE, add_up},
    world::{Cli, TOKENS, World},
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
};

/// Our models, and the catalogue's model whose rates each is given.
const ASSIGNED: [(&str, &str); 3] = [
    ("azure-conv", "azure/us-gov/gpt-5.1"),
    ("azure-code", "gpt-4o"),
    ("kimi-k1", "aihubmix/doubao-seed-2-0-mini"),
];

const PRICES: &str = "
CREATE RATE TABLE model_rates (
    model       VARCHAR NOT NULL,
    input_rate  DECIMAL(38, 18) NOT NULL,
    output_rate DECIMAL(38, 18) NOT NULL,
    cached_rate DECIMAL(38, 18) NOT NULL
) WITH (location = 'model_rates.csv');

CREATE PRICE tokens_by_model WITH (currency = 'USD') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity,
       SUM((t.input - t.cached) * r.input_rate + t.cached * r.cached_rate
           + t.output * r.output_rate) AS amount
FROM tokens t JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (tokens_by_model);
";

/// Fraction digits of [`Rates`].
const SCALE: u32 = 18;

/// Dollars a token, times ten to the power of [`SCALE`].
struct Rates {
    input: i128,
    output: i128,
    cached: i128,
    /// As the catalogue writes them.
    texts: [String; 3],
}

#[tokio::test(flavor = "multi_thread")]
async fn invoices_of_all_subjects_are_exact_to_the_cent_and_issued_once() {
    let Some(folder) = real_data::folder() else {
        return;
    };
    let world = World::new(&format!("{TOKENS}{PRICES}")).await;
    let rates = assign_rates(&world, &folder);
    let cli = world.cli();
    for file in [AZURE, MOONCAKE] {
        cli.publish(&folder.join(file), 100).await;
    }
    cli.run_to_end().await;
    let azure = totals_in_cents(&add_up(&[AZURE]), &rates);
    let mooncake = totals_in_cents(&add_up(&[MOONCAKE]), &rates);
    assert_eq!((azure.len(), mooncake.len()), (200, 200));

    // A draft says what the invoice will.
    let out = world.path("draft");
    invoice(&cli, "2023-11", &["--out", out.to_str().unwrap()]).await;
    assert_eq!(cents_by_customer(&csv_rows(&out, "invoices")), azure);
    assert!(!world.path("lake/invoices").exists());

    let out = world.path("azure");
    let formats = ["--finalize", "--format", "csv,json,parquet", "--out"];
    let flags = [&formats[..], &[out.to_str().unwrap()]].concat();
    let said = invoice(&cli, "2023-11", &flags).await;
    assert!(said.starts_with("200 invoices issued\n"), "{said}");
    let invoices = csv_rows(&out, "invoices");
    assert_eq!(cents_by_customer(&invoices), azure);
    assert_eq!(sum_of_lines(&csv_rows(&out, "line_items")), azure);
    for table in ["invoices", "line_items"] {
        let rows = csv_rows(&out, table);
        assert_eq!(json_rows(&out, table), rows, "{table}");
        assert_eq!(parquet_rows(&out, table), rows, "{table}");
    }
    assert_eq!(numbers(&cli).await, gapless(200));

    // Asked again it issues nothing, and writes what was issued once more.
    let again = world.path("again");
    let flags = [&formats[..], &[again.to_str().unwrap()]].concat();
    let said = invoice(&cli, "2023-11", &flags).await;
    assert_eq!(said, "0 invoices issued, 200 were issued before\n");
    for file in fs::read_dir(&out).unwrap() {
        let name = file.unwrap().file_name();
        let (first, second) = (fs::read(out.join(&name)), fs::read(again.join(&name)));
        assert_eq!(first.unwrap(), second.unwrap(), "{name:?}");
    }

    // The state of the disk at a crash between the two commits: invoices has one more, line_items not.
    let line_items = world.path("lake/line_items");
    let before = world.path("line_items before");
    copy(&line_items, &before);
    invoice(&cli, "2026-10", &["--finalize"]).await;
    let whole = stored_lines(&cli).await;
    fs::remove_dir_all(&line_items).unwrap();
    copy(&before, &line_items);
    assert_ne!(stored_lines(&cli).await, whole);
    let said = invoice(&cli, "2026-10", &["--finalize"]).await;
    assert!(
        said.starts_with("0 invoices issued, 200 were issued before\n"),
        "{said}"
    );
    assert_eq!(stored_lines(&cli).await, whole);
    // The same where line_items was never made.
    fs::remove_dir_all(&line_items).unwrap();
    invoice(&cli, "2023-11", &["--finalize"]).await;
    assert_eq!(stored_lines(&cli).await, whole);

    assert_eq!(numbers(&cli).await, gapless(400));
    assert_eq!(stored_totals(&cli, "2023-11").await, azure);
    assert_eq!(stored_totals(&cli, "2026-10").await, mooncake);
}

async fn invoice(cli: &Cli, period: &str, flags: &[&str]) -> String {
    let arguments = [&["invoice", "--period", period], flags].concat();
    cli.succeed(&arguments).await
}

/// Takes three models' rates from the catalogue, writes our rate table, and returns them.
fn assign_rates(world: &World, folder: &Path) -> BTreeMap<&'static str, Rates> {
    let mut catalogue = BTreeMap::new();
    for row in csv::Reader::from_path(folder.join("llm_prices.csv"))
        .unwrap()
        .records()
    {
        let row = row.unwrap();
        let texts = [3, 4, 5].map(|column| match &row[column] {
            "" => "0".to_owned(),
            rate => rate.to_owned(),
        });
        catalogue.insert(row[0].to_owned(), texts);
    }
    let mut rates = BTreeMap::new();
    let mut table = "model,input_rate,output_rate,cached_rate\n".to_owned();
    for (ours, theirs) in ASSIGNED {
        let texts = catalogue[theirs].clone();
        let [input, output, cached] = texts.each_ref().map(|text| scaled(text, SCALE));
        let priced = Rates {
            input,
            output,
            cached,
            texts,
        };
        table += &format!("{ours},{}\n", priced.texts.join(","));
        rates.insert(ours, priced);
    }
    world.write("definitions/model_rates.csv", &table);
    rates
}

/// A decimal as a whole number of its `scale`-th fraction digit; more digits than that are a mistake.
fn scaled(text: &str, scale: u32) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let zeros = usize::try_from(scale)
        .unwrap()
        .checked_sub(fraction.len())
        .unwrap();
    format!("{whole}{fraction}{}", "0".repeat(zeros))
        .parse()
        .unwrap()
}

/// One line a model, rounded to the cent half away from zero, then added up by subject.
fn totals_in_cents(
    sums: &ByModel,
    rates: &BTreeMap<&'static str, Rates>,
) -> BTreeMap<String, i128> {
    let mut totals = BTreeMap::new();
    for ((subject, model), usage) in sums {
        let rate = &rates[model.as_str()];
        let exact = (usage.input - usage.cached) * rate.input
            + usage.cached * rate.cached
            + usage.output * rate.output;
        let cent = 10_i128.pow(SCALE - 2);
        *totals.entry(subject.clone()).or_default() += (exact + cent / 2) / cent;
    }
    totals
}

/// Cents of an amount that is printed with four fraction digits.
fn cents(amount: &str) -> i128 {
    let four = scaled(amount, 4);
    assert_eq!(four % 100, 0, "{amount} is not rounded to the cent");
    four / 100
}

type Rows = Vec<BTreeMap<String, String>>;

fn cents_by_customer(invoices: &Rows) -> BTreeMap<String, i128> {
    let total = |row: &BTreeMap<_, String>| (row["customer"].clone(), cents(&row["total"]));
    let totals: BTreeMap<_, _> = invoices.iter().map(total).collect();
    assert_eq!(totals.len(), invoices.len(), "one invoice a customer");
    totals
}

fn sum_of_lines(lines: &Rows) -> BTreeMap<String, i128> {
    let mut totals = BTreeMap::new();
    for line in lines {
        *totals.entry(line["customer"].clone()).or_default() += cents(&line["amount"]);
    }
    totals
}

fn csv_rows(folder: &Path, table: &str) -> Rows {
    let mut reader = csv::Reader::from_path(folder.join(format!("{table}.csv"))).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

/// The same rows from JSON; numbers keep the text they are written with, null is no text.
fn json_rows(folder: &Path, table: &str) -> Rows {
    let text = fs::read_to_string(folder.join(format!("{table}.json"))).unwrap();
    let rows: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(&text).unwrap();
    let plain = |value: Box<RawValue>| match value.get() {
        "null" => String::new(),
        text if text.starts_with('"') => serde_json::from_str(text).unwrap(),
        text => text.to_owned(),
    };
    rows.into_iter()
        .map(|row| row.into_iter().map(|(k, v)| (k, plain(v))).collect())
        .collect()
}

fn parquet_rows(folder: &Path, table: &str) -> Rows {
    let file = File::open(folder.join(format!("{table}.parquet"))).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut rows = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let options = FormatOptions::default();
        let columns: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| {
                let formatter = ArrayFormatter::try_new(column, &options).unwrap();
                (field.name().clone(), formatter)
            })
            .collect();
        for row in 0..batch.num_rows() {
            let value = |(name, column): &(String, ArrayFormatter<'_>)| {
                (name.clone(), column.value(row).to_string())
            };
            rows.push(columns.iter().map(value).collect());
        }
    }
    rows
}

/// Numbers of all invoices in the lake, in order.
async fn numbers(cli: &Cli) -> Vec<Vec<String>> {
    cli.query("SELECT number FROM invoices ORDER BY number")
        .await
}

fn gapless(count: usize) -> Vec<Vec<String>> {
    (1..=count).map(|n| vec![format!("INV-{n:06}")]).collect()
}

async fn stored_lines(cli: &Cli) -> Vec<Vec<String>> {
    cli.query("SELECT * FROM line_items ORDER BY invoice, line")
        .await
}

/// Totals in the lake of the period that starts with this month, with what their lines add up to.
async fn stored_totals(cli: &Cli, month: &str) -> BTreeMap<String, i128> {
    let rows = cli
        .query(&format!(
            "SELECT i.customer, MAX(i.total), SUM(l.amount)
             FROM invoices i JOIN line_items l ON l.invoice = i.invoice
             WHERE i.period_start = TIMESTAMP '{month}-01T00:00:00Z'
             GROUP BY i.invoice, i.customer"
        ))
        .await;
    let one = |row: Vec<String>| {
        assert_eq!(cents(&row[1]), cents(&row[2]), "{row:?}");
        (row[0].clone(), cents(&row[1]))
    };
    rows.into_iter().map(one).collect()
}

/// Copies a folder, as a backup would.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
}
