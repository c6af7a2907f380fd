//! Which tiers a quantity passes in a price: for people who read a line.

use super::planned;
use crate::{
    definitions::PriceDefinition,
    error::Result,
    functions::explain::{TIERED, TierPart, note_calls},
    money::Exact,
};
use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Expr, ExprSchemable, expr::ScalarFunction, utils::merge_schema},
    prelude::SessionContext,
};
use std::sync::Arc;

/// The tiers of a price that a quantity passes, lowest first, where they explain an amount: those of a call in the price's text
/// whose tiers are written there, and which comes to exactly this amount for this quantity. None where no call does, such as
/// where the amount is a sum of several.
///
/// # Errors
/// [`Error::Price`](crate::Error::Price) when the query cannot be planned.
pub async fn tiers_passed(
    context: &SessionContext,
    price: &PriceDefinition,
    quantity: Exact,
    amount: Exact,
) -> Result<Vec<TierPart>> {
    let calls = note_calls(context);
    let (_, plan) = planned(context, price).await?;
    let mut tiered = Vec::new();
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|root| {
            root.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    tiered.extend(with_quantity(call, &schema, quantity));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    for call in tiered {
        // A quantity that the function refuses explains nothing.
        drop(evaluate(context, call));
    }
    let explains = |called: &&crate::functions::explain::Called| called.amount == amount;
    let found = calls.sorted();
    let mut found = found
        .iter()
        .filter(explains)
        .filter(|called| !called.tiers.is_empty());
    Ok(found
        .next()
        .map_or(Vec::new(), |called| called.tiers.clone()))
}

/// The call with a quantity in the place of what it is given, if its tiers and the rest of it are written out.
fn with_quantity(call: &ScalarFunction, schema: &DFSchema, quantity: Exact) -> Option<Expr> {
    let (given, rest) = call.args.split_first()?;
    let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
    if !TIERED.contains(&call.name()) || !rest.iter().all(is_literal) {
        return None;
    }
    let DataType::Decimal128(precision, scale) = given.get_type(schema).ok()? else {
        return None;
    };
    let digits = quantity.digits_at(u8::try_from(scale).ok()?).ok()?;
    let quantity = ScalarValue::Decimal128(Some(digits), precision, scale);
    let mut args = vec![Expr::Literal(quantity, None)];
    args.extend(rest.iter().cloned());
    Some(Expr::ScalarFunction(ScalarFunction {
        func: Arc::clone(&call.func),
        args,
    }))
}

fn evaluate(context: &SessionContext, call: Expr) -> Result<(), DataFusionError> {
    let call = context.create_physical_expr(call, &DFSchema::empty())?;
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(Schema::empty());
    let row = RecordBatch::try_new_with_options(schema, Vec::new(), &one_row)?;
    call.evaluate(&row).map(drop)
}
