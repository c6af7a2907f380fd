//! `tiers`: the rows of a table as a list of tiers, lowest first, for the functions that take one.
//!
//! ```sql
//! SELECT model, tiers({up_to: up_to, unit_amount: unit_amount}) AS tiers FROM model_tiers GROUP BY model
//! ```
//!
//! Each row is one tier, with the keys that a literal list has. Tiers follow each other by `up_to`, NULL last; blocks,
//! which have none, by `tier`, a number that says the place of each. The list is checked as a literal one is, so the order
//! in which rows come decides nothing.

use super::{
    fold::{Aggregate, Kind, Rows},
    values::{Values, as_lists, elements, list_of, lists},
};
use crate::functions::{
    FunctionError,
    tier_rows::{self, TIER, TierRows},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StructArray, UInt64Array},
    compute::{concat, take},
    datatypes::{DataType, Fields},
};
use datafusion::{
    common::{Result, internal_err, plan_err},
    logical_expr::function::AccumulatorArgs,
};
use std::sync::Arc;

/// `tiers({…})` and what is wrong with the list that it would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TierList {
    /// The list.
    Checked,
    /// Text of the fault in the list, NULL when there is none: from it an error names the group.
    Fault,
}

impl Kind for TierList {
    type Aggregate = Lists;

    fn name(&self) -> &'static str {
        match self {
            TierList::Checked => tier_rows::LIST,
            TierList::Fault => tier_rows::LIST_FAULT,
        }
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [row @ DataType::Struct(fields)] => {
                TierRows::of(fields)?;
                Ok(vec![row.clone()])
            }
            _ => plan_err!(
                "tiers takes one tier: write tiers({{up_to: up_to, unit_amount: unit_amount}}), the keys of a tier with \
                 columns as their values"
            ),
        }
    }

    fn result(&self, arguments: &[DataType]) -> Result<DataType> {
        match self {
            TierList::Checked => Ok(list_of(DataType::Struct(fields_of(&arguments[0])?.1))),
            TierList::Fault => Ok(DataType::Utf8),
        }
    }

    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![list_of(arguments[0].clone())])
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Lists> {
        let row = args.expr_fields[0].data_type();
        let (fields, kept) = fields_of(row)?;
        Ok(Lists {
            kind: *self,
            rows: TierRows::of(&fields)?,
            kept,
            values: Values::of(row)?,
        })
    }
}

/// The keys of a row, and those that stay in the list.
fn fields_of(row: &DataType) -> Result<(Fields, Fields)> {
    let DataType::Struct(fields) = row else {
        return internal_err!("a tier is {row}, not a struct");
    };
    let kept = fields.iter().filter(|field| field.name() != TIER);
    Ok((fields.clone(), kept.cloned().collect()))
}

#[derive(Debug, Clone)]
pub(super) struct Lists {
    kind: TierList,
    rows: TierRows,
    kept: Fields,
    values: Values,
}

/// The tiers of a group in any order, as bytes.
type Bands = Vec<Box<[u8]>>;

impl Lists {
    fn column_of(&self, bands: &Bands) -> Result<ArrayRef> {
        self.values.column(bands.iter().map(|band| Some(&**band)))
    }

    /// The tiers of a group in their order, and what is wrong with them.
    fn ordered(&self, bands: &Bands) -> Result<Result<StructArray, FunctionError>> {
        let column = self.column_of(bands)?;
        let order = match self.rows.order(column.as_struct()) {
            Ok(order) => order,
            Err(error) => return Ok(Err(error)),
        };
        let order: UInt64Array = order.into_iter().collect();
        let ordered = take(&column, &order, None)?;
        let ordered = ordered.as_struct();
        Ok(self.rows.check(ordered).map(|()| ordered.clone()))
    }

    fn without_place(&self, ordered: &StructArray) -> Result<ArrayRef> {
        let columns = self.kept.iter().map(|field| {
            let column = ordered.column_by_name(field.name());
            column.cloned().ok_or_else(|| {
                datafusion::common::internal_datafusion_err!("a tier lost its {}", field.name())
            })
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        Ok(Arc::new(StructArray::try_new(
            self.kept.clone(),
            columns,
            None,
        )?))
    }
}

impl Aggregate for Lists {
    type Group = Bands;

    fn update(&self, groups: &mut [Bands], arguments: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let bands = self.values.rows(&arguments[0])?;
        for (row, group) in rows.iter().filter(|(row, _)| arguments[0].is_valid(*row)) {
            groups[group].push(bands.row(row).data().into());
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Bands], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let lists = as_lists(&states[0])?;
        let bands = self.values.rows(lists.values())?;
        for (row, group) in rows.iter() {
            let of_row = elements(lists, row).map(|at| bands.row(at).data().into());
            groups[group].extend(of_row);
        }
        Ok(())
    }

    fn states(&self, groups: &[Bands]) -> Result<Vec<ArrayRef>> {
        let all = groups.iter().flatten().map(|band| Some(&**band));
        let lengths = groups.iter().map(Vec::len).collect();
        Ok(vec![lists(lengths, self.values.column(all)?)?])
    }

    fn values(&self, groups: &[Bands]) -> Result<ArrayRef> {
        if self.kind == TierList::Fault {
            let faults = groups.iter().map(|bands| {
                let ordered = self.ordered(bands)?;
                Ok(ordered.err().map(|error| error.to_string()))
            });
            return Ok(Arc::new(faults.collect::<Result<StringArray>>()?));
        }
        let empty: ArrayRef = Arc::new(StructArray::new_null(self.kept.clone(), 0));
        let mut parts = vec![empty];
        for bands in groups {
            parts.push(self.without_place(&self.ordered(bands)??)?);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        lists(groups.iter().map(Vec::len).collect(), concat(&parts)?)
    }
}
