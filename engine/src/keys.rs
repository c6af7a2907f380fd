//! API keys: who may ask what. A key is shown once, when it is made; the lake keeps its hash.
//!
//! ```text
//!  keys/<id>/key.json         role, customer, expiry, SHA-256 of the secret, what verifies it as a password
//!  keys/<id>/revoked.json     since when it is not valid any more
//!  keys/<id>/used/2026-11-29  a day on which it was used
//! ```
//!
//! Every file is created whole and never changed, so any number of processes may make, use and revoke keys of one lake. A secret is 256
//! random bits: its hash needs no salt and no slow function, because no list of likely secrets has it.

pub(crate) mod scram;

use crate::error::{Error, Result};
use clap::ValueEnum;
use scram::Verifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt};
use subtle::ConstantTimeEq;
use tollgate_connectors::lake::Lake;

/// The folder of the lake that has the keys.
const FOLDER: &str = "keys";

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Publish events.
    Ingest,
    /// Ask for everything.
    Read,
    /// Ask for what belongs to one customer.
    Customer,
    /// Do everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Ingest => "ingest",
            Role::Read => "read",
            Role::Customer => "customer",
            Role::Admin => "admin",
        })
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Names it; it is part of what the holder has, and no secret.
    pub id: String,
    /// What its holder may do.
    pub role: Role,
    /// Whose data a customer's key is for.
    pub customer: Option<String>,
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: String,
    /// By what the whole key is verified as a password; keys that were made before there was such a thing have none.
    #[serde(default)]
    verifier: Option<Verifier>,
    /// When it was made, in microseconds.
    pub created_us: i64,
    /// From when on it is not valid, in microseconds.
    pub expires_us: Option<i64>,
}

/// A key and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The key.
    pub key: Key,
    /// When it was revoked, in microseconds.
    pub revoked_us: Option<i64>,
    /// The last day on which it was used, in UTC.
    pub used: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    revoked_us: i64,
}

/// Makes a key; returns it with the token that its holder sends, which is kept nowhere.
///
/// # Errors
/// The lake cannot be written, or the system has no randomness.
pub async fn create(
    lake: &Lake,
    role: Role,
    customer: Option<String>,
    (created_us, expires_us): (i64, Option<i64>),
) -> Result<(Key, String)> {
    let (id, secret) = (random::<8>()?, random::<32>()?);
    let token = format!("tg_{id}_{secret}");
    let key = Key {
        hash: hash(&secret),
        verifier: Some(Verifier::of(&token, &random_bytes::<16>()?)),
        id,
        role,
        customer,
        created_us,
        expires_us,
    };
    let bytes = serde_json::to_vec(&key).map_err(unwritable)?;
    let store = lake.store();
    store
        .create(&[FOLDER, &key.id, "key.json"], bytes.into())
        .await?;
    Ok((key, token))
}

/// Every key, the oldest first.
///
/// # Errors
/// The lake cannot be read, or has a file there that is no key.
pub async fn list(lake: &Lake) -> Result<Vec<Known>> {
    let mut files: BTreeMap<String, (bool, Option<String>)> = BTreeMap::new();
    for name in lake.store().names(&[FOLDER]).await? {
        let mut parts = name.into_iter();
        let (Some(id), Some(file)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (is_revoked, used) = files.entry(id).or_default();
        *is_revoked |= file == "revoked.json";
        if file == "used" {
            *used = used.take().max(parts.next());
        }
    }
    let mut known = Vec::with_capacity(files.len());
    for (id, (is_revoked, used)) in files {
        let Some(key) = read::<Key>(lake, &id, "key.json").await? else {
            continue;
        };
        let revoked = match is_revoked {
            true => read::<Revoked>(lake, &id, "revoked.json").await?,
            false => None,
        };
        known.push(Known {
            key,
            revoked_us: revoked.map(|revoked| revoked.revoked_us),
            used,
        });
    }
    known.sort_by(|a, b| (a.key.created_us, &a.key.id).cmp(&(b.key.created_us, &b.key.id)));
    Ok(known)
}

/// Revokes a key for good; false when there is no such key.
///
/// # Errors
/// The lake cannot be written.
pub async fn revoke(lake: &Lake, id: &str, now_us: i64) -> Result<bool> {
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || read::<Key>(lake, id, "key.json").await?.is_none() {
        return Ok(false);
    }
    let revoked = Revoked { revoked_us: now_us };
    let bytes = serde_json::to_vec(&revoked).map_err(unwritable)?;
    lake.store()
        .create(&[FOLDER, id, "revoked.json"], bytes.into())
        .await?;
    Ok(true)
}

/// Notes that a key was used on a day.
///
/// # Errors
/// The lake cannot be written.
pub async fn note_use(lake: &Lake, id: &str, day: &str) -> Result<()> {
    let none = bytes::Bytes::new();
    Ok(lake
        .store()
        .create(&[FOLDER, id, "used", day], none)
        .await?)
}

/// The id in a whole key; anything else as it is.
pub(crate) fn id_of(given: &str) -> &str {
    let parts = given
        .strip_prefix("tg_")
        .and_then(|rest| rest.split_once('_'));
    parts.map_or(given, |(id, _)| id)
}

/// The key that a token belongs to, if it is valid now. Secrets are compared in constant time.
pub fn admitted<'k>(keys: &'k [Known], token: &str, now_us: i64) -> Option<&'k Key> {
    let (id, secret) = token.strip_prefix("tg_")?.split_once('_')?;
    let known = keys.iter().find(|known| known.key.id == id)?;
    let is_right = hash(secret).as_bytes().ct_eq(known.key.hash.as_bytes());
    (bool::from(is_right) && known.is_valid(now_us)).then_some(&known.key)
}

impl Key {
    /// By what the whole key is verified as a password, if it can be one.
    pub(crate) fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }
}

impl Known {
    /// Whether it is neither revoked nor expired.
    pub(crate) fn is_valid(&self, now_us: i64) -> bool {
        let expires_us = self.key.expires_us;
        self.revoked_us.is_none() && expires_us.is_none_or(|expires_us| now_us < expires_us)
    }
}

async fn read<T: for<'de> Deserialize<'de>>(
    lake: &Lake,
    id: &str,
    file: &str,
) -> Result<Option<T>> {
    let Some(bytes) = lake.store().read(&[FOLDER, id, file]).await? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes).map_err(|error| Error::Config {
        file: format!("{}{FOLDER}/{id}/{file}", lake.url()),
        problem: format!("is no key of ours: {error}; remove it if it is none"),
    });
    read.map(Some)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::System {
        doing: "writing a key",
        source: error.into(),
    }
}

/// So many random bytes, in hexadecimal digits.
fn random<const BYTES: usize>() -> Result<String> {
    Ok(hex(&random_bytes::<BYTES>()?))
}

/// So many random bytes.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn random_bytes<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Error::System {
        doing: "making a random key",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lake(folder: &std::path::Path) -> Lake {
        Lake::open("file://./lake", folder).await.unwrap()
    }

    #[tokio::test]
    async fn a_key_is_valid_until_it_expires_or_is_revoked_and_its_secret_is_kept_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let (reader, token) = create(&lake, Role::Read, None, (5, None)).await.unwrap();
        let customer = Some("acme".to_owned());
        let (short, brief) = create(&lake, Role::Customer, customer, (6, Some(100)))
            .await
            .unwrap();
        let keys = list(&lake).await.unwrap();
        let ids: Vec<&str> = keys.iter().map(|known| known.key.id.as_str()).collect();
        assert_eq!(ids, [&reader.id, &short.id]);
        let of = |keys: &[Known], token: &str, now_us| admitted(keys, token, now_us).cloned();
        assert_eq!(of(&keys, &token, 1_000), Some(reader.clone()));
        assert_eq!(of(&keys, &brief, 99), Some(short.clone()));
        assert_eq!(of(&keys, &brief, 100), None);
        // Another secret, another id, and texts that are no tokens.
        let (_, secret) = token.rsplit_once('_').unwrap();
        assert_eq!(secret.len(), 64);
        assert_eq!(id_of(&format!("tg_{}_{secret}", short.id)), short.id);
        assert_eq!(
            (id_of(&short.id), id_of("tg_x")),
            (short.id.as_str(), "tg_x")
        );
        let mixed = format!("tg_{}_{secret}", short.id);
        let cut = &token[..token.len() - 1];
        for wrong in [&mixed, cut, "", "tg_", "tg__", secret] {
            assert_eq!(of(&keys, wrong, 50), None, "{wrong}");
        }
        assert!(revoke(&lake, &reader.id, 77).await.unwrap());
        assert!(revoke(&lake, &reader.id, 99).await.unwrap());
        for none in ["", "ffff", "../events", "zz"] {
            assert!(!revoke(&lake, none, 77).await.unwrap());
        }
        note_use(&lake, &short.id, "2026-11-29").await.unwrap();
        note_use(&lake, &short.id, "2026-11-30").await.unwrap();
        let keys = list(&lake).await.unwrap();
        assert_eq!(of(&keys, &token, 1_000), None);
        assert_eq!(
            (keys[0].revoked_us, keys[0].used.as_deref()),
            (Some(77), None)
        );
        assert_eq!(keys[1].used.as_deref(), Some("2026-11-30"));
        let kept = lake
            .store()
            .read(&["keys", &reader.id, "key.json"])
            .await
            .unwrap()
            .unwrap();
        let kept = String::from_utf8(kept.to_vec()).unwrap();
        assert!(!kept.contains(secret), "{kept}");
    }
}
