//! Arithmetic that is exact or an error.
//!
//! DataFusion's integer `+ - *` wrap, its decimal products may hold more digits than their type, and
//! its division truncates. So before a query is typed, [`ExactArithmetic`] replaces the operators:
//!
//! | written | becomes | result |
//! |---|---|---|
//! | `a + b`, `a - b` | `exact_add`, `exact_subtract` | DECIMAL(max integer digits + max scale + 1, max scale) |
//! | `a * b` | `exact_multiply` | DECIMAL(p1 + p2 + 1, s1 + s2) |
//! | `-a` | `exact_subtract(0, a)` | as above |
//! | `a / b`, `a % b`, `a << b`, `a >> b` | refused | |
//!
//! Operations from left to right are one call: `a + b - c` is `exact_add_subtract(a, b, c)`, with the types and the rounding of
//! each step. What DataFusion does for a call costs the length of everything in it, so calls within calls cost its cube.
//!
//! BIGINT counts as DECIMAL(19, 0). Precision is capped at 38 digits, and a value that needs more is
//! an error. Operators over dates, times, intervals and floats are left as they are. A list that holds more than
//! constants becomes comparisons.

use super::products::{Factor, TooManyDigits, Written, digits_of};
use arrow::{
    array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Scalar},
    compute::{cast, kernels::numeric},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type, i256},
};
use datafusion::{
    common::{
        DFSchema, Result, ScalarValue, config::ConfigOptions, plan_err, tree_node::Transformed,
    },
    error::DataFusionError,
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr::InList, expr_rewriter::FunctionRewrite, lit,
    },
};
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Replaces arithmetic operators over numbers by exact functions.
#[derive(Debug)]
pub struct ExactArithmetic;

impl FunctionRewrite for ExactArithmetic {
    fn name(&self) -> &str {
        "exact_arithmetic"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(binary) => rewrite_binary(binary, schema),
            Expr::Negative(inner) if is_exact(&inner.get_type(schema)?) => Ok(Transformed::yes(
                then(lit(0_i64), Operation::Subtract, *inner),
            )),
            // DataFusion 55 takes two lists over one value apart as if they held constants only: it reads
            // `1 NOT IN (b, c) AND 1 IN (b, 1)` as true whatever b is.
            Expr::InList(list) if list.list.iter().any(|e| !matches!(e, Expr::Literal(..))) => {
                Ok(Transformed::yes(in_words(list)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// `x IN (a, b)` as `x = a OR x = b`, which is what it means, NULL included.
fn in_words(list: InList) -> Expr {
    let InList {
        expr,
        list,
        negated,
    } = list;
    let equal = list
        .into_iter()
        .map(|element| expr.as_ref().clone().eq(element));
    let is_in = any_of(equal.collect()).unwrap_or_else(|| lit(false));
    match negated {
        true => !is_in,
        false => is_in,
    }
}

/// Conditions joined by OR, none of them deeper than it must be: each level costs a pass over all that is in it.
fn any_of(mut conditions: Vec<Expr>) -> Option<Expr> {
    let second = conditions.split_off(conditions.len().div_ceil(2));
    match (conditions.len(), second.is_empty()) {
        (_, false) => Some(any_of(conditions)?.or(any_of(second)?)),
        (_, true) => conditions.pop(),
    }
}

fn rewrite_binary(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if !is_arithmetic(binary.op) {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    // What is exact already has no other type, and asking for it costs its length.
    let left_alone = operations_of(&binary.left).is_none()
        && is_left_alone(&binary.left.get_type(schema)?)
        || is_left_alone(&binary.right.get_type(schema)?);
    if left_alone {
        return Ok(Transformed::no(Expr::BinaryExpr(binary)));
    }
    let operation = match binary.op {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        refused => return plan_err!("`{refused}` is not exact: {}", hint_for(refused)),
    };
    Ok(Transformed::yes(then(
        *binary.left,
        operation,
        *binary.right,
    )))
}

/// The operations of a call that is exact already.
fn operations_of(expr: &Expr) -> Option<&[Operation]> {
    Some(&exact_of(expr)?.operations)
}

fn exact_of(expr: &Expr) -> Option<&Exact> {
    let Expr::ScalarFunction(call) = expr else {
        return None;
    };
    call.func.inner().downcast_ref::<Exact>()
}

/// One more operation: a step of the call on its left if there is one.
fn then(left: Expr, operation: Operation, right: Expr) -> Expr {
    let before = exact_of(&left).map(|exact| (exact.operations.clone(), exact.written.clone()));
    match (before, left) {
        (Some((mut operations, mut all_written)), Expr::ScalarFunction(call))
            if goes_on_with(&call.args, &right) =>
        {
            let mut operands = call.args;
            operations.push(operation);
            all_written.push(written(&right));
            operands.push(right);
            udf(operations, all_written).call(operands)
        }
        (_, left) => {
            let all_written = vec![written(&left), written(&right)];
            udf(vec![operation], all_written).call(vec![left, right])
        }
    }
}

/// An operand as it is written.
fn written(operand: &Expr) -> Written {
    match exact_of(operand).and_then(Exact::as_written) {
        Some(written) => written,
        None => Written::of(operand),
    }
}

/// False where all operands so far are constants and the next is none: a constant is evaluated apart, so that one that always
/// fails is found in a definition. Operands that begin with two constants are no other.
fn goes_on_with(operands: &[Expr], next: &Expr) -> bool {
    let mut first = operands.iter().take(2);
    first.any(Expr::any_column_refs) || !next.any_column_refs()
}

/// The operators that DataFusion evaluates in a number type that may lose digits.
pub(crate) fn is_arithmetic(op: Operator) -> bool {
    use Operator::{
        BitwiseShiftLeft, BitwiseShiftRight, Divide, IntegerDivide, Minus, Modulo, Multiply, Plus,
    };
    matches!(
        op,
        Plus | Minus
            | Multiply
            | Divide
            | IntegerDivide
            | Modulo
            | BitwiseShiftLeft
            | BitwiseShiftRight
    )
}

fn hint_for(op: Operator) -> &'static str {
    match op {
        Operator::Divide | Operator::IntegerDivide => INSTEAD_OF_DIVIDING,
        Operator::Modulo => INSTEAD_OF_A_REMAINDER,
        Operator::BitwiseShiftLeft => "multiply by a power of two: `x * 8` for `x << 3`",
        _ => "for a whole x of zero or more, `x >> 3` is `package(x - 7, 8, 1)`",
    }
}

/// What gives the exact value of a quotient: a factor such as 1 / 60 has no exact decimal.
pub(crate) const INSTEAD_OF_DIVIDING: &str = "`package(x, 60, 1)` counts the 60s that are begun; a factor must be exact, as in \
     `x * 0.001` for `x / 1000`";

/// What gives the exact remainder.
pub(crate) const INSTEAD_OF_A_REMAINDER: &str =
    "for a whole x of zero or more, `x % 60` is `x - 60 * package(x - 59, 60, 1)`";

/// Numbers that are counted exactly.
pub(crate) fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_decimal()
}

/// Operands whose operators are DataFusion's business: calendar arithmetic, and floats, which never
/// reach a quantity or an amount because those refuse them.
fn is_left_alone(data_type: &DataType) -> bool {
    data_type.is_temporal()
        || data_type.is_floating()
        || data_type.is_nested()
        || matches!(data_type, DataType::Interval(_))
}

fn udf(operations: Vec<Operation>, written: Vec<Written>) -> ScalarUDF {
    let words = operations.iter().map(|operation| operation.word());
    ScalarUDF::from(Exact {
        name: format!("exact_{}", words.collect::<Vec<_>>().join("_")),
        operations,
        written,
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Add => "add",
            Operation::Subtract => "subtract",
            Operation::Multiply => "multiply",
        }
    }

    fn sign(self) -> char {
        match self {
            Operation::Add => '+',
            Operation::Subtract => '-',
            Operation::Multiply => '*',
        }
    }

    /// Precision, before the cap, and scale of the result.
    fn unbounded_result(self, left: &DataType, right: &DataType) -> Result<(i16, i8)> {
        let ((p1, s1), (p2, s2)) = (digits(left)?, digits(right)?);
        match self {
            Operation::Multiply => Ok((p1 + p2 + 1, checked_scale(s1 + s2)?)),
            Operation::Add | Operation::Subtract => {
                let scale = s1.max(s2);
                let whole = (p1 - s1).max(p2 - s2);
                Ok((whole + scale + 1, checked_scale(scale)?))
            }
        }
    }

    fn result_type(self, left: &DataType, right: &DataType) -> Result<DataType> {
        let (precision, scale) = self.unbounded_result(left, right)?;
        let capped = u8::try_from(precision).unwrap_or(u8::MAX);
        Ok(DataType::Decimal128(
            capped.min(DECIMAL128_MAX_PRECISION),
            scale,
        ))
    }

    fn evaluate(self, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
        let (precision, _) = self.unbounded_result(&left.data_type(), &right.data_type())?;
        let operands = (operand(left)?, operand(right)?);
        let result = match self {
            Operation::Add => numeric::add(&*operands.0, &*operands.1),
            Operation::Subtract => numeric::sub(&*operands.0, &*operands.1),
            Operation::Multiply => numeric::mul(&*operands.0, &*operands.1),
        }?;
        if precision > i16::from(DECIMAL128_MAX_PRECISION) {
            // Only then can a value need more digits than the type has, and still fit 128 bits.
            let decimals = result.as_primitive::<Decimal128Type>();
            decimals.validate_decimal_precision(DECIMAL128_MAX_PRECISION)?;
        }
        as_columnar(result, &[left, right])
    }
}

/// Exact operations from left to right, the first over two numbers, each other over the result so far and one more.
#[derive(Debug)]
struct Exact {
    name: String,
    operations: Vec<Operation>,
    /// Each operand as it is written, for what is said of a product that does not fit.
    written: Vec<Written>,
    signature: Signature,
}

/// The same operations are one function, wherever they are written.
impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.operations == other.operations
    }
}

impl Eq for Exact {}

impl Hash for Exact {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operations.hash(state);
    }
}

impl ScalarUDFImpl for Exact {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        arguments.iter().map(operand_type).collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let (first, mut others) = self.operands(arguments)?;
        others.try_fold(first.clone(), |left, (operation, right)| {
            operation.result_type(&left, right)
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (first, others) = self.operands(&args.args)?;
        let mut so_far = first.clone();
        for (place, (operation, right)) in others.enumerate() {
            so_far = operation.evaluate(&so_far, right).map_err(|error| {
                let fault = self.too_many_digits(place, (&so_far, right), &args.args);
                fault.map_or(error, |fault| DataFusionError::External(Box::new(fault)))
            })?;
        }
        Ok(so_far)
    }
}

impl Exact {
    /// What to say of a product that does not fit; `None` where that is not what is wrong.
    fn too_many_digits(
        &self,
        place: usize,
        (left, right): (&ColumnarValue, &ColumnarValue),
        all: &[ColumnarValue],
    ) -> Option<TooManyDigits> {
        let whole = whole_digits(left, right).filter(|_| {
            let operation = self.operations.get(place);
            operation == Some(&Operation::Multiply)
        })?;
        let types: Vec<DataType> = all.iter().map(ColumnarValue::data_type).collect();
        Some(TooManyDigits::in_value(
            &self.factors(place, &types)?,
            whole,
        ))
    }

    /// The whole call as it is written, in parentheses.
    fn as_written(&self) -> Option<Written> {
        self.written_until(self.operations.len())
    }

    /// What the operations up to a place are as they are written, in parentheses where there are any.
    fn written_until(&self, place: usize) -> Option<Written> {
        let (first, others) = self.written.split_first()?;
        if place == 0 {
            return Some(first.clone());
        }
        let others = self.operations.iter().zip(others).take(place);
        let others =
            others.map(|(operation, right)| format!(" {} {}", operation.sign(), right.text));
        let others: String = others.collect();
        Some(Written::new(&format!("({}{others})", first.text), first.at))
    }

    /// What the product of the operation at a place is a product of: what comes before the last other operation is one factor.
    fn factors(&self, place: usize, types: &[DataType]) -> Option<Vec<Factor>> {
        let mut before = self.operations[..place].iter();
        let other = before.rposition(|operation| *operation != Operation::Multiply);
        let first = other.map_or(0, |other| other + 1);
        let mut first_type = types.first()?.clone();
        for step in 0..first {
            let right = types.get(step + 1)?;
            first_type = self.operations[step].result_type(&first_type, right).ok()?;
        }
        let composed = self.written_until(first)?;
        let mut factors = vec![Factor::of(&composed, digits_of(&first_type))];
        for operand in first + 1..=place + 1 {
            let digits = digits_of(types.get(operand)?);
            factors.push(Factor::of(self.written.get(operand)?, digits));
        }
        Some(factors)
    }

    /// The first operand, and each other one with its operation.
    fn operands<'a, T>(
        &'a self,
        all: &'a [T],
    ) -> Result<(&'a T, impl Iterator<Item = (Operation, &'a T)>)> {
        match all.split_first() {
            Some((first, others)) if others.len() == self.operations.len() => {
                Ok((first, self.operations.iter().copied().zip(others)))
            }
            _ => plan_err!(
                "{} takes {} arguments",
                self.name,
                self.operations.len() + 1
            ),
        }
    }
}

fn checked_scale(scale: i16) -> Result<i8> {
    match i8::try_from(scale) {
        Ok(scale) if scale <= arrow::datatypes::DECIMAL128_MAX_SCALE => Ok(scale),
        _ => plan_err!(
            "the product would have {scale} digits after the point, and a decimal has 38 in all: \
             declare a factor with fewer; a cast to fewer rounds each value"
        ),
    }
}

/// Precision and scale of an operand.
fn digits(operand: &DataType) -> Result<(i16, i16)> {
    match operand {
        DataType::Int64 => Ok((19, 0)),
        DataType::Decimal128(precision, scale) => Ok((i16::from(*precision), i16::from(*scale))),
        other => plan_err!("arithmetic does not take {other}"),
    }
}

/// The type in which an operand is taken.
fn operand_type(argument: &DataType) -> Result<DataType> {
    match argument {
        DataType::UInt64 => Ok(DataType::Decimal128(20, 0)),
        DataType::Null => Ok(DataType::Int64),
        integer if integer.is_integer() => Ok(DataType::Int64),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => Ok(DataType::Decimal128(*precision, *scale)),
        other => plan_err!(
            "arithmetic takes integers and decimals of up to 38 digits, not {other}: cast it"
        ),
    }
}

/// An operand as decimals, ready for a kernel.
fn operand(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    match value {
        ColumnarValue::Array(array) => Ok(Box::new(as_decimals(array)?)),
        ColumnarValue::Scalar(scalar) => {
            let array = scalar.to_array_of_size(1)?;
            Ok(Box::new(Scalar::new(as_decimals(&array)?)))
        }
    }
}

fn as_decimals(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int64 => {
            let integers = array.as_primitive::<Int64Type>();
            let decimals: Decimal128Array = integers.unary(i128::from);
            Ok(Arc::new(decimals.with_precision_and_scale(19, 0)?))
        }
        DataType::Decimal128(_, _) => Ok(Arc::clone(array)),
        other => Ok(cast(array, &operand_type(other)?)?),
    }
}

/// A scalar when both operands were.
fn as_columnar(result: ArrayRef, arguments: &[&ColumnarValue]) -> Result<ColumnarValue> {
    let scalars = arguments
        .iter()
        .all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    if scalars {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
            &result, 0,
        )?));
    }
    Ok(ColumnarValue::Array(result))
}

/// How many digits the first product of two numbers that does not fit has before the point.
fn whole_digits(left: &ColumnarValue, right: &ColumnarValue) -> Option<u8> {
    let (left, right) = (operand(left).ok()?, operand(right).ok()?);
    let ((left, is_one_left), (right, is_one_right)) = (left.get(), right.get());
    let left = left.as_primitive_opt::<Decimal128Type>()?;
    let right = right.as_primitive_opt::<Decimal128Type>()?;
    let scale = usize::try_from(left.scale().checked_add(right.scale())?).ok()?;
    let rows = if is_one_left { right.len() } else { left.len() };
    let mut digits = (0..rows).filter_map(|row| {
        let (l, r) = (
            if is_one_left { 0 } else { row },
            if is_one_right { 0 } else { row },
        );
        let is_there = left.is_valid(l) && right.is_valid(r);
        let left = i256::from_i128(left.value(l));
        let product = left.checked_mul(i256::from_i128(right.value(r)))?;
        let digits = product.to_string().trim_start_matches('-').len();
        (is_there && digits > usize::from(DECIMAL128_MAX_PRECISION)).then_some(digits)
    });
    u8::try_from(digits.next()?.saturating_sub(scale)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{context, plan};
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};

    /// How many calls stand within one another at most, and how many there are, in what a query becomes.
    async fn calls(sql: &str) -> (usize, usize) {
        let state = context().state();
        let written = plan(&state, sql).await.unwrap();
        let analyzed =
            state
                .analyzer()
                .execute_and_check(written, state.config_options(), |_, _| {});
        let (mut deepest, mut count) = (0, 0);
        analyzed
            .unwrap()
            .apply(|node| {
                node.apply_expressions(|expr| {
                    deepest = deepest.max(depth(expr));
                    expr.apply(|part| {
                        count += usize::from(operations_of(part).is_some());
                        Ok(TreeNodeRecursion::Continue)
                    })
                })
            })
            .unwrap();
        (deepest, count)
    }

    fn depth(expr: &Expr) -> usize {
        let mut below = 0;
        expr.apply_children(|child| {
            below = below.max(depth(child));
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        below + 1
    }

    #[tokio::test]
    async fn operations_from_left_to_right_are_one_call_however_many() {
        for (expression, count) in [
            (format!("a{}", " + a".repeat(480)), 1),
            (format!("a{}", " + a - 2".repeat(240)), 1),
            (format!("a{}", " * 1".repeat(480)), 1),
            (format!("0{}", " + a * b".repeat(200)), 201),
            (format!("1{} + a", " + 1".repeat(400)), 2),
        ] {
            let sql = format!("SELECT {expression} AS x FROM (VALUES (1, 2)) AS t(a, b)");
            let (deepest, found) = calls(&sql).await;
            assert!(deepest <= 6, "{expression}: {deepest}");
            assert_eq!(found, count, "{expression}");
        }
        let list = format!("a IN (b{})", ", b".repeat(4_000));
        let (deepest, _) = calls(&format!(
            "SELECT {list} AS x FROM (VALUES (1, 2)) AS t(a, b)"
        ))
        .await;
        assert!(deepest <= 16, "{deepest}");
    }
}
