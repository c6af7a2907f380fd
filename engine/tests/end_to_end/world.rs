//! A server, a folder with configuration and definitions, and the binary.

use async_nats::jetstream;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tollgate::config::Settings;
use tollgate_connectors::nats::server::NatsServer;

/// Long enough that only a hang reaches it; a run of very many events may take hours.
fn hang() -> Duration {
    Duration::from_secs(match env::var_os("TOLLGATE_PROOF_EVENTS") {
        Some(_) => 6 * 3_600,
        None => 120,
    })
}

/// Tokens by subject, model and region, and what arrives for it.
pub(crate) const TOKENS: &str = "
CREATE EVENT TYPE llm_completion (
    model         VARCHAR NOT NULL,
    region        VARCHAR,
    input_tokens  BIGINT NOT NULL,
    cached_tokens BIGINT,
    output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');

CREATE METER tokens WITH (window = '10 minutes', lateness = '1 minute', unit = 'token') AS
SELECT subject, model, region,
       SUM(input_tokens) AS input, SUM(COALESCE(cached_tokens, 0)) AS cached,
       SUM(output_tokens) AS output, COUNT(*) AS calls
FROM llm_completion
GROUP BY subject, model, region;
";

/// Where everything happens. The server ends with it.
pub(crate) struct World {
    binary: PathBuf,
    server: Option<NatsServer>,
    dir: TempDir,
}

impl World {
    /// Starts a server and writes a configuration whose stream `USAGE` is created when it is missing.
    pub(crate) async fn new(definitions: &str) -> Self {
        Self::with_server(nats_binary(), definitions).await
    }

    /// The same with another nats-server.
    pub(crate) async fn with_server(binary: PathBuf, definitions: &str) -> Self {
        let mut world = World {
            binary,
            server: None,
            dir: TempDir::new().unwrap(),
        };
        world.write("definitions/all.sql", definitions);
        world.start_server(None).await;
        world
    }

    /// A folder for a source that is a file: it has no server, and no definitions yet.
    pub(crate) fn offline() -> Self {
        let world = World {
            binary: PathBuf::new(),
            server: None,
            dir: TempDir::new().unwrap(),
        };
        world.write("tollgate.toml", "");
        world
    }

    fn server(&self) -> &NatsServer {
        self.server.as_ref().unwrap()
    }

    /// The server's port, process id and address.
    pub(crate) fn port(&self) -> u16 {
        self.server().port()
    }

    pub(crate) fn server_id(&self) -> u32 {
        self.server().id().unwrap()
    }

    pub(crate) fn url(&self) -> &str {
        self.server().url()
    }

    /// Starts the server over its store, at some port or any, and writes that into the configuration.
    pub(crate) async fn start_server(&mut self, port: Option<u16>) {
        let server = NatsServer::start(&self.binary, &self.path("nats"), port).await;
        let server = server.unwrap();
        let url = server.url();
        self.write(
            "tollgate.toml",
            &format!("[source]\nurl = \"{url}\"\ncreate = true\n"),
        );
        self.server = Some(server);
    }

    /// Stops the server in good order; returns its port.
    pub(crate) async fn stop_server(&mut self) -> u16 {
        let port = self.port();
        self.server.take().unwrap().stop().await.unwrap();
        port
    }

    /// Kills the server; returns its port.
    pub(crate) async fn kill_server(&mut self) -> u16 {
        let port = self.port();
        self.server.take().unwrap().kill().await.unwrap();
        port
    }

    /// Copies a folder; what was there before goes away.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        self.bring(&self.path(from), to);
    }

    /// Copies a folder from outside into the world; what was there before goes away.
    pub(crate) fn bring(&self, from: &Path, to: &str) {
        let to = self.path(to);
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        copy_folder(from, &to);
    }

    /// A path in the world's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the world's folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commands with the default settings.
    pub(crate) fn cli(&self) -> Cli {
        Cli {
            folder: self.dir.path().to_owned(),
            variables: BTreeMap::new(),
        }
    }

    /// The server's JetStream, for what no command of ours does.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }

    /// Publishes one message as it is and awaits its acknowledgement; creates the stream before.
    pub(crate) async fn send(&self, headers: &[(&str, &str)], payload: &str) {
        let jetstream = self.jetstream().await;
        let stream = jetstream::stream::Config {
            name: "USAGE".into(),
            subjects: vec!["usage.>".into()],
            ..Default::default()
        };
        jetstream.get_or_create_stream(stream).await.unwrap();
        let mut map = async_nats::HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let sent = jetstream.publish_with_headers("usage.test", map, payload.to_owned().into());
        sent.await.unwrap().await.unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Sends a process a signal, by name.
pub(crate) async fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status()
        .await;
    assert!(sent.unwrap().success());
}

/// The nats-server to use.
pub(crate) fn nats_binary() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let found = NatsServer::find().or_else(|| ours.is_file().then_some(ours));
    found.unwrap_or_else(|| {
        panic!(
            "these tests need a nats-server: run .ci/nats-server, or name one in TOLLGATE_NATS_SERVER"
        )
    })
}

/// The binary in some folder, with some settings.
#[derive(Clone)]
pub(crate) struct Cli {
    folder: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Cli {
    /// The same with another setting, by its variable.
    pub(crate) fn with(&self, variable: &str, value: &str) -> Self {
        let mut cli = self.clone();
        cli.variables.insert(variable.into(), value.into());
        cli
    }

    /// Another stream, and a lake of its own.
    pub(crate) fn stream(&self, name: &str) -> Self {
        self.with("TOLLGATE_SOURCE_STREAM", name)
            .with("TOLLGATE_SOURCE_SUBJECTS", &format!("{name}.>"))
            .lake(&format!("lake-{name}"))
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Another lake.
    pub(crate) fn lake(&self, name: &str) -> Self {
        self.with("TOLLGATE_LAKE_URL", &format!("file://./{name}"))
    }

    /// The settings that the commands run with.
    pub(crate) fn settings(&self) -> Settings {
        let variables = self.variables.clone().into_iter();
        Settings::load(&self.folder.join("tollgate.toml"), variables).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command
            .current_dir(&self.folder)
            .args(arguments)
            .env_remove("TOLLGATE_LOG")
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end, however it ends.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        let output = timeout(hang(), self.command(arguments).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} hangs"));
        Ran::of(arguments, output.unwrap())
    }

    /// Runs a command that must succeed; returns its stdout.
    pub(crate) async fn succeed(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran.stdout
    }

    /// Runs a command that dies at a step, as in a crash: `TABLE/STEP:PASS`.
    pub(crate) async fn crash(&self, step: &str, arguments: &[&str]) -> Ran {
        let ran = self.with("TOLLGATE_FAILPOINT", step).run(arguments).await;
        assert_eq!(ran.code, None, "{step} was not reached: {ran:#?}");
        ran
    }

    /// Starts a command that commits so many flushes and then stands still, with the files of another uploaded: it is
    /// not over by itself, however late it is looked at.
    pub(crate) async fn start_and_halt(&self, flushes: usize, arguments: &[&str]) -> Running {
        let step = format!("events/uploaded:{}:stop", flushes + 1);
        let mut running = self.with("TOLLGATE_FAILPOINT", &step).start(arguments);
        running.logged("flush committed", flushes).await;
        running
    }

    /// Publishes a file.
    pub(crate) async fn publish(&self, file: &Path, batch: usize) -> String {
        let batch = batch.to_string();
        self.succeed(&["publish", file.to_str().unwrap(), "--batch", &batch])
            .await
    }

    /// Meters to the stream's end.
    pub(crate) async fn run_to_end(&self) -> Summary {
        Summary(self.succeed(&["run", "--until-end"]).await)
    }

    /// The rows of a query, every value as text, NULL as nothing.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Vec<String>> {
        let text = self.succeed(&["query", "--format", "csv", sql]).await;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let fields = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        reader.records().map(|row| fields(row.unwrap())).collect()
    }

    /// The audit finds nothing.
    pub(crate) async fn audit(&self) {
        let text = self.succeed(&["audit"]).await;
        assert!(!text.is_empty());
        for line in text.lines() {
            assert!(line.ends_with(", 0 differ"), "{text}");
        }
    }

    /// Starts a command and leaves it running; what it logs can be waited for.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut stdout = child.stdout.take().unwrap();
        let (sender, log) = watch::channel(String::new());
        let logging = tokio::spawn(async move {
            let mut lines = stderr.lines();
            while let Some(line) = lines.next_line().await.unwrap() {
                sender.send_modify(|log| *log = format!("{log}{line}\n"));
            }
        });
        let printing = tokio::spawn(async move {
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.unwrap();
            text
        });
        Running {
            child,
            log,
            logging,
            printing,
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    #[expect(dead_code, reason = "it is shown when a test fails")]
    arguments: Vec<String>,
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(arguments: &[&str], output: Output) -> Self {
        Ran {
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What `run` printed when it ended.
#[derive(Debug)]
pub(crate) struct Summary(pub(crate) String);

impl Summary {
    /// The number before a word, such as `repeats`.
    pub(crate) fn of(&self, word: &str) -> u64 {
        let words: Vec<&str> = self.0.split_whitespace().collect();
        let at = words
            .iter()
            .position(|w| w.trim_end_matches(',') == word)
            .unwrap_or_else(|| panic!("no {word} in {}", self.0));
        words[at - 1].parse().unwrap()
    }

    /// How many of the counted events were late.
    pub(crate) fn late(&self) -> u64 {
        let (before, _) = self.0.split_once(" of them late").unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The last sequence it has read.
    pub(crate) fn sequence(&self) -> u64 {
        let line = self.0.lines().next().unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A command that is running.
pub(crate) struct Running {
    child: Child,
    log: watch::Receiver<String>,
    logging: JoinHandle<()>,
    printing: JoinHandle<String>,
}

impl Running {
    /// Its stdin, once.
    pub(crate) fn stdin(&mut self) -> tokio::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits until a phrase was logged so many times.
    pub(crate) async fn logged(&mut self, phrase: &str, times: usize) {
        let enough = |log: &String| log.matches(phrase).count() >= times;
        let seen = matches!(timeout(hang(), self.log.wait_for(enough)).await, Ok(Ok(_)));
        let log = self.log.borrow().clone();
        assert!(seen, "no {times} × `{phrase}` in:\n{log}");
    }

    /// Waits until a phrase is logged once more.
    pub(crate) async fn logged_again(&mut self, phrase: &str) {
        let times = self.log().matches(phrase).count();
        self.logged(phrase, times + 1).await;
    }

    /// Waits until something outside can be seen; looks as often as it can without hogging a core.
    pub(crate) async fn seen(&mut self, what: &str, mut is_there: impl FnMut() -> bool) {
        let look = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(1));
            while !is_there() {
                ticks.tick().await;
                let ended = self.child.try_wait().unwrap();
                assert_eq!(ended, None, "ended before {what}");
            }
        };
        timeout(hang(), look)
            .await
            .unwrap_or_else(|_| panic!("never saw {what}"));
    }

    /// Ends it as a power cut would; it must not have ended before by itself.
    pub(crate) async fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "it ended by itself:\n{}", self.log());
        self.child.kill().await.unwrap();
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it a signal, by name.
    pub(crate) async fn signal(&self, name: &str) {
        signal(self.id(), name).await;
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Asks it to stop, as an operator would.
    pub(crate) async fn terminate(self) -> Ran {
        self.signal("TERM").await;
        self.ended().await
    }

    /// The same of a process that stands still.
    pub(crate) async fn terminate_halted(self) -> Ran {
        self.signal("TERM").await;
        self.wake().await
    }

    /// Wakes it up, and again if it was too early, until it has ended by itself.
    pub(crate) async fn wake(mut self) -> Ran {
        let waking = async {
            while timeout(Duration::from_millis(100), self.child.wait())
                .await
                .is_err()
            {
                self.signal("CONT").await;
            }
        };
        let woken = timeout(hang(), waking).await;
        woken.unwrap_or_else(|_| panic!("it never ends:\n{}", self.log.borrow().clone()));
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> Ran {
        let status = timeout(hang(), self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it never ends")).unwrap();
        self.logging.await.unwrap();
        Ran {
            arguments: Vec::new(),
            code: status.code(),
            stdout: self.printing.await.unwrap(),
            stderr: self.log.borrow().clone(),
        }
    }
}
