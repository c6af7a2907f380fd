//! The binary and the server are killed again and again while publishers publish; then everything that
//! was acknowledged must be counted, once.
//!
//! The publishers keep a ledger: of each event that was acknowledged its id, subject and quantity. One that
//! was not acknowledged in time is sent again under the same id, so it may be stored twice. After each
//! round the ledger is compared with `tollgate query`, with DuckDB and delta-rs where they are there,
//! and with what `tollgate audit` finds.
//!
//! `make test` runs a few rounds of seven kills each. This is the long loop, of 350 kills:
//!
//! ```sh
//! TOLLGATE_KILL_ROUNDS=50 cargo test --workspace --test end_to_end kill_loop -- --nocapture
//! ```
//!
//! `TOLLGATE_KILL_SEED=S` makes other events, and does other things after other waits. The moments are the
//! machine's own: the same seed need not die in the same place.

use crate::{
    readers::outside,
    world::{Cli, Ran, Running, World},
};
use async_nats::{HeaderMap, jetstream};
use std::{collections::BTreeMap, env, time::Duration};
use tokio::{sync::watch, task::JoinHandle};
use tollgate::{
    cli::demo::generator::Random,
    clock::{Clock, SystemClock},
};

const DEFINITIONS: &str = "
CREATE EVENT TYPE used (quantity BIGINT NOT NULL) WITH (type = 'used');

CREATE METER totals WITH (window = '1 minute', lateness = '10 seconds') AS
SELECT subject, SUM(quantity) AS quantity, COUNT(*) AS calls FROM used GROUP BY subject;
";

const ROUNDS: u64 = 3;
const PUBLISHERS: u64 = 2;
/// Events to a message.
const BATCH: u64 = 5;
/// 2025-10-09T08:53:20Z.
const START_S: i64 = 1_760_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_counted_once_whatever_is_killed() {
    let number = |name, default| env::var(name).map_or(default, |n| n.parse().unwrap());
    let rounds = number("TOLLGATE_KILL_ROUNDS", ROUNDS);
    let seed = number("TOLLGATE_KILL_SEED", 1);
    let mut story = Story::begin(seed).await;
    for round in 1..=rounds {
        story.round().await;
        println!(
            "TOLLGATE_KILL_SEED={seed} round {round} of {rounds}: {} kills, {} events counted once",
            story.kills,
            story.ledger.len()
        );
    }
}

/// What happens to whom.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// `tollgate run` is killed and started again.
    KillRun,
    /// The server is killed and started again over its store.
    KillServer,
    /// Both, and the server comes back last.
    KillBoth,
    /// A second `tollgate run` is started while the first lives.
    TakeOver,
    /// The same while the first is stopped; it wakes up when the second is at work.
    Zombie,
}

const DEEDS: [Deed; 7] = [
    Deed::KillRun,
    Deed::KillRun,
    Deed::KillRun,
    Deed::KillServer,
    Deed::KillBoth,
    Deed::TakeOver,
    Deed::Zombie,
];

/// Subject and quantity of events, by id.
type Ledger = BTreeMap<String, (String, u64)>;

struct Story {
    world: World,
    cli: Cli,
    random: Random,
    run: Option<Running>,
    publishers: Vec<Publisher>,
    /// What was acknowledged.
    ledger: Ledger,
    kills: u64,
    /// Flushes of processes that ended otherwise than in good order.
    flushes: usize,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let world = World::new(DEFINITIONS).await;
        let cli = world
            .cli()
            .with("TOLLGATE_FLUSH_INTERVAL", "50ms")
            .with("TOLLGATE_FLUSH_MAX_BYTES", "100kB");
        // Creates the stream.
        cli.run_to_end().await;
        let mut random = Random::new(seed);
        let publishers = (0..PUBLISHERS)
            .map(|number| Publisher::new(number, random.next_u64()))
            .collect();
        Story {
            world,
            cli,
            random,
            run: None,
            publishers,
            ledger: Ledger::new(),
            kills: 0,
            flushes: 0,
        }
    }

    async fn round(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let publishing: Vec<JoinHandle<Publisher>> = self
            .publishers
            .drain(..)
            .map(|publisher| tokio::spawn(publisher.run(self.world.url().into(), stopped.clone())))
            .collect();
        let flushes_before = self.flushes;
        self.run = Some(self.cli.start(&["run"]));
        for deed in shuffled(&mut self.random) {
            self.pause().await;
            self.act(deed).await;
        }
        self.pause().await;
        stop.send(true).unwrap();
        for task in publishing {
            let mut publisher = task.await.unwrap();
            self.ledger.append(&mut publisher.acknowledged);
            self.publishers.push(publisher);
        }
        self.kill_run().await;
        assert!(self.flushes > flushes_before, "nothing was killed at work");
        self.compare().await;
    }

    /// Lets some of the time pass in which something can be half done.
    async fn pause(&mut self) {
        let wait = Duration::from_millis(self.random.below(800));
        SystemClock.sleep(wait).await;
    }

    async fn act(&mut self, deed: Deed) {
        match deed {
            Deed::KillRun => {
                self.kill_run().await;
                self.run = Some(self.cli.start(&["run"]));
            }
            Deed::KillServer => {
                self.kills += 1;
                let port = self.world.kill_server().await;
                self.pause().await;
                self.world.start_server(Some(port)).await;
            }
            Deed::KillBoth => {
                self.kills += 1;
                let port = self.world.kill_server().await;
                self.kill_run().await;
                self.run = Some(self.cli.start(&["run"]));
                self.pause().await;
                self.world.start_server(Some(port)).await;
            }
            Deed::TakeOver => self.take_over(false).await,
            Deed::Zombie => self.take_over(true).await,
        }
    }

    async fn kill_run(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        self.flushes += run.log().matches("flush committed").count();
        self.kills += 1;
        run.kill().await;
    }

    /// The newer wins, and the older ends by itself, though it may have been in the middle of a commit.
    async fn take_over(&mut self, is_stopped: bool) {
        let mut older = self.run.take().unwrap();
        // It has to own the shard, or it would be the newer one.
        older.logged_again("flush committed").await;
        self.pause().await;
        if is_stopped {
            older.signal("STOP").await;
        }
        let mut newer = self.cli.start(&["run"]);
        newer.logged("flush committed", 1).await;
        if is_stopped {
            older.signal("CONT").await;
        }
        let older: Ran = older.ended().await;
        assert_eq!(older.code, Some(1), "{older:#?}");
        assert!(
            older.stderr.contains("error: shard `USAGE`: fenced"),
            "{older:#?}"
        );
        self.flushes += older.stderr.matches("flush committed").count();
        self.run = Some(newer);
    }

    async fn compare(&mut self) {
        let summary = self.cli.run_to_end().await;
        let jetstream = self.world.jetstream().await;
        let mut stream = jetstream.get_stream("USAGE").await.unwrap();
        let stored = stream.info().await.unwrap().state.last_sequence;
        assert_eq!(summary.sequence(), stored);

        let expected = self.by_subject();
        let totals = "SELECT subject, SUM(quantity), SUM(calls) FROM totals GROUP BY subject \
                      ORDER BY subject";
        assert_eq!(self.cli.query(totals).await, expected);
        let ids = "SELECT COUNT(*), COUNT(DISTINCT event_id), \
                   COUNT(*) FILTER (WHERE status IN ('ok', 'late')) FROM events";
        let count = self.ledger.len().to_string();
        assert_eq!(self.cli.query(ids).await, [[&count[..]; 3]]);
        self.cli.audit().await;

        let events = "SELECT subject, sum(used['quantity']), count(*) FROM events \
                      WHERE status IN ('ok', 'late') GROUP BY subject ORDER BY subject";
        if let Some(rows) = outside(&self.world, "lake", &[events, &totals.to_lowercase()]).await {
            let as_read = |tool: &str| -> Vec<String> {
                let rows = expected
                    .iter()
                    .map(|row| format!("{tool} {}", row.join(" ")));
                rows.collect()
            };
            let (delta, duck) = (as_read("deltalake"), as_read("duckdb"));
            assert_eq!(rows, [&delta[..], &delta, &duck, &duck].concat());
        }
    }

    /// Subject, quantity and number of events, as a query prints them.
    fn by_subject(&self) -> Vec<Vec<String>> {
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (subject, quantity) in self.ledger.values() {
            let sum = sums.entry(subject).or_default();
            *sum = (sum.0 + quantity, sum.1 + 1);
        }
        let row = |(subject, (quantity, calls)): (&str, (u64, u64))| {
            vec![subject.to_owned(), quantity.to_string(), calls.to_string()]
        };
        sums.into_iter().map(row).collect()
    }
}

/// Everything once, in some order.
fn shuffled(random: &mut Random) -> Vec<Deed> {
    let mut left: Vec<Deed> = DEEDS.to_vec();
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.swap_remove(random.index(left.len())));
    }
    order
}

/// Sends batches one after the other, each until it is acknowledged.
struct Publisher {
    name: u64,
    random: Random,
    next: u64,
    acknowledged: Ledger,
}

impl Publisher {
    fn new(name: u64, seed: u64) -> Self {
        Publisher {
            name,
            random: Random::new(seed),
            next: 0,
            acknowledged: Ledger::new(),
        }
    }

    async fn run(mut self, url: String, stopped: watch::Receiver<bool>) -> Self {
        let client = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            // The server may be killed just now.
            .retry_on_initial_connect()
            .connect(url)
            .await
            .unwrap();
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(2));
        while !*stopped.borrow() {
            let (lines, events) = self.batch();
            while !is_stored(&jetstream, &lines).await {
                SystemClock.sleep(Duration::from_millis(50)).await;
            }
            self.acknowledged.extend(events);
            SystemClock.sleep(Duration::from_millis(10)).await;
        }
        self
    }

    /// The next message, and what it says. Event time goes on by a second with each event, so that windows
    /// close all the time, and one event in twenty comes ten minutes late.
    fn batch(&mut self) -> (String, Ledger) {
        let (mut lines, mut events) = (Vec::new(), Ledger::new());
        for _ in 0..BATCH {
            let number = self.next;
            self.next += 1;
            let id = format!("{}-{number}", self.name);
            let subject = format!("subject-{}", self.random.below(7));
            let quantity = self.random.skewed(0, 40);
            let late_s = if self.random.one_in(20) { 600 } else { 0 };
            let time_s = START_S + i64::try_from(number).unwrap() - late_s;
            let time = jiff::Timestamp::from_second(time_s).unwrap();
            lines.push(format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"used","subject":"{subject}","time":"{time}","data":{{"quantity":{quantity}}}}}"#
            ));
            events.insert(id, (subject, quantity));
        }
        (lines.join("\n"), events)
    }
}

/// Whether one message was acknowledged; if not, it may be stored all the same.
async fn is_stored(jetstream: &jetstream::Context, lines: &str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/x-ndjson");
    let sent = jetstream.publish_with_headers("usage.used", headers, lines.to_owned().into());
    match sent.await {
        Ok(acknowledgement) => acknowledgement.await.is_ok(),
        Err(_) => false,
    }
}
