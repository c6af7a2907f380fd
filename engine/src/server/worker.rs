//! A process of its own for what people write: statements of SQL, and definitions that are to be checked.
//!
//! A function of SQL can take all memory, or a processor for hours, and nothing inside a process ends it. So another process
//! answers, with the protocol of PostgreSQL at its own door and SQL of HTTP at a loopback port; when it takes too much it ends
//! ([`watchdog`](super::watchdog)), and is started again. It reads what is committed, so it needs nothing of this one.
//!
//! ```text
//!  this process ──stdin: `reload`──▶ worker        it ends when stdin does
//!               ◀─stdout: `at 127.0.0.1:40123`, `reloaded`──
//! ```

use super::{Doors, problem::Problem, stopped, turns::Stopping};
use crate::{
    clock::{Clock, SystemClock},
    config::Settings,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Response, StatusCode, header},
};
use bytes::Bytes;
use reqwest::Client;
use std::{
    io::{self, Write},
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot, watch as channel},
    time::timeout,
};

/// It must have said where it is, or that it has read the definitions again, within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// After this one that ended is started again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The first word of what it says when it answers; the address follows.
const AT: &str = "at ";
/// What it is told when definitions changed, and what it says then.
const RELOAD: &str = "reload";
const RELOADED: &str = "reloaded";

/// Headers that are handed on to the worker, and back.
const ASKED_WITH: [HeaderName; 3] = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT];
const ANSWERED_WITH: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("tollgate-cut"),
    HeaderName::from_static("tollgate-cut-age-ms"),
];

/// An answer that is written out already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole;

/// The worker of this process, which is started again whenever it ends.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    at: channel::Receiver<Option<SocketAddr>>,
    orders: mpsc::Sender<oneshot::Sender<()>>,
    client: Client,
}

/// What is needed to start one.
#[derive(Debug, Clone)]
struct Start {
    settings: Settings,
    /// Where it is to speak the protocol of PostgreSQL.
    postgres: Option<SocketAddr>,
}

impl Worker {
    /// Starts it; it ends when the process stops.
    pub(super) fn start(
        settings: &Settings,
        postgres: Option<SocketAddr>,
        stop: channel::Receiver<bool>,
    ) -> Self {
        let (sender, at) = channel::channel(None);
        let (orders, to_do) = mpsc::channel(1);
        let start = Start {
            settings: settings.clone(),
            postgres,
        };
        tokio::spawn(start.keep_up(sender, to_do, stop));
        Worker {
            at,
            orders,
            client: Client::new(),
        }
    }

    /// Returns when it answers for the first time, or does not for too long.
    pub(super) async fn answers(&self) {
        let mut at = self.at.clone();
        let _ = timeout(ANSWERS_WITHIN, at.wait_for(Option::is_some)).await;
    }

    /// Lets it read the definitions again, and returns when it has.
    pub(super) async fn reload(&self) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(done).await.is_ok() {
            // One that ended reads them when it starts; one that does not start keeps nobody else from going on.
            let _ = timeout(ANSWERS_WITHIN, is_done).await;
        }
    }

    /// Lets it answer a request.
    ///
    /// # Errors
    /// It ended meanwhile, or the process stops.
    pub(super) async fn answer(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Problem> {
        let mut sent = HeaderMap::new();
        for name in &ASKED_WITH {
            for value in headers.get_all(name) {
                sent.append(name, value.clone());
            }
        }
        let mut at = self.at.clone();
        loop {
            let at = match at.wait_for(Option::is_some).await.map(|at| *at) {
                Ok(Some(at)) => at,
                Ok(None) | Err(_) => return Err(Stopping.into()),
            };
            let asked = self.client.post(format!("http://{at}{path}"));
            match asked.headers(sent.clone()).body(body.clone()).send().await {
                Ok(answer) => return whole(answer).await,
                // It has not begun: the next one may.
                Err(error) if error.is_connect() => SystemClock.sleep(AGAIN_AFTER).await,
                Err(_) => return Err(ended()),
            }
        }
    }
}

async fn whole(answer: reqwest::Response) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for name in &ANSWERED_WITH {
        for value in answer.headers().get_all(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    *response.body_mut() = answer.bytes().await.map_err(|_| ended())?.into();
    response.extensions_mut().insert(Whole);
    Ok(response)
}

fn ended() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "statement_ended",
        "the process that answers statements ended, because this one or another took more memory or time than it may; ask for less, \
         or again",
    )
}

/// Why one is no more.
enum Ended {
    /// The process stops.
    Stopped,
    /// It ended by itself.
    Died(ExitStatus),
}

impl Start {
    async fn keep_up(
        self,
        at: channel::Sender<Option<SocketAddr>>,
        mut orders: mpsc::Receiver<oneshot::Sender<()>>,
        stop: channel::Receiver<bool>,
    ) {
        loop {
            let ended = self.once(&at, &mut orders, stop.clone()).await;
            at.send_replace(None);
            match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Died(status)) => {
                    tracing::warn!(%status, "process for statements ended, and is started again");
                }
                Err(error) => {
                    tracing::error!(%error, "process for statements could not be started")
                }
            }
            tokio::select! {
                () = SystemClock.sleep(AGAIN_AFTER) => {}
                () = stopped(stop.clone()) => return,
            }
        }
    }

    async fn once(
        &self,
        at: &channel::Sender<Option<SocketAddr>>,
        orders: &mut mpsc::Receiver<oneshot::Sender<()>>,
        stop: channel::Receiver<bool>,
    ) -> io::Result<Ended> {
        let mut worker = Spoken::with(self.command()?.spawn()?)?;
        let stopping = stopped(stop);
        tokio::pin!(stopping);
        tokio::select! {
            said = worker.says(AT) => if let Some(Ok(found)) = said.map(|at| at.parse()) {
                if let Some(address) = self.postgres {
                    tracing::info!(%address, "Postgres opened");
                }
                at.send_replace(Some(found));
            },
            () = &mut stopping => return worker.end(self.longest()).await,
        }
        loop {
            tokio::select! {
                () = &mut stopping => return worker.end(self.longest()).await,
                ended = worker.child.wait() => return Ok(Ended::Died(ended?)),
                Some(done) = orders.recv() => {
                    worker.stdin.write_all(format!("{RELOAD}\n").as_bytes()).await?;
                    worker.says(RELOADED).await;
                    let _ = done.send(());
                }
            }
        }
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("worker")
            .arg("--config")
            .arg(&self.settings.file)
            // What it does is said here; what goes wrong in it, there.
            .args(["--log", "warn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(address) = self.postgres {
            command.args(["--postgres", &address.to_string()]);
        }
        Ok(command)
    }

    fn longest(&self) -> Duration {
        self.settings.http.timeout.duration()
    }
}

/// A process and the two ways to speak with it.
struct Spoken {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Spoken {
    fn with(mut child: Child) -> io::Result<Self> {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("its pipes are not there"));
        };
        Ok(Spoken {
            child,
            stdin,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    /// The rest of a line that begins so; `None` when it says something else, or nothing for too long.
    async fn says(&mut self, begins: &str) -> Option<String> {
        let line = timeout(ANSWERS_WITHIN, self.stdout.next_line()).await;
        let line = line.ok()?.ok()??;
        line.strip_prefix(begins).map(str::to_owned)
    }

    /// Lets it end by itself, after what it has to answer.
    async fn end(self, longest: Duration) -> io::Result<Ended> {
        let Spoken {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        if timeout(longest, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(Ended::Stopped)
    }
}

impl Doors {
    /// Hands a request on, unless this process is the worker.
    pub(super) async fn handed_on(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Option<Result<Response<Body>, Problem>> {
        let worker = self.worker.as_ref()?;
        Some(worker.answer(path, headers, body.clone()).await)
    }
}

/// What a worker says and obeys, until stdin ends: that it answers at an address, and each time that definitions changed that it has read them.
///
/// # Errors
/// A pipe breaks.
pub async fn orders<F: Future<Output = ()>>(at: &str, reload: impl Fn() -> F) -> io::Result<()> {
    let say = |line: String| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        stdout.flush()
    };
    let (sender, mut lines) = mpsc::channel(1);
    let read = move || {
        let lines = io::stdin().lines().map_while(io::Result::ok);
        for line in lines {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("orders".into()).spawn(read)?;
    say(format!("{AT}{at}\n"))?;
    while let Some(line) = lines.recv().await {
        if line == RELOAD {
            reload().await;
            say(format!("{RELOADED}\n"))?;
        }
    }
    Ok(())
}
