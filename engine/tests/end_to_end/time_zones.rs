//! Twelve billing periods are the year: nothing on a boundary is counted twice or lost, in any zone, for
//! windows of any width, open or closed.
//!
//! The zones' offsets are written down from their rules, months are cut in integers, and the events are
//! added up here; the engine's calendar has no part in it.

use crate::world::{Cli, World};
use std::{collections::BTreeMap, fmt::Write, fs, sync::Arc};
use tollgate::{
    billing,
    catalog::Catalog,
    cli::{
        demo::generator::Random,
        output::{Format, encode_rows},
    },
    view::View,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{money::Exact, period::Period};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// 2025-01-01T00:00:00Z.
const YEAR: i64 = 1_735_689_600_000_000;
const MONTH_DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const SUBJECTS: [&str; 3] = ["ann", "ben", "cy"];

/// Each width of windows, by the name of its meters, with a lateness: some windows close at once, some
/// after days, some never while the test runs.
const WIDTHS: [(&str, &str, &str); 4] = [
    ("minute", "1 minute", "1 hour"),
    ("quarter", "15 minutes", "366 days"),
    ("hour", "1 hour", "30 days"),
    ("day", "1 day", "366 days"),
];

/// A zone in 2025: minutes east of Greenwich at the start of the year, and after each change.
struct Zone {
    name: &'static str,
    minutes: i64,
    changes: Vec<(i64, i64)>,
}

/// An instant of 2025, UTC.
fn at(month: usize, day: i64, hour: i64, minute: i64) -> i64 {
    let days = MONTH_DAYS[..month - 1].iter().sum::<i64>() + day - 1;
    YEAR + days * DAY + hour * HOUR + minute * MINUTE
}

fn zones() -> [Zone; 4] {
    [
        Zone {
            name: "Asia/Kolkata",
            minutes: 330,
            changes: vec![],
        },
        // The last Sundays of March and October at 01:00 UTC.
        Zone {
            name: "Europe/Berlin",
            minutes: 60,
            changes: vec![(at(3, 30, 1, 0), 120), (at(10, 26, 1, 0), 60)],
        },
        // The second Sunday of March and the first of November at 02:00 on the clock.
        Zone {
            name: "America/St_Johns",
            minutes: -210,
            changes: vec![(at(3, 9, 5, 30), -150), (at(11, 2, 4, 30), -210)],
        },
        // The first Sunday of April and the last of September at 02:45 standard time, which is on the
        // Saturday at 14:00 UTC.
        Zone {
            name: "Pacific/Chatham",
            minutes: 825,
            changes: vec![(at(4, 5, 14, 0), 765), (at(9, 27, 14, 0), 825)],
        },
    ]
}

impl Zone {
    /// Microseconds to add to an instant for what the clock shows.
    fn offset(&self, time_us: i64) -> i64 {
        let passed = self.changes.iter().rev().find(|(at, _)| *at <= time_us);
        passed.map_or(self.minutes, |(_, minutes)| *minutes) * MINUTE
    }

    /// The instant at which the clock shows midnight; no clock here changes at that hour.
    fn midnight(&self, local_us: i64) -> i64 {
        let offsets = self.changes.iter().map(|(_, minutes)| *minutes);
        let mut candidates = offsets
            .chain([self.minutes])
            .map(|minutes| local_us - minutes * MINUTE)
            .filter(|time_us| time_us + self.offset(*time_us) == local_us);
        candidates.next().unwrap()
    }

    /// Where the months begin, and where the last one ends.
    fn edges(&self) -> Vec<i64> {
        let days = (0..=12).map(|month| MONTH_DAYS[..month].iter().sum::<i64>());
        days.map(|days| self.midnight(YEAR + days * DAY)).collect()
    }
}

/// One event; its place in the list is its sequence.
#[derive(Clone, Copy)]
struct Event {
    time_us: i64,
    subject: usize,
    units: i64,
}

/// All events, in the order they are sent.
fn events() -> Vec<Event> {
    let mut random = Random::new(6);
    let mut times = Vec::new();
    let around = |us: i64| [us - 1, us, us + 1];
    for zone in zones() {
        times.extend(zone.edges().into_iter().flat_map(around));
        for (change, _) in &zone.changes {
            // The hour before and the hour after, one of which is missing or comes twice on the clock.
            let steps = [-90, -60, -45, -30, 0, 30, 45, 60, 90];
            times.extend(steps.iter().flat_map(|m| around(change + m * MINUTE)));
            // The day on which it happens.
            let local = change + zone.offset(*change);
            let day = local - local.rem_euclid(DAY);
            times.extend(around(zone.midnight(day)));
            times.extend(around(zone.midnight(day + DAY)));
        }
    }
    let utc = Zone {
        name: "UTC",
        minutes: 0,
        changes: vec![],
    };
    times.extend(utc.edges().into_iter().flat_map(around));
    // Before and after the year, and within.
    let anywhere = |_| YEAR - 20 * DAY + random.below(400 * DAY.unsigned_abs()).cast_signed();
    times.extend((0..400).map(anywhere));
    times.sort_unstable();
    // Mostly by time, some much later.
    let mut events: Vec<Event> = times
        .into_iter()
        .flat_map(|time_us| [time_us; 3].into_iter().enumerate())
        .map(|(subject, time_us)| Event {
            time_us,
            subject,
            units: random.below(2_000_000_001).cast_signed() - 1_000_000_000,
        })
        .collect();
    for _ in 0..events.len() / 10 {
        let late = events.remove(random.index(events.len()));
        events.insert(random.index(events.len()), late);
    }
    // A quarter of them comes when the year is over.
    let (first, last) = (0..)
        .zip(events)
        .partition::<Vec<_>, _>(|(number, _)| number % 4 > 0);
    [first, last]
        .concat()
        .into_iter()
        .map(|(_, event)| event)
        .collect()
}

fn ndjson(events: &[Event], first: usize) -> String {
    let mut text = String::new();
    for (number, event) in events.iter().enumerate() {
        let time = jiff::Timestamp::from_microsecond(event.time_us).unwrap();
        let (id, subject, units) = (first + number, SUBJECTS[event.subject], event.units);
        writeln!(
            text,
            r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"used","subject":"{subject}","time":"{time}","data":{{"units":{units}}}}}"#
        )
        .unwrap();
    }
    text
}

/// For each width a meter of usage and one of a level, and a price with a line for every measure.
fn definitions() -> String {
    let mut sql =
        "CREATE EVENT TYPE used (units BIGINT NOT NULL) WITH (type = 'used');\n".to_owned();
    let mut prices = Vec::new();
    for (name, window, lateness) in WIDTHS {
        let with = format!("WITH (window = '{window}', lateness = '{lateness}')");
        // Days of PRORATED_SUM begin on a quarter of an hour here, not on an hour.
        let prorated = match name {
            "minute" | "quarter" => ", PRORATED_SUM(units) AS prorated",
            _ => "",
        };
        write!(
            sql,
            "CREATE METER per_{name} {with} AS
             SELECT subject, SUM(units) AS sum, COUNT(*) AS count, LATEST(units) AS latest,
                    COUNT(DISTINCT units) AS distinct_units {prorated}
             FROM used GROUP BY subject;
             CREATE METER level_{name} {with} AS
             SELECT subject, TIME_WEIGHTED_SUM(units) AS level FROM used GROUP BY subject;\n"
        )
        .unwrap();
        let mut measures = vec![
            "per.sum",
            "per.count",
            "per.latest",
            "per.distinct_units",
            "level.level",
        ];
        if !prorated.is_empty() {
            measures.push("per.prorated");
        }
        let lines = measures.iter().map(|measure| {
            let (meter, measure) = measure.split_once('.').unwrap();
            format!("SELECT customer, '{measure}' AS measure, {measure} AS quantity, 0 AS amount FROM {meter}_{name}")
        });
        let lines = lines.collect::<Vec<_>>().join(" UNION ALL ");
        writeln!(
            sql,
            "CREATE PRICE {name} WITH (currency = 'USD') AS {lines};"
        )
        .unwrap();
        prices.push(name);
    }
    let prices = prices.join(", ");
    write!(
        sql,
        "CREATE PLAN payg WITH (currency = 'USD') AS ({prices});"
    )
    .unwrap();
    sql
}

/// Subject and measure to a quantity.
type Quantities = BTreeMap<(&'static str, &'static str), Exact>;

/// What `[start, end)` of a zone comes to.
fn expected(zone: &Zone, events: &[Event], start: i64, end: i64) -> Quantities {
    let mut quantities = Quantities::new();
    let local_day = |us: i64| (us + zone.offset(us)).div_euclid(DAY);
    let end_day = local_day(end);
    let days = i128::from(end_day - local_day(start));
    for (subject, name) in SUBJECTS.into_iter().enumerate() {
        let mine = events.iter().filter(|event| event.subject == subject);
        let before: Vec<&Event> = mine.clone().filter(|event| event.time_us < start).collect();
        let within: Vec<&Event> = mine
            .filter(|event| event.time_us >= start && event.time_us < end)
            .collect();
        let mut add = |measure, digits: i128, scale| {
            quantities.insert((name, measure), Exact::new(digits, scale).unwrap());
        };
        let sum: i64 = within.iter().map(|event| event.units).sum();
        add("sum", sum.into(), 0);
        add("count", within.len() as i128, 0);
        // `max_by_key` takes the last of those that tie, which has the highest sequence.
        let latest = within.iter().max_by_key(|event| event.time_us).unwrap();
        add("latest", latest.units.into(), 0);
        let mut different: Vec<i64> = within.iter().map(|event| event.units).collect();
        different.sort_unstable();
        different.dedup();
        add("distinct_units", different.len() as i128, 0);
        let weigh = |event: &&Event| i128::from(event.units) * i128::from(end - event.time_us);
        let level = i128::from(before.iter().map(|event| event.units).sum::<i64>());
        let level = level * i128::from(end - start) + within.iter().map(weigh).sum::<i128>();
        add("level", level, 6);
        let left = |event: &&Event| {
            i128::from(event.units) * i128::from(end_day - local_day(event.time_us))
        };
        let left = within.iter().map(left).sum::<i128>() * 10_i128.pow(12);
        // Half away from zero.
        let rounded = left.signum() * ((2 * left.abs() + days) / (2 * days));
        add("prorated", rounded, 12);
    }
    quantities
}

/// Lines of a period: subject, measure, width of windows and quantity. There are 22 for each subject.
type Lines = Vec<(String, String, String, Exact)>;

/// The line items of a period, as they were drafted.
async fn drafted(view: &View, cli: &Cli, zone: &Zone, month: &str) -> Lines {
    let period = Period::month(month, zone.name).unwrap();
    let invoices = billing::draft(view, &cli.settings().billing, &period).await;
    let mut lines = Lines::new();
    for invoice in invoices.unwrap().invoices {
        for line in invoice.lines {
            let measure = line.dimensions[0].1.clone().unwrap();
            let (width, quantity) = (line.price.unwrap(), line.quantity.unwrap());
            lines.push((
                invoice.customer.clone(),
                measure,
                width.to_string(),
                quantity,
            ));
        }
    }
    lines
}

/// Every line has the quantity that is expected.
fn compare(lines: &Lines, wanted: &Quantities, place: &str) {
    assert_eq!(lines.len(), SUBJECTS.len() * 22, "{place}");
    for (subject, measure, width, quantity) in lines {
        let key = wanted.keys().find(|(s, m)| s == subject && m == measure);
        let place = format!("{place} {subject} {width}: {measure}");
        assert_eq!(*quantity, wanted[key.unwrap()], "{place}");
    }
}

/// All twelve months of every zone are what their events say, for every width of windows, and so is the
/// year that they add up to.
async fn check(world: &World, cli: &Cli, events: &[Event]) {
    let settings = cli.settings();
    let catalog = Arc::new(Catalog::load(&settings).await.unwrap());
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await;
    let view = View::open(catalog, &lake.unwrap()).await.unwrap();
    for zone in zones() {
        let edges = zone.edges();
        let mut year = Year::new();
        for (month, edge) in edges.windows(2).enumerate() {
            let month = format!("2025-{:02}", month + 1);
            let got = drafted(&view, cli, &zone, &month).await;
            let wanted = expected(&zone, events, edge[0], edge[1]);
            compare(&got, &wanted, &format!("{} {month}", zone.name));
            for (subject, measure, width, quantity) in got {
                if ["sum", "count", "level"].contains(&measure.as_str()) {
                    let digits = quantity.digits_at(6).unwrap();
                    *year.entry((subject, measure, width)).or_default() += digits;
                }
            }
        }
        check_year(&view, &zone, events, &year).await;
    }
    check_command(world, cli, events).await;
}

/// Subject, measure and width of windows to the sum of twelve months, in millionths.
type Year = BTreeMap<(String, String, String), i128>;

/// The months of a year add up to the whole year: by `events`, and by integers.
async fn check_year(view: &View, zone: &Zone, events: &[Event], year: &Year) {
    let edges = zone.edges();
    let (start, end) = (edges[0], edges[12]);
    let sql = format!(
        "SELECT subject, SUM(units), COUNT(*) FROM used
         WHERE event_time >= to_timestamp_micros({start}) AND event_time < to_timestamp_micros({end})
         GROUP BY subject ORDER BY subject"
    );
    let context = view.session(&sql).await.unwrap();
    let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
    let csv = encode_rows(&rows[0].schema(), &rows, Format::Csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let stored: Vec<&str> = csv.lines().skip(1).collect();
    let wanted = expected(zone, events, start, end);
    for (width, _, _) in WIDTHS {
        let place = format!("{} {width}", zone.name);
        let of = |subject: &str, measure: &str| {
            year[&(subject.to_owned(), measure.to_owned(), width.to_owned())]
        };
        let whole = |subject, measure| of(subject, measure) / 1_000_000;
        let line = |subject| {
            format!(
                "{subject},{},{}",
                whole(subject, "sum"),
                whole(subject, "count")
            )
        };
        assert_eq!(SUBJECTS.map(line).to_vec(), stored, "{place}");
        for subject in SUBJECTS {
            let level = Exact::new(of(subject, "level"), 6).unwrap();
            assert_eq!(level, wanted[&(subject, "level")], "{place} {subject}");
        }
    }
}

/// The command, whose code that was, says the same of a month in which clocks change.
async fn check_command(world: &World, cli: &Cli, events: &[Event]) {
    for (zone, month) in zones().iter().zip([1, 10, 11, 4]) {
        let out = world.path("draft");
        let text = format!("2025-{month:02}");
        let folder = out.to_str().unwrap();
        cli.with("TOLLGATE_BILLING_TIME_ZONE", zone.name)
            .succeed(&["invoice", "--period", &text, "--out", folder])
            .await;
        let edges = zone.edges();
        let wanted = expected(zone, events, edges[month - 1], edges[month]);
        let csv = fs::read_to_string(out.join("line_items.csv")).unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let rows = reader.deserialize::<BTreeMap<String, String>>();
        let line = |row: BTreeMap<String, String>| {
            let dimensions: BTreeMap<String, String> =
                serde_json::from_str(&row["dimensions"]).unwrap();
            let quantity = Exact::parse(&row["quantity"]).unwrap();
            let (subject, width) = (row["customer"].clone(), row["price"].clone());
            (subject, dimensions["measure"].clone(), width, quantity)
        };
        let lines = rows.map(|row| line(row.unwrap())).collect();
        compare(&lines, &wanted, &format!("{} {text}", zone.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_months_are_the_year_in_every_zone_and_window() {
    let world = World::new(&definitions()).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    let events = events();
    let part = events.len() * 3 / 4;
    world.write("events.ndjson", &ndjson(&events[..part], 0));
    cli.publish(&world.path("events.ndjson"), 1).await;
    let mut run = cli.start(&["run"]);
    run.logged(&format!("sequence={part} "), 1).await;
    assert_eq!(run.terminate().await.code, Some(0));
    // Days and quarters of an hour stay open for a year.
    for (meter, is_open) in [
        ("per_minute", false),
        ("per_quarter", true),
        ("per_day", true),
    ] {
        let sql = format!("SELECT COUNT(*) FROM {meter} WHERE is_final = {}", !is_open);
        let rows = cli.query(&sql).await;
        assert_ne!(rows, [["0"]], "{meter}");
    }
    check(&world, &cli, &events[..part]).await;

    // Killed, started again, and stopped where every window is closed that is due.
    world.write("events.ndjson", &ndjson(&events[part..], part));
    cli.publish(&world.path("events.ndjson"), 1).await;
    let mut run = cli.start(&["run"]);
    run.logged("flush committed", 1).await;
    run.kill().await;
    assert!(cli.run_to_end().await.sequence() == events.len() as u64);
    // Whatever is due by the clock is closed.
    let open = cli
        .query(
            "SELECT COUNT(*) FROM per_day
             WHERE NOT is_final AND window_end + INTERVAL '400 days' <= now()",
        )
        .await;
    assert_eq!(open, [["0"]]);
    check(&world, &cli, &events).await;
    cli.audit().await;
}
