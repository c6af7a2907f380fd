//! What DataFusion says about a query. Its messages are English text that any of its releases may word anew: they are
//! matched here and nowhere else, and a test makes DataFusion say each.

/// A message that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A function does not take what it is given.
    NoSuchCall(&'a str),
    /// A relation is not there.
    NoSuchRelation(&'a str),
    /// A function is not there.
    NoSuchFunction(&'a str),
    /// A column is neither a key nor aggregated.
    NotGrouped,
    /// WHERE is neither true nor false.
    NoCondition,
    /// WHERE has an aggregate.
    AggregateInWhere,
    /// GROUP BY names a column by a number that SELECT does not have.
    NoOrdinal(&'a str),
    /// A product has more than 38 digits after the point.
    TooFine,
    /// An operator has two sides of types that have none in common.
    OtherTypes,
    /// Something else, which is shown in its words.
    Other,
}

impl<'a> Said<'a> {
    pub(crate) fn of(message: &'a str) -> Self {
        let call = function_in(message).filter(|_| message.contains("No function matches"));
        if let Some(name) = call {
            return Said::NoSuchCall(name);
        }
        if let Some(name) = message
            .strip_prefix("table '")
            .and_then(|m| m.strip_suffix("' not found"))
        {
            return Said::NoSuchRelation(name.rsplit('.').next().unwrap_or(name));
        }
        let function = message.strip_prefix("Invalid function '");
        if let Some((name, _)) = function.and_then(|rest| rest.split_once('\'')) {
            return Said::NoSuchFunction(name);
        }
        let ordinal = message.split_once("column with position ");
        if let Some((ordinal, _)) = ordinal.and_then(|(_, rest)| rest.split_once(' ')) {
            return Said::NoOrdinal(ordinal);
        }
        for (text, said) in [
            ("must appear in GROUP BY", Said::NotGrouped),
            ("non-boolean predicate", Said::NoCondition),
            ("exceed max scale", Said::TooFine),
            ("expressions have incompatible types", Said::OtherTypes),
            ("not allowed in the WHERE clause", Said::AggregateInWhere),
        ] {
            if message.contains(text) {
                return said;
            }
        }
        Said::Other
    }
}

/// The function that a message names, whatever it says of it.
pub(crate) fn function_in(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Function '")?;
    Some(rest.split_once('\'')?.0)
}

/// What a function itself says of what it is given, where a message has that.
pub(crate) fn refusal_in(message: &str) -> Option<&str> {
    let (_, said) = message.split_once("user-defined coercion failed with: ")?;
    let said = said.split(" No function matches").next().unwrap_or(said);
    let kinds = [
        "Error during planning: ",
        "Execution error: ",
        "External error: ",
    ];
    let kind = kinds.iter().find_map(|kind| said.strip_prefix(kind));
    Some(kind.unwrap_or(said).trim_end_matches(['\n', ' ', '.']))
}

/// A message without the names under which expressions are selected, as DataFusion prints them.
pub(crate) fn without_alias(message: &str) -> String {
    let quoted = message.split('`').enumerate();
    let texts = quoted.map(|(place, text)| match text.rsplit_once(" AS ") {
        Some((expr, _)) if place % 2 == 1 => expr,
        _ => text,
    });
    texts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    /// What DataFusion says of a query over `t`, which has a text, a number and a decimal.
    async fn said_of(select: &str) -> String {
        let context = SessionContext::new();
        let table = "CREATE TABLE t (a VARCHAR, n BIGINT, d DECIMAL(38, 20))";
        context.sql(table).await.unwrap().collect().await.unwrap();
        let error = match context.sql(select).await {
            Err(error) => error,
            Ok(frame) => context.state().optimize(frame.logical_plan()).unwrap_err(),
        };
        match error.diagnostic() {
            Some(diagnostic) => diagnostic.message.clone(),
            None => error.find_root().to_string(),
        }
    }

    #[tokio::test]
    async fn datafusion_says_it_in_these_words() {
        for (select, said) in [
            ("SELECT AVG(a) FROM t", Said::NoSuchCall("avg")),
            ("SELECT n FROM s", Said::NoSuchRelation("s")),
            (
                "SELECT n FROM datafusion.public.s",
                Said::NoSuchRelation("s"),
            ),
            ("SELECT sun(n) FROM t", Said::NoSuchFunction("sun")),
            ("SELECT a, SUM(n) FROM t", Said::NotGrouped),
            ("SELECT SUM(n) FROM t WHERE a || 'b'", Said::NoCondition),
            ("SELECT a FROM t WHERE SUM(n) > 1", Said::AggregateInWhere),
            ("SELECT SUM(n) FROM t GROUP BY 7", Said::NoOrdinal("7")),
            ("SELECT SUM(d * d) FROM t", Said::TooFine),
            ("SELECT nothing FROM t", Said::Other),
        ] {
            let message = said_of(select).await;
            assert_eq!(Said::of(&message), said, "{select}: {message}");
        }
    }

    #[tokio::test]
    async fn datafusion_shows_what_a_function_itself_says() {
        let message = said_of("SELECT greatest() FROM t").await;
        assert_eq!(Said::of(&message), Said::NoSuchCall("greatest"));
        let refusal = "greatest was called without any arguments. It requires at least 1";
        assert_eq!(refusal_in(&message), Some(refusal), "{message}");
        assert_eq!(refusal_in(&said_of("SELECT AVG(a) FROM t").await), None);
    }

    #[test]
    fn an_alias_is_left_out_between_back_ticks_alone() {
        let said = "`SUM(n) AS x` is not, as `a` AS it was";
        assert_eq!(without_alias(said), "`SUM(n)` is not, as `a` AS it was");
    }
}
