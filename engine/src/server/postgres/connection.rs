//! One client that was let in: its messages in their order, what it has prepared, and its transaction.

use super::{
    Wire,
    answers::{Answers, Transaction},
    messages::{Bind, Message, Named, message},
    opening::Client,
    refusal::Refusal,
    session::{Prepared, Session, Told},
    statement::Statement,
    values::{
        kinds::Kind,
        parameters,
        rows::{Block, Column, Format},
    },
};
use crate::server::stream::Stream;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::watch,
    time::timeout,
};
use tollgate_sql::statements::{statements, with_values};

/// So many statements may be prepared, and as many portals opened.
const NAMED_MAX: usize = 1_000;

/// Answers are sent when they are this long, if not sooner.
const ANSWERS_BYTES: usize = 64 * 1024;

/// A statement with its values, and as much of its answer as was not sent.
#[derive(Debug)]
struct Portal {
    prepared: Arc<Prepared>,
    /// The statement with its values.
    sql: String,
    formats: Formats,
    told: Option<Told>,
    /// The next row: its block, and its place there.
    next: (usize, usize),
}

/// How each column is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Formats(Vec<Format>);

impl Formats {
    /// One for all, or one for each.
    fn of(codes: &[i16], count: usize) -> Result<Self, Refusal> {
        let format = |code: &i16| match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => Err(Refusal::new("08P01", format!("there is no format {code}"))),
        };
        let formats = codes.iter().map(format).collect::<Result<Vec<_>, _>>()?;
        match formats.as_slice() {
            [] | [_] => Ok(Formats(formats)),
            all if all.len() == count => Ok(Formats(formats)),
            all => Err(Refusal::new(
                "08P01",
                format!("{} formats are given for {count} values", all.len()),
            )),
        }
    }

    fn at(&self, index: usize) -> Format {
        match self.0.as_slice() {
            [] => Format::Text,
            [all] => *all,
            each => each.get(index).copied().unwrap_or(Format::Text),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<Stream>,
    answers: Answers,
    session: Session,
    transaction: Transaction,
    prepared: BTreeMap<String, Arc<Prepared>>,
    portals: BTreeMap<String, Portal>,
    /// After an error, messages are passed over up to the next Sync.
    is_skipping: bool,
    idle: Duration,
    bytes_max: usize,
    stop: watch::Receiver<bool>,
}

/// What becomes of a connection after a message.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Next,
    End,
}

impl Connection {
    pub(super) fn of(wire: &Arc<Wire>, client: Client) -> Self {
        let settings = &wire.doors.settings;
        let (stream, session) = Session::of(wire, client);
        Connection {
            stream: BufReader::new(stream),
            answers: Answers::default(),
            session,
            transaction: Transaction::None,
            prepared: BTreeMap::new(),
            portals: BTreeMap::new(),
            is_skipping: false,
            idle: settings.postgres.idle.duration(),
            bytes_max: settings.http.body_bytes_max.0,
            stop: wire.doors.stop.clone(),
        }
    }

    /// Answers the client until it goes, or something of it is no message.
    ///
    /// # Errors
    /// The connection broke off.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        self.session.greet(&mut self.answers);
        self.answers.ready(self.transaction);
        self.flush().await?;
        loop {
            let then = match self.next_message().await? {
                None => Then::End,
                Some(Ok(message)) => self.answer(message).await?,
                Some(Err(refusal)) => {
                    self.answers.refused(&refusal.fatal());
                    Then::End
                }
            };
            if then == Then::End {
                self.flush().await?;
                return self.stream.get_mut().shutdown().await;
            }
        }
    }

    /// The next message, or why there is none; `None` when the client is gone.
    async fn next_message(&mut self) -> io::Result<Option<Result<Message, Refusal>>> {
        let stop = &mut self.stop;
        let kind = tokio::select! {
            kind = timeout(self.idle, self.stream.read_u8()) => match kind {
                Ok(Ok(kind)) => kind,
                Ok(Err(_)) => return Ok(None),
                Err(_) => {
                    let message = "nothing was asked for longer than postgres.idle";
                    return Ok(Some(Err(Refusal::new("57P05", message))));
                }
            },
            _ = stop.wait_for(|stop| *stop) => return Ok(Some(Err(Refusal::stopping()))),
        };
        // A message that has begun is not waited for as long as one that may come.
        let longest = self.session.longest();
        match timeout(longest, self.read_body()).await {
            Ok(Ok(Ok(body))) => Ok(Some(message(kind, &body))),
            Ok(Ok(Err(refusal))) => Ok(Some(Err(refusal))),
            Ok(Err(_)) => Ok(None),
            Err(_) => {
                let message = "a message did not end in time";
                Ok(Some(Err(Refusal::protocol(message))))
            }
        }
    }

    /// The rest of a message. No room is made for it before it is there.
    async fn read_body(&mut self) -> io::Result<Result<Vec<u8>, Refusal>> {
        let length = usize::try_from(self.stream.read_u32().await?).unwrap_or(usize::MAX);
        let Some(length) = length.checked_sub(4) else {
            return Ok(Err(Refusal::protocol(
                "a message is shorter than its length",
            )));
        };
        if length > self.bytes_max {
            return Ok(Err(Refusal::protocol(format!(
                "a message is larger than {} bytes (http.body_bytes_max)",
                self.bytes_max
            ))));
        }
        let mut body = Vec::new();
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        let read = (&mut self.stream)
            .take(wanted)
            .read_to_end(&mut body)
            .await?;
        match read == length {
            true => Ok(Ok(body)),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends what is to be sent; a client that does not take it in time is gone.
    async fn flush(&mut self) -> io::Result<()> {
        let stream = self.stream.get_mut();
        let sending = async {
            stream.write_all(&self.answers.0).await?;
            stream.flush().await
        };
        let sent = timeout(self.session.longest(), sending).await;
        self.answers.0.clear();
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn answer(&mut self, message: Message) -> io::Result<Then> {
        match message {
            Message::Terminate => Ok(Then::End),
            Message::Sync => {
                self.is_skipping = false;
                if self.transaction == Transaction::None {
                    self.portals.clear();
                }
                self.answers.ready(self.transaction);
                self.flush().await?;
                Ok(Then::Next)
            }
            Message::Query(text) => {
                self.is_skipping = false;
                let answered = self.answer_text(&text).await?;
                let then = self.after(answered);
                if then == Then::Next {
                    self.answers.ready(self.transaction);
                    self.flush().await?;
                }
                Ok(then)
            }
            _ if self.is_skipping => Ok(Then::Next),
            other => {
                let answered = self.answer_step(other).await?;
                self.is_skipping = answered.is_err();
                Ok(self.after(answered))
            }
        }
    }

    /// What becomes of the connection and its transaction after a message.
    fn after(&mut self, answered: Result<(), Refusal>) -> Then {
        let Err(refusal) = answered else {
            return Then::Next;
        };
        self.answers.refused(&refusal);
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        match refusal.is_fatal {
            true => Then::End,
            false => Then::Next,
        }
    }

    /// Answers every statement of a text, up to the first that fails.
    async fn answer_text(&mut self, text: &str) -> io::Result<Result<(), Refusal>> {
        // What has no name lives no longer than the next text.
        self.prepared.remove("");
        self.portals.remove("");
        let statements = match statements(text) {
            Ok(statements) => statements,
            Err(error) => return Ok(Err(Refusal::from(error))),
        };
        if statements.is_empty() {
            self.answers.empty();
        }
        for sql in statements {
            let told = match self.run(sql).await {
                Ok(told) => told,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Err(refusal) = self.send_all(told).await? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }

    async fn run(&mut self, sql: &str) -> Result<Told, Refusal> {
        let statement = Session::statement(sql)?;
        self.do_statement(&statement, sql).await
    }

    /// Does a statement, if the transaction lets it be done.
    async fn do_statement(&mut self, statement: &Statement, sql: &str) -> Result<Told, Refusal> {
        let ends = matches!(
            statement,
            Statement::End { .. } | Statement::Nothing("ROLLBACK")
        );
        if self.transaction == Transaction::Failed && !ends {
            let message = "a statement of the transaction failed; end it with ROLLBACK";
            return Err(Refusal::new("25P02", message));
        }
        match statement {
            Statement::Begin => {
                self.transaction = Transaction::Open;
                Ok(Told::Done("BEGIN"))
            }
            Statement::End { is_commit } => {
                let is_whole = *is_commit && self.transaction != Transaction::Failed;
                self.transaction = Transaction::None;
                Ok(Told::Done(if is_whole { "COMMIT" } else { "ROLLBACK" }))
            }
            Statement::Deallocate(name) => {
                match name {
                    Some(name) => drop(self.prepared.remove(name)),
                    None => self.prepared.clear(),
                }
                Ok(Told::Done("DEALLOCATE"))
            }
            Statement::DiscardAll => {
                self.prepared.clear();
                self.portals.clear();
                self.session.reset();
                Ok(Told::Done("DISCARD ALL"))
            }
            other => self.session.run(other, sql, &mut self.answers).await,
        }
    }

    /// Sends a whole answer as text, as the simple protocol does.
    async fn send_all(&mut self, told: Told) -> io::Result<Result<(), Refusal>> {
        let (columns, blocks, tag) = match told {
            Told::Done(tag) => {
                self.answers.done(tag);
                return Ok(Ok(()));
            }
            Told::Rows {
                columns,
                blocks,
                tag,
            } => (columns, blocks, tag),
        };
        if let Err(refusal) = self.answers.columns(&columns, |_| Format::Text) {
            return Ok(Err(refusal));
        }
        let (mut next, formats) = ((0, 0), Formats(Vec::new()));
        let sent = self.send_rows(&columns, &blocks, &formats, &mut next, usize::MAX);
        match sent.await? {
            Ok(count) => self.answers.done(&ended(tag, count)),
            Err(refusal) => return Ok(Err(refusal)),
        }
        Ok(Ok(()))
    }

    /// Sends rows from a place on, and moves it; returns how many were sent.
    async fn send_rows(
        &mut self,
        columns: &[Column],
        blocks: &[Block],
        formats: &Formats,
        next: &mut (usize, usize),
        most: usize,
    ) -> io::Result<Result<usize, Refusal>> {
        let zone = self.session.settings().zone().clone();
        let mut sent = 0;
        while sent < most
            && let Some(block) = blocks.get(next.0)
        {
            if next.1 >= block.rows {
                *next = (next.0 + 1, 0);
                continue;
            }
            let format = |index| formats.at(index);
            let written = self
                .answers
                .row((block, next.1), columns.len(), format, &zone);
            if let Err(refusal) = written {
                return Ok(Err(refusal));
            }
            next.1 += 1;
            sent += 1;
            if self.answers.0.len() >= ANSWERS_BYTES {
                self.flush().await?;
            }
        }
        Ok(Ok(sent))
    }

    /// A message of the extended protocol.
    async fn answer_step(&mut self, message: Message) -> io::Result<Result<(), Refusal>> {
        Ok(match message {
            Message::Parse { name, sql, types } => self.parse(name, sql, &types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe(named) => self.describe(&named),
            Message::Execute { portal, rows_max } => return self.execute(portal, rows_max).await,
            Message::Close(named) => {
                match named {
                    Named::Statement(name) => drop(self.prepared.remove(&name)),
                    Named::Portal(name) => drop(self.portals.remove(&name)),
                }
                self.answers.closed();
                Ok(())
            }
            Message::Flush => return self.flush().await.map(Ok),
            // What comes after COPY was refused is passed over.
            Message::Copy | Message::Query(_) | Message::Sync | Message::Terminate => Ok(()),
        })
    }

    async fn parse(&mut self, name: String, sql: String, types: &[u32]) -> Result<(), Refusal> {
        let is_known = self.prepared.contains_key(&name);
        if is_known && !name.is_empty() {
            let message = format!("a statement `{name}` is prepared already");
            return Err(Refusal::new("42P05", message));
        }
        if !is_known && self.prepared.len() >= NAMED_MAX {
            let message = format!("more than {NAMED_MAX} statements are prepared");
            return Err(Refusal::new("54000", message));
        }
        if self.transaction == Transaction::Failed && !Session::ends_transaction(&sql) {
            let message = "a statement of the transaction failed; end it with ROLLBACK";
            return Err(Refusal::new("25P02", message));
        }
        let prepared = self.session.prepare(sql, types).await?;
        self.prepared.insert(name, Arc::new(prepared));
        self.answers.parsed();
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Refusal> {
        let prepared = self.statement(&bind.statement)?;
        let count = prepared.parameters.len();
        if bind.values.len() != count {
            return Err(Refusal::new(
                "08P01",
                format!(
                    "{} values are bound to a statement with {count} parameters",
                    bind.values.len()
                ),
            ));
        }
        let formats = Formats::of(&bind.formats, count)?;
        let zone = self.session.settings().zone();
        let values = prepared.parameters.iter().zip(&bind.values).enumerate();
        let values = values.map(|(index, (kind, value))| {
            let value = value.as_deref();
            parameters::literal(kind, formats.at(index), value, zone).map(Some)
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let columns = prepared.columns.as_ref().map_or(0, Vec::len);
        let portal = Portal {
            sql: with_values(&prepared.sql, &values)?,
            formats: Formats::of(&bind.result_formats, columns)?,
            prepared,
            told: None,
            next: (0, 0),
        };
        let is_full = self.portals.len() >= NAMED_MAX;
        match self.portals.entry(bind.portal) {
            Entry::Occupied(known) if !known.key().is_empty() => {
                let message = format!("a portal `{}` is open already", known.key());
                return Err(Refusal::new("42P03", message));
            }
            Entry::Occupied(mut unnamed) => drop(unnamed.insert(portal)),
            Entry::Vacant(_) if is_full => {
                let message = format!("more than {NAMED_MAX} portals are open");
                return Err(Refusal::new("54000", message));
            }
            Entry::Vacant(free) => drop(free.insert(portal)),
        }
        self.answers.bound();
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, Refusal> {
        let prepared = self.prepared.get(name).cloned();
        prepared.ok_or_else(|| Refusal::new("26000", format!("no statement `{name}` is prepared")))
    }

    fn describe(&mut self, named: &Named) -> Result<(), Refusal> {
        let (prepared, formats) = match named {
            Named::Statement(name) => {
                let prepared = self.statement(name)?;
                self.answers.parameters(&prepared.oids);
                (prepared, Formats(Vec::new()))
            }
            Named::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (Arc::clone(&portal.prepared), portal.formats.clone())
            }
        };
        match &prepared.columns {
            Some(columns) => self.answers.columns(columns, |index| formats.at(index)),
            None => {
                self.answers.no_rows();
                Ok(())
            }
        }
    }

    async fn execute(
        &mut self,
        name: String,
        rows_max: Option<usize>,
    ) -> io::Result<Result<(), Refusal>> {
        // While it is answered, the portal is nowhere else.
        let Some(mut portal) = self.portals.remove(&name) else {
            return Ok(Err(no_portal(&name)));
        };
        let answered = self.execute_portal(&mut portal, rows_max).await;
        self.portals.insert(name, portal);
        answered
    }

    async fn execute_portal(
        &mut self,
        portal: &mut Portal,
        rows_max: Option<usize>,
    ) -> io::Result<Result<(), Refusal>> {
        let told = match portal.told.take() {
            Some(told) => told,
            None => match self.run_portal(portal).await {
                Ok(Some(told)) => told,
                Ok(None) => {
                    self.answers.empty();
                    return Ok(Ok(()));
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        if let Told::Done(tag) = &told {
            self.answers.done(tag);
        }
        if let Told::Rows {
            columns,
            blocks,
            tag,
        } = &told
        {
            let most = rows_max.unwrap_or(usize::MAX);
            let (formats, next) = (&portal.formats, &mut portal.next);
            match self.send_rows(columns, blocks, formats, next, most).await? {
                Err(refusal) => return Ok(Err(refusal)),
                Ok(sent) if sent == most => self.answers.suspended(),
                Ok(sent) => self.answers.done(&ended(tag, sent)),
            }
        }
        portal.told = Some(told);
        Ok(Ok(()))
    }

    async fn run_portal(&mut self, portal: &Portal) -> Result<Option<Told>, Refusal> {
        let Some(statement) = &portal.prepared.statement else {
            return Ok(None);
        };
        let told = self.do_statement(statement, &portal.sql).await?;
        let kinds = |columns: &[Column]| -> Vec<Kind> {
            columns.iter().map(|column| column.kind.clone()).collect()
        };
        // A column without an alias may be called by a value, which the described statement did not have.
        if let Told::Rows { columns, .. } = &told
            && Some(kinds(columns)) != portal.prepared.columns.as_deref().map(kinds)
        {
            let message = "cached plan must not change result type";
            let hint = "prepare the statement again: what it reads has other columns now";
            return Err(Refusal::unsupported(message).with_hint(hint));
        }
        Ok(Some(told))
    }
}

/// What ends rows: a query says how many they were.
fn ended(tag: &str, count: usize) -> String {
    match tag {
        "SELECT" => format!("{tag} {count}"),
        other => other.to_owned(),
    }
}

fn no_portal(name: &str) -> Refusal {
    Refusal::new("34000", format!("no portal `{name}` is open"))
}
