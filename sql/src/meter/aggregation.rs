//! What each measure is made by: whether the values of two groups, or of two windows, add up to the value of both.

use super::{Meter, calls, syntax};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem,
};

/// How a measure is made of the values of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// `sum(x)`.
    Sum,
    /// `count(*)` or `count(x)`.
    Count,
    /// `count(DISTINCT x)`.
    UniqueCount,
    /// `avg(x)`.
    Avg,
    /// `min(x)`.
    Min,
    /// `max(x)`.
    Max,
    /// `latest(x)`.
    Latest,
    /// Any other aggregate, or an expression over aggregates.
    Other,
}

/// A measure as its query says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregated {
    /// How it is made.
    pub by: Aggregation,
    /// The column of the event type that is aggregated, where it is one column and nothing else.
    pub column: Option<String>,
}

impl Aggregation {
    /// Whether the value of two groups, or of two windows, follows from the values of each.
    ///
    /// ```
    /// # use tollgate_sql::meter::Aggregation;
    /// assert!(Aggregation::Sum.is_mergeable());
    /// // Who is in both groups would count twice.
    /// assert!(!Aggregation::UniqueCount.is_mergeable());
    /// ```
    pub fn is_mergeable(self) -> bool {
        matches!(
            self,
            Aggregation::Sum | Aggregation::Count | Aggregation::Min | Aggregation::Max
        )
    }
}

impl Meter {
    /// How a measure is made, by the newest version of the query. A later version has the same aggregates as an earlier one.
    pub fn aggregated(&self, measure: &str) -> Aggregated {
        let other = Aggregated {
            by: Aggregation::Other,
            column: None,
        };
        let Ok(statement) = syntax::parse(self.definition()) else {
            return other;
        };
        let items = syntax::selected(&statement).map(|select| select.projection.iter());
        let of_name = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = match alias.quote_style {
                    Some(_) => alias.value.clone(),
                    None => alias.value.to_lowercase(),
                };
                (name == measure).then(|| expr.clone())
            }
            _ => None,
        };
        match items.into_iter().flatten().find_map(of_name) {
            Some(Expr::Function(function)) => aggregated(&function),
            _ => other,
        }
    }
}

fn aggregated(function: &Function) -> Aggregated {
    let by = match (
        calls::name_of(function).as_str(),
        calls::is_distinct(function),
    ) {
        ("sum", false) => Aggregation::Sum,
        ("count", false) => Aggregation::Count,
        ("count", true) | ("count_distinct", _) => Aggregation::UniqueCount,
        ("avg", false) => Aggregation::Avg,
        ("min", _) => Aggregation::Min,
        ("max", _) => Aggregation::Max,
        ("latest", _) => Aggregation::Latest,
        _ => Aggregation::Other,
    };
    Aggregated {
        by,
        column: column(function),
    }
}

/// The one column that a call is about.
fn column(function: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] =
        list.args.as_slice()
    else {
        return None;
    };
    Some(match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::{Definitions, SourceFile};

    #[tokio::test]
    async fn each_measure_is_known_by_its_aggregate() {
        let text = r#"
            CREATE EVENT TYPE call (model VARCHAR, tokens BIGINT, "user" VARCHAR OPTIONS (path = '$.u')) WITH (type = 'call');
            CREATE METER m WITH (window = '1 hour') AS
            SELECT subject, model, SUM(tokens) AS Total, COUNT(*) AS calls, COUNT(DISTINCT "user") AS users,
                   MIN(tokens) AS least, MAX(tokens) FILTER (WHERE tokens > 3) AS most, LATEST(tokens) AS "last",
                   SUM(tokens * 2) AS double, SUM(tokens) + COUNT(*) AS mixed, PERCENTILE(tokens, 0.5) AS middle
            FROM call GROUP BY subject, model;
        "#;
        let file = SourceFile {
            name: "m.sql".into(),
            text: text.into(),
        };
        let definitions = Definitions::parse(&[file]).unwrap();
        let meter = Meter::plan(&definitions.meters[0], &definitions.event_types[0])
            .await
            .unwrap();
        let known = |measure: &str| {
            let Aggregated { by, column } = meter.aggregated(measure);
            (by, column.unwrap_or_default())
        };
        let of = |by, column: &str| (by, column.to_owned());
        assert_eq!(known("total"), of(Aggregation::Sum, "tokens"));
        assert_eq!(known("calls"), of(Aggregation::Count, ""));
        assert_eq!(known("users"), of(Aggregation::UniqueCount, "user"));
        assert_eq!(known("least"), of(Aggregation::Min, "tokens"));
        assert_eq!(known("most"), of(Aggregation::Max, "tokens"));
        assert_eq!(known("last"), of(Aggregation::Latest, "tokens"));
        assert_eq!(known("double"), of(Aggregation::Sum, ""));
        assert_eq!(known("mixed"), of(Aggregation::Other, ""));
        assert_eq!(known("middle").0, Aggregation::Other);
        assert_eq!(known("none"), of(Aggregation::Other, ""));
    }
}
