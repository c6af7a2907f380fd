//! `tollgate serve`: answers over HTTP, and over the protocol of PostgreSQL, from the lake, without a shard. Many may serve one lake.

use crate::{
    catalog::InForce,
    cli::{load, run::stop_on_signal},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result},
    reload::{Reloader, Taking},
    server::{Defining, Door},
};
use clap::Args;
use tokio::sync::watch;

/// Flags of `tollgate serve`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Address and port, instead of `http.listen`.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
}

/// Where it listens when nothing says otherwise.
const LISTEN: &str = "127.0.0.1:8080";

/// Answers until it is stopped.
///
/// # Errors
/// The definitions do not make sense, or the address cannot be opened.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let mut settings = settings.clone();
    if let Some(listen) = &arguments.listen {
        settings.http.listen.clone_from(listen);
    } else if settings.http.listen.is_empty() && settings.postgres.listen.is_empty() {
        LISTEN.clone_into(&mut settings.http.listen);
    }
    let catalog = load(&settings).await?;
    let door = Door::open(&settings).await?.ok_or_else(|| {
        Error::Usage("--listen is empty; write a host and a port, such as 127.0.0.1:8080".into())
    })?;
    let stop = stop_on_signal()?;
    let in_force = watch::Sender::new(InForce::new(catalog, SystemClock.now_us()));
    let definitions = in_force.subscribe();
    let (reload, reloader) = Reloader::new(&settings, Taking::AtOnce(in_force))?;
    let reloading = tokio::spawn(reloader.keep_up());
    let definitions = Defining {
        in_force: definitions,
        reload: Some(reload),
    };
    let answered = door.answer(definitions, None, stop).await;
    reloading.abort();
    answered
}
