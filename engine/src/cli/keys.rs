//! `tollgate keys`: makes, lists and revokes the keys with which programs ask over HTTP.

use crate::{
    cli::output,
    clock::{Clock, SystemClock},
    config::{Length, Settings},
    error::{Error, Result, printable},
    keys::{self, Known, Role},
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tollgate_connectors::lake::Lake;

/// Arguments of `tollgate keys`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes a key, and prints it: it is shown this once.
    Create {
        /// What its holder may do.
        #[arg(long, value_enum)]
        role: Role,
        /// Whose data a key of the role `customer` is for.
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
        /// After how long it is not valid any more, such as `90 days`.
        #[arg(long, value_name = "TIME")]
        expires: Option<Length>,
    },
    /// Shows every key, without its secret.
    List,
    /// Revokes a key for good; running processes know within seconds.
    Revoke {
        /// The key, by its id.
        id: String,
    },
}

/// Does it.
///
/// # Errors
/// A customer is missing or has no place, there is no such key, or the lake cannot be written.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let now_us = SystemClock.now_us();
    match &arguments.action {
        Action::Create {
            role,
            customer,
            expires,
        } => {
            check(*role, customer.as_deref())?;
            let lake = Lake::open(&settings.lake.url, &settings.base).await?;
            let expires_us = expires.map(|length| now_us.saturating_add(length.0));
            let made = keys::create(&lake, *role, customer.clone(), (now_us, expires_us));
            let (_, token) = made.await?;
            output::print(&format!("{token}\n"))
        }
        Action::List => {
            let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
            output::print(&table(&keys::list(&lake).await?, now_us))
        }
        Action::Revoke { id } => {
            let lake = Lake::open(&settings.lake.url, &settings.base).await?;
            // A whole key is taken for its id, and never printed.
            let id = keys::id_of(id);
            match keys::revoke(&lake, id, now_us).await? {
                true => output::print(&format!("key {id} is revoked\n")),
                false => Err(Error::Usage(format!(
                    "there is no key `{}`; `tollgate keys list` shows them by their ids",
                    printable(id)
                ))),
            }
        }
    }
}

fn check(role: Role, customer: Option<&str>) -> Result<()> {
    match (role, customer) {
        (Role::Customer, None | Some("")) => Err(Error::Usage(
            "a key of the role `customer` is for one customer; name it with --customer".into(),
        )),
        (Role::Customer, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(Error::Usage(format!(
            "a key of the role `{role}` is for no single customer; leave --customer out, or use --role customer"
        ))),
    }
}

fn table(known: &[Known], now_us: i64) -> String {
    let time = |us: i64| Timestamp::from_microsecond(us).map_or(String::new(), |at| at.to_string());
    let mut text = String::from(
        "id                role      state    created                      expires                      last used   customer\n",
    );
    for Known {
        key,
        revoked_us,
        used,
    } in known
    {
        let state = match (revoked_us, key.expires_us) {
            (Some(_), _) => "revoked",
            (None, Some(expires_us)) if expires_us <= now_us => "expired",
            (None, _) => "valid",
        };
        let (role, created) = (key.role.to_string(), time(key.created_us));
        let expires = key.expires_us.map_or("never".to_owned(), time);
        let used = used.as_deref().unwrap_or("never");
        let customer = key.customer.as_deref().map(printable).unwrap_or_default();
        let line = format!(
            "{:<16}  {role:<8}  {state:<7}  {created:<27}  {expires:<27}  {used:<10}  {customer}",
            key.id
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
