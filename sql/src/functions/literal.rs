//! Reads a tier list as it is written in SQL, `[{up_to: 1000, unit_amount: 0}, {unit_amount: 0.002}]`,
//! whose elements have different keys and types, into one constant.
//!
//! DataFusion gives an array's elements one type, and a struct without `flat_amount` has no type in
//! common with one that has it. So lists of such structs are read here, while the query is planned: the
//! result is a constant list of structs with all keys, each a DECIMAL with the most fraction digits
//! written under that key.

use super::{error::TierError, keys::KEYS};
use crate::money::{DIGITS_MAX, Exact};
use arrow::{
    array::{ArrayRef, Decimal128Array, StructArray},
    datatypes::{DataType, Field},
};
use datafusion::{
    common::{DFSchema, ScalarValue, utils::SingleRowListArrayBuilder},
    error::{DataFusionError, Result as PlanResult},
    logical_expr::{
        Expr,
        expr::ScalarFunction,
        planner::{ExprPlanner, PlannerResult},
    },
};
use std::sync::Arc;

/// One tier as written: a number or NULL under each of [`KEYS`].
type Row = [Option<Exact>; KEYS.len()];

/// Turns array literals of tiers into constants; leaves other arrays alone.
#[derive(Debug)]
pub(super) struct TierListPlanner;

impl ExprPlanner for TierListPlanner {
    fn plan_array_literal(
        &self,
        elements: Vec<Expr>,
        _: &DFSchema,
    ) -> PlanResult<PlannerResult<Vec<Expr>>> {
        let Some(structs) = tier_structs(&elements) else {
            return Ok(PlannerResult::Original(elements));
        };
        let rows: Vec<Row> = (1..)
            .zip(structs)
            .map(read_tier)
            .collect::<Result<_, _>>()?;
        let list = SingleRowListArrayBuilder::new(tier_array(&rows)?).build_list_scalar();
        Ok(PlannerResult::Planned(Expr::Literal(list, None)))
    }
}

/// The elements' keys and values in turn, if all are structs and any has a key that tiers have.
fn tier_structs(elements: &[Expr]) -> Option<Vec<&[Expr]>> {
    let structs: Vec<&[Expr]> = elements.iter().map(struct_parts).collect::<Option<_>>()?;
    let keys = structs.iter().flat_map(|parts| parts.iter().step_by(2));
    let known = keys
        .filter_map(key_text)
        .any(|key| KEYS.contains(&key.as_str()));
    known.then_some(structs)
}

fn struct_parts(element: &Expr) -> Option<&[Expr]> {
    match element {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "named_struct" => {
            Some(args)
        }
        _ => None,
    }
}

/// Reads one tier; tiers are counted from 1.
fn read_tier((tier, parts): (usize, &[Expr])) -> Result<Row, TierError> {
    let mut row: Row = [None; KEYS.len()];
    let mut seen = [false; KEYS.len()];
    for pair in parts.chunks(2) {
        let [key, value] = pair else { continue };
        let key = key_text(key).unwrap_or_default();
        let Some(index) = KEYS.iter().position(|known| *known == key) else {
            return Err(TierError::Key { tier, key });
        };
        if std::mem::replace(&mut seen[index], true) {
            return Err(TierError::RepeatedKey { tier, key });
        }
        row[index] = read_number(value).ok_or_else(|| TierError::Value {
            tier,
            key,
            value: value.to_string(),
        })?;
    }
    Ok(row)
}

/// A key in lower case, as SQL folds names.
fn key_text(key: &Expr) -> Option<String> {
    match key {
        Expr::Literal(value, _) => Some(value.try_as_str()??.to_ascii_lowercase()),
        _ => None,
    }
}

/// A number or NULL (`Some(None)`) as written; `None` for anything else.
fn read_number(value: &Expr) -> Option<Option<Exact>> {
    match value {
        Expr::Literal(ScalarValue::Null, _) => Some(None),
        Expr::Literal(number, _) if is_exact(&number.data_type()) => {
            Exact::from_array(&number.to_array().ok()?, 0).ok()
        }
        Expr::Negative(inner) => {
            let number = read_number(inner)??;
            Exact::ZERO.checked_sub(number).ok().map(Some)
        }
        _ => None,
    }
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

/// The tiers as one array of structs, each key with the scale it needs.
fn tier_array(rows: &[Row]) -> PlanResult<ArrayRef> {
    let columns = KEYS.iter().enumerate().map(|(index, key)| {
        let numbers: Vec<Option<Exact>> = rows.iter().map(|row| row[index]).collect();
        let column = decimal_column(key, &numbers)?;
        let field = Field::new(*key, arrow::array::Array::data_type(&column).clone(), true);
        Ok((Arc::new(field), Arc::new(column) as ArrayRef))
    });
    let columns: Vec<_> = columns.collect::<PlanResult<_>>()?;
    Ok(Arc::new(StructArray::from(columns)))
}

fn decimal_column(key: &'static str, numbers: &[Option<Exact>]) -> PlanResult<Decimal128Array> {
    let scale = numbers
        .iter()
        .flatten()
        .map(|number| number.scale)
        .max()
        .unwrap_or(0);
    let digits = numbers
        .iter()
        .map(|number| number.map(|n| n.digits_at(scale)).transpose());
    let digits: Vec<Option<i128>> = digits
        .collect::<Result<_, _>>()
        .map_err(|source| TierError::Digits { key, source })?;
    let scale = i8::try_from(scale).map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(Decimal128Array::from(digits).with_precision_and_scale(DIGITS_MAX, scale)?)
}
