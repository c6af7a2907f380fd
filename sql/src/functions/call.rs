//! Makes a SQL function of a pricing rule: names and types of arguments, NULLs, scales, columns.

use super::{error::FunctionError, keys::sample};
use crate::money::{DIGITS_MAX, Exact};
use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal128Builder},
    datatypes::{DataType, Decimal128Type, Field, FieldRef},
    row::{RowConverter, SortField},
};
use datafusion::{
    common::ScalarValue,
    error::Result as PlanResult,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TypeSignature, Volatility,
    },
};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
};

/// The most fraction digits a result has: quantities to 9 and unit prices to 18 stay whole, and leave
/// 11 digits before the point. An amount with more fraction digits than this is an error, never rounded.
pub const SCALE_MAX: u8 = 27;

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any integer or decimal, per row.
    Number,
    /// A whole number, written in the query.
    Whole,
    /// A list of tiers, written in the query or of each row.
    Tiers,
    /// The same with rates in percent.
    Rates,
    /// The same of blocks.
    Blocks,
    /// TRUE or FALSE, written in the query.
    Flag,
    /// Text, written in the query.
    Text,
}

impl Kind {
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Kind::Number => "an integer or DECIMAL: CAST it to DECIMAL(38, 9), say",
            Kind::Tiers => "[{up_to: 1000, unit_amount: 0.01}, {up_to: NULL, unit_amount: 0.005}]",
            Kind::Whole => "a whole number, such as 2",
            Kind::Rates => {
                "[{up_to: 1000, rate_percent: 1.5}, {up_to: NULL, rate_percent: 0.9, flat_amount: 2}]"
            }
            Kind::Blocks => {
                "[{block_size: 100, block_amount: 1.50, max_blocks: 10}, {block_size: 1000, block_amount: 8}]"
            }
            Kind::Flag => "TRUE or FALSE",
            Kind::Text => "text in quotes",
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Kind::Tiers | Kind::Rates | Kind::Blocks)
    }

    fn accepts(self, given: &DataType) -> bool {
        match self {
            Kind::Number => number_type(given).is_some(),
            Kind::Whole => given.is_integer(),
            Kind::Tiers | Kind::Rates | Kind::Blocks => matches!(given, DataType::List(_)),
            Kind::Flag => given == &DataType::Boolean,
            Kind::Text => given.is_string(),
        }
    }
}

/// What a function takes, by the names of its arguments; it checks their types itself.
pub(super) fn signature(names: impl Iterator<Item = &'static str>) -> Signature {
    Signature {
        type_signature: TypeSignature::UserDefined,
        volatility: Volatility::Immutable,
        parameter_names: Some(names.map(str::to_owned).collect()),
    }
}

/// Evaluates a function over its rows, or once where all arguments are constants. `answer` is given how many rows there are.
pub(super) fn evaluated(
    call: &ScalarFunctionArgs,
    answer: impl FnOnce(usize) -> PlanResult<ArrayRef>,
) -> PlanResult<ColumnarValue> {
    let mut arguments = call.args.iter();
    if arguments.all(|argument| matches!(argument, ColumnarValue::Scalar(_))) {
        return ScalarValue::try_from_array(&answer(1)?, 0).map(ColumnarValue::Scalar);
    }
    answer(call.number_rows).map(ColumnarValue::Array)
}

/// Refuses a number below zero.
pub(super) fn check_not_negative(
    function: &'static str,
    argument: &'static str,
    value: Exact,
) -> Result<(), FunctionError> {
    match value.is_negative() {
        false => Ok(()),
        true => Err(FunctionError::Range {
            function,
            argument,
            value,
            wanted: "0 or more",
        }),
    }
}

/// A pricing rule as a SQL function sees it.
pub(super) trait Model: Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// The SQL name.
    const NAME: &'static str;
    /// Its arguments in order; those after the first [`Self::REQUIRED`] may be left out.
    const ARGUMENTS: &'static [(&'static str, Kind)];
    /// How many arguments there must be.
    const REQUIRED: usize;
    /// What the constants in the query say, read and checked once.
    type Terms;

    /// Reads and checks the constants.
    fn terms(&self, constants: &Constants<'_>) -> Result<Self::Terms, FunctionError>;

    /// Fraction digits of the result, from those of the numbers.
    fn scale(terms: &Self::Terms, scales: &[u8]) -> u8;

    /// The amount for one row's numbers, none of which is NULL.
    fn amount(terms: &Self::Terms, numbers: &[Exact]) -> Result<Exact, FunctionError>;
}

/// The arguments that are known when a query is planned; the others are `None`.
pub(super) struct Constants<'a> {
    function: &'static str,
    arguments: &'static [(&'static str, Kind)],
    values: Vec<Option<&'a ScalarValue>>,
}

impl Constants<'_> {
    /// The constant at `index`; `None` when the argument was left out.
    ///
    /// # Errors
    /// [`FunctionError::Constant`] when it was given but is not a constant, or is NULL.
    pub(super) fn required(&self, index: usize) -> Result<Option<&ScalarValue>, FunctionError> {
        match self.values.get(index) {
            None => Ok(None),
            Some(Some(value)) if !value.is_null() => Ok(Some(value)),
            Some(_) => Err(self.not_constant(index)),
        }
    }

    /// The number at `index`, if it is a constant that can be read before it is coerced.
    pub(super) fn number(&self, index: usize) -> Option<Exact> {
        let column = (*self.values.get(index)?)?.to_array().ok()?;
        Exact::from_array(&column, 0).ok()?
    }

    /// The text at `index`, which is no constant where it is left out.
    pub(super) fn text(&self, index: usize) -> Result<&str, FunctionError> {
        let text = self.required(index)?.and_then(|value| value.try_as_str());
        text.flatten().ok_or_else(|| self.not_constant(index))
    }

    /// The whole number at `index`, within a range.
    pub(super) fn whole(
        &self,
        index: usize,
        range: std::ops::RangeInclusive<i8>,
        wanted: &'static str,
    ) -> Result<i8, FunctionError> {
        let value = self.required(index)?;
        let value = value.ok_or_else(|| self.not_constant(index))?;
        let column = value.to_array().ok();
        let number = column.and_then(|column| Exact::from_array(&column, 0).ok().flatten());
        number
            .and_then(|number| i8::try_from(number.digits).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.refused(index, value.to_string(), wanted))
    }

    /// The error that a value is not one of those that the argument may have.
    pub(super) fn refused(
        &self,
        index: usize,
        value: String,
        wanted: &'static str,
    ) -> FunctionError {
        FunctionError::Choice {
            function: self.function,
            argument: self.arguments[index].0,
            value,
            wanted,
        }
    }

    fn not_constant(&self, index: usize) -> FunctionError {
        let (argument, kind) = self.arguments[index];
        FunctionError::Constant {
            function: self.function,
            argument,
            wanted: kind.wanted(),
        }
    }
}

/// The SQL function of a model.
pub(super) fn function<M: Model>(model: M) -> ScalarUDF {
    ScalarUDF::from(Function {
        signature: signature(M::ARGUMENTS.iter().map(|(name, _)| *name)),
        model,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function<M> {
    signature: Signature,
    model: M,
}

impl<M: Model> ScalarUDFImpl for Function<M> {
    fn name(&self) -> &str {
        M::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        datafusion::common::internal_err!("{} needs its arguments to know its type", M::NAME)
    }

    /// Leaves what is wrong as it is, so that [`Self::return_field_from_args`] can say why.
    fn coerce_types(&self, given: &[DataType]) -> PlanResult<Vec<DataType>> {
        let kinds = M::ARGUMENTS.iter().map(|(_, kind)| Some(*kind));
        let pairs = given.iter().zip(kinds.chain(std::iter::repeat(None)));
        let coerced = pairs.map(|(given, kind)| match kind {
            Some(Kind::Number) => number_type(given).unwrap_or_else(|| given.clone()),
            Some(_) | None => given.clone(),
        });
        Ok(coerced.collect())
    }

    fn return_field_from_args(&self, call: ReturnFieldArgs<'_>) -> PlanResult<FieldRef> {
        let types: Vec<&DataType> = call.arg_fields.iter().map(|f| f.data_type()).collect();
        check_arguments::<M>(&types)?;
        // A list that is known row by row says its keys and digits by its type.
        let lists = M::ARGUMENTS.iter().zip(&types).zip(call.scalar_arguments);
        let lists = lists.map(|(((_, kind), given), value)| match value {
            None if kind.is_list() => sample(given),
            _ => None,
        });
        let lists: Vec<Option<ScalarValue>> = lists.collect();
        let values = call.scalar_arguments.iter().zip(&lists);
        let values = values.map(|(value, list)| value.or(list.as_ref()));
        let terms = self.model.terms(&constants::<M>(values.collect()))?;
        let scale = M::scale(&terms, &scales::<M>(&types)).min(SCALE_MAX);
        let data_type = decimal(scale);
        Ok(Arc::new(Field::new(M::NAME, data_type, true)))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        evaluated(&call, |rows| {
            let terms = Terms::of(&self.model, &call.args)?;
            let columns = number_columns::<M>(&call.args, rows)?;
            let amounts = amounts::<M>(&terms, &columns, rows, call.return_type())?;
            Ok(Arc::new(amounts))
        })
    }
}

/// What constants say, and lists of tiers that each row has.
struct Terms<M: Model> {
    /// One of all rows, or of each list that is another.
    terms: Vec<M::Terms>,
    /// Of each row, its place in `terms`; `None` when all rows have the first. A row without a list has no place.
    of_rows: Option<Vec<Option<usize>>>,
}

impl<M: Model> Terms<M> {
    fn of(model: &M, arguments: &[ColumnarValue]) -> PlanResult<Self> {
        let scalar = |argument: &'_ ColumnarValue| match argument {
            ColumnarValue::Scalar(value) => Some(value.clone()),
            ColumnarValue::Array(_) => None,
        };
        let mut values: Vec<Option<ScalarValue>> = arguments.iter().map(scalar).collect();
        let mut kinds = M::ARGUMENTS.iter().zip(arguments);
        let list_at = kinds.position(|((_, kind), argument)| {
            kind.is_list() && matches!(argument, ColumnarValue::Array(_))
        });
        let Some((list_at, ColumnarValue::Array(lists))) =
            list_at.map(|list_at| (list_at, &arguments[list_at]))
        else {
            let values = values.iter().map(Option::as_ref).collect();
            let terms = model.terms(&constants::<M>(values))?;
            return Ok(Self {
                terms: vec![terms],
                of_rows: None,
            });
        };
        // Many rows have few lists: each is read and checked once.
        let converter = RowConverter::new(vec![SortField::new(lists.data_type().clone())])?;
        let bytes = converter.convert_columns(&[Arc::clone(lists)])?;
        let (mut known, mut terms) = (HashMap::new(), Vec::new());
        let mut of_rows = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            if lists.is_null(row) {
                of_rows.push(None);
                continue;
            }
            let place = match known.entry(bytes.row(row).data().to_vec()) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(new) => {
                    values[list_at] = Some(ScalarValue::try_from_array(lists, row)?);
                    let of_row = values.iter().map(Option::as_ref).collect();
                    terms.push(model.terms(&constants::<M>(of_row))?);
                    *new.insert(terms.len() - 1)
                }
            };
            of_rows.push(Some(place));
        }
        Ok(Self {
            terms,
            of_rows: Some(of_rows),
        })
    }

    fn of_row(&self, row: usize) -> Option<&M::Terms> {
        match &self.of_rows {
            None => self.terms.first(),
            Some(places) => self.terms.get((*places.get(row)?)?),
        }
    }
}

/// Evaluates the model row by row.
fn amounts<M: Model>(
    terms: &Terms<M>,
    columns: &[(Decimal128Array, i8)],
    rows: usize,
    data_type: &DataType,
) -> PlanResult<Decimal128Array> {
    let scale = scale_of(data_type);
    let mut numbers = Vec::with_capacity(columns.len());
    let mut amounts = Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone());
    let fail = |source| FunctionError::Amount {
        function: M::NAME,
        source,
    };
    for row in 0..rows {
        let terms = match terms.of_row(row) {
            Some(terms) if columns.iter().all(|(column, _)| column.is_valid(row)) => terms,
            _ => {
                amounts.append_null();
                continue;
            }
        };
        numbers.clear();
        for (column, scale) in columns {
            numbers.push(Exact::from_decimal(column.value(row), *scale).map_err(fail)?);
        }
        let amount = M::amount(terms, &numbers)?;
        amounts.append_value(amount.digits_at(scale).map_err(fail)?);
    }
    Ok(amounts.finish())
}

/// The number arguments as columns, with their scales.
fn number_columns<M: Model>(
    arguments: &[ColumnarValue],
    rows: usize,
) -> PlanResult<Vec<(Decimal128Array, i8)>> {
    let kinds = M::ARGUMENTS.iter().map(|(_, kind)| *kind);
    arguments
        .iter()
        .zip(kinds)
        .filter(|(_, kind)| *kind == Kind::Number)
        .map(|(argument, _)| {
            let column = argument.to_array(rows)?;
            let decimals = column.as_primitive_opt::<Decimal128Type>().ok_or_else(|| {
                datafusion::common::internal_datafusion_err!("{} was not coerced", M::NAME)
            })?;
            Ok((decimals.clone(), decimals.scale()))
        })
        .collect()
}

fn constants<M: Model>(values: Vec<Option<&ScalarValue>>) -> Constants<'_> {
    Constants {
        function: M::NAME,
        arguments: M::ARGUMENTS,
        values,
    }
}

fn check_arguments<M: Model>(types: &[&DataType]) -> Result<(), FunctionError> {
    if types.len() < M::REQUIRED || types.len() > M::ARGUMENTS.len() {
        return Err(FunctionError::Count {
            function: M::NAME,
            takes: usage::<M>(),
            given: types.len(),
        });
    }
    let wrong = M::ARGUMENTS
        .iter()
        .zip(types)
        .find(|((_, kind), given)| !kind.accepts(given));
    match wrong {
        None => Ok(()),
        Some((&(argument, kind), &given)) => Err(FunctionError::Type {
            function: M::NAME,
            argument,
            given: given.clone(),
            wanted: kind.wanted(),
        }),
    }
}

/// The arguments as a person writes them: `(quantity, tiers [, zero_usage_first_flat])`.
fn usage<M: Model>() -> String {
    let names: Vec<&str> = M::ARGUMENTS.iter().map(|(name, _)| *name).collect();
    let (required, optional) = names.split_at(M::REQUIRED);
    let optional: String = optional.iter().map(|name| format!(" [, {name}]")).collect();
    format!("({}{optional})", required.join(", "))
}

/// The Decimal128 that holds every value of a type of exact numbers; `None` for other types.
fn number_type(given: &DataType) -> Option<DataType> {
    Some(match given {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            DataType::Decimal128(19, 0)
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            DataType::Decimal128(20, 0)
        }
        DataType::Null => DataType::Decimal128(1, 0),
        DataType::Decimal128(_, scale) if *scale >= 0 => given.clone(),
        // A cast that does not fit is an error of the query.
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => {
            let scale = u8::try_from(*scale).unwrap_or(0);
            return (scale <= DIGITS_MAX).then(|| decimal(scale));
        }
        _ => return None,
    })
}

/// Scales of the number arguments, in order.
fn scales<M: Model>(types: &[&DataType]) -> Vec<u8> {
    let given = M::ARGUMENTS.iter().zip(types);
    let numbers = given.filter(|((_, kind), _)| *kind == Kind::Number);
    numbers.map(|(_, data_type)| scale_of(data_type)).collect()
}

fn scale_of(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Decimal128(_, scale) => u8::try_from(*scale).unwrap_or(0),
        _ => 0,
    }
}

fn decimal(scale: u8) -> DataType {
    // A scale is at most 38.
    DataType::Decimal128(DIGITS_MAX, i8::try_from(scale).unwrap_or(i8::MAX))
}
