use super::*;
use crate::ErrorKind;
use std::os::unix::fs::PermissionsExt;

fn here() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn refused(url: &str, base: &FilePath) -> String {
    let error = Store::open(url, base, Access::Write).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_relative_place_is_created_under_the_base() {
    let base = here();
    for url in ["file://./lake", "lake/", "./lake", "file://lake"] {
        let store = Store::open(url, base.path(), Access::Write).await.unwrap();
        let folder = local_path(store.url()).unwrap();
        assert_eq!(
            folder,
            base.path().canonicalize().unwrap().join("lake"),
            "{url}"
        );
        assert!(folder.is_dir());
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert!(left.is_empty(), "the probe left {left:?}");
    }
}

#[tokio::test]
async fn an_absolute_place_ignores_the_base() {
    let base = here();
    let url = format!("file://{}/a%20b", base.path().display());
    let store = Store::open(&url, FilePath::new("/nowhere"), Access::Write)
        .await
        .unwrap();
    assert!(base.path().join("a b").is_dir());
    assert!(store.url().as_str().ends_with("/a%20b/"));
}

#[tokio::test]
async fn reading_creates_nothing() {
    let base = here();
    let error = Store::open("lake", base.path(), Access::Read)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("nothing was written there yet"),
        "{error}"
    );
    assert!(!base.path().join("lake").exists());
}

#[tokio::test]
async fn places_that_cannot_be_are_refused_with_what_to_do() {
    let base = here();
    std::fs::write(base.path().join("file"), b"x").unwrap();
    let cases = [
        (
            "ftp://host/x",
            "`ftp` is not supported; use a path, file://",
        ),
        ("", "no place is given"),
        ("file", "could not be created"),
        ("file/below", "could not be created"),
        ("s3://", "the bucket is missing"),
        ("s3://[", "this is not a URL"),
        (
            "s3://key:secret@bucket/lake",
            "give credentials in the environment",
        ),
        (
            "s3://bucket/lake?token=secret",
            "give credentials in the environment",
        ),
    ];
    for (url, says) in cases {
        let message = refused(url, base.path()).await;
        assert!(message.contains(says), "{url}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_writable_says_so() {
    let base = here();
    let folder = base.path().join("lake");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    if std::fs::write(folder.join("try"), b"").is_ok() {
        return; // The superuser may write anywhere.
    }
    let message = refused("lake", base.path()).await;
    assert!(message.contains("not writable"), "{message}");
}

#[test]
fn each_answer_of_a_store_says_what_to_do() {
    use object_store::Error as Cause;
    let source = || "why".into();
    let path = || "p".to_owned();
    let says = |cause, local| explain_failure("s3://b/".to_owned(), cause, local);
    let denied = says(
        Cause::PermissionDenied {
            path: path(),
            source: source(),
        },
        false,
    );
    assert!(denied.to_string().contains("check the credentials"));
    let denied = says(
        Cause::PermissionDenied {
            path: path(),
            source: source(),
        },
        true,
    );
    assert!(denied.to_string().contains("not writable"));
    let missing = says(
        Cause::NotFound {
            path: path(),
            source: source(),
        },
        false,
    );
    assert!(missing.to_string().contains("no such bucket"));
    let silent = says(
        Cause::Generic {
            store: "S3",
            source: source(),
        },
        false,
    );
    assert_eq!(silent.kind(), ErrorKind::Unavailable);
    let full = says(
        Cause::Generic {
            store: "local",
            source: source(),
        },
        true,
    );
    assert_eq!(full.kind(), ErrorKind::Invalid);
}

/// A store that replaces what is there although it was asked not to.
#[derive(Debug)]
struct Careless(object_store::memory::InMemory);

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("careless")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        self.0.put(location, payload).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }
    async fn get_opts(
        &self,
        location: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }
    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_cannot_fence_is_found_out() {
    let store = Careless(object_store::memory::InMemory::new());
    let probed = probe_within(&store).await;
    assert!(matches!(probed, Err(Probe::NotExclusive)));
}

#[tokio::test]
async fn local_disk_creates_a_name_once_and_whole() {
    let base = here();
    let store = Store::open("lake", base.path(), Access::Write)
        .await
        .unwrap();
    let folder = store.folder("meters/tokens").unwrap();
    let name = Path::from("_delta_log/0.json");
    create(folder.as_ref(), &name).await.unwrap();
    let again = create(folder.as_ref(), &name).await;
    assert!(matches!(
        again,
        Err(object_store::Error::AlreadyExists { .. })
    ));
    folder
        .put(&name, PutPayload::from_static(b"other"))
        .await
        .unwrap();
    let read = folder.get(&name).await.unwrap().bytes().await.unwrap();
    assert_eq!(read.as_ref(), b"other");
    let on_disk = base.path().join("lake/meters/tokens/_delta_log");
    assert_eq!(
        std::fs::read_dir(on_disk).unwrap().count(),
        1,
        "nothing is left aside"
    );
}

#[tokio::test]
async fn a_multipart_upload_appears_when_it_is_complete() {
    let base = here();
    let store = Store::open("lake", base.path(), Access::Write)
        .await
        .unwrap();
    let folder = store.folder("t").unwrap();
    let name = Path::from("a/big");
    let mut upload = folder.put_multipart(&name).await.unwrap();
    upload
        .put_part(PutPayload::from_static(b"one"))
        .await
        .unwrap();
    assert!(folder.head(&name).await.is_err());
    upload.complete().await.unwrap();
    assert_eq!(folder.head(&name).await.unwrap().size, 3);
}

#[tokio::test]
async fn a_file_is_created_once_and_stays_as_it_is() {
    let base = here();
    let store = Store::open("lake", base.path(), Access::Write)
        .await
        .unwrap();
    let name = ["kept", "a", "b.json"];
    assert!(!store.has(&name).await.unwrap());
    assert_eq!(store.read(&name).await.unwrap(), None);
    let (one, two) = tokio::join!(
        store.create(&name, Bytes::from_static(b"same")),
        store.create(&name, Bytes::from_static(b"same"))
    );
    one.unwrap();
    two.unwrap();
    store
        .create(&name, Bytes::from_static(b"other"))
        .await
        .unwrap();
    assert!(store.has(&name).await.unwrap());
    let read = store.read(&name).await.unwrap();
    assert_eq!(read.as_deref(), Some(b"same".as_slice()));
    let file = base.path().join("lake/kept/a/b.json");
    assert_eq!(std::fs::read(file).unwrap(), b"same");
    // A file in the place of the folder.
    let refused = store
        .create(&["kept", "a", "b.json", "c"], Bytes::new())
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}
