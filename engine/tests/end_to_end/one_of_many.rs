//! What one of many used is read without the others', and is what it is among them.

use crate::world::{Cli, World};
use arrow::{array::RecordBatch, datatypes::SchemaRef, util::pretty::pretty_format_batches};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::Result as Planned,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex},
};
use tollgate::{
    billing::{draft, draft_of},
    catalog::Catalog,
    view::View,
};
use tollgate_connectors::{
    Attempt, CommitId, LoggedCommit, Result, Snapshot, Staged, Table, Version, lake::Lake,
};
use tollgate_sql::{invoice::Invoice, period::Period};

const DEFINITIONS: &str = "
CREATE EVENT TYPE task (n BIGINT NOT NULL, region VARCHAR) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour', lateness = '2 days') AS
SELECT subject, region, SUM(n) AS n, COUNT(*) AS calls, MAX(n) AS most, AVG(n) AS mean FROM task GROUP BY subject, region;
CREATE METER in_time WITH (window = '1 hour', lateness = '2 days', late = 'quarantine') AS
SELECT subject, SUM(n) AS n FROM task GROUP BY subject;
CREATE METER moved WITH (window = '1 hour', lateness = '2 days', late = 'next_period') AS
SELECT subject, region, LATEST(n) AS n, COUNT(*) AS calls FROM task GROUP BY subject, region;
CREATE METER visits WITH (window = 'session 30 minutes', lateness = '2 days') AS
SELECT subject, region, SUM(n) AS n FROM task GROUP BY subject, region;
CREATE METER sliding WITH (window = '2 hours every 1 hour', lateness = '2 days') AS
SELECT subject, SUM(n) AS n FROM task GROUP BY subject;
-- An n of 91 or more puts its group in error, and one of 99 its subject.
CREATE METER risky WITH (window = '1 hour', lateness = '2 days') AS
SELECT subject, region, SUM(n * 1100000000000000000000000000000000000 - n * 1100000000000000000000000000000000000 + n) AS n, COUNT(*) AS calls
FROM task WHERE n * 1020000000000000000000000000000000000 <> 5 GROUP BY subject, region;

CREATE RATE TABLE rates (region VARCHAR, rate DECIMAL(38, 18)) WITH (location = 'rates.csv');
CREATE PRICE by_region WITH (currency = 'USD') AS
SELECT t.customer, t.region, SUM(t.n) AS quantity, SUM(t.n * COALESCE(r.rate, 0.5)) AS amount
FROM tasks t LEFT JOIN rates r ON r.region = t.region GROUP BY t.customer, t.region;
CREATE PRICE busiest WITH (currency = 'USD') AS
SELECT customer, MAX(n) AS amount FROM in_time_windows GROUP BY customer;
CREATE PRICE seat WITH (currency = 'USD') AS SELECT customer, 31.00 * seats AS amount FROM subscription;
CREATE PRICE at_risk WITH (currency = 'USD') AS SELECT customer, SUM(calls) AS amount FROM risky_windows GROUP BY customer;
CREATE PRICE share WITH (currency = 'USD') AS
SELECT customer, SUM(n) + (SELECT SUM(n) FROM moved) AS amount FROM moved GROUP BY customer;
CREATE PLAN apart WITH (currency = 'USD') AS (by_region, busiest, seat);
CREATE PLAN risk WITH (currency = 'USD') AS (by_region, at_risk);
CREATE PLAN compared WITH (currency = 'USD') AS (seat, share);
";

const METERS: [&str; 6] = ["tasks", "in_time", "moved", "visits", "sliding", "risky"];
/// Customers that nothing is special about.
const MANY: usize = 6_000;
const HOURS: usize = 6;
/// 2026-01-05T00:00:00Z.
const START_S: i64 = 1_767_571_200;
/// A page of a file.
const PAGE: usize = 4_096;

/// Names that are easily taken for each other.
fn names() -> Vec<String> {
    let long = "customer-of-a-group-whose-name-is-longer-than-any-bound-in-a-file-keeps-";
    let mut names: Vec<String> = [
        "acme", "ACME", "Acme", "acme-", "acme-1", "acme-10", "é", "'",
    ]
    .map(str::to_owned)
    .into();
    names.extend(["", "1", "2"].map(|end| format!("{long}{end}")));
    names
}

struct Events(String);

impl Events {
    fn add(&mut self, subject: &str, time_s: i64, n: usize, region: Option<&str>) {
        let time = jiff::Timestamp::from_second(time_s).unwrap();
        let id = self.0.len();
        let data = serde_json::json!({"n": n, "region": region});
        let event = serde_json::json!({
            "specversion": "1.0", "id": format!("{time_s}-{id}"), "source": "test", "type": "task",
            "subject": subject, "time": time.to_string(), "data": data,
        });
        writeln!(self.0, "{event}").unwrap();
    }
}

fn region(number: usize) -> Option<&'static str> {
    [None, Some("eu"), Some("EU"), Some("eu-west")][number % 4]
}

/// January, of everyone; then what came late, and what is open still.
async fn metered(world: &World) -> Cli {
    world.write("definitions/rates.csv", "region,rate\neu,2\nEU,3\n");
    world.write("rates.csv", "region,rate\neu,2\nEU,3\n");
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "apart");
    let mut events = Events(String::new());
    for hour in 0..HOURS {
        let start = START_S + 3_600 * i64::try_from(hour).unwrap();
        for number in 0..MANY {
            let n = 1 + (number * 7 + hour) % 50;
            events.add(
                &format!("customer-{number:05}"),
                start + 60,
                n,
                region(number),
            );
        }
        for (number, name) in names().iter().enumerate() {
            for time in 0..4 {
                let n = 1 + (hour * 31 + number * 5 + time) % 60;
                let at = start + 600 * i64::try_from(time).unwrap();
                events.add(name, at, n, region(number + time));
            }
        }
    }
    // In error: a group of one, a whole subject of another.
    events.add("acme", START_S + 5, 95, Some("eu"));
    events.add("Acme", START_S + 5, 99, Some("eu"));
    world.write("first.ndjson", &events.0);
    cli.publish(&world.path("first.ndjson"), 1_000).await;
    cli.run_to_end().await;

    let mut events = Events("x".repeat(7));
    let now = jiff::Timestamp::now().as_second();
    for (number, name) in names().iter().enumerate() {
        events.add(name, START_S + 7, 40 + number % 10, region(number));
        events.add(name, now, 1 + number % 7, region(number));
        events.add(name, now, 2, region(number + 1));
    }
    for number in 0..MANY / 10 {
        events.add(&format!("customer-{number:05}"), now, 3, region(number + 1));
    }
    world.write("second.ndjson", &events.0["x".repeat(7).len()..]);
    cli.publish(&world.path("second.ndjson"), 1_000).await;
    let summary = cli.run_to_end().await;
    assert_eq!(summary.late(), names().len() as u64);
    cli
}

/// A table whose scans can be counted.
#[derive(Debug)]
struct Counting<T: ?Sized> {
    scans: Scans,
    inner: Box<T>,
}

/// What was executed to read tables.
#[derive(Debug, Clone, Default)]
struct Scans(Arc<Mutex<Vec<Arc<dyn ExecutionPlan>>>>);

impl Scans {
    /// The rows that were read of files since the last time.
    fn take(&self) -> usize {
        let scans = std::mem::take(&mut *self.0.lock().unwrap());
        let rows = scans.iter().filter_map(|scan| scan.metrics());
        rows.filter_map(|metrics| metrics.output_rows()).sum()
    }
}

#[derive(Debug)]
struct Counted {
    scans: Scans,
    inner: Arc<dyn Snapshot>,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        let scan = self.inner.scan(session, projection, filters, limit).await?;
        self.scans.0.lock().unwrap().push(Arc::clone(&scan));
        Ok(scan)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Planned<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }
}

impl Snapshot for Counted {
    fn files(&self) -> Vec<&str> {
        self.inner.files()
    }

    fn of_files(&self, names: &BTreeSet<&str>) -> Arc<dyn TableProvider> {
        self.inner.of_files(names)
    }
}

#[async_trait]
impl Table for Counting<dyn Table> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn id(&self) -> &str {
        self.inner.id()
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn version(&self) -> Version {
        self.inner.version()
    }

    fn mark(&self, app_id: &str) -> Option<i64> {
        self.inner.mark(app_id)
    }

    fn marks(&self) -> BTreeMap<String, i64> {
        self.inner.marks()
    }

    async fn refresh(&mut self) -> Result<()> {
        self.inner.refresh().await
    }

    fn provider(&self) -> Result<Arc<dyn Snapshot>> {
        let (scans, inner) = (self.scans.clone(), self.inner.provider()?);
        Ok(Arc::new(Counted { scans, inner }))
    }

    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged> {
        self.inner.stage(commit_id, batches).await
    }

    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version> {
        self.inner.commit(attempt, staged).await
    }

    async fn log_since(&self) -> Result<Vec<LoggedCommit>> {
        self.inner.log_since().await
    }

    async fn logged(&self, version: Version) -> Result<Option<LoggedCommit>> {
        self.inner.logged(version).await
    }
}

/// The lake, with what is read of the meters' files counted.
async fn counted_view(cli: &Cli) -> (View, Scans) {
    let settings = cli.settings();
    let catalog = Arc::new(Catalog::load(&settings).await.unwrap());
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base);
    let lake = lake.await.unwrap();
    let scans = Scans::default();
    let mut tables = Vec::new();
    for meter in &catalog.meters {
        let inner = catalog.existing_meter(&lake, meter).await.unwrap();
        let scans = scans.clone();
        tables.push(inner.map(|inner| Box::new(Counting { scans, inner }) as Box<dyn Table>));
    }
    let events = catalog.existing_events(&lake).await.unwrap();
    (View::of(catalog, events, tables).unwrap(), scans)
}

/// The rows of a statement, in order of their text.
async fn answer(context: &SessionContext, sql: &str) -> Vec<String> {
    let frame = tollgate_sql::session::query(context, sql).await.unwrap();
    let rows = frame.collect().await.unwrap();
    let text = pretty_format_batches(&rows).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn ask(view: &View, sql: &str) -> Vec<String> {
    answer(&view.session(sql).await.unwrap(), sql).await
}

/// Compares every answer about some groups with what the same statement says of rows that are all there.
async fn check(cli: &Cli, meters: &[&str]) {
    let (view, _) = counted_view(cli).await;
    let mut conditions: Vec<String> = names()
        .iter()
        .map(|name| format!("subject = '{}'", name.replace('\'', "''")))
        .collect();
    let more = [
        "customer = 'customer-00007'",
        "customer IN ('customer-00000', 'customer-05999', 'none')",
        "subject LIKE 'acme%'",
        "subject >= 'acme' AND subject < 'acme-2'",
        "subject = 'acme' AND window_start >= '2026-01-05T02:00:00Z'",
        "subject = 'acme' AND window_start >= now() - INTERVAL '3 days'",
        "NOT (subject LIKE 'customer%')",
        "subject = 'nobody'",
    ];
    conditions.extend(more.map(str::to_owned));
    let by_region = [
        "region = 'eu' AND subject IN ('acme', 'Acme', 'ACME')",
        "region IS NULL AND subject = 'acme'",
        "region = 'EU' AND customer = 'Acme'",
        "(region = 'eu-west' OR subject = 'é') AND NOT (subject LIKE 'customer%')",
    ];
    for meter in meters {
        let has_region = !matches!(*meter, "in_time" | "sliding");
        let by_region = by_region.iter().filter(|_| has_region);
        let conditions = conditions.iter().map(String::as_str);
        let all = async |columns: &str, condition: &str| {
            let sql = format!("SELECT {columns} FROM {meter} WHERE {condition}");
            let frame = view.session(&sql).await.unwrap();
            let frame = tollgate_sql::session::query(&frame, &sql).await.unwrap();
            let rows = frame.collect().await.unwrap();
            let schema = rows[0].schema();
            let context = tollgate_sql::session::context();
            let rows = tollgate::view::one_batch(&schema, &rows).unwrap();
            context.register_batch(*meter, rows).unwrap();
            context
        };
        let good = all("*", "error IS NULL").await;
        let keys = "window_start, window_end, customer, subject, error";
        let faults = all(keys, "error IS NOT NULL OR true").await;
        for condition in conditions.chain(by_region.copied()) {
            let sql = format!("SELECT * FROM {meter} WHERE {condition} AND error IS NULL");
            assert_eq!(ask(&view, &sql).await, answer(&good, &sql).await, "{sql}");
            if condition.contains("region") {
                continue;
            }
            let sql = format!("SELECT {keys} FROM {meter} WHERE {condition}");
            assert_eq!(ask(&view, &sql).await, answer(&faults, &sql).await, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_what_it_is_among_all_and_little_is_read() {
    let world = World::new(DEFINITIONS).await;
    let cli = metered(&world).await;
    check(&cli, &METERS).await;

    // By hand: January of one that was never late, and what is open of it.
    let sql =
        "SELECT SUM(n) AS n, SUM(calls) AS calls FROM tasks WHERE customer = 'customer-00007'";
    let of_hour = (0..HOURS).map(|hour| 1 + (7 * 7 + hour) % 50);
    let (expected, most): (usize, usize) = (of_hour.clone().sum(), of_hour.max().unwrap());
    let rows = cli.query(sql).await;
    assert_eq!(
        rows,
        [[(expected + 3).to_string(), (HOURS + 1).to_string()]]
    );

    check_reads(&cli).await;
    check_drafts(&cli).await;

    // By hand: region 3 of four is `eu-west`, which has no rate.
    let said = cli.succeed(&[
        "invoice",
        "--period",
        "2026-01",
        "--customer",
        "customer-00007",
    ]);
    let total = format!("{}.{}0 USD", 31 + expected / 2 + most, expected % 2 * 5);
    let said = said.await;
    assert!(said.starts_with("draft        customer-00007 "), "{said}");
    assert!(
        said.trim_end().ends_with(&format!(" {total}")),
        "{said}, not {total}"
    );
    // Maintenance keeps them together too.
    cli.succeed(&["maintain"]).await;
    check(&cli, &["tasks", "visits"]).await;
    check_reads(&cli).await;
}

/// A draft of one customer is that of all, of this customer.
async fn check_drafts(cli: &Cli) {
    let mut billing = cli.settings().billing;
    let now = jiff::Timestamp::now().to_string()[..7].to_owned();
    for (plan, zone, month, reads_little) in [
        ("apart", "UTC", "2026-01", true),
        ("apart", "Asia/Kolkata", now.as_str(), true),
        ("risk", "UTC", "2026-01", true),
        ("compared", "UTC", "2026-01", false),
        ("apart", "UTC", "2020-01", true),
    ] {
        (billing.default_plan, billing.time_zone) = (plan.into(), zone.into());
        let period = Period::month(month, zone).unwrap();
        let (view, scans) = counted_view(cli).await;
        let all = draft(&view, &billing, &period).await.unwrap();
        let read_of_all = scans.take();
        let one = "customer-00007".to_owned();
        let customers = names().into_iter().step_by(2);
        for customer in customers.chain([one, "nobody".into()]) {
            scans.take();
            let found = draft_of(&view, &billing, &period, &customer).await.unwrap();
            let read = scans.take();
            let is_its = |invoice: &&Invoice| invoice.customer == customer;
            let expected: Vec<&Invoice> = all.invoices.iter().filter(is_its).collect();
            let what = format!("{plan}, {zone}, {month}, {customer}");
            assert_eq!(
                found.invoices.iter().collect::<Vec<_>>(),
                expected,
                "{what}"
            );
            let mut in_error = all.in_error();
            in_error.retain(|known| known.customer == customer);
            assert_eq!(found.in_error(), in_error, "{what}");
            let most = match reads_little {
                true => (METERS.len() + 2) * 2 * (PAGE + names().len()),
                false => 2 * read_of_all + METERS.len() * 2 * PAGE,
            };
            assert!(
                read <= most,
                "{what}: {read} of {read_of_all} rows were read"
            );
        }
    }
}

/// How much is read of the files for one and for all.
async fn check_reads(cli: &Cli) {
    let (view, scans) = counted_view(cli).await;
    // Until when there is a row of sessions and hops, to know what is final; of others, nothing.
    let frames = "SELECT COUNT(*) AS n FROM (SELECT shard FROM visits_panes UNION ALL SELECT shard FROM sliding_panes)";
    let frames: usize = cli.query(frames).await[0][0].parse().unwrap();
    let month = Period::month("2026-01", "UTC").unwrap();
    view.unfinished_shard(&month).await.unwrap();
    let read = scans.take();
    assert!(read <= frames, "{read} rows were read to open the lake");
    let all = MANY * HOURS;
    for (meter, condition, most) in [
        ("tasks", "customer = 'customer-00007'", 2 * PAGE),
        ("tasks", "subject = 'acme' AND region IS NULL", 2 * PAGE),
        ("tasks", "subject = 'nobody'", PAGE),
        ("in_time", "subject = 'customer-05999'", 2 * PAGE),
        ("moved", "subject IN ('customer-00007')", 2 * PAGE),
        ("visits", "customer = 'customer-00007'", 2 * PAGE),
        ("sliding", "customer = 'customer-00007'", 2 * PAGE),
    ] {
        ask(&view, &format!("SELECT * FROM {meter} WHERE {condition}")).await;
        let read = scans.take();
        // A file of late panes is small, and read whole.
        let most = most + 2 * names().len();
        assert!(
            read <= most,
            "{meter}, {condition}: {read} of {all} rows were read"
        );
        ask(&view, &format!("SELECT SUM(n) FROM {meter}")).await;
        assert!(scans.take() >= all, "{meter}: all are read for all");
    }
}
