//! Reads a tier list as it is written in SQL, `[{up_to: 1000, unit_amount: 0}, {unit_amount: 0.002}]`,
//! whose elements have different keys and types, into one constant.
//!
//! DataFusion gives an array's elements one type, and a struct without `flat_amount` has no type in
//! common with one that has it. So lists of such structs are read here, while the query is planned: the
//! result is a constant list of structs with all keys, each a DECIMAL with the most fraction digits
//! written under that key. A list whose tiers name columns, `[{up_to: 1000, unit_amount: r.first}, {unit_amount: r.second}]`,
//! becomes a list of each row in the same types.

use super::{error::TierError, keys::KEYS};
use crate::money::{DIGITS_MAX, Exact};
use arrow::{
    array::{ArrayRef, Decimal128Array, StructArray},
    datatypes::{DataType, Field},
};
use datafusion::{
    common::{DFSchema, ScalarValue, utils::SingleRowListArrayBuilder},
    error::{DataFusionError, Result as PlanResult},
    functions::core::expr_fn::named_struct,
    functions_nested::expr_fn::make_array,
    logical_expr::{
        Expr, ExprSchemable, cast,
        expr::ScalarFunction,
        lit,
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
        schema: &DFSchema,
    ) -> PlanResult<PlannerResult<Vec<Expr>>> {
        let Some(structs) = tier_structs(&elements) else {
            return Ok(PlannerResult::Original(elements));
        };
        let mut values = structs
            .iter()
            .flat_map(|parts| parts.iter().skip(1).step_by(2));
        if values.any(is_of_row) {
            return Ok(PlannerResult::Planned(list_of_rows(&structs, schema)?));
        }
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
    for (index, value) in places(tier, parts)? {
        row[index] = read_number(value).ok_or_else(|| TierError::Value {
            tier,
            key: KEYS[index].to_owned(),
            value: value.to_string(),
        })?;
    }
    Ok(row)
}

/// The values of one tier, each with the place of its key.
fn places(tier: usize, parts: &[Expr]) -> Result<Vec<(usize, &Expr)>, TierError> {
    let mut places: Vec<(usize, &Expr)> = Vec::new();
    for pair in parts.chunks(2) {
        let [key, value] = pair else { continue };
        let key = key_text(key).unwrap_or_default();
        let Some(index) = KEYS.iter().position(|known| *known == key) else {
            return Err(TierError::Key { tier, key });
        };
        if places.iter().any(|(known, _)| *known == index) {
            return Err(TierError::RepeatedKey { tier, key });
        }
        places.push((index, value));
    }
    Ok(places)
}

/// A value that each row has: a column, or a cast of one. Of anything else the type is not known before it is exact.
fn is_of_row(value: &Expr) -> bool {
    match value {
        Expr::Column(_) => true,
        Expr::Cast(cast) => is_of_row(&cast.expr),
        _ => false,
    }
}

/// A list with the same keys and types in every tier.
fn list_of_rows(structs: &[&[Expr]], schema: &DFSchema) -> PlanResult<Expr> {
    let mut scales: [Option<i8>; KEYS.len()] = [None; KEYS.len()];
    let mut rows = Vec::with_capacity(structs.len());
    for (tier, parts) in (1..).zip(structs) {
        let mut row: [Option<&Expr>; KEYS.len()] = [None; KEYS.len()];
        for (index, value) in places(tier, parts)? {
            let data_type = value.get_type(schema)?;
            let is_number = is_of_row(value) || read_number(value).is_some();
            let scale = scale_of(&data_type).filter(|_| is_number);
            let scale = scale.ok_or_else(|| TierError::Value {
                tier,
                key: KEYS[index].to_owned(),
                value: value.to_string(),
            })?;
            scales[index] = scales[index].max(Some(scale));
            row[index] = Some(value);
        }
        rows.push(row);
    }
    let tiers = rows.iter().map(|row| {
        let keys = KEYS.iter().zip(&scales).zip(row);
        let parts = keys.filter_map(|((key, scale), value)| {
            let data_type = DataType::Decimal128(DIGITS_MAX, (*scale)?);
            let value = value.map_or(Expr::Literal(ScalarValue::Null, None), Clone::clone);
            Some([lit(*key), cast(value, data_type)])
        });
        named_struct(parts.flatten().collect())
    });
    Ok(make_array(tiers.collect()))
}

fn scale_of(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal128(_, scale) if *scale >= 0 => Some(*scale),
        other => (other.is_integer() || other == &DataType::Null).then_some(0),
    }
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
        Expr::Literal(number, _) if super::keys::is_exact(&number.data_type()) => {
            Exact::from_array(&number.to_array().ok()?, 0).ok()
        }
        Expr::Negative(inner) => {
            let number = read_number(inner)??;
            Exact::ZERO.checked_sub(number).ok().map(Some)
        }
        _ => None,
    }
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
