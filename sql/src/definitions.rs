//! Everything a definitions folder says, parsed and checked as a whole.

mod check;
mod checked;
pub(crate) mod csv_file;
pub(crate) mod decimal;
pub(crate) mod json_path;
pub(crate) mod model;
pub(crate) mod rates;
mod replace;
pub(crate) mod time;

#[cfg(test)]
mod tests;

pub use checked::Checked;
pub use decimal::{DECIMAL_TEXT_BYTES_MAX, DecimalError, parse_decimal};
pub use json_path::Step;
pub use model::{
    Anchor, BillingPeriod, CURRENCY_DIGITS_MAX, Check, Column, CurrencyDefinition, Definitions,
    DiscountOrder, EventType, Frame, LatePolicy, MeterDefinition, MinimumProration, OnChange,
    PlanDefinition, PlanTerms, PriceDefinition, RateTable, SourceFile, TaxMode, TrialUsage,
    UnclearPath, Validity, Worth,
};
pub use time::parse_instant;

use crate::{
    error::{Error, Result},
    parser,
};

/// Relations that queries read without a definition.
const QUERIED: [&str; 13] = [
    "events",
    "conflicts",
    "invoices",
    "line_items",
    "customers",
    "subjects",
    "subscriptions",
    "grants",
    "one_offs",
    "discounts",
    "credit_ledger",
    "unissued",
    "unbilled",
];

impl Definitions {
    /// The relations that a query may name; `<meter>_windows` is left out, for in a query it is the meter.
    pub fn relations(&self) -> Vec<String> {
        let types = self.event_types.iter().map(|known| known.name.clone());
        let meters = self.meters.iter().flat_map(|meter| {
            let panes = format!("{}_panes", meter.name);
            [meter.name.clone(), panes]
        });
        let tables = self.rate_tables.iter().map(|known| known.name.clone());
        let built_in = QUERIED.into_iter().map(str::to_owned);
        types.chain(meters).chain(tables).chain(built_in).collect()
    }

    /// Reads all files as one set of definitions and checks them together.
    ///
    /// Statements and files may come in any order. Where a name is defined more than once, by
    /// `CREATE OR REPLACE`, versions are counted in the order of the files given and of the text in
    /// each: a meter and a price keep every version, each effective later than the one before; of
    /// anything else the last stays. An event type may be replaced only by one that keeps its columns.
    ///
    /// ```
    /// use tollgate_sql::definitions::{Definitions, SourceFile};
    ///
    /// let file = SourceFile {
    ///     name: "calls.sql".into(),
    ///     text: "CREATE METER calls WITH (window = '1 hour') AS
    ///            SELECT subject, COUNT(*) AS calls FROM api_call GROUP BY subject;
    ///            CREATE EVENT TYPE api_call (path VARCHAR) WITH (type = 'api.call');".into(),
    /// };
    /// let definitions = Definitions::parse(&[file])?;
    /// assert_eq!(definitions.meters[0].event_type, "api_call");
    /// # Ok::<(), tollgate_sql::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first problem, with its place and a hint.
    pub fn parse(files: &[SourceFile]) -> Result<Self> {
        let checked = Self::check(files);
        match checked.errors.into_iter().next() {
            None => Ok(checked.definitions),
            Some(error) => Err(error),
        }
    }

    /// Reads all files as [`Self::parse`] does, and says everything that is wrong: one error for each statement at most, and none for a
    /// statement that is right and only needs a wrong one.
    pub fn check(files: &[SourceFile]) -> Checked {
        check::assemble(files.iter().flat_map(parser::statements).collect())
    }

    /// Refuses columns of which it is not clear what they read, except those that a lake has already, by event
    /// type and column: these are read on as before.
    ///
    /// # Errors
    /// The first such column, with both paths that may be meant.
    pub fn check_paths(&self, is_stored: impl Fn(&str, &str) -> bool) -> Result<()> {
        match self.unclear_paths(is_stored).into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Every column that [`Self::check_paths`] refuses.
    pub fn unclear_paths(&self, is_stored: impl Fn(&str, &str) -> bool) -> Vec<Error> {
        let all = self.event_types.iter().flat_map(|event_type| {
            let unclear = event_type.unclear.iter();
            unclear.map(|path| (event_type.name.as_str(), path))
        });
        all.filter(|(name, path)| !is_stored(name, &path.column))
            .map(|(name, path)| unclear_path(name, path))
            .collect()
    }

    /// The plan with this name.
    pub fn plan(&self, name: &str) -> Option<&PlanDefinition> {
        self.plans.iter().find(|plan| plan.name == name)
    }

    /// The event type with this SQL name.
    pub fn event_type(&self, name: &str) -> Option<&EventType> {
        self.event_types.iter().find(|t| t.name == name)
    }
}

fn unclear_path(event_type: &str, path: &UnclearPath) -> Error {
    // A quote in a text of SQL is doubled.
    let in_text = |key: &String| json_path::text(&[Step::Key(key.clone())]).replace('\'', "''");
    let UnclearPath {
        column,
        written,
        at,
    } = path;
    Error::Definition {
        at: at.clone(),
        problem: format!(
            "event type `{event_type}`: column `{written}` would read `$.{column}`, since SQL folds names and JSON does not"
        ),
        hint: format!(
            "say which key is meant: OPTIONS (path = '{}') or OPTIONS (path = '{}')",
            in_text(written),
            in_text(column)
        ),
    }
}
