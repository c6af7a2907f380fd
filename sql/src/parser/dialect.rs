//! How text becomes a tree: sqlparser's generic dialect with PostgreSQL's precedence.
//!
//! | binds | operators |
//! |---|---|
//! | tightest | `.` `::` `[ ]` |
//! | | unary `+ -` |
//! | | `AT TIME ZONE` |
//! | | `* / %` |
//! | | `+ -` |
//! | | any other: `\|\|`, `\|`, `&`, `~`, `->` |
//! | | `BETWEEN` `IN` `LIKE` `ILIKE` `SIMILAR TO` |
//! | | `< > = <= >= <>` |
//! | | `IS [NOT] NULL`, `IS [NOT] TRUE`, `IS [NOT] DISTINCT FROM` |
//! | | `NOT` |
//! | | `AND` |
//! | loosest | `OR` |
//!
//! sqlparser alone reads `a IS DISTINCT FROM b AND c` as `a IS DISTINCT FROM (b AND c)`, `a = b LIKE c` as
//! `(a = b) LIKE c` and `a || b + c` as `(a || b) + c`: other events would be billed than PostgreSQL and
//! DuckDB select. What PostgreSQL refuses (`a < b < c`) and what systems read in different ways
//! (`^`, `XOR`) is refused. Definitions and every session read with this dialect, see [`crate::session`].

use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr, UnaryOperator},
    dialect::{Dialect, GenericDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};
use std::any::TypeId;

/// The dialect of every query, here and in a session; it reads `[1, 2]` and `{a: 1}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql;

const SIGN: u8 = 46;
const OTHER: u8 = 25;
const LIKE: u8 = 20;
const COMPARISON: u8 = 18;
const IS: u8 = 16;

/// What the generic dialect answers to questions without an argument.
macro_rules! as_generic {
    ($($question:ident,)*) => {
        $(fn $question(&self) -> bool {
            GenericDialect {}.$question()
        })*
    };
}

impl Dialect for Sql {
    // The parser asks for the generic dialect by its type.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_part(ch)
    }

    as_generic! {
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Period => 100,
            Precedence::DoubleColon => 50,
            Precedence::AtTz => 44,
            Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Xor
            | Precedence::Ampersand
            | Precedence::Caret
            | Precedence::Pipe
            | Precedence::Colon
            | Precedence::PgOther => OTHER,
            Precedence::Between | Precedence::Like => LIKE,
            Precedence::Eq => COMPARISON,
            Precedence::Is => IS,
            Precedence::UnaryNot => 14,
            Precedence::And => 10,
            Precedence::Or => 5,
        }
    }

    /// The operators whose level sqlparser takes for another one.
    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        let other = match &parser.peek_token_ref().token {
            Token::Word(word) => word.keyword == Keyword::OPERATOR,
            token => is_match(token) || matches!(token, Token::StringConcat | Token::CaretAt),
        };
        other.then_some(Ok(OTHER))
    }

    /// Signs, which sqlparser binds no tighter than `*`, and `~`, which it binds like `+`.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let (op, precedence) = match parser.peek_token_ref().token {
            Token::Minus => (UnaryOperator::Minus, SIGN),
            Token::Plus => (UnaryOperator::Plus, SIGN),
            Token::Tilde => (UnaryOperator::BitwiseNot, OTHER),
            _ => return None,
        };
        parser.advance_token();
        let operand = parser.parse_subexpr(precedence);
        Some(operand.map(|operand| Expr::UnaryOp {
            op,
            expr: Box::new(operand),
        }))
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if let Some(problem) = refusal(parser, left, precedence) {
            return Some(Err(problem));
        }
        let negated = match parser.peek_token_ref().token {
            Token::Word(ref word) if word.keyword == Keyword::IS => {
                if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
                    false
                } else if parser.parse_keywords(&[
                    Keyword::IS,
                    Keyword::NOT,
                    Keyword::DISTINCT,
                    Keyword::FROM,
                ]) {
                    true
                } else {
                    return None;
                }
            }
            _ => return None,
        };
        let left = Box::new(left.clone());
        let distinct = parser.parse_subexpr(IS).map(Box::new);
        Some(distinct.map(|right| match negated {
            false => Expr::IsDistinctFrom(left, right),
            true => Expr::IsNotDistinctFrom(left, right),
        }))
    }
}

/// Why the next operator cannot follow what is on its left.
fn refusal(parser: &Parser<'_>, left: &Expr, precedence: u8) -> Option<ParserError> {
    let next = parser.peek_token_ref();
    match &next.token {
        Token::Caret => {
            let problem =
                "`^` is a power for some databases and XOR for others: write `x * x` for a power";
            return Some(error(problem, next));
        }
        Token::Word(word) if word.keyword == Keyword::XOR => {
            let problem = "`XOR` is not in PostgreSQL: write `a <> b` for two booleans";
            return Some(error(problem, next));
        }
        _ => {}
    }
    let chained = match precedence {
        COMPARISON => matches!(left, Expr::BinaryOp { op, .. } if is_comparison(op)),
        LIKE => matches!(
            left,
            Expr::Between { .. }
                | Expr::Like { .. }
                | Expr::ILike { .. }
                | Expr::SimilarTo { .. }
                | Expr::RLike { .. }
        ),
        IS => matches!(left, Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..)),
        _ => false,
    };
    chained.then(|| {
        let problem =
            format!("`{next}` cannot follow `{left}`: put parentheses around what comes first");
        error(&problem, next)
    })
}

/// An error with the place that sqlparser's own have.
fn error(problem: &str, at: &TokenWithSpan) -> ParserError {
    ParserError::ParserError(format!("{problem}{}", at.span.start))
}

/// Operators that match text by a pattern, which sqlparser reads as comparisons.
fn is_match(token: &Token) -> bool {
    matches!(
        token,
        Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk
    )
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Spaceship
    )
}
