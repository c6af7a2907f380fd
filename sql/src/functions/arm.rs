//! `arm(key, salt, n)`: the arm of a price experiment that a key is in, a whole number from 0 to n - 1.
//!
//! The same key, salt and n give the same arm on every machine and in every version; another salt deals the keys
//! anew. The arm is `h · n / 2^64`, cut to a whole number, where h is the 64-bit XXH3 of the salt's length in
//! bytes (8 bytes, little endian), the salt and the key. Each arm has the same share of all keys, to 1 in 2^64 / n.

use super::{
    call::{evaluated, signature},
    error::FunctionError,
};
use crate::money::Exact;
use arrow::{
    array::{Array, AsArray, Int64Array},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    common::cast::as_string_array,
    error::Result as PlanResult,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3Default;

const NAME: &str = "arm";

/// The arm of a key.
///
/// # Errors
/// [`FunctionError::Range`] for less than one arm.
pub fn arm(key: &str, salt: &str, n: i64) -> Result<i64, FunctionError> {
    let arms = u64::try_from(n).ok().filter(|arms| *arms > 0);
    let arms = arms.ok_or_else(|| FunctionError::Range {
        function: NAME,
        argument: "n",
        value: Exact::from(n),
        wanted: "1 or more",
    })?;
    let mut hash = Xxh3Default::new();
    let length = u64::try_from(salt.len()).unwrap_or(u64::MAX);
    hash.update(&length.to_le_bytes());
    hash.update(salt.as_bytes());
    hash.update(key.as_bytes());
    let dealt = (u128::from(hash.digest()) * u128::from(arms)) >> 64_u32;
    Ok(i64::try_from(dealt).expect("it is below n, which is an i64"))
}

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(Arm {
        signature: signature(["key", "salt", "n"].into_iter()),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arm {
    signature: Signature,
}

impl ScalarUDFImpl for Arm {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, given: &[DataType]) -> PlanResult<Vec<DataType>> {
        let [key, salt, n] = given else {
            return Err(FunctionError::Count {
                function: NAME,
                takes: "(key, salt, n)".to_owned(),
                given: given.len(),
            }
            .into());
        };
        for (argument, given) in [("key", key), ("salt", salt)] {
            if !given.is_string() && !given.is_null() {
                return Err(FunctionError::Type {
                    function: NAME,
                    argument,
                    given: given.clone(),
                    wanted: "text, such as `customer` or 'spring prices'",
                }
                .into());
            }
        }
        if !n.is_integer() && !n.is_null() {
            return Err(FunctionError::Type {
                function: NAME,
                argument: "n",
                given: n.clone(),
                wanted: "a whole number, the number of arms",
            }
            .into());
        }
        Ok(vec![DataType::Utf8, DataType::Utf8, DataType::Int64])
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        evaluated(&call, |rows| {
            let columns = ColumnarValue::values_to_arrays(&call.args)?;
            let (keys, salts) = (as_string_array(&columns[0])?, as_string_array(&columns[1])?);
            let counts = columns[2].as_primitive::<Int64Type>();
            let dealt = (0..rows).map(|row| {
                if keys.is_null(row) || salts.is_null(row) || counts.is_null(row) {
                    return Ok(None);
                }
                arm(keys.value(row), salts.value(row), counts.value(row)).map(Some)
            });
            let dealt: Int64Array = dealt.collect::<Result<Vec<_>, _>>()?.into();
            Ok(Arc::new(dealt))
        })
    }
}
