//! What the price functions were given and what they made of it, tier by tier: for people who try a price.
//!
//! [`note_calls`] puts a layer around each function of a session that notes every call. The part of a tier is the
//! difference of two amounts of the function itself, at the tier's end and at the end of the one before, so
//! nothing here knows how a function counts.

use crate::money::Exact;
use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::Result as PlanResult,
    execution::FunctionRegistry,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    },
    prelude::SessionContext,
};
use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

/// The functions whose calls are noted.
const NOTED: &[&str] = &[
    "per_unit",
    "package",
    "graduated",
    "volume",
    "percentage",
    "graduated_percentage",
    "blocks",
    "prorate",
];

/// The functions with tiers that end at a quantity, and of these the ones in which each tier's part counts by itself.
pub const TIERED: &[&str] = &["graduated", "graduated_percentage", "volume"];
const ADDED_UP: &[&str] = &["graduated", "graduated_percentage"];

/// One call of a price function with numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// The function's SQL name.
    pub function: String,
    /// Its arguments as text; a list of tiers is `tiers`.
    pub arguments: Vec<String>,
    /// What it came to.
    pub amount: Exact,
    /// What each tier that the quantity reaches has to do with it, lowest first; none without tiers.
    pub tiers: Vec<TierPart>,
}

/// What is in one tier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TierPart {
    /// Where the tier begins; its first unit is beyond this.
    pub above: Exact,
    /// Where it ends, inclusive.
    pub up_to: Option<Exact>,
    /// How much of the quantity is priced by it.
    pub quantity: Exact,
    /// What that comes to.
    pub amount: Exact,
}

/// Calls that were noted, each once.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<BTreeSet<Called>>>);

impl Calls {
    /// All of them, by function and arguments.
    pub fn sorted(&self) -> Vec<Called> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().cloned().collect()
    }

    fn note(&self, called: Called) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(called);
    }
}

/// Notes from now on what the price functions of a session are called with.
pub fn note_calls(context: &SessionContext) -> Calls {
    let calls = Calls::default();
    for name in NOTED {
        if let Ok(function) = context.udf(name) {
            context.register_udf(ScalarUDF::from(Noted {
                function,
                calls: calls.clone(),
            }));
        }
    }
    calls
}

/// A function whose calls are noted.
#[derive(Debug)]
struct Noted {
    function: Arc<ScalarUDF>,
    calls: Calls,
}

impl PartialEq for Noted {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function && Arc::ptr_eq(&self.calls.0, &other.calls.0)
    }
}

impl Eq for Noted {}

impl Hash for Noted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for Noted {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> PlanResult<DataType> {
        self.function.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, call: ReturnFieldArgs<'_>) -> PlanResult<FieldRef> {
        self.function.return_field_from_args(call)
    }

    fn coerce_types(&self, given: &[DataType]) -> PlanResult<Vec<DataType>> {
        self.function.coerce_types(given)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = call.number_rows;
        let amounts = self.function.invoke_with_args(call.clone())?;
        for row in 0..rows {
            if let Some(called) = self.called(&call, &amounts, row)? {
                self.calls.note(called);
            }
        }
        Ok(amounts)
    }
}

impl Noted {
    /// What one row's call was; `None` where it has no amount.
    fn called(
        &self,
        call: &ScalarFunctionArgs,
        amounts: &ColumnarValue,
        row: usize,
    ) -> PlanResult<Option<Called>> {
        let arguments: Vec<ScalarValue> = call
            .args
            .iter()
            .map(|argument| at(argument, row))
            .collect::<PlanResult<_>>()?;
        let Some(amount) = exact(&at(amounts, row)?) else {
            return Ok(None);
        };
        let text = |argument: &ScalarValue| match (exact(argument), argument) {
            (Some(number), _) => number.to_string(),
            (None, ScalarValue::List(_)) => "tiers".to_owned(),
            (None, other) => match other.try_as_str().flatten() {
                Some(text) => format!("'{text}'"),
                None => other.to_string(),
            },
        };
        Ok(Some(Called {
            function: self.name().to_owned(),
            tiers: self.tiers(call, &arguments, amount)?,
            arguments: arguments.iter().map(text).collect(),
            amount,
        }))
    }

    fn tiers(
        &self,
        call: &ScalarFunctionArgs,
        arguments: &[ScalarValue],
        amount: Exact,
    ) -> PlanResult<Vec<TierPart>> {
        let tiers = arguments.iter().find_map(ends);
        let (Some(ends), Some(quantity)) = (tiers, arguments.first().and_then(exact)) else {
            return Ok(Vec::new());
        };
        if !TIERED.contains(&self.name()) || quantity <= Exact::ZERO {
            return Ok(Vec::new());
        }
        let adds_up = ADDED_UP.contains(&self.name());
        let mut parts = Vec::new();
        let (mut above, mut before) = (Exact::ZERO, Exact::ZERO);
        for up_to in ends {
            let end = up_to.map_or(quantity, |up_to| up_to.min(quantity));
            let is_last = end == quantity;
            if adds_up {
                let so_far = match is_last {
                    true => Some(amount),
                    false => self.amount_of(call, arguments, end)?,
                };
                let Some(so_far) = so_far else {
                    return Ok(Vec::new());
                };
                let (Ok(quantity), Ok(amount)) =
                    (end.checked_sub(above), so_far.checked_sub(before))
                else {
                    return Ok(Vec::new());
                };
                parts.push(TierPart {
                    above,
                    up_to,
                    quantity,
                    amount,
                });
                before = so_far;
            } else if is_last {
                parts.push(TierPart {
                    above,
                    up_to,
                    quantity,
                    amount,
                });
            }
            if is_last {
                break;
            }
            above = end;
        }
        Ok(parts)
    }

    /// The amount of another quantity; `None` where the quantity does not fit its argument.
    fn amount_of(
        &self,
        call: &ScalarFunctionArgs,
        arguments: &[ScalarValue],
        quantity: Exact,
    ) -> PlanResult<Option<Exact>> {
        let mut arguments = arguments.to_vec();
        let Some(DataType::Decimal128(precision, scale)) =
            arguments.first().map(ScalarValue::data_type)
        else {
            return Ok(None);
        };
        let Ok(digits) = quantity.digits_at(u8::try_from(scale).unwrap_or(0)) else {
            return Ok(None);
        };
        arguments[0] = ScalarValue::Decimal128(Some(digits), precision, scale);
        let call = ScalarFunctionArgs {
            args: arguments.into_iter().map(ColumnarValue::Scalar).collect(),
            number_rows: 1,
            ..call.clone()
        };
        let amount = self.function.invoke_with_args(call)?;
        Ok(exact(&at(&amount, 0)?))
    }
}

fn at(value: &ColumnarValue, row: usize) -> PlanResult<ScalarValue> {
    match value {
        ColumnarValue::Scalar(value) => Ok(value.clone()),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(values, row),
    }
}

fn exact(value: &ScalarValue) -> Option<Exact> {
    let column = value.to_array().ok()?;
    Exact::from_array(&column, 0).ok().flatten()
}

/// Where each tier of a list ends; `None` for other values and for tiers that do not say.
fn ends(value: &ScalarValue) -> Option<Vec<Option<Exact>>> {
    let ScalarValue::List(list) = value else {
        return None;
    };
    if list.len() != 1 || list.is_null(0) {
        return None;
    }
    let tiers = list.value(0);
    let ends = tiers.as_struct_opt()?.column_by_name("up_to")?;
    (0..ends.len())
        .map(|tier| Exact::from_array(ends, tier).ok())
        .collect()
}
