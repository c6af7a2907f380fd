//! The one SessionContext recipe: exact decimals, our functions, limits on what SQL may do.
//!
//! Three rules make a number in SQL exact or an error:
//! * a literal such as `0.10` is a decimal;
//! * `+ - *` over integers and decimals give a decimal and never wrap; `/`, `%` and `<<`, which lose
//!   digits, are refused (see [`arithmetic`]);
//! * the aggregates are those of [`crate::aggregates`].

use crate::{aggregates, functions};
use datafusion::{
    execution::{FunctionRegistry, context::SQLOptions},
    prelude::{SessionConfig, SessionContext},
};
use std::sync::Arc;

pub mod arithmetic;

/// A session in which `0.10` is exact and every aggregate and pricing function is ours.
pub fn context() -> SessionContext {
    context_with(SessionConfig::new())
}

/// The same with other settings, except those that exactness depends on.
pub(crate) fn context_with(mut config: SessionConfig) -> SessionContext {
    let parser = &mut config.options_mut().sql_parser;
    parser.parse_float_as_decimal = true;
    parser.map_string_types_to_utf8view = false;
    parser.collect_spans = true;
    let mut context = SessionContext::new_with_config(config);
    context
        .register_function_rewrite(Arc::new(arithmetic::ExactArithmetic))
        .expect("a session's analyzer takes function rewrites");
    aggregates::register(&context);
    functions::register(&context);
    context
}

/// What a user's SQL may do: read. DDL, DML, COPY, SET and the like are refused; pass this to
/// [`SessionContext::sql_with_options`].
pub fn read_only_options() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

#[cfg(test)]
mod tests;
