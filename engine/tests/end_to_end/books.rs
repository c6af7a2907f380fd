//! A folder with definitions, accounts and a lake, in which the job runs at chosen times without a server or a process: what arrives is
//! metered by a shard over memory.

use arrow::array::AsArray;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;
use tollgate::{
    billing::{self, Asked, DocumentsInRanges, Issuing, Which},
    catalog::Catalog,
    clock::ManualClock,
    config::{Settings, Size},
    dedupe,
    shard::{self, Options, Questions},
    supervisor::parts,
    telemetry::Progress,
    view::View,
};
use tollgate_connectors::{
    Message, Sequence, event::DecodeOptions, lake::Lake, memory::MemoryStream,
};
use tollgate_sql::{accounts::AccountsFile, invoice::Invoice};

/// How many events come in one message.
const BATCH: usize = 500;

/// A lake, what it is billed by, and the stream that it is metered from.
pub(crate) struct Books {
    folder: PathBuf,
    /// Removes the folder in the end, where it is its own.
    _temporary: Option<tempfile::TempDir>,
    pub(crate) settings: Settings,
    messages: MemoryStream,
    sent: u64,
}

impl Books {
    /// An empty lake.
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("definitions")).unwrap();
        let books = Self::at(temporary.path().to_owned());
        Books {
            _temporary: Some(temporary),
            ..books
        }
    }

    /// The lake in a folder of another process; the stream is empty.
    pub(crate) fn at(folder: PathBuf) -> Self {
        let mut settings = Settings {
            base: folder.clone(),
            ..Settings::default()
        };
        settings.lake.url = format!("file://{}", folder.join("lake").display());
        Books {
            folder,
            _temporary: None,
            settings,
            messages: MemoryStream::default(),
            sent: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) async fn lake(&self) -> Lake {
        Lake::open(&self.settings.lake.url, &self.settings.base)
            .await
            .unwrap()
    }

    pub(crate) async fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::load(&self.settings).await.unwrap())
    }

    /// Imports files of accounts.
    pub(crate) async fn import(&self, files: &[AccountsFile], at_us: i64) {
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let clock = ManualClock::at(at_us);
        billing::accounts::import(&lake, files, &catalog.definitions, "UTC", &clock)
            .await
            .unwrap();
    }

    /// Imports the CSV files of a folder.
    pub(crate) async fn import_folder(&self, folder: &Path, at_us: i64) {
        let files = fs::read_dir(folder).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "csv"));
        files.sort();
        let files: Vec<AccountsFile> = files
            .iter()
            .map(|file| AccountsFile {
                name: file.file_name().unwrap().to_str().unwrap().to_owned(),
                bytes: fs::read(file).unwrap(),
            })
            .collect();
        self.import(&files, at_us).await;
    }

    /// Meters events that have arrived by an instant, each a line; `stored_us` says when the message with some lines was stored, one message
    /// after the other.
    pub(crate) async fn meter(
        &mut self,
        events: &[&str],
        mut stored_us: impl FnMut(&[&str]) -> i64,
        at_us: i64,
    ) {
        for events in events.chunks(BATCH) {
            self.sent += 1;
            self.messages.append(Message {
                sequence: Sequence(self.sent),
                ingest_time_us: stored_us(events),
                headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
                payload: (events.join("\n") + "\n").into(),
                unread: None,
            });
        }
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let source = Box::new(self.messages.source("books"));
        let clock = Arc::new(ManualClock::at(at_us));
        let parts = parts(&catalog, &lake, source, DecodeOptions::default(), clock).await;
        let parts = parts.unwrap();
        let (_stop, stopped) = watch::channel(false);
        let progress = watch::Sender::new(Progress::default());
        let options = Options {
            batch_bytes: 1_000_000,
            flush_interval_us: i64::MAX,
            flush_bytes: 64_000_000,
            windows_bytes: usize::MAX,
            dedupe: dedupe::Options {
                horizon_us: i64::MAX,
                memory_bytes: 10_000_000,
                directory: self.path("ids"),
            },
            until_end: true,
            start: None,
            replaces: Vec::new(),
        };
        let mut nobody = Questions::none();
        Box::pin(shard::run(parts, options, stopped, progress, &mut nobody))
            .await
            .unwrap();
    }

    /// Issues all that is due, and corrects everything if that is asked for, in ranges of customers that take so many bytes.
    pub(crate) async fn issue(&self, at_us: i64, corrects: bool, bytes_max: usize) -> Vec<Invoice> {
        let (lake, catalog) = (self.lake().await, self.catalog().await);
        let accounts = billing::accounts::ByRange::begin(&lake, None).await;
        let accounts = Arc::new(accounts.unwrap());
        let view = View::open(catalog, &lake).await.unwrap();
        let mut settings = self.settings.billing.clone();
        settings.max_bytes = Size(bytes_max);
        let asked = Asked {
            which: &Which::Due,
            customer: None,
            corrects,
        };
        let job = DocumentsInRanges::begin(&view, &lake, &settings, &accounts, asked, at_us);
        let mut job = job.await.unwrap();
        let clock = ManualClock::at(at_us);
        let mut issuing = Issuing::begin(&lake, &clock).await.unwrap();
        let mut issued = Vec::new();
        while let Some(documents) = job.next().await.unwrap() {
            assert!(documents.in_error.is_empty(), "{:#?}", documents.in_error);
            assert!(documents.waiting.is_empty(), "{:?}", documents.waiting);
            issued.extend(issuing.add(documents).await.unwrap());
        }
        issuing.commit(&lake).await.unwrap();
        issued
    }

    /// Takes a document of a customer back; false where later ones stand upon it.
    pub(crate) async fn void(&self, customer: &str, number: &str, at_us: i64) -> bool {
        let lake = self.lake().await;
        let accounts = billing::accounts::load_of(&lake, customer).await.unwrap();
        let accounts = accounts.indexed();
        let clock = ManualClock::at(at_us);
        let void = billing::issue_void(&lake, &accounts, number, (&clock, None)).await;
        match void {
            Ok(void) => {
                assert_eq!(void.voids.as_deref(), Some(number));
                true
            }
            Err(error) => {
                let reason = error.to_string();
                assert!(reason.contains("cannot be void"), "{reason}");
                false
            }
        }
    }

    /// Rows of a query, all of whose columns are text.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let view = View::open(self.catalog().await, &self.lake().await)
            .await
            .unwrap();
        let context = view.session(sql).await.unwrap();
        let frame = tollgate_sql::session::query(&context, sql).await.unwrap();
        let mut all = Vec::new();
        for rows in frame.collect().await.unwrap() {
            let text = |column: usize, row: usize| {
                let column = rows.column(column).as_string::<i32>();
                column.value(row).to_owned()
            };
            let columns = rows.num_columns();
            all.extend((0..rows.num_rows()).map(|row| {
                (0..columns)
                    .map(|column| text(column, row))
                    .collect::<Vec<_>>()
            }));
        }
        all
    }
}
