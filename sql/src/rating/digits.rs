//! Which factor of a price to cast, where a product or a sum of products has more digits than a decimal.
//!
//! A product that does not fit while it is evaluated says so itself. One whose type has too many digits after the point is refused
//! before, and a sum knows nothing of products: for both, the factors are found in the text of the price, and their digits in
//! the columns of what the price reads.

use super::refused_at;
use crate::{
    datafusion_messages::Said,
    definitions::PriceDefinition,
    error::{Error, Location},
    meter::each_expression,
    parser::Sql,
    session::products::{Factor, TooManyDigits, digits_of, sum},
};
use datafusion::{
    error::DataFusionError,
    prelude::SessionContext,
    sql::sqlparser::{
        ast::{
            BinaryOperator, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr,
            FunctionArguments, Spanned, Value,
        },
        parser::Parser,
    },
};
use std::collections::BTreeMap;

/// Digits before and after the point of numbers, by the names of their columns.
type Columns = BTreeMap<String, (u8, u8)>;

/// How many digits a decimal has, and how many of them after the point leave a sum of amounts room.
const DIGITS: u32 = 38;
const ROOMY_DIGITS: u32 = 20;

/// What there is to say where an error is that a number has too many digits; `None` where it is another.
pub(super) async fn too_many(
    context: &SessionContext,
    price: &PriceDefinition,
    error: &DataFusionError,
) -> Option<TooManyDigits> {
    match error.find_root() {
        DataFusionError::External(own) => own.downcast_ref::<TooManyDigits>().cloned(),
        DataFusionError::Plan(message) if is_too_fine(message) => {
            let factors = finest_product(price, &columns(context).await, DIGITS)?;
            Some(TooManyDigits::in_type(&factors))
        }
        DataFusionError::Execution(message) if message.starts_with(SUM_OVERFLOW) => {
            let factors = finest_product(price, &columns(context).await, ROOMY_DIGITS)?;
            Some(TooManyDigits::in_sum(&factors))
        }
        _ => None,
    }
}

/// How our sum begins when it says that it does not fit.
const SUM_OVERFLOW: &str = "sum overflow";

fn is_too_fine(message: &str) -> bool {
    Said::of(message) == Said::TooFine || message.contains("digits after the point")
}

/// The same as an error at the factor.
pub(super) fn refusal(price: &PriceDefinition, fault: TooManyDigits) -> Error {
    let at = place(price, &fault);
    refused_at(price, at, fault.problem, fault.hint)
}

/// Where the factor is that is to be cast; where the query begins, if that is not known.
pub(super) fn place(price: &PriceDefinition, fault: &TooManyDigits) -> Location {
    let at = fault
        .at
        .map(|(line, column)| price.query_at.within(line, column));
    at.unwrap_or_else(|| price.query_at.clone())
}

/// The columns with numbers of all relations that a price may read; of several of one name the finest.
async fn columns(context: &SessionContext) -> Columns {
    let mut columns = Columns::new();
    for relation in super::purity::relations(context) {
        let Ok(table) = context.table_provider(relation.as_str()).await else {
            continue;
        };
        for field in table.schema().fields() {
            let is_number = field.data_type().is_integer() || field.data_type().is_decimal();
            let digits = digits_of(field.data_type());
            let known = columns.get(field.name());
            if is_number && known.is_none_or(|known| known.1 < digits.1) {
                columns.insert(field.name().clone(), digits);
            }
        }
    }
    columns
}

/// The factors of the product with the most digits after the point in the text of a price, if it has more than so many.
fn finest_product(price: &PriceDefinition, columns: &Columns, most: u32) -> Option<Vec<Factor>> {
    let statements = Parser::parse_sql(&Sql, &price.query).ok()?;
    let mut finest: Option<Vec<Factor>> = None;
    each_expression(&statements, |expr| {
        let mut factors = Vec::new();
        if is_product(expr) {
            add_factors(expr, columns, &mut factors);
        }
        let known = finest.as_deref().map_or(most, sum);
        if sum(&factors) > known {
            finest = Some(factors);
        }
    });
    finest
}

fn is_product(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp {
            op: BinaryOperator::Multiply,
            ..
        }
    )
}

fn add_factors(expr: &Expr, columns: &Columns, factors: &mut Vec<Factor>) {
    match expr {
        Expr::Nested(inner) if is_product(inner) => add_factors(inner, columns, factors),
        Expr::BinaryOp { left, op, right } if *op == BinaryOperator::Multiply => {
            add_factors(left, columns, factors);
            add_factors(right, columns, factors);
        }
        other => {
            let start = other.span().start;
            let (whole, scale) = digits(other, columns);
            factors.push(Factor {
                text: other.to_string(),
                at: (start.line > 0).then_some((start.line, start.column)),
                whole,
                scale,
            });
        }
    }
}

/// Digits before and after the point of an expression, as far as its text tells.
fn digits(expr: &Expr, columns: &Columns) -> (u8, u8) {
    let of_column = |name: &str| columns.get(&name.to_lowercase()).copied();
    let found = match expr {
        Expr::Identifier(name) => of_column(&name.value),
        Expr::CompoundIdentifier(parts) => parts.last().and_then(|name| of_column(&name.value)),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                let digits = |part: &str| u8::try_from(part.len()).ok();
                digits(whole).zip(digits(fraction))
            }
            _ => None,
        },
        Expr::Cast { data_type, .. } => digits_of_cast(data_type),
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => Some(digits(inner, columns)),
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => list.args.iter().find_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => {
                    Some(digits(argument, columns))
                }
                _ => None,
            }),
            _ => None,
        },
        _ => None,
    };
    found.unwrap_or((19, 0))
}

fn digits_of_cast(data_type: &DataType) -> Option<(u8, u8)> {
    let (DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info)) = data_type
    else {
        return None;
    };
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => {
            (*precision, u64::try_from(*scale).ok()?)
        }
    };
    let whole = u8::try_from(precision.checked_sub(scale)?).ok()?;
    Some((whole, u8::try_from(scale).ok()?))
}
