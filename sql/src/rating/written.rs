//! What a price's author wrote, with its place: lists of tiers, and numbers in quotes.

use crate::{money::Exact, parser::Sql};
use datafusion::sql::sqlparser::{
    ast::{
        Array, BinaryOperator, DictionaryField, Expr, FunctionArg, FunctionArgExpr,
        FunctionArguments, Ident, SelectItem, Spanned, Statement, Value, Visit, Visitor,
    },
    parser::Parser,
    tokenizer::Location,
};
use std::ops::ControlFlow;

/// A key and its value in a tier.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In lower case, as SQL folds it.
    pub(super) key: String,
    /// As SQL.
    pub(super) value: String,
    /// The value without quotes, if it is a text.
    pub(super) text: Option<String>,
    /// Where the key is in the query.
    pub(super) at: Location,
}

/// The tiers of one list.
type Tiers = Vec<Vec<Entry>>;

/// A number in quotes, where a query has one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) number: String,
    pub(super) at: Location,
}

/// The entry of a tier, which counts from 1, under a key: of the first list that has it, and has the value if one is given. Without a key,
/// the first of the tier.
pub(super) fn entry(
    query: &str,
    function: Option<&str>,
    tier: usize,
    key: Option<&str>,
    value: Option<Exact>,
) -> Option<Entry> {
    let lists = lists(query);
    let of_function =
        |name: &&(Option<String>, Tiers)| function.is_none() || name.0.as_deref() == function;
    let lists = lists.iter().filter(of_function);
    let mut entries = lists
        .flat_map(|(_, tiers)| tiers.get(tier.checked_sub(1)?))
        .flatten();
    let is_it = |entry: &&Entry| {
        let has_value =
            value.is_none_or(|value| Exact::parse(&entry.value).is_ok_and(|read| read == value));
        key.is_none_or(|key| entry.key == key) && has_value
    };
    let found = entries.find(is_it)?;
    Some(Entry {
        key: found.key.clone(),
        value: found.value.clone(),
        text: found.text.clone(),
        at: found.at,
    })
}

/// The first number in quotes among the arguments of a function.
pub(super) fn quoted_argument(query: &str, function: &str) -> Option<Quoted> {
    let mut found = None;
    each(query, |expr| {
        if let Some(arguments) = arguments_of(expr, function) {
            found = found
                .take()
                .or_else(|| arguments.into_iter().find_map(quoted));
        }
    });
    found
}

/// The first number in quotes that is calculated with.
pub(super) fn quoted_operand(query: &str) -> Option<Quoted> {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    let mut found = None;
    each(query, |expr| {
        if let Expr::BinaryOp { left, op, right } = expr
            && matches!(op, Plus | Minus | Multiply | Divide | Modulo)
        {
            found = found
                .take()
                .or_else(|| quoted(left).or_else(|| quoted(right)));
        }
    });
    found
}

/// The number in quotes that is a column of the answer.
pub(super) fn quoted_column(query: &str, name: &str) -> Option<Quoted> {
    columns(query, name).find_map(|(expr, _)| quoted(&expr))
}

/// Where a column of the answer gets its name.
pub(super) fn column(query: &str, name: &str) -> Option<Location> {
    columns(query, name).map(|(_, at)| at).next()
}

/// The expressions that get a name with AS, in order.
fn columns(query: &str, name: &str) -> impl Iterator<Item = (Expr, Location)> {
    struct Named<'a>(&'a str, Vec<(Expr, Location)>);
    impl Visitor for Named<'_> {
        type Break = ();
        fn pre_visit_select(
            &mut self,
            select: &datafusion::sql::sqlparser::ast::Select,
        ) -> ControlFlow<()> {
            for item in &select.projection {
                if let SelectItem::ExprWithAlias { expr, alias } = item
                    && folded(alias) == self.0
                {
                    self.1.push((expr.clone(), alias.span.start));
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut named = Named(name, Vec::new());
    // It never breaks off.
    let _ = parsed(query).visit(&mut named);
    named.1.into_iter()
}

fn quoted(expr: &Expr) -> Option<Quoted> {
    let Expr::Value(value) = expr else {
        return None;
    };
    let Value::SingleQuotedString(text) = &value.value else {
        return None;
    };
    let number = Exact::parse(text).ok().map(|_| text.clone())?;
    let at = value.span.start;
    Some(Quoted { number, at })
}

/// Every list of tiers that is written, in order, with the function that it is given to.
fn lists(query: &str) -> Vec<(Option<String>, Tiers)> {
    let mut lists = Vec::new();
    each(query, |expr| {
        if let Expr::Function(function) = expr {
            let name = function.name.to_string().to_lowercase();
            let of_it = arguments(expr).into_iter().filter_map(tiers);
            lists.extend(of_it.map(|tiers| (Some(name.clone()), tiers)));
        }
    });
    lists
}

fn tiers(expr: &Expr) -> Option<Tiers> {
    let Expr::Array(Array { elem, .. }) = expr else {
        return None;
    };
    let tier = |expr: &Expr| match expr {
        Expr::Dictionary(fields) => Some(fields.iter().map(entry_of).collect()),
        _ => None,
    };
    elem.iter().map(tier).collect()
}

fn entry_of(field: &DictionaryField) -> Entry {
    let text = match &*field.value {
        Expr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    Entry {
        key: field.key.value.to_lowercase(),
        value: field.value.to_string(),
        text,
        at: field.key.span.start,
    }
}

fn arguments_of<'a>(expr: &'a Expr, function: &str) -> Option<Vec<&'a Expr>> {
    match expr {
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case(function) => {
            Some(arguments(expr))
        }
        _ => None,
    }
}

fn arguments(expr: &Expr) -> Vec<&Expr> {
    let Expr::Function(call) = expr else {
        return Vec::new();
    };
    let FunctionArguments::List(list) = &call.args else {
        return Vec::new();
    };
    let each = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named {
            arg: FunctionArgExpr::Expr(expr),
            ..
        } => Some(expr),
        _ => None,
    });
    each.collect()
}

fn folded(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}

fn parsed(query: &str) -> Vec<Statement> {
    Parser::parse_sql(&Sql, query).unwrap_or_default()
}

/// Shows every expression of a query, from the left.
fn each(query: &str, mut see: impl FnMut(&Expr)) {
    let statements = parsed(query);
    let mut found: Vec<(Location, Expr)> = Vec::new();
    crate::meter::each_expression(&statements, |expr| {
        if matches!(expr, Expr::Function(_) | Expr::BinaryOp { .. }) {
            found.push((expr.span().start, expr.clone()));
        }
    });
    found.sort_by_key(|(at, _)| (at.line, at.column));
    found.iter().for_each(|(_, expr)| see(expr));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(entry: Option<Entry>) -> Option<(u64, u64, String)> {
        entry.map(|entry| (entry.at.line, entry.at.column, entry.value))
    }

    #[test]
    fn an_entry_is_found_by_its_function_tier_key_and_value() {
        let query = "SELECT graduated(x, [{up_to: 2, unit_amount: 0}, {unit_amount: '1'}]),\n\
                     volume(x, [{up_to: 9, unit_amount: 0}, {up_to: 1, unit_amount: 1}]) FROM t";
        let number = |text: &str| Exact::parse(text).ok();
        assert_eq!(
            at(entry(query, None, 2, Some("unit_amount"), None)),
            Some((1, 51, "'1'".to_owned()))
        );
        assert_eq!(
            at(entry(query, Some("volume"), 2, Some("up_to"), number("1"))),
            Some((2, 41, "1".to_owned()))
        );
        assert_eq!(
            at(entry(query, Some("volume"), 1, None, None)),
            Some((2, 13, "9".to_owned()))
        );
        assert_eq!(at(entry(query, Some("package"), 1, None, None)), None);
        assert_eq!(at(entry(query, None, 3, None, None)), None);
    }

    #[test]
    fn numbers_in_quotes_are_found_where_a_number_is_wanted() {
        let place = |quoted: Option<Quoted>| {
            quoted.map(|quoted| (quoted.at.line, quoted.at.column, quoted.number))
        };
        let query =
            "SELECT customer, prorate('20.00', a, b) AS fee, x * '0.1' AS y, '5' AS amount FROM t";
        assert_eq!(
            place(quoted_argument(query, "prorate")),
            Some((1, 26, "20.00".to_owned()))
        );
        assert_eq!(
            place(quoted_operand(query)),
            Some((1, 53, "0.1".to_owned()))
        );
        assert_eq!(
            place(quoted_column(query, "amount")),
            Some((1, 65, "5".to_owned()))
        );
        assert_eq!(place(quoted_operand("SELECT x || 'a' FROM t")), None);
        assert_eq!(place(quoted_column("SELECT 'a' AS amount", "amount")), None);
    }
}
