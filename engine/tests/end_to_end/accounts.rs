//! Accounts: an import lands whole or not at all, whatever happens in it, and says everything that is wrong at once.

use crate::world::{Cli, World};
use futures::{StreamExt, stream};
use std::{collections::BTreeSet, fmt::Write, fs};

const DEFINITIONS: &str = "
CREATE PRICE fee WITH (currency = 'USD') AS SELECT customer, 10.00 AS amount FROM subscription;
CREATE PLAN pro WITH (currency = 'USD', billing_period = 'month') AS (fee);
";

fn world() -> World {
    let world = World::offline();
    world.write("definitions/all.sql", DEFINITIONS);
    world.write(
        "tollgate.toml",
        "[billing]\ndefault_plan = \"pro\"\ntime_zone = \"Europe/Berlin\"\n",
    );
    world
}

/// Writes one file of each table, with so many rows each, and returns their names.
fn write_files(world: &World, folder: &str, rows: usize) -> Vec<String> {
    let heads = [
        ("customers", "customer,name,currency,tax_region"),
        ("subjects", "subject,customer,valid_from"),
        (
            "subscriptions",
            "subscription,customer,plan,seats,starts_at",
        ),
        (
            "grants",
            "grant,customer,amount,currency,effective_at,kind,applies_to",
        ),
        ("one_offs", "one_off,customer,amount,currency,text,date"),
        ("discounts", "discount,customer,kind,value,starts_at"),
    ];
    let names = heads.map(|(table, head)| {
        let mut text = format!("{head}\n");
        for row in 0..rows {
            let line = match table {
                "customers" => format!("c{row},Customer {row},USD,DE"),
                "subjects" => format!("s{row},c{row},2026-01-01"),
                "subscriptions" => format!("b{row},c{row},pro,{row},2026-01-01"),
                "grants" => format!("g{row},c{row},{row}.25,USD,2026-01-01,prepaid,fee"),
                "one_offs" => format!("o{row},c{row},-{row}.50,USD,\"Setup, once\",2026-01-15"),
                _ => format!("d{row},c{row},percent,{}.5,2026-01-01", row % 100),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        }
        let name = format!("{folder}/{table}.csv");
        world.write(&name, &text);
        name
    });
    names.to_vec()
}

async fn import(cli: &Cli, files: &[String]) -> String {
    let files = files.iter().map(String::as_str);
    let arguments: Vec<&str> = ["accounts", "import"].into_iter().chain(files).collect();
    cli.succeed(&arguments).await
}

/// How many rows each table has that count, and some sums of them.
const SUMS: &str = "
SELECT (SELECT COUNT(*) FROM customers) AS c, (SELECT COUNT(*) FROM subjects) AS s,
       (SELECT SUM(seats) FROM subscriptions) AS seats, (SELECT SUM(amount) FROM grants) AS g,
       (SELECT SUM(amount) FROM one_offs) AS o, (SELECT SUM(value) FROM discounts) AS d";

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_imported_listed_queried_and_exported() {
    let world = world();
    let cli = world.cli();
    world.write("lake/.keep", "");
    assert_eq!(cli.query("SELECT COUNT(*) FROM customers").await, [["0"]]);
    world.write(
        "customers.csv",
        "customer,name,time_zone,valid_from\nacme,\"Acme, Inc.\",,\nacme,Acme,America/New_York,2026-03-01\nglobex,,,\n",
    );
    world.write(
        "subscriptions.csv",
        "subscription,customer,plan,starts_at,ends_at,minimum\na1,acme,pro,2026-01-01,2026-06-01,12.50\n",
    );
    let files = ["subscriptions.csv", "customers.csv"].map(str::to_owned);
    assert_eq!(
        import(&cli, &files).await,
        "customers: 3 written\nsubscriptions: 1 written\n4 rows read, 4 written\n"
    );
    assert_eq!(
        import(&cli, &files).await,
        "4 rows read, 0 written; 4 say what was there already\n"
    );
    let rows = cli
        .query(
            "SELECT customer, name, valid_from, written_at > '2026-01-01' FROM customers ORDER BY customer, valid_from NULLS FIRST",
        )
        .await;
    assert_eq!(
        rows,
        [
            ["acme", "Acme, Inc.", "", "true"],
            ["acme", "Acme", "2026-03-01T05:00:00Z", "true"],
            ["globex", "", "", "true"],
        ]
    );
    let list = async |arguments: &[&str]| {
        let before = ["accounts", "list"].iter();
        let all: Vec<&str> = before.chain(arguments).copied().collect();
        cli.succeed(&all).await
    };
    // Midnight in Berlin is before midnight in New York.
    assert_eq!(
        list(&["customers", "--at", "2026-03-01", "--format", "csv"]).await,
        "customer,name,email,currency,time_zone,tax_region,tax_exempt,valid_from\n\
         acme,\"Acme, Inc.\",,,,,false,\n\
         globex,,,,,,false,\n"
    );
    let then = list(&[
        "customers",
        "--at",
        "2026-03-01T05:00:00Z",
        "--format",
        "csv",
    ])
    .await;
    assert!(then.contains("\nacme,Acme,,,America/New_York,"), "{then}");
    // The page says the same in SQL.
    let page = include_str!("../../../docs/accounts.md");
    let (_, sql) = page.split_once("```sql\n").unwrap();
    let (sql, _) = sql.split_once("```").unwrap();
    let sql = sql
        .replace("2026-10-01T00:00:00Z", "2026-03-01T05:00:00Z")
        .replace("SELECT customer, currency", "SELECT customer, name");
    let mut held = cli.query(&sql).await;
    held.sort();
    assert_eq!(held, [["acme", "Acme"], ["globex", ""]]);
    // 1 June in New York, where the customer is then, is four hours behind UTC.
    let subscribed =
        "subscription,customer,plan,seats,starts_at,ends_at,trial_ends_at,anchor,minimum,maximum\n";
    let row = "a1,acme,pro,1,2025-12-31T23:00:00Z,2026-06-01T04:00:00Z,,,12.500000000000000000,\n";
    for (at, rows) in [
        ("2025-12-31T22:59:59.999999Z", ""),
        ("2025-12-31T23:00:00Z", row),
        ("2026-06-01T03:59:59Z", row),
        ("2026-06-01T04:00:00Z", ""),
    ] {
        let listed = list(&["subscriptions", "--at", at, "--format", "csv"]).await;
        assert_eq!(listed, format!("{subscribed}{rows}"), "{at}");
    }
    // Later rows of the same key and time replace; both are in the relation.
    world.write("again/customers.csv", "customer,name\nglobex,Globex\n");
    import(&cli, &["again/customers.csv".to_owned()]).await;
    let names = cli
        .query("SELECT name FROM customers WHERE customer = 'globex' ORDER BY written_at")
        .await;
    assert_eq!(names, [[""], ["Globex"]]);
    let exported = cli.succeed(&["accounts", "export", "--out", "out"]).await;
    assert!(exported.starts_with("out/customers.csv: 3 rows\nout/subjects.csv: 0 rows\n"));
    assert_eq!(
        fs::read_to_string(world.path("out/customers.csv")).unwrap(),
        "customer,name,email,currency,time_zone,tax_region,tax_exempt,valid_from\n\
         acme,\"Acme, Inc.\",,,,,false,\n\
         acme,Acme,,,America/New_York,,false,2026-03-01T05:00:00Z\n\
         globex,Globex,,,,,false,\n"
    );
    let out = |table: &str| format!("out/{table}.csv");
    let all = [
        "customers",
        "subjects",
        "subscriptions",
        "grants",
        "one_offs",
        "discounts",
    ]
    .map(out);
    assert_eq!(
        import(&cli, &all).await,
        "4 rows read, 0 written; 4 say what was there already\n"
    );
    let other = cli.lake("other");
    import(&other, &all).await;
    other
        .succeed(&["accounts", "export", "--out", "out2"])
        .await;
    for file in &all {
        let again = file.replace("out/", "out2/");
        let text = |name: &str| fs::read_to_string(world.path(name)).unwrap();
        assert_eq!(text(file), text(&again));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credit_ledger_has_what_happened_to_each_grant() {
    let world = world();
    let cli = world.cli();
    const LEDGER: &str = "SELECT l.grant, l.kind, l.amount, i.amount_due FROM credit_ledger l \
        LEFT JOIN invoices i ON i.number = l.document ORDER BY l.grant, l.at, l.kind";
    world.write("customers.csv", "customer,currency\nacme,USD\n");
    import(&cli, &["customers.csv".to_owned()]).await;
    assert!(cli.query(LEDGER).await.is_empty());
    world.write(
        "subscriptions.csv",
        "subscription,customer,plan,starts_at,ends_at\ns,acme,pro,2026-01-01,2026-04-01\n",
    );
    world.write(
        "grants.csv",
        "grant,customer,amount,currency,priority,effective_at,expires_at,recurs_every\n\
         g,acme,25,USD,0,2026-01-01,2026-03-01,\nm,acme,4,USD,1,2026-01-01,2026-04-01,month\n",
    );
    let files = ["subscriptions.csv", "grants.csv"];
    import(&cli, &files.map(str::to_owned)).await;
    let before = cli.query(LEDGER).await;
    assert_eq!(
        before[..2],
        [
            ["g", "grant", "25.0000", ""],
            ["g", "expire", "-25.0000", ""]
        ]
    );
    assert_eq!(before.len(), 8);
    cli.succeed(&["invoice", "--due", "--finalize"]).await;
    // 10.00 for each of three months: 25 pay two of them and are over; of 4 a month, the last are used.
    assert_eq!(
        cli.query(LEDGER).await,
        [
            ["g", "grant", "25.0000", ""],
            ["g", "burn", "-10.0000", "0.0000"],
            ["g", "burn", "-10.0000", "0.0000"],
            ["g", "expire", "-5.0000", ""],
            ["m", "grant", "4.0000", ""],
            ["m", "expire", "-4.0000", ""],
            ["m", "recur", "4.0000", ""],
            ["m", "expire", "-4.0000", ""],
            ["m", "recur", "4.0000", ""],
            ["m", "burn", "-4.0000", "6.0000"],
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_changes_nothing_and_every_problem_is_said() {
    let world = world();
    let cli = world.cli();
    let files = write_files(&world, "good", 2_000);
    import(&cli, &files).await;
    let seats = 2_000 * 1_999 / 2;
    let sums = [[
        "2000".to_owned(),
        "2000".to_owned(),
        seats.to_string(),
        format!("{}.000000000000000000", seats + 500),
        format!("-{}.000000000000000000", seats + 1_000),
        format!("{}.000000000000000000", 20 * (99 * 100 / 2) + 1_000),
    ]];
    assert_eq!(cli.query(SUMS).await, sums);
    assert_eq!(
        import(&cli, &files).await,
        "12000 rows read, 0 written; 12000 say what was there already\n"
    );
    world.write(
        "bad/customers.csv",
        "customer,time_zone\nnew,Europe/Berlin\nc1,Berlin\n",
    );
    world.write("bad/subjects.csv", "subject,customer\ns1,new\ns2,nobody\n");
    let ran = cli
        .run(&[
            "accounts",
            "import",
            "bad/customers.csv",
            "bad/subjects.csv",
        ])
        .await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
    assert_eq!(
        ran.stderr,
        "error: nothing was imported: 2 problems\n\
         bad/customers.csv:3: column `time_zone`: `Berlin`: not a time zone\n  hint: did you mean Europe/Berlin? write a name of the IANA database such as \
         Europe/Berlin, or nothing for billing.time_zone\n\
         bad/subjects.csv:3: column `customer`: `nobody` has no row in `customers`\n  hint: add the customer to customers.csv, in \
         this import or in one before\n"
    );
    assert_eq!(cli.query(SUMS).await, sums);
    for (arguments, code, says) in [
        (
            &["import", "missing/customers.csv"][..],
            1,
            "error: missing/customers.csv: reading the file failed\n",
        ),
        (
            &["list", "customer"],
            2,
            "error: there is no table `customer` of accounts; did you mean `customers`? known tables: `customers`, `subjects`, \
             `subscriptions`, `grants`, `one_offs`, `discounts`\n",
        ),
        (
            &["list", "customers", "--at", "today"],
            2,
            "error: --at `today` is neither a date such as 2026-10-01 nor an instant such as 2026-10-01T00:00:00Z\n",
        ),
    ] {
        let all: Vec<&str> = ["accounts"].iter().chain(arguments).copied().collect();
        let ran = cli.run(&all).await;
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        assert!(ran.stderr.starts_with(says), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_an_import_leaves_all_of_it_or_nothing() {
    let world = world();
    let before = write_files(&world, "before", 3);
    let files = write_files(&world, "files", 5);
    let start = world.cli().lake("start");
    import(&start, &before).await;
    let sums_before = start.query(SUMS).await;
    let trace = world.path("trace");
    world.copy("start", "traced");
    let traced = world.cli().lake("traced");
    let tracing = traced.with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap());
    import(&tracing, &files).await;
    let sums_after = traced.query(SUMS).await;
    assert_ne!(sums_before, sums_after);
    let text = fs::read_to_string(&trace).unwrap();
    let mut passes: Vec<(String, usize)> = Vec::new();
    for step in text.lines() {
        let before = passes.iter().filter(|(other, _)| other == step).count();
        passes.push((step.to_owned(), before + 1));
    }
    let steps: BTreeSet<&str> = text.lines().collect();
    for table in ["customers", "discounts", "imports"] {
        for step in ["uploaded", "committing", "committed"] {
            let step = format!("accounts/{table}/{step}");
            assert!(
                steps.contains(step.as_str()),
                "{step} was never reached: {steps:?}"
            );
        }
    }
    let crash = async |(number, (step, pass)): (usize, (String, usize))| {
        let crash = format!("{step}:{pass}");
        let name = format!("crashed-{number}");
        world.copy("start", &name);
        let cli = world.cli().lake(&name);
        let fragile = cli.with("TOLLGATE_FAILPOINT", &crash);
        let arguments = ["accounts", "import"].into_iter();
        let all: Vec<&str> = arguments.chain(files.iter().map(String::as_str)).collect();
        let ran = fragile.run(&all).await;
        assert_eq!(ran.code, None, "{crash}: {ran:#?}");
        let found = cli.query(SUMS).await;
        match crash.as_str() {
            "accounts/imports/committed:1" => assert_eq!(found, sums_after, "{crash}"),
            // The commit is there under its name before the step that says so.
            _ if found == sums_after => assert!(step.starts_with("disk/"), "{crash}"),
            _ => assert_eq!(found, sums_before, "{crash}"),
        }
        import(&cli, &files).await;
        assert_eq!(cli.query(SUMS).await, sums_after, "{crash}");
        let again = import(&cli, &files).await;
        assert!(
            again.starts_with("30 rows read, 0 written"),
            "{crash}: {again}"
        );
    };
    stream::iter(passes.into_iter().enumerate())
        .for_each_concurrent(2, crash)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_imports_at_once_one_is_told_to_run_again() {
    let world = world();
    let cli = world.cli();
    world.write("one/customers.csv", "customer\na\n");
    world.write("two/customers.csv", "customer\nb\n");
    world.write("three/customers.csv", "customer\nc\n");
    world.write("four/customers.csv", "customer\nd\n");
    let customers = "SELECT customer FROM customers ORDER BY customer";
    // Before the rows are there and after, at the first import of all and at a later one.
    let steps = ["accounts/customers/uploaded", "accounts/imports/committing"];
    for (step, [slow, quick], there) in [
        (steps[0], ["one", "two"], &[["b"]][..]),
        (steps[1], ["one", "three"], &[["b"], ["c"]]),
        (steps[0], ["one", "four"], &[["b"], ["c"], ["d"]]),
    ] {
        let trace = world.path(&format!("trace-{quick}"));
        let suspending = cli
            .with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap())
            .with("TOLLGATE_FAILPOINT", &format!("{step}:1:stop"));
        let slow = format!("{slow}/customers.csv");
        let mut suspended = suspending.start(&["accounts", "import", &slow]);
        let is_reached = || fs::read_to_string(&trace).is_ok_and(|steps| steps.contains(step));
        suspended.seen(step, is_reached).await;
        import(&cli, &[format!("{quick}/customers.csv")]).await;
        let ran = suspended.wake().await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:#?}");
        assert_eq!(
            ran.stderr,
            "error: another import of accounts landed at the same time\n  hint: run it again: it is checked against the rows of the \
             other, and what is there is not written twice\n"
        );
        assert_eq!(cli.query(customers).await, there);
    }
    import(&cli, &["one/customers.csv".to_owned()]).await;
    assert_eq!(cli.query(customers).await, [["a"], ["b"], ["c"], ["d"]]);
    let times = "SELECT COUNT(*), COUNT(DISTINCT written_at) FROM customers";
    assert_eq!(cli.query(times).await, [["4", "4"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_a_subscription_is_on_cannot_get_lost_unseen() {
    let world = world();
    let cli = world.cli();
    import(&cli, &write_files(&world, "files", 2)).await;
    cli.succeed(&["check", "--lake"]).await;
    world.write("definitions/all.sql", &DEFINITIONS.replace("pro", "prime"));
    let other = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "prime");
    let ran = other.run(&["check", "--lake"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let lost = |name: &str| {
        format!(
            "error: accounts/subscriptions: `{name}`: column `plan`: there is no plan `pro`\n  hint: known plans: `prime`\n"
        )
    };
    let (first, second) = (lost("b0"), lost("b1"));
    assert_eq!(
        ran.stderr,
        format!(
            "{first}{second}error: the lake does not go on with these definitions and settings: 2 problems, named above\n"
        )
    );
    // A relation of accounts keeps its name.
    world.write(
        "definitions/all.sql",
        &format!("{DEFINITIONS}CREATE EVENT TYPE one_offs (n BIGINT) WITH (type = 'x');"),
    );
    let ran = cli.run(&["check"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("one_offs"), "{ran:#?}");
}
