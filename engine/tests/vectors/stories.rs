//! Whole billing stories: accounts, plans, usage and runs of the job, on a lake on disk.
//!
//! Each story is a line of `billing.jsonl`. Definitions are written as SQL, accounts as the CSV files that
//! `tollgate accounts import` reads; usage goes through a shard, and the job runs at the times that the story says.

use crate::{
    case::{Failure, Outcome, unread},
    price::{Number, Price},
};
use arrow::array::AsArray;
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
    sync::Arc,
};
use tokio::sync::watch;
use tollgate::{
    billing::{self, Asked, Documents, Which},
    catalog::Catalog,
    clock::ManualClock,
    config::Settings,
    customers::Customers,
    dedupe,
    shard::{self, Options, Questions},
    supervisor::parts,
    telemetry::Progress,
    view::View,
};
use tollgate_connectors::{
    Message, Sequence, event::DecodeOptions, lake::Lake, memory::MemoryStream,
};
use tollgate_sql::{accounts::AccountsFile, credits::balance, invoice::Invoice, money::Exact};

/// One line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    id: String,
    #[serde(rename = "story")]
    _story: String,
    #[serde(rename = "notes", default)]
    _notes: Option<String>,
    #[serde(rename = "source", default)]
    _source: Option<Value>,
    /// The setting `billing.starts_at`.
    #[serde(default)]
    starts_at: String,
    #[serde(default)]
    accounts: Accounts,
    #[serde(default)]
    tax_rates: Vec<TaxRate>,
    plans: Vec<Plan>,
    #[serde(default)]
    usage: Vec<Usage>,
    #[serde(default)]
    edits: Vec<Edit>,
    runs: Vec<Run>,
    expected: Expected,
}

/// Rows by table.
type Accounts = BTreeMap<String, Vec<Map<String, Value>>>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaxRate {
    region: String,
    rate_percent: String,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    plan: String,
    currency: String,
    billing_period: String,
    anchor: Option<String>,
    minimum: Option<String>,
    maximum: Option<String>,
    discount_order: Option<String>,
    minimum_before_discounts: Option<bool>,
    minimum_proration: Option<String>,
    tax: Option<String>,
    trial_usage: Option<String>,
    issue_after: Option<String>,
    progressive_billing: Option<String>,
    prices: Vec<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Usage {
    subject: String,
    time: Timestamp,
    quantity: String,
    arrives: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    before_run: usize,
    #[serde(default)]
    accounts: Accounts,
    #[serde(default)]
    plans: Vec<Plan>,
    #[serde(default)]
    prices: Vec<Map<String, Value>>,
    #[serde(default)]
    tax_rates: Vec<TaxRate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    as_of: Timestamp,
    #[serde(default)]
    finalize: bool,
    #[serde(default)]
    correct: bool,
    /// Documents that are taken back before the job, by number.
    #[serde(default)]
    voids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    documents: Vec<Map<String, Value>>,
    #[serde(default)]
    lines: Vec<Map<String, Value>>,
    #[serde(default)]
    sums: Vec<Map<String, Value>>,
    #[serde(default)]
    counts: Vec<Map<String, Value>>,
    #[serde(default)]
    balances: BTreeMap<String, String>,
    #[serde(default)]
    unbilled: Vec<Map<String, Value>>,
    #[serde(default)]
    unissued: Vec<Map<String, Value>>,
}

/// Runs a story and compares what it expects.
pub(crate) async fn run_story(line: &str) -> Result<(), String> {
    let story: Story =
        serde_json::from_str(line).map_err(|error| format!("billing.jsonl: {error}"))?;
    let id = story.id.clone();
    match Box::pin(told(&story)).await {
        Ok(problems) if problems.is_empty() => Ok(()),
        Ok(problems) => Err(format!("{id}: {}", problems.join("; "))),
        Err(Failure::NotBuilt(what)) => Err(format!("{id}: not built yet {what}")),
        Err(Failure::Error(problem)) => Err(format!("{id}: {problem}")),
    }
}

/// What is not as expected.
async fn told(story: &Story) -> Outcome<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let mut world = World::new(folder.path())?;
    world
        .settings
        .billing
        .starts_at
        .clone_from(&story.starts_at);
    world.add(&story.plans, &[], &story.tax_rates)?;
    let mut issued: Vec<(usize, Invoice)> = Vec::new();
    let mut unissued = Vec::new();
    for (number, run) in story.runs.iter().enumerate() {
        let clock = ManualClock::at(run.as_of.as_microsecond());
        if number == 0 {
            world.import(&story.accounts, &clock).await?;
        }
        for edit in story.edits.iter().filter(|edit| edit.before_run == number) {
            world.add(&edit.plans, &edit.prices, &edit.tax_rates)?;
            world.import(&edit.accounts, &clock).await?;
        }
        world.meter(&story.usage, run.as_of).await?;
        for voided in &run.voids {
            let lake = world.lake().await?;
            let accounts = billing::accounts::load(&lake).await?.indexed();
            let void = billing::issue_void(&lake, &accounts, voided, (&clock, None)).await?;
            issued.push((number, void));
        }
        let documents = world.documents(run).await?;
        let made = match run.finalize {
            true => {
                let lake = world.lake().await?;
                let at_once = world.documents(run).await?;
                let issued = billing::issue_documents(&lake, documents, &clock)
                    .await?
                    .issued;
                if !issued.is_empty() {
                    let twice = billing::issue_documents(&lake, at_once, &clock).await;
                    let refused = twice
                        .err()
                        .map(|error| error.to_string())
                        .unwrap_or_default();
                    if !refused.starts_with("another invoice job issued at the same time") {
                        return Err(Failure::Error(format!("a second job issued: {refused}")));
                    }
                }
                issued
            }
            false => documents.invoices,
        };
        issued.extend(made.into_iter().map(|invoice| (number, invoice)));
        unissued.extend(world.unissued(story, number).await?);
    }
    let mut problems = compare(&story.expected, &issued)?;
    problems.extend(names(&issued));
    problems.extend(world.balances(story).await?);
    problems.extend(world.unbilled(story).await?);
    problems.extend(unissued);
    Ok(problems)
}

/// A lake and what bills it.
struct World {
    settings: Settings,
    definitions: std::path::PathBuf,
    plans: Vec<Plan>,
    tax_rates: Vec<TaxRate>,
    stream: MemoryStream,
    sent: BTreeSet<usize>,
}

const HEAD: &str = "CREATE EVENT TYPE used (quantity DECIMAL(38, 12) NOT NULL) WITH (type = 'used');\n\
    CREATE METER usage WITH (window = '1 hour') AS SELECT subject, SUM(quantity) AS quantity FROM used GROUP BY subject;\n";

impl World {
    fn new(folder: &Path) -> Outcome<Self> {
        let definitions = folder.join("definitions");
        fs::create_dir_all(&definitions)?;
        let mut settings = Settings {
            base: folder.to_owned(),
            ..Settings::default()
        };
        settings.lake.url = format!("file://{}", folder.join("lake").display());
        Ok(World {
            settings,
            definitions,
            plans: Vec::new(),
            tax_rates: Vec::new(),
            stream: MemoryStream::default(),
            sent: BTreeSet::new(),
        })
    }

    async fn lake(&self) -> Outcome<Lake> {
        Ok(Lake::open(&self.settings.lake.url, &self.settings.base).await?)
    }

    async fn catalog(&self) -> Outcome<Arc<Catalog>> {
        Ok(Arc::new(Catalog::load(&self.settings).await?))
    }

    /// Adds plans and prices, and writes all definitions again.
    fn add(
        &mut self,
        plans: &[Plan],
        prices: &[Map<String, Value>],
        rates: &[TaxRate],
    ) -> Outcome<()> {
        for plan in plans {
            self.plans.retain(|known| known.plan != plan.plan);
            self.plans.push(plan.clone());
        }
        for price in prices {
            let name = price.get("price").cloned();
            let known = self.plans.iter_mut();
            for plan in known.filter(|plan| {
                plan.prices
                    .iter()
                    .any(|known| known.get("price") == name.as_ref())
            }) {
                plan.prices.push(price.clone());
            }
        }
        self.tax_rates.extend(rates.iter().cloned());
        let mut sql = HEAD.to_owned();
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for plan in &self.plans {
            for price in &plan.prices {
                let (name, statement) = price_sql(plan, price)?;
                let versions = known.entry(name).or_default();
                if !versions.contains(&statement) {
                    let replace = if versions.is_empty() {
                        ""
                    } else {
                        "OR REPLACE "
                    };
                    let _ = writeln!(sql, "CREATE {replace}PRICE {statement}");
                    versions.push(statement);
                }
            }
        }
        for plan in &self.plans {
            sql += &plan.sql();
        }
        if !self.tax_rates.is_empty() {
            let mut csv = "region,rate_percent,valid_from,valid_to\n".to_owned();
            for rate in &self.tax_rates {
                let instant =
                    |at: &Option<Timestamp>| at.map_or(String::new(), |at| at.to_string());
                let from = rate.from.unwrap_or(Timestamp::UNIX_EPOCH);
                let _ = writeln!(
                    csv,
                    "{},{},{from},{}",
                    rate.region,
                    rate.rate_percent,
                    instant(&rate.to)
                );
            }
            fs::write(self.definitions.join("tax_rates.csv"), csv)?;
            sql += "CREATE RATE TABLE tax_rates (region VARCHAR, rate_percent DECIMAL(9, 4), valid_from TIMESTAMP, \
                    valid_to TIMESTAMP, PRIMARY KEY (region, PERIOD valid_from, valid_to)) WITH (location = 'tax_rates.csv');\n";
        }
        fs::write(self.definitions.join("all.sql"), sql)?;
        Ok(())
    }

    async fn import(&self, accounts: &Accounts, clock: &ManualClock) -> Outcome<()> {
        let files = accounts.iter().filter(|(_, rows)| !rows.is_empty());
        let files: Vec<AccountsFile> = files
            .map(|(table, rows)| AccountsFile {
                name: format!("{table}.csv"),
                bytes: csv(rows).into_bytes(),
            })
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        let (lake, catalog) = (self.lake().await?, self.catalog().await?);
        billing::accounts::import(&lake, &files, &catalog.definitions, "UTC", clock).await?;
        Ok(())
    }

    /// Reads what has arrived by a time.
    async fn meter(&mut self, usage: &[Usage], until: Timestamp) -> Outcome<()> {
        let mut arrived: Vec<(Timestamp, usize, &Usage)> = usage
            .iter()
            .enumerate()
            .map(|(place, used)| (used.arrives.unwrap_or(used.time), place, used))
            .filter(|(at, place, _)| *at <= until && !self.sent.contains(place))
            .collect();
        arrived.sort_by_key(|(at, place, _)| (*at, *place));
        for (at, place, used) in arrived {
            self.sent.insert(place);
            self.stream.append(Message {
                sequence: Sequence(u64::try_from(self.sent.len())?),
                ingest_time_us: at.as_microsecond(),
                headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
                payload: json!({
                    "specversion": "1.0", "id": place.to_string(), "source": "story", "type": "used",
                    "subject": used.subject, "time": used.time.to_string(),
                    "data": {"quantity": serde_json::from_str::<Value>(&used.quantity)?},
                })
                .to_string()
                .into(),
                unread: None,
            });
        }
        let (lake, catalog) = (self.lake().await?, self.catalog().await?);
        let source = Box::new(self.stream.source("stories"));
        let clock = Arc::new(ManualClock::at(until.as_microsecond()));
        let parts = parts(&catalog, &lake, source, DecodeOptions::default(), clock).await?;
        let (_stop, stopped) = watch::channel(false);
        let progress = watch::Sender::new(Progress::default());
        let mut nobody = Questions::none();
        let options = Options {
            batch_bytes: 1_000_000,
            flush_interval_us: i64::MAX,
            flush_bytes: 2_000_000,
            windows_bytes: usize::MAX,
            dedupe: dedupe::Options {
                horizon_us: i64::MAX,
                memory_bytes: 1_000_000,
                directory: self.settings.base.join("ids"),
            },
            until_end: true,
            start: None,
            replaces: Vec::new(),
        };
        Box::pin(shard::run(parts, options, stopped, progress, &mut nobody)).await?;
        Ok(())
    }

    /// Balances after the last run that are not as expected.
    async fn balances(&self, story: &Story) -> Outcome<Vec<String>> {
        let lake = self.lake().await?;
        let accounts = billing::accounts::load(&lake).await?.indexed();
        let burnt = billing::Burnt::of(&lake, &Customers::All).await?;
        let mut problems = Vec::new();
        for (name, expected) in &story.expected.balances {
            let Some((grant, run)) = accounts.grant(name).zip(story.runs.last()) else {
                return unread(format!("the grant {name}"));
            };
            let burnt = burnt.of_customer(&grant.customer);
            let left = balance(grant, burnt, run.as_of.as_microsecond())?;
            if left != Exact::parse(expected)? {
                problems.push(format!("{left} is left of {name}, not {expected}"));
            }
        }
        let Some(run) = story.runs.last() else {
            return Ok(problems);
        };
        let as_of_us = run.as_of.as_microsecond();
        let mut sums: BTreeMap<String, Exact> = BTreeMap::new();
        let rows = billing::credit_ledger(&lake, as_of_us).await?;
        for row in 0..rows.num_rows() {
            let name = rows["grant"].as_string::<i32>().value(row);
            let amount = Exact::from_array(&rows["amount"], row)?.ok_or("a row has no amount")?;
            let sum = sums.entry(name.to_owned()).or_insert(Exact::ZERO);
            *sum = sum.checked_add(amount)?;
        }
        for grant in accounts.grants() {
            let left = balance(grant, burnt.of_customer(&grant.customer), as_of_us)?;
            let sum = sums.get(&grant.grant).copied().unwrap_or(Exact::ZERO);
            if sum != left {
                let name = &grant.grant;
                problems.push(format!(
                    "the rows of {name} add up to {sum}, and {left} is left"
                ));
            }
        }
        Ok(problems)
    }

    /// Usage that no one pays for, by the last run, that is not as expected.
    async fn unbilled(&self, story: &Story) -> Outcome<Vec<String>> {
        let (Some(run), false) = (story.runs.last(), story.expected.unbilled.is_empty()) else {
            return Ok(Vec::new());
        };
        let (lake, catalog) = (self.lake().await?, self.catalog().await?);
        let accounts = billing::accounts::ByRange::begin(&lake, None).await?;
        let view = View::open(catalog, &lake).await?;
        let ever = billing::ever(&view, run.as_of.as_microsecond()).await?;
        let rows = billing::unbilled(&view, &lake, &self.settings.billing, &accounts, ever).await?;
        let mut problems = Vec::new();
        for wanted in &story.expected.unbilled {
            let subject = wanted
                .get("subject")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut found = Exact::ZERO;
            for row in rows.iter().filter(|row| row.subject == subject) {
                found = found.checked_add(Exact::parse(&row.quantity)?)?;
            }
            let expected = wanted
                .get("quantity")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if found != Exact::parse(expected)? {
                problems.push(format!("{found} of {subject} is unbilled, not {expected}"));
            }
        }
        Ok(problems)
    }

    /// What waits after a run and is not as expected.
    async fn unissued(&self, story: &Story, run: usize) -> Outcome<Vec<String>> {
        let of_run = |wanted: &&Map<String, Value>| {
            wanted.get("run").and_then(Value::as_u64) == u64::try_from(run).ok()
        };
        let wanted: Vec<_> = story.expected.unissued.iter().filter(of_run).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (lake, catalog) = (self.lake().await?, self.catalog().await?);
        let view = View::open(catalog, &lake).await?;
        let now_us = story.runs[run].as_of.as_microsecond();
        let rows = billing::unissued(&view, &lake, &self.settings.billing, now_us).await?;
        let customers = rows["customer"].as_string::<i32>();
        let mut problems = Vec::new();
        for wanted in wanted {
            let customer = wanted
                .get("customer")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let expected = wanted
                .get("amount")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut found = Exact::ZERO;
            for row in (0..rows.num_rows()).filter(|row| customers.value(*row) == customer) {
                let amount = Exact::from_array(rows["amount"].as_ref(), row)?;
                found = found.checked_add(amount.unwrap_or(Exact::ZERO))?;
            }
            if found != Exact::parse(expected)? {
                problems.push(format!(
                    "run {run}: {found} of {customer} is unissued, not {expected}"
                ));
            }
        }
        Ok(problems)
    }

    async fn documents(&self, run: &Run) -> Outcome<Documents> {
        let (lake, catalog) = (self.lake().await?, self.catalog().await?);
        let view = View::open(catalog, &lake).await?;
        let settings = &self.settings.billing;
        let asked = Asked {
            which: &Which::Due,
            customer: None,
            corrects: run.correct,
        };
        let documents =
            billing::documents_of(&view, &lake, settings, asked, run.as_of.as_microsecond())
                .await?;
        let in_error = documents.in_error.iter().map(|known| format!("{known:?}"));
        let in_error: Vec<String> = in_error.collect();
        match in_error.is_empty() {
            true => Ok(documents),
            false => Err(Failure::Error(in_error.join("; "))),
        }
    }
}

impl Plan {
    fn sql(&self) -> String {
        let mut options = format!(
            "currency = '{}', billing_period = '{}'",
            self.currency, self.billing_period
        );
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let before = flag(self.minimum_before_discounts);
        for (name, value) in [
            ("anchor", &self.anchor),
            ("minimum", &self.minimum),
            ("maximum", &self.maximum),
            ("discount_order", &self.discount_order),
            ("minimum_before_discounts", &before),
            ("minimum_proration", &self.minimum_proration),
            ("tax", &self.tax),
            ("trial_usage", &self.trial_usage),
            ("issue_after", &self.issue_after),
            ("progressive_billing", &self.progressive_billing),
        ] {
            if let Some(value) = value {
                let _ = write!(options, ", {name} = '{value}'");
            }
        }
        let name_of =
            |price: &Map<String, Value>| price["price"].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = Vec::new();
        let mut in_advance: Vec<String> = Vec::new();
        for price in &self.prices {
            let name = name_of(price);
            if price.get("in_advance") == Some(&Value::Bool(true)) && !in_advance.contains(&name) {
                in_advance.push(name.clone());
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !in_advance.is_empty() {
            let _ = write!(options, ", in_advance = '{}'", in_advance.join(", "));
        }
        format!(
            "CREATE PLAN {} WITH ({options}) AS ({});\n",
            self.plan,
            names.join(", ")
        )
    }
}

/// The name of a price, and what follows `CREATE PRICE`.
fn price_sql(plan: &Plan, price: &Map<String, Value>) -> Outcome<(String, String)> {
    let mut terms = price.clone();
    let mut take = |name: &str| terms.remove(name);
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let Some(name) = text(take("price")) else {
        return unread("a price without a name");
    };
    let effective = text(take("effective_from"))
        .map(|at| at.parse::<Timestamp>())
        .transpose()?;
    let on_change = text(take("on_change"));
    match text(take("measure")).as_deref() {
        None | Some("sum of quantity") => {}
        Some(other) => return unread(format!("the measure {other}")),
    }
    let _in_advance = take("in_advance");
    let prorate = text(take("prorate"));
    let model = terms
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let fixed = match model.as_str() {
        "flat" => Some((terms.remove("amount"), "")),
        "per_seat" => Some((terms.remove("unit_amount"), "seats AS quantity, ")),
        _ => None,
    };
    let query = match fixed {
        Some((amount, quantity)) => {
            terms.remove("model");
            if let Some(name) = terms.keys().next() {
                return unread(format!("the field {name} of a fixed price"));
            }
            let amount = Number::try_from(text(amount).unwrap_or_default())?.sql();
            let amount = match quantity {
                "" => amount,
                _ => format!("{amount} * seats"),
            };
            match prorate.as_deref() {
                None | Some("day") => format!(
                    "SELECT customer, {quantity}prorate({amount}, active_days, period_days) AS amount FROM subscription"
                ),
                Some("second") => format!(
                    "SELECT customer, {quantity}prorate({amount}, active_seconds, period_seconds) AS amount FROM subscription"
                ),
                Some("none") => {
                    let quantity = quantity.replace("seats AS", "MAX(seats) AS");
                    format!(
                        "SELECT customer, {quantity}MAX({amount}) AS amount FROM subscription GROUP BY customer"
                    )
                }
                Some(other) => return unread(format!("proration by {other}")),
            }
        }
        None => {
            let price: Price = crate::case::read(&Value::Object(terms))?;
            let amount = price.amount("SUM(quantity)")?;
            format!(
                "SELECT customer, SUM(quantity) AS quantity, {amount} AS amount FROM usage GROUP BY customer"
            )
        }
    };
    let mut options = format!("currency = '{}'", plan.currency);
    if let Some(at) = effective {
        let day = TimeZone::UTC.to_datetime(at).date();
        let _ = write!(options, ", effective_from = '{day}'");
    }
    if let Some(on_change) = on_change {
        let _ = write!(options, ", on_change = '{on_change}'");
    }
    let statement = format!("{name} WITH ({options}) AS {query};");
    Ok((name, statement))
}

/// Rows as a CSV file.
fn csv(rows: &[Map<String, Value>]) -> String {
    let names: BTreeSet<&String> = rows.iter().flat_map(Map::keys).collect();
    let mut lines = vec![
        names
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(","),
    ];
    for row in rows {
        let cell = |name: &&String| match row.get(name.as_str()) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(text),
            Some(Value::Array(names)) => {
                let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                quoted(&names.join(";"))
            }
            Some(other) => other.to_string(),
        };
        lines.push(names.iter().map(cell).collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Documents of one id, and numbers that are not next to the one before.
fn names(issued: &[(usize, Invoice)]) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut ids, mut series) = (BTreeSet::new(), BTreeMap::new());
    for (_, invoice) in issued {
        let Some(number) = &invoice.number else {
            continue;
        };
        if !ids.insert(invoice.id.as_str()) {
            problems.push(format!("{number} has the id of another document"));
        }
        let (name, _) = number.split_once('-').unwrap_or((number, ""));
        let count: &mut usize = series.entry(name).or_default();
        *count += 1;
        if *number != format!("{name}-{count:06}") {
            problems.push(format!("{number} is not the next number of {name}"));
        }
    }
    problems
}

fn compare(expected: &Expected, issued: &[(usize, Invoice)]) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    let mut unused: Vec<Value> = issued
        .iter()
        .map(|(run, invoice)| document(*run, invoice))
        .collect();
    let all = unused.clone();
    for wanted in &expected.documents {
        let wanted = Value::Object(wanted.clone());
        match unused
            .iter()
            .position(|document| is_document(&wanted, document))
        {
            Some(place) => {
                unused.remove(place);
            }
            None => problems.push(format!(
                "no document is {wanted} among {}",
                Value::from(all.clone())
            )),
        }
    }
    let with_run = |fields: &Map<String, Value>, document: &Value| {
        ["run", "customer"].iter().all(|name| {
            fields
                .get(*name)
                .is_none_or(|wanted| document.get(*name) == Some(wanted))
        })
    };
    for wanted in &expected.lines {
        let mut line = wanted.clone();
        line.remove("run");
        line.remove("customer");
        let line = Value::Object(line);
        let documents = all.iter().filter(|document| with_run(wanted, document));
        let mut lines = documents
            .filter_map(|document| document["lines"].as_array())
            .flatten();
        if !lines.any(|found| crate::case::check(&line, found)) {
            problems.push(format!(
                "no line is {} among {}",
                Value::Object(wanted.clone()),
                Value::from(all.clone())
            ));
        }
    }
    for wanted in &expected.sums {
        for name in ["total", "amount_due", "tax", "discount", "credits_applied"] {
            let Some(expected) = wanted.get(name).and_then(Value::as_str) else {
                continue;
            };
            let mut sum = Exact::ZERO;
            for document in all.iter().filter(|document| with_run(wanted, document)) {
                sum = sum.checked_add(Exact::parse(document[name].as_str().unwrap_or("0"))?)?;
            }
            if sum != Exact::parse(expected)? {
                problems.push(format!(
                    "{name} of {} is {sum} in {}",
                    Value::Object(wanted.clone()),
                    Value::from(all.clone())
                ));
            }
        }
    }
    for wanted in &expected.counts {
        let found = all
            .iter()
            .filter(|document| with_run(wanted, document))
            .count();
        if wanted.get("documents").and_then(Value::as_u64) != u64::try_from(found).ok() {
            problems.push(format!(
                "{} documents, not {}",
                found,
                Value::Object(wanted.clone())
            ));
        }
    }
    Ok(problems)
}

/// Whether a document has what is wanted: lines in any order, the rest alike.
fn is_document(wanted: &Value, found: &Value) -> bool {
    let (Some(wanted), Some(found)) = (wanted.as_object(), found.as_object()) else {
        return false;
    };
    wanted.iter().all(
        |(name, value)| match (name.as_str(), value.as_array(), found.get(name)) {
            ("lines", Some(lines), Some(Value::Array(found))) => lines
                .iter()
                .all(|line| found.iter().any(|found| crate::case::check(line, found))),
            (_, _, Some(found)) => crate::case::check(value, found),
            _ => false,
        },
    )
}

/// A document in the words of the stories.
fn document(run: usize, invoice: &Invoice) -> Value {
    let instant = |us: i64| {
        Timestamp::from_microsecond(us)
            .unwrap_or_default()
            .to_string()
    };
    let lines = invoice.lines.iter().map(|line| {
        json!({
            "kind": match line.kind.as_str() { "base" => "fixed", other => other },
            "price": line.price,
            "amount": line.amount.amount_text(),
            "discount": line.discount.amount_text(),
            "quantity": line.quantity.map(|quantity| quantity.to_string()),
            "service_period": [instant(line.period.start_us), instant(line.period.end_us)],
        })
    });
    json!({
        "run": run,
        "customer": invoice.customer,
        "kind": invoice.kind(),
        "period": [instant(invoice.period.start_us), instant(invoice.period.end_us)],
        "lines": lines.collect::<Vec<_>>(),
        "discount": invoice.discount.amount_text(),
        "tax": invoice.tax.amount_text(),
        "promotional_applied": invoice.promotional.amount_text(),
        "credits_applied": invoice.credits.amount_text(),
        "amount_due": invoice.amount_due.amount_text(),
        "total": invoice.total.amount_text(),
    })
}
