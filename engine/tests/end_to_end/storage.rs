//! Where the lake is: an object store over the real protocol, and a disk that fills up.

use crate::world::{Cli, Ran, TOKENS, World};
use datafusion::object_store::{self, ObjectStoreExt, PutPayload};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};
use tollgate::cli::demo::generator::{Load, Totals, Workload};
use tollgate_connectors::{
    Attempt, CommitId, Staged, Table,
    contract::table::{Place, check},
    lake::Lake,
    store::{Access, Store},
};

const TOTALS: &str = "SELECT SUM(calls), SUM(input), SUM(output) FROM tokens";

/// Writes events to a file; returns their totals.
fn write_events(path: &Path, seed: u64, events: u64) -> Totals {
    let mut workload = Workload::new(Load {
        seed,
        events,
        start_us: 1_760_000_000_000_000,
        events_per_second: 500,
    });
    let mut lines = Vec::new();
    workload.write(usize::try_from(events).unwrap(), &mut lines);
    fs::write(path, lines).unwrap();
    workload.totals()
}

async fn check_totals(cli: &Cli, totals: Totals) {
    let numbers = [totals.events, totals.input_tokens, totals.output_tokens];
    assert_eq!(cli.query(TOTALS).await, [numbers.map(|n| n.to_string())]);
    cli.audit().await;
}

/// An S3 server with the bucket `tollgate`. It ends with this.
struct S3 {
    child: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl S3 {
    /// Starts one whose requests fail one in so many times, or never for 0; `None`, with a line that
    /// says so, where there is no moto.
    async fn start(fails_one_in: u32) -> Option<Self> {
        let python = env::var_os("TOLLGATE_MOTO").filter(|python| !python.is_empty());
        let Some(python) = python else {
            println!("skipped: TOLLGATE_MOTO names no python with moto; .ci/moto prints one");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/s3.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(fails_one_in.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        stdout.read_line(&mut url).await.unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "moto said `{url}`");
        Some(S3 {
            child,
            stdout,
            url: url.trim_end().to_owned(),
        })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        owned.into()
    }

    /// Commands whose lake is here.
    fn cli(&self, world: &World) -> Cli {
        let cli = world
            .cli()
            .with("TOLLGATE_LAKE_URL", "s3://tollgate/the lake");
        let variables = self.variables();
        let with = |cli: Cli, (name, value): &(String, String)| cli.with(name, value);
        variables.iter().fold(cli, with)
    }

    async fn lake(&self, folder: &str) -> Lake {
        let url = format!("s3://tollgate/{folder}");
        let store = Store::open_with(&url, Path::new("."), Access::Write, self.variables());
        Lake::of(store.await.unwrap())
    }

    /// Ends it; returns how many requests it failed.
    async fn end(mut self) -> usize {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).await.unwrap();
        self.child.wait().await.unwrap();
        said.trim_end().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_in_s3_is_exact() {
    let Some(s3) = S3::start(0).await else { return };
    let world = World::new(TOKENS).await;
    let cli = s3.cli(&world).with("TOLLGATE_FLUSH_MAX_BYTES", "1kB");
    let cli = cli.with("TOLLGATE_SOURCE_BATCH_BYTES", "200kB");
    let totals = write_events(&world.path("events.ndjson"), 5, 20_000);
    cli.publish(&world.path("events.ndjson"), 100).await;
    let mut killed = cli.start(&["run"]);
    killed.logged("flush committed", 3).await;
    killed.kill().await;
    let summary = cli.run_to_end().await;
    assert_eq!(summary.sequence(), 200);
    check_totals(&cli, totals).await;
    let said = cli.succeed(&["maintain"]).await;
    assert!(!said.starts_with("events: 0 files merged"), "{said}");
    check_totals(&cli, totals).await;
    assert_eq!(s3.end().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_table_in_s3_is_read_from_there() {
    let Some(s3) = S3::start(0).await else { return };
    let rates = "CREATE RATE TABLE rates (model VARCHAR PRIMARY KEY, rate DECIMAL(9, 4))
                 WITH (location = 's3://tollgate/the rates/model rates.csv');";
    let world = World::new(&format!("{TOKENS}{rates}")).await;
    let cli = s3.cli(&world);
    let absent = cli.run(&["check"]).await;
    assert_eq!(absent.code, Some(2), "{absent:#?}");
    let says = "error: s3://tollgate/the rates/model rates.csv: rate table `rates` of ./definitions/all.sql:16:19 cannot be \
                read: there is no such file";
    assert!(absent.stderr.starts_with(says), "{absent:#?}");

    let store = Store::open_with(
        "s3://tollgate",
        Path::new("."),
        Access::Write,
        s3.variables(),
    );
    let root = store.await.unwrap().root();
    let rows = PutPayload::from_static(b"model,rate\nowl,0.25\nsage,0.5\n");
    let path = object_store::path::Path::from("the rates/model rates.csv");
    root.put(&path, rows).await.unwrap();
    let query = "SELECT model, CAST(rate AS VARCHAR) FROM rates ORDER BY model";
    assert_eq!(
        cli.query(query).await,
        [["owl", "0.2500"], ["sage", "0.5000"]]
    );
    s3.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_lost_answers_change_nothing() {
    let Some(s3) = S3::start(8).await else { return };
    let world = World::new(TOKENS).await;
    let cli = s3.cli(&world).with("TOLLGATE_FLUSH_MAX_BYTES", "500kB");
    let cli = cli.with("TOLLGATE_SOURCE_BATCH_BYTES", "500kB");
    let totals = write_events(&world.path("events.ndjson"), 6, 10_000);
    cli.publish(&world.path("events.ndjson"), 100).await;
    cli.run_to_end().await;
    check_totals(&cli, totals).await;
    let failed = s3.end().await;
    assert!(failed > 10, "only {failed} requests failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_decides_every_race_for_a_version_and_keeps_owners_out() {
    let Some(s3) = S3::start(0).await else { return };
    check(&s3.lake("contract").await).await.unwrap();
    let lake = s3.lake("race").await;
    lake.open("raced").await.unwrap();
    // Every writer stands on the same version before the first one commits.
    let mut tables = Vec::new();
    for _ in 0..6 {
        tables.push(lake.open("raced").await.unwrap());
    }
    let mut racing = JoinSet::new();
    for (racer, mut table) in tables.into_iter().enumerate() {
        racing.spawn(async move {
            let mut versions = Vec::new();
            for flush in 0..4 {
                let attempt = Attempt {
                    commit_id: CommitId(format!("r{racer}-{flush}")),
                    marks: [(format!("r{racer}/seq"), flush)].into(),
                    info: [].into(),
                };
                versions.push(table.commit(&attempt, &Staged::default()).await.unwrap());
            }
            versions
        });
    }
    let mut versions = racing.join_all().await.concat();
    versions.sort_unstable();
    assert_eq!(
        versions,
        (1..=24).collect::<Vec<i64>>(),
        "each has one winner"
    );
    let table = lake.existing("raced").await.unwrap().unwrap();
    assert_eq!(table.version(), 24);
    assert!((0..6).all(|racer| table.mark(&format!("r{racer}/seq")) == Some(3)));
    s3.end().await;
}

/// A file system in memory of some size. It is unmounted with this.
struct Disk(TempDir);

impl Disk {
    /// `None`, with a line that says so, where this process may not mount.
    async fn of(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mounting = ["-t", "tmpfs", "-o", &options, "tollgate-test"];
        match mount(&mounting, folder.path()).await {
            Ok(()) => Some(Disk(folder)),
            Err(why) => {
                println!("skipped: a small disk cannot be mounted here: {why}");
                None
            }
        }
    }

    async fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        mount(&["-o", &options], self.0.path()).await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

async fn mount(arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mounted = Command::new("mount")
        .args(arguments)
        .arg(folder)
        .output()
        .await;
    let output = mounted.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn check_full(ran: &Ran, lake: &Path) {
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(ran.stdout, "");
    let errors = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{ran:#?}");
    let path = format!("error: the disk is full: {}", lake.display());
    for says in [
        path.as_str(),
        "hint: make room there",
        "No space left on device",
    ] {
        assert!(ran.stderr.contains(says), "`{says}` is not said: {ran:#?}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_run_and_room_lets_it_finish() {
    let Some(disk) = Disk::of("64m").await else {
        return;
    };
    let world = World::new(TOKENS).await;
    let totals = write_events(&world.path("events.ndjson"), 7, 200_000);
    // Another program has most of the disk: 60 of its 64 MiB.
    fs::write(disk.path("theirs"), vec![0; 60 << 20]).unwrap();
    let lake = disk.path("lake");
    let cli = world
        .cli()
        .with("TOLLGATE_LAKE_URL", lake.to_str().unwrap())
        .with("TOLLGATE_SOURCE_KIND", "files")
        .with("TOLLGATE_SOURCE_PATH", "events.ndjson")
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "2MB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "4MB");
    check_full(&cli.run(&["run", "--until-end"]).await, &lake);
    // What was committed can be read, and it is not everything.
    let rows = cli.query("SELECT COUNT(*) FROM events").await;
    let counted: u64 = rows[0][0].parse().unwrap();
    assert!((1..totals.events).contains(&counted), "{counted}");
    // Without room it says the same again.
    fs::write(disk.path("more"), vec![0; 64 << 20]).unwrap_err();
    check_full(&cli.run(&["run", "--until-end"]).await, &lake);

    disk.resize("256m").await;
    cli.run_to_end().await;
    check_totals(&cli, totals).await;
}
