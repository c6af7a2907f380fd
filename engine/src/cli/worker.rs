//! `tollgate worker`: answers statements of SQL for `run` and `serve`, which start it; nobody else does.

use crate::{
    catalog::InForce,
    cli::load,
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result},
    reload::{Reload, Reloader, Taking},
    server::{Defining, Door, orders},
};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Arguments of `tollgate worker`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the protocol of PostgreSQL is spoken.
    #[arg(long, value_name = "HOST:PORT")]
    pub postgres: Option<String>,
}

/// Answers until stdin ends.
///
/// # Errors
/// The definitions do not make sense, or the address cannot be opened.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let mut settings = settings.clone();
    "127.0.0.1:0".clone_into(&mut settings.http.listen);
    settings.postgres.listen = arguments.postgres.clone().unwrap_or_default();
    let catalog = load(&settings).await?;
    let door = Door::open_worker(&settings).await?;
    let (close, closed) = watch::channel(false);
    let in_force = watch::Sender::new(InForce::new(catalog, SystemClock.now_us()));
    let definitions = in_force.subscribe();
    let (reload, reloader) = Reloader::new(&settings, Taking::AtOnce(in_force))?;
    tokio::spawn(reloader.keep_up());
    stay()?;
    let at = door.at()?;
    tokio::spawn(obey(at, reload.clone(), close));
    let definitions = Defining {
        in_force: definitions,
        reload: Some(reload),
    };
    door.answer(definitions, None, closed).await
}

/// Does what stdin says, and ends the process when it ends.
async fn obey(at: String, reload: Reload, close: watch::Sender<bool>) {
    let obeyed = orders(&at, || {
        let reload = reload.clone();
        // What is refused is in the log, and those before stay in force.
        async move { drop(reload.ask().await) }
    });
    let _ = obeyed.await;
    close.send_replace(true);
}

/// A terminal and a supervisor signal every process at once. This one goes on: the process that started it ends it, when what has
/// come is answered.
fn stay() -> Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        // What a signal does by default it does no more for as long as the process lives, be it received or not.
        let _received = signal(kind).map_err(|source| Error::System {
            doing: "listening for signals",
            source,
        })?;
    }
    Ok(())
}
