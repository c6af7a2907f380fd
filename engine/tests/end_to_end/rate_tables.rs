//! Rate tables as files: what they may be, what is said of one that is wrong, and what an invoice keeps of them.

use crate::world::{Cli, World};
use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use std::{fs::File, sync::Arc};

const UNITS: &str = "
CREATE EVENT TYPE unit (model VARCHAR NOT NULL, n BIGINT NOT NULL) WITH (type = 'unit');
CREATE METER units WITH (window = '1 hour') AS
SELECT subject, model, SUM(n) AS n FROM unit GROUP BY subject, model;
CREATE RATE TABLE rates (model VARCHAR PRIMARY KEY, rate DECIMAL(9, 4) NOT NULL) WITH (location = 'rates.csv');
CREATE PRICE used WITH (currency = 'USD') AS
SELECT u.customer, u.model, u.n AS quantity, u.n * r.rate AS amount FROM units u LEFT JOIN rates r ON r.model = u.model;
CREATE PRICE base WITH (currency = 'USD') AS SELECT customer, 5 AS amount FROM subscription;
CREATE PLAN payg WITH (currency = 'USD') AS (base, used);
";

/// A world with one event: acme used 100 of `owl` in September.
async fn world(definitions: &str) -> (World, Cli) {
    let world = World::new(definitions).await;
    let event = r#"{"specversion":"1.0","id":"1","source":"test","type":"unit","subject":"acme","time":"2026-09-10T10:00:00Z","data":{"model":"owl","n":100}}"#;
    world.write("events.ndjson", event);
    let cli = world.cli().with("TOLLGATE_SOURCE_KIND", "files");
    let cli = cli.with("TOLLGATE_SOURCE_PATH", "events.ndjson");
    (world, cli)
}

/// A file of one model's rate, in ten-thousandths.
fn write_parquet(world: &World, name: &str, models: Vec<&str>, rates: Vec<i128>) {
    let rates = Decimal128Array::from(rates).with_precision_and_scale(18, 4);
    let columns: [(&str, ArrayRef); 2] = [
        ("rate", Arc::new(rates.unwrap())),
        ("model", Arc::new(StringArray::from(models))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(world.path(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

async fn finalize(cli: &Cli) -> Vec<String> {
    let said = cli
        .succeed(&["invoice", "--period", "2026-09", "--finalize"])
        .await;
    said.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_keeps_what_its_rate_tables_were_whatever_file_they_are_in() {
    let (world, cli) = world(UNITS).await;
    world.write("definitions/rates.csv", "model,rate\nowl,0.25\n");
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli).await,
        [
            "1 invoices issued",
            "INV-000001   acme                                2 lines              30.00 USD",
        ]
    );
    // The line of `used` names its table and the hash of what it was; `base` reads none.
    let kept = cli.query("SELECT basis FROM invoices").await;
    let kept: serde_json::Value = serde_json::from_str(&kept[0][0]).unwrap();
    assert_eq!(kept["reads"], serde_json::json!({"used": ["rates"]}));
    let hash = kept["rate_tables"]["rates"].as_str().unwrap();
    assert_eq!(hash.len(), 16);

    // The same rows in Parquet are the same rates.
    write_parquet(
        &world,
        "definitions/rates.parquet",
        vec!["owl"],
        vec![2_500],
    );
    let definitions = UNITS.replace("rates.csv", "rates.parquet");
    world.write("definitions/all.sql", &definitions);
    assert_eq!(
        finalize(&cli).await,
        ["0 invoices issued, 1 were issued before"]
    );
    // Others are not, and what was issued stands.
    write_parquet(
        &world,
        "definitions/rates.parquet",
        vec!["owl"],
        vec![5_000],
    );
    assert_eq!(
        finalize(&cli).await,
        [
            "0 invoices issued, 1 were issued before; rate table `rates` has changed since, and is not invoiced yet, for: acme",
            "changed      acme                             INV-000001 was 30, would be 55 now: 25 USD on no invoice, because \
             rate table `rates` has changed",
        ]
    );
    let after = cli.query("SELECT basis FROM invoices").await;
    let after: serde_json::Value = serde_json::from_str(&after[0][0]).unwrap();
    assert_eq!(after["rate_tables"]["rates"].as_str(), Some(hash));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_table_that_cannot_be_read_is_one_error_with_its_place() {
    let (world, cli) = world(UNITS).await;
    let said = async |definitions: &str| {
        world.write("definitions/all.sql", definitions);
        let ran = cli.run(&["check"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
        ran.stderr
    };
    assert_eq!(
        said(UNITS).await,
        "error: ./definitions/all.sql:5:99: rate table `rates`: there is no file ./definitions/rates.csv\n  hint: `location` starts \
         at the folder of definitions; ./definitions has no .csv file\n"
    );
    world.write("definitions/rates.csv", "model,rate\nowl,0.25\n\nowl,0.5\n");
    assert_eq!(
        said(UNITS).await,
        "error: ./definitions/rates.csv:4: rate table `rates`, column `model`: `owl` is the key of line 2 already: a table has \
         one row for each key\n  hint: keep one of the rows; rates that change with time have a key such as PRIMARY KEY (model, \
         PERIOD valid_from, valid_to)\n"
    );
    write_parquet(
        &world,
        "definitions/rates.parquet",
        vec!["owl", "owl"],
        vec![1, 2],
    );
    assert_eq!(
        said(&UNITS.replace("rates.csv", "rates.parquet")).await,
        "error: ./definitions/rates.parquet, row 2: rate table `rates`, column `model`: `owl` is the key of row 1 already: a \
         table has one row for each key\n  hint: keep one of the rows; rates that change with time have a key such as PRIMARY \
         KEY (model, PERIOD valid_from, valid_to)\n"
    );
    world.write("definitions/rates.parquet", "model,rate\n");
    let refused = said(&UNITS.replace("rates.csv", "rates.parquet")).await;
    let begins = "error: ./definitions/rates.parquet: rate table `rates` of ./definitions/all.sql:5:19 cannot be read: ";
    assert!(refused.starts_with(begins), "{refused}");
    assert_eq!(
        said(&UNITS.replace("rates.csv", "ftp://host/rates.csv")).await,
        "error: ftp://host/rates.csv: rate table `rates` of ./definitions/all.sql:5:19 cannot be read: `ftp` is not \
         supported; use a path, file://, s3://, gs:// or az://\n"
    );
}
