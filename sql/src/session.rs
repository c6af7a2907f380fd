//! The one SessionContext recipe: exact decimals, our functions, limits on what SQL may do.

use crate::{aggregates, functions};
use datafusion::prelude::{SessionConfig, SessionContext};

/// A session in which `0.10` is exact and every aggregate and pricing function is ours.
pub fn context() -> SessionContext {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    aggregates::register(&context);
    functions::register(&context);
    context
}
