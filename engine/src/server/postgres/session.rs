//! What a client's statements are answered with: who asks, what it has set, within which bounds.

use super::{
    Wire,
    answers::Answers,
    cancelling::Cancellable,
    catalog::Asker,
    opening::Client,
    refusal::Refusal,
    settings::Settings,
    statement::Statement,
    values::{
        kinds::Kind,
        parameters,
        rows::{Block, Column},
    },
};
use crate::{
    query::{self, Asked, Readable, Rows},
    server::{keyring::Caller, stream::Stream},
    view::{Own, View},
};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::timeout;
use tollgate_sql::statements::{self, statements, tokens};

/// The answer to a statement.
#[derive(Debug)]
pub(super) enum Told {
    /// It is done.
    Done(&'static str),
    /// Its rows, and the word that ends them.
    Rows {
        columns: Vec<Column>,
        blocks: Vec<Block>,
        tag: &'static str,
    },
}

/// A statement that is prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) sql: String,
    /// `None` when there is nothing in it.
    pub(super) statement: Option<Statement>,
    pub(super) parameters: Vec<Kind>,
    /// The numbers of their types, as the client has said them where it has: JDBC takes no other for the same type.
    pub(super) oids: Vec<u32>,
    /// `None` when it has no rows.
    pub(super) columns: Option<Vec<Column>>,
}

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    wire: Arc<Wire>,
    caller: Caller,
    key: Option<String>,
    settings: Settings,
    cancellable: Cancellable,
}

impl Session {
    pub(super) fn of(wire: &Arc<Wire>, client: Client) -> (Stream, Self) {
        let Client {
            stream,
            caller,
            key,
            settings,
            cancellable,
        } = client;
        let session = Session {
            wire: Arc::clone(wire),
            caller,
            key,
            settings,
            cancellable,
        };
        (stream, session)
    }

    /// What a client is told before it asks anything.
    pub(super) fn greet(&self, answers: &mut Answers) {
        answers.let_in();
        for (name, value) in self.settings.all_reported() {
            answers.setting(name, value);
        }
        answers.cancel_key(self.cancellable.process, self.cancellable.secret);
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn reset(&mut self) {
        self.settings.reset();
    }

    /// What takes longer ends.
    pub(super) fn longest(&self) -> Duration {
        self.wire.doors.settings.http.timeout.duration()
    }

    /// What a statement is.
    ///
    /// # Errors
    /// It cannot be read, or is not done here.
    pub(super) fn statement(sql: &str) -> Result<Statement, Refusal> {
        Statement::of(&tokens(sql)?)
    }

    /// Whether a text ends a transaction, which one that failed must.
    pub(super) fn ends_transaction(sql: &str) -> bool {
        matches!(
            Session::statement(sql),
            Ok(Statement::End { .. } | Statement::Nothing("ROLLBACK"))
        )
    }

    /// Does a statement that is about no transaction and nothing prepared.
    pub(super) async fn run(
        &mut self,
        statement: &Statement,
        sql: &str,
        answers: &mut Answers,
    ) -> Result<Told, Refusal> {
        match statement {
            Statement::Set { name, value } => {
                self.settings.set(name, value.as_deref())?;
                if let Some(written) = Settings::reported(name) {
                    answers.setting(written, self.settings.get(name).unwrap_or_default());
                }
                Ok(Told::Done("SET"))
            }
            Statement::ResetAll => {
                self.settings.reset();
                Ok(Told::Done("RESET"))
            }
            Statement::Show(name) => self.shown(name),
            Statement::Nothing(tag) => Ok(Told::Done(tag)),
            Statement::Query | Statement::Catalog => {
                let rows = self.bounded(Box::pin(self.rows(statement, sql))).await?;
                let columns = Column::all(&rows.schema);
                let blocks = rows.batches.iter().map(|rows| Block::of(rows, &columns));
                Ok(Told::Rows {
                    blocks: blocks.collect::<Result<_, _>>()?,
                    columns,
                    tag: "SELECT",
                })
            }
            Statement::Begin
            | Statement::End { .. }
            | Statement::Deallocate(_)
            | Statement::DiscardAll => Err(Refusal::unsupported("a connection does this itself")),
        }
    }

    fn shown(&self, name: &str) -> Result<Told, Refusal> {
        let value = self.settings.get(name);
        let value =
            value.ok_or_else(|| Refusal::new("42704", format!("there is no setting `{name}`")))?;
        let columns = vec![shown_as(name)];
        let rows = super::catalog::one_text(name, value)?;
        let blocks = vec![Block::of(&rows, &columns)?];
        Ok(Told::Rows {
            columns,
            blocks,
            tag: "SHOW",
        })
    }

    /// What a statement has for parameters and columns, before it has values.
    ///
    /// # Errors
    /// It is more than one statement, or cannot be planned.
    pub(super) async fn prepare(&self, sql: String, types: &[u32]) -> Result<Prepared, Refusal> {
        let all = statements(&sql)?;
        let (statement, sql) = match all.as_slice() {
            [] => (None, String::new()),
            [one] => (Some(Session::statement(one)?), (*one).to_owned()),
            _ => {
                let message = "a prepared statement is one statement";
                return Err(Refusal::new("42601", message));
            }
        };
        let (parameters, columns) = match &statement {
            Some(known @ (Statement::Query | Statement::Catalog)) => {
                let described = Box::pin(self.described(known, &sql, types));
                let (kinds, columns) = self.bounded(described).await?;
                (kinds, Some(columns))
            }
            Some(Statement::Show(name)) => (Vec::new(), Some(vec![shown_as(name)])),
            _ => (Vec::new(), None),
        };
        let said = |index: usize| types.get(index).filter(|oid| Kind::of_oid(**oid).is_some());
        let oids = parameters.iter().enumerate();
        let oids = oids.map(|(index, kind)| said(index).copied().unwrap_or_else(|| kind.oid()));
        Ok(Prepared {
            sql,
            statement,
            oids: oids.collect(),
            parameters,
            columns,
        })
    }

    /// The types of parameters, given or found, and the columns.
    async fn described(
        &self,
        statement: &Statement,
        sql: &str,
        types: &[u32],
    ) -> Result<(Vec<Kind>, Vec<Column>), Refusal> {
        let count = statements::parameters(sql)?;
        let given = |index| types.get(index).copied().and_then(Kind::of_oid);
        let given: Vec<Option<Kind>> = (0..count).map(given).collect();
        let sample = |kind: &Option<Kind>| kind.as_ref().map(parameters::sample);
        let mut kinds = given;
        if kinds.iter().any(Option::is_none) {
            let values: Vec<_> = kinds.iter().map(sample).collect();
            let filled = statements::with_values(sql, &values)?;
            let found = self.parameter_types(statement, &filled).await;
            let lists = lists_of_any(sql)?;
            for (index, kind) in kinds.iter_mut().enumerate() {
                let of_type = || found.get(&(index + 1)).map(Kind::of_type);
                let unknown = match lists.contains(&format!("${}", index + 1)) {
                    true => Kind::Array(&Kind::Text),
                    false => Kind::Text,
                };
                *kind = kind.take().or_else(of_type).or(Some(unknown));
            }
        }
        let values: Vec<_> = kinds.iter().map(sample).collect();
        let filled = statements::with_values(sql, &values)?;
        let columns = self.columns(statement, &filled).await?;
        Ok((kinds.into_iter().flatten().collect(), columns))
    }

    /// Does what has an end: by time, by the client, or by itself.
    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let longest = self.longest();
        let longest = self
            .settings
            .timeout()
            .map_or(longest, |set| set.min(longest));
        tokio::select! {
            done = timeout(longest, work) => done.unwrap_or_else(|_| Err(Refusal::timed_out())),
            () = self.cancellable.cancelled.notified() => Err(Refusal::cancelled()),
        }
    }

    /// Whose rows are read, as long as the key is valid.
    async fn own(&self) -> Result<Option<Own>, Refusal> {
        let doors = &self.wire.doors;
        let lake = doors.lakes.to_read().await?;
        if let Some(key) = &self.key
            && !doors.keyring.is_valid(lake, key).await?
        {
            let message = "the key is not valid any more: it has expired, or was revoked";
            return Err(Refusal::new("28000", message).fatal());
        }
        Ok(self.caller.own(doors).await?)
    }

    fn asker(&self, own: Option<&Own>) -> Asker {
        Asker {
            user: self
                .settings
                .get("session_authorization")
                .unwrap_or_default()
                .to_owned(),
            settings: self.settings.clone(),
            is_customer: own.is_some(),
        }
    }

    async fn rows(&self, statement: &Statement, sql: &str) -> Result<Rows, Refusal> {
        let answering = Box::pin(self.rows_now(statement, sql));
        self.wire.doors.turns.of_statement(sql, answering).await
    }

    async fn rows_now(&self, statement: &Statement, sql: &str) -> Result<Rows, Refusal> {
        let doors = &self.wire.doors;
        let own = self.own().await?;
        let bounds = doors.bounds();
        if *statement == Statement::Catalog {
            let asker = self.asker(own.as_ref());
            return self
                .wire
                .catalogs
                .rows(doors.defined().catalog(), &asker, sql, bounds)
                .await;
        }
        let asked = Asked {
            sql,
            bounds,
            own: own.as_ref(),
        };
        let lake = doors.lakes.to_read().await?;
        let defined = doors.defined();
        let answer = query::answer(&doors.settings, asked, (defined.catalog(), lake));
        Ok(Box::pin(answer).await?.rows)
    }

    async fn columns(&self, statement: &Statement, sql: &str) -> Result<Vec<Column>, Refusal> {
        let describing = Box::pin(self.columns_now(statement, sql));
        self.wire.doors.turns.of_statement(sql, describing).await
    }

    async fn columns_now(&self, statement: &Statement, sql: &str) -> Result<Vec<Column>, Refusal> {
        let doors = &self.wire.doors;
        let own = self.own().await?;
        let schema = match statement {
            Statement::Catalog => {
                let asker = self.asker(own.as_ref());
                self.wire
                    .catalogs
                    .schema(doors.defined().catalog(), &asker, sql)
                    .await?
            }
            _ => {
                let readable = Readable::of(&*self.relations().await, own.as_ref());
                Box::pin(readable.schema(sql)).await?
            }
        };
        Ok(Column::all(&schema))
    }

    /// What there is to read: that of the lake as it is, or of the definitions where it cannot be opened.
    async fn relations(&self) -> Arc<View> {
        let defined = self.wire.doors.defined();
        let empty = |_| Arc::new(View::empty(Arc::clone(defined.catalog())));
        defined.views.committed().await.unwrap_or_else(empty)
    }

    /// The types that parameters have by what is around them; none where that cannot be told.
    async fn parameter_types(&self, statement: &Statement, sql: &str) -> query::Types {
        let doors = &self.wire.doors;
        let Ok(own) = self.own().await else {
            return query::Types::new();
        };
        match statement {
            Statement::Catalog => {
                let asker = self.asker(own.as_ref());
                self.wire
                    .catalogs
                    .parameter_types(doors.defined().catalog(), &asker, sql)
                    .await
            }
            _ => {
                let readable = Readable::of(&*self.relations().await, own.as_ref());
                Box::pin(readable.parameter_types(sql)).await
            }
        }
    }
}

/// The parameters that are lists because `ANY`, `SOME` or `ALL` stands before them.
fn lists_of_any(sql: &str) -> Result<BTreeSet<String>, Refusal> {
    let tokens = tokens(sql)?;
    let lists = tokens.windows(3).filter_map(|three| match three {
        [Token::Word(word), Token::LParen, Token::Placeholder(name)] => {
            let word = word.value.to_uppercase();
            matches!(word.as_str(), "ANY" | "SOME" | "ALL").then(|| name.clone())
        }
        _ => None,
    });
    Ok(lists.collect())
}

/// The column of a setting that is shown.
fn shown_as(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: Kind::Text,
    }
}
