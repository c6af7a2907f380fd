//! A URL to an object store, with fsync on local disk.
//!
//! ```text
//!  "file://./lake", "s3://bucket/lake" ──resolve──▶ Url ──build──▶ ObjectStore ──probe──▶ Store
//! ```
//!
//! Everything above relies on one promise of the store: of two writers that create the same name, one
//! is told that it exists. [`Store::open`] tries that before anything is written.

use crate::{
    error::{Error, Result},
    failpoint,
};
use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload,
    path::Path, prefix::PrefixStore,
};
use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};
use url::Url;

mod local;

use local::Durable;
pub(crate) use local::Full;

/// What is wanted of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only to read what is there: nothing is created and nothing is tried out.
    Read,
    /// To write as well: a local folder is created, and a probe shows that the place is writable and
    /// that creating a name is exclusive.
    Write,
}

/// An opened place for tables.
#[derive(Debug, Clone)]
pub struct Store {
    /// The whole storage system: a bucket, or the local disk from `/`.
    root: Arc<dyn ObjectStore>,
    /// The lake within it, ending in `/`.
    url: Url,
}

/// How long the probe may take before the store counts as unreachable. The client's own retries
/// would go on for minutes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

const SCHEMES: &str = "use a path, file://, s3://, gs:// or az://";

impl Store {
    /// Opens the place that `url` names: `file://`, `s3://`, `gs://`, `az://`, or a plain path. A
    /// relative path, also in the form `file://./lake`, starts at `base`. Access to cloud stores is
    /// configured by the environment, as their own tools read it (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    ///
    /// # Errors
    /// [`Error::Store`] says what is wrong with the URL or the place and what to do about it;
    /// [`Error::Unreachable`] when the store did not answer.
    pub async fn open(url: &str, base: &FilePath, access: Access) -> Result<Self> {
        let variables = std::env::vars_os();
        let text = variables.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::open_with(url, base, access, text.collect()).await
    }

    /// As [`Store::open`], with these variables in the place of the environment's.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn open_with(
        url: &str,
        base: &FilePath,
        access: Access,
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let url = resolve(url, base, access)?;
        let root = build(&url, variables)?;
        let store = Store { root, url };
        if access == Access::Write {
            store.probe().await?;
        }
        Ok(store)
    }

    /// Where it is, ending in `/`, without credentials.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The whole storage system.
    pub fn root(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.root)
    }

    /// Creates a file below whole; one that is there stays as it is. `name` is its path, in parts.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn create(&self, name: &[&str], bytes: Bytes) -> Result<()> {
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .root
            .put_opts(&self.path(name)?, bytes.into(), options)
            .await;
        match put {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(source) => return Err(self.explain(Probe::Failed(source))),
        }
        failpoint::reached(name.first().copied().unwrap_or_default(), "created");
        Ok(())
    }

    /// Whether a file is there.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn has(&self, name: &[&str]) -> Result<bool> {
        match self.root.head(&self.path(name)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.explain(Probe::Failed(source))),
        }
    }

    /// The bytes of a file; `None` when it is not there.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn read(&self, name: &[&str]) -> Result<Option<Bytes>> {
        let path = self.path(name)?;
        let read = async { self.root.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.explain(Probe::Failed(source))),
        }
    }

    /// The files below a folder: of each its path in parts, without the folder's. None when there is no such folder.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn names(&self, folder: &[&str]) -> Result<Vec<Vec<String>>> {
        let folder = self.path(folder)?;
        let listed: Result<Vec<ObjectMeta>, _> = self.root.list(Some(&folder)).try_collect().await;
        let listed = listed.map_err(|source| self.explain(Probe::Failed(source)))?;
        let parts = listed
            .iter()
            .filter_map(|file| file.location.prefix_match(&folder));
        let parts = parts.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
        Ok(parts.collect())
    }

    fn path(&self, name: &[&str]) -> Result<Path> {
        let lake = path_in(&self.url)?;
        Ok(name.iter().fold(lake, |path, part| path.join(*part)))
    }

    /// The URL of a folder below, ending in `/`.
    pub(crate) fn folder_url(&self, folder: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(folder.split('/')).push("");
        }
        url
    }

    /// The store seen from a folder below; the empty name is the lake itself.
    pub(crate) fn folder(&self, folder: &str) -> Result<Arc<dyn ObjectStore>> {
        let path = path_in(&self.folder_url(folder))?;
        Ok(Arc::new(PrefixStore::new(self.root(), path)))
    }

    /// Creates one name twice and removes it.
    async fn probe(&self) -> Result<()> {
        let store = PrefixStore::new(self.root(), path_in(&self.url)?);
        tokio::time::timeout(PROBE_TIMEOUT, probe_within(&store))
            .await
            .unwrap_or_else(|_| Err(Probe::Silent))
            .map_err(|failed| self.explain(failed))
    }

    fn explain(&self, failed: Probe) -> Error {
        let url = self.url.to_string();
        match failed {
            Probe::Silent => Error::Unreachable {
                what: "object storage",
                url,
                source: "no answer within 30 seconds".into(),
            },
            Probe::NotExclusive => Error::Store {
                url,
                problem: "creating a file that exists is not refused here, so two processes could \
                          both believe they own a stream; use another file system or store"
                    .to_owned(),
                source: None,
            },
            Probe::Failed(source) => explain_failure(url, source, self.url.scheme() == "file"),
        }
    }
}

/// How a probe can fail.
enum Probe {
    Silent,
    NotExclusive,
    Failed(object_store::Error),
}

async fn probe_within(store: &dyn ObjectStore) -> Result<(), Probe> {
    let name = Path::from(format!("tollgate-probe-{}", uuid::Uuid::now_v7()));
    create(store, &name).await.map_err(Probe::Failed)?;
    let second = create(store, &name).await;
    let removed = store.delete(&name).await;
    match second {
        Err(object_store::Error::AlreadyExists { .. }) => removed.map_err(Probe::Failed),
        Err(error) => Err(Probe::Failed(error)),
        Ok(_) => Err(Probe::NotExclusive),
    }
}

async fn create(store: &dyn ObjectStore, name: &Path) -> object_store::Result<()> {
    let options = PutOptions::from(PutMode::Create);
    let payload = PutPayload::from_static(b"probe");
    store
        .put_opts(name, payload, options)
        .map(|put| put.map(drop))
        .await
}

/// Says what to do about an answer of the store.
fn explain_failure(url: String, source: object_store::Error, local: bool) -> Error {
    use object_store::Error as Cause;
    if let Some(path) = Full::behind(&source) {
        let source = Box::new(source);
        return Error::DiskFull { path, source };
    }
    let problem = match &source {
        Cause::PermissionDenied { .. } if local => {
            "the folder is not writable; change its owner or mode, or set another lake url"
        }
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
            "access was refused; check the credentials in the environment and that they may read, write and delete here"
        }
        Cause::NotFound { .. } => {
            "there is no such bucket or container; create it or correct the lake url"
        }
        Cause::NotSupported { .. } | Cause::NotImplemented { .. } => {
            "the store cannot create a file only if it is absent, which Tollgate relies on; use another store"
        }
        _ if local => {
            "a file could not be created; see that the disk has room and allows hard links, or set another lake url"
        }
        _ => {
            return Error::Unreachable {
                what: "object storage",
                url,
                source: Box::new(source),
            };
        }
    };
    Error::Store {
        url,
        problem: problem.to_owned(),
        source: Some(Box::new(source)),
    }
}

/// Reads one file of an object store, such as `s3://bucket/rates.csv`. A relative path, in the form `file://./rates.csv`,
/// starts at `base`.
///
/// # Errors
/// [`Error::File`] says what is wrong with the URL or the file; [`Error::Unreachable`] when the store did not answer.
pub async fn read_file(url: &str, base: &FilePath) -> Result<Bytes> {
    let read = tokio::time::timeout(PROBE_TIMEOUT, read_from_store(url, base));
    match read.await {
        // What is said of a store is true of its file.
        Ok(Err(Error::Store {
            problem, source, ..
        })) => Err(Error::File {
            file: without_secrets(url),
            problem,
            source,
        }),
        Ok(answer) => answer,
        Err(_) => Err(Error::Unreachable {
            what: "object storage",
            url: without_secrets(url),
            source: "no answer within 30 seconds".into(),
        }),
    }
}

async fn read_from_store(url: &str, base: &FilePath) -> Result<Bytes> {
    use object_store::Error as Cause;
    let (folder, name) = url.rsplit_once('/').unwrap_or_default();
    if name.is_empty() {
        return Err(store_error(url, "this is a folder, not a file".to_owned()));
    }
    let store = Store::open(folder, base, Access::Read).await?;
    let failed = |problem: &str, source: Cause| Error::Store {
        url: without_secrets(url),
        problem: problem.to_owned(),
        source: Some(Box::new(source)),
    };
    // A name is written in a URL as in the store, or percent-encoded.
    let path = Path::from_url_path(format!("{}/{name}", path_in(store.url())?))
        .map_err(|error| failed("this cannot be a path in an object store", error.into()))?;
    let read = async { store.root().get(&path).await?.bytes().await };
    read.await.map_err(|source| match source {
        Cause::NotFound { .. } => failed("there is no such file", source),
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => failed(
            "access was refused; check the credentials in the environment and that they may read here",
            source,
        ),
        source => Error::Unreachable {
            what: "object storage",
            url: without_secrets(url),
            source: Box::new(source),
        },
    })
}

/// Turns what a person wrote into a URL that ends in `/`.
fn resolve(written: &str, base: &FilePath, access: Access) -> Result<Url> {
    match written.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => {
            let url = Url::parse(written).map_err(|e| not_a_url(written, e))?;
            let path = url.to_file_path().map_err(|()| {
                store_error(written, "this is not the path of a folder".to_owned())
            })?;
            local_folder(&path, written, access)
        }
        Some(("file", path)) => local_folder(&base.join(path), written, access),
        Some(("s3" | "s3a" | "gs" | "az" | "abfs" | "abfss", _)) => remote(written),
        Some((scheme, _)) => Err(store_error(
            written,
            format!("`{scheme}` is not supported; {SCHEMES}"),
        )),
        None if written.trim().is_empty() => Err(store_error(
            written,
            format!("no place is given; {SCHEMES}"),
        )),
        None => local_folder(&base.join(written), written, access),
    }
}

fn remote(written: &str) -> Result<Url> {
    let mut url = Url::parse(written).map_err(|e| not_a_url(written, e))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(store_error(written, "the bucket is missing".to_owned()));
    }
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        let problem = "a password, query or fragment does not belong here; give credentials in the \
                       environment";
        return Err(store_error(written, problem.to_owned()));
    }
    with_slash(&mut url);
    Ok(url)
}

fn local_folder(path: &FilePath, written: &str, access: Access) -> Result<Url> {
    if access == Access::Write {
        std::fs::create_dir_all(path)
            .map_err(|e| folder_error(written, "could not be created", path, e))?;
    }
    let path = path
        .canonicalize()
        .map_err(|e| folder_error(written, "could not be opened", path, e))?;
    if !path.is_dir() {
        return Err(store_error(
            written,
            format!("{} is not a folder", path.display()),
        ));
    }
    Url::from_directory_path(&path)
        .map_err(|()| store_error(written, format!("{} cannot be a URL", path.display())))
}

/// Builds the client for the whole storage system.
fn build(url: &Url, variables: Vec<(String, String)>) -> Result<Arc<dyn ObjectStore>> {
    if url.scheme() == "file" {
        return Ok(Arc::new(Durable::new()));
    }
    let theirs = ["AWS_", "GOOGLE_", "AZURE_"];
    let is_theirs = |(name, _): &(String, String)| theirs.iter().any(|p| name.starts_with(p));
    let settings = variables.into_iter().filter(is_theirs);
    object_store::parse_url_opts(url, settings)
        .map(|(store, _)| Arc::from(store))
        .map_err(|source| Error::Store {
            url: url.to_string(),
            problem: "the store cannot be set up; check the environment variables for it"
                .to_owned(),
            source: Some(Box::new(source)),
        })
}

/// The path of a URL within its storage system.
pub(crate) fn path_in(url: &Url) -> Result<Path> {
    ObjectStoreScheme::parse(url)
        .map(|(_, path)| path)
        .map_err(|e| Error::Store {
            url: url.to_string(),
            problem: "this cannot be a path in an object store".to_owned(),
            source: Some(Box::new(e)),
        })
}

fn with_slash(url: &mut Url) {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
}

fn not_a_url(written: &str, source: url::ParseError) -> Error {
    Error::Store {
        url: without_secrets(written),
        problem: format!("this is not a URL; {SCHEMES}"),
        source: Some(Box::new(source)),
    }
}

fn store_error(written: &str, problem: String) -> Error {
    Error::Store {
        url: without_secrets(written),
        problem,
        source: None,
    }
}

fn folder_error(written: &str, what: &str, path: &FilePath, source: std::io::Error) -> Error {
    let hint = match source.kind() {
        std::io::ErrorKind::NotFound => {
            "; nothing was written there yet, as `tollgate run` does, or the path is wrong"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; change its owner or mode, or set another lake url"
        }
        std::io::ErrorKind::StorageFull => "; the disk is full: make room, or set another lake url",
        _ => "; correct the lake url",
    };
    Error::Store {
        url: without_secrets(written),
        problem: format!("folder {} {what}{hint}", path.display()),
        source: Some(Box::new(source)),
    }
}

/// What may be shown of a URL that could not be used: nothing that can hold a secret.
pub fn without_secrets(written: &str) -> String {
    let shown = written.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else {
        return shown.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The folder a `file` URL names, if it is one.
pub fn local_path(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file")
        .then(|| url.to_file_path().ok())
        .flatten()
}

#[cfg(test)]
mod tests;
