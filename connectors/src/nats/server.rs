//! A nats-server of our own as a child process, for the demo and for tests.

use crate::{Result, error::Error};
use serde::Deserialize;
use std::{
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, interval, timeout},
};

/// The variable that names the nats-server to use.
pub const BINARY_VARIABLE: &str = "TOLLGATE_NATS_SERVER";
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running nats-server with JetStream; it is killed when this is dropped.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    child: Child,
    url: String,
    port: u16,
}

/// What nats-server writes into its ports file.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Finds the binary: what `TOLLGATE_NATS_SERVER` names, else `nats-server` on `PATH`.
    pub fn find() -> Option<PathBuf> {
        if let Some(named) = env::var_os(BINARY_VARIABLE).filter(|v| !v.is_empty()) {
            return Some(named.into());
        }
        let path = env::var_os("PATH")?;
        env::split_paths(&path)
            .map(|folder| folder.join("nats-server"))
            .find(|f| f.is_file())
    }

    /// Starts a server that listens on this machine only and stores its streams under `dir`; returns
    /// when it takes connections. `port` as a server before had it, or any free one.
    ///
    /// # Errors
    /// [`Error::File`] when the binary is missing or the server does not come up; the end of its log
    /// is in the message.
    pub async fn start(binary: &Path, dir: &Path, port: Option<u16>) -> Result<Self> {
        Self::start_with(binary, dir, port, &[]).await
    }

    /// As [`NatsServer::start`], with arguments of its own, such as `--user`.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start_with(
        binary: &Path,
        dir: &Path,
        port: Option<u16>,
        arguments: &[&str],
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| wrong(dir, "cannot be used as a store", e))?;
        let log = dir.join("nats-server.log");
        let mut child = spawn(binary, dir, &log, port, arguments)?;
        match listening(&mut child, &ports_name(binary), dir).await {
            Ok(url) => {
                let port =
                    port_of(&url).ok_or_else(|| wrong(dir, "no port is known", invalid(&url)))?;
                Ok(NatsServer {
                    binary: binary.to_owned(),
                    child,
                    url,
                    port,
                })
            }
            Err(cause) => Err(wrong(binary, &last_words(&log), cause)),
        }
    }

    /// Where it listens, such as `nats://127.0.0.1:41567`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; `None` after it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to stop in good order and waits until it has; kills it when it takes too long.
    ///
    /// # Errors
    /// [`Error::File`] when the process cannot be waited for.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(id) = self.child.id() {
            // The server's own command sends the signal, which saves us a dependency for it.
            let asked = Command::new(&self.binary)
                .arg(format!("--signal=stop={id}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if asked.await.is_ok_and(|status| status.success())
                && timeout(STOP_MAX, self.child.wait()).await.is_ok()
            {
                return Ok(());
            }
        }
        self.kill().await
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::File`] when the process cannot be killed or waited for.
    pub async fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().await;
        killed.map_err(|e| wrong(&self.binary, "could not be stopped", e))
    }
}

fn spawn(
    binary: &Path,
    dir: &Path,
    log: &Path,
    port: Option<u16>,
    arguments: &[&str],
) -> Result<Child> {
    let port = port.map_or_else(|| "-1".into(), |port| port.to_string());
    Command::new(binary)
        .args(["-a", "127.0.0.1", "-p", &port, "-js"])
        .arg("-sd")
        .arg(dir)
        .arg("--ports_file_dir")
        .arg(dir)
        .arg("-l")
        .arg(log)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            let problem = format!(
                "no nats-server that can be started is here; install it, put it on PATH, or name it \
                 in {BINARY_VARIABLE}"
            );
            wrong(binary, &problem, e)
        })
}

/// Waits for the ports file, which the server writes once it listens, and for its greeting.
async fn listening(child: &mut Child, name: &str, dir: &Path) -> io::Result<String> {
    let id = child
        .id()
        .ok_or_else(|| io::Error::other("it ended at once"))?;
    let ports_file = dir.join(format!("{name}_{id}.ports"));
    let deadline = Instant::now() + START_MAX;
    let mut look = interval(LOOK_EVERY);
    while Instant::now() < deadline {
        look.tick().await;
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if let Some(url) = read_ports(&ports_file)
            && greets(&url).await
        {
            return Ok(url);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether the server says who it is, which it does before it asks for credentials or TLS.
async fn greets(url: &str) -> bool {
    let Some((_, address)) = url.split_once("://") else {
        return false;
    };
    let mut greeting = [0; 5];
    match TcpStream::connect(address).await {
        Ok(mut socket) => socket.read_exact(&mut greeting).await.is_ok() && greeting == *b"INFO ",
        Err(_) => false,
    }
}

/// What a ports file's name begins with: the server's own, which need not be `nats-server`.
fn ports_name(binary: &Path) -> String {
    let name = binary.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `None` while the file is missing or only half written.
fn read_ports(file: &Path) -> Option<String> {
    let ports: Ports = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports.nats.into_iter().next()
}

fn port_of(url: &str) -> Option<u16> {
    url.rsplit_once(':')?.1.parse().ok()
}

fn last_words(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(3).collect();
    let tail: Vec<&str> = lines.into_iter().rev().collect();
    format!("did not start\n{}", tail.join("\n"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn wrong(path: &Path, problem: &str, cause: io::Error) -> Error {
    Error::File {
        file: path.display().to_string(),
        problem: problem.to_owned(),
        source: Some(cause.into()),
    }
}
