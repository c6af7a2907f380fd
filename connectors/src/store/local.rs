//! Local disk, where a write that was answered survives a power cut.
//!
//! `object_store` never asks the disk to keep anything. Here a file is written aside, synced, then
//! linked or renamed to its name, then its folder is synced: a name that exists always has its whole
//! content behind it, so a commit cannot be seen half.

use crate::failpoint;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart, local::LocalFileSystem, path::Path,
};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The local file system from `/`, synced.
#[derive(Debug)]
pub(crate) struct Durable {
    inner: Arc<LocalFileSystem>,
}

impl Durable {
    pub(crate) fn new() -> Self {
        Durable {
            inner: Arc::new(LocalFileSystem::new()),
        }
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "synced {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Durable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if !options.attributes.is_empty() || matches!(options.mode, PutMode::Update(_)) {
            return self.inner.put_opts(location, payload, options).await;
        }
        let path = self.inner.path_to_filesystem(location)?;
        let exclusive = matches!(options.mode, PutMode::Create);
        blocking(move || write_whole(&path, &payload, exclusive).map_err(|e| explain(&path, e)))
            .await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let path = self.inner.path_to_filesystem(to)?;
        self.inner.copy_opts(from, to, options).await?;
        blocking(move || sync_written(&path).map_err(|e| explain(&path, e))).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let path = self.inner.path_to_filesystem(to)?;
        self.inner.rename_opts(from, to, options).await?;
        blocking(move || sync_written(&path).map_err(|e| explain(&path, e))).await
    }
}

/// An upload in parts that is synced when it is complete.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || sync_written(&path).map_err(|e| explain(&path, e))).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// No room for a file.
#[derive(Debug, thiserror::Error)]
#[error("no room for {path}")]
pub(crate) struct Full {
    path: String,
    source: io::Error,
}

impl Full {
    /// The file that found no room, if that is what is behind an error.
    pub(crate) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<String> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(full) = error.downcast_ref::<Full>() {
                return Some(full.path.clone());
            }
            cause = error.source();
        }
        None
    }
}

/// Writes a file under a name that appears only when all of it is on disk. `exclusive`: fails with
/// `AlreadyExists` if the name is taken; else it replaces what was there.
fn write_whole(path: &FilePath, payload: &PutPayload, exclusive: bool) -> io::Result<()> {
    let new_folders = create_folders(path)?;
    let (mut file, aside) = open_aside(path)?;
    let written = payload
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.sync_all())
        .inspect(|()| failpoint::reached("disk", "aside"))
        .and_then(|()| match exclusive {
            true => fs::hard_link(&aside, path),
            false => fs::rename(&aside, path),
        });
    if exclusive || written.is_err() {
        // Best effort: a file left aside is never listed, and its name is never used again.
        let _ = fs::remove_file(&aside);
    }
    written?;
    failpoint::reached("disk", "linked");
    sync_parent(path)?;
    new_folders
        .iter()
        .try_for_each(|folder| sync_parent(folder))
}

/// Opens a file beside `path` that listings pass over: a name with `#` and digits.
fn open_aside(path: &FilePath) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{}{number:06}", std::process::id()));
        let aside = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&aside) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, aside)),
        }
    }
}

/// Makes the folders above `path`; returns those that were missing.
fn create_folders(path: &FilePath) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.exists())
        .map(FilePath::to_owned)
        .collect();
    if let Some(parent) = missing.first() {
        fs::create_dir_all(parent)?;
    }
    Ok(missing)
}

/// Syncs a file that something else wrote, and the folders that may be new with it.
fn sync_written(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_parent(path)?;
    // A table's own folders; one that may not be opened was there before.
    for folder in path.ancestors().skip(1).take(3) {
        let _ = sync_parent(folder);
    }
    Ok(())
}

fn sync_parent(path: &FilePath) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn explain(path: &FilePath, error: io::Error) -> Error {
    let path = path.display().to_string();
    let kind = error.kind();
    if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        let source = Box::new(Full {
            path,
            source: error,
        });
        return Error::Generic {
            store: "local disk",
            source,
        };
    }
    let source = Box::new(error);
    match kind {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source },
        ErrorKind::NotFound => Error::NotFound { path, source },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source },
        _ => Error::Generic {
            store: "local disk",
            source,
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::JoinError { source: e })?
}
