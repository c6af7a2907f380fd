//! `count_distinct`, which `count(DISTINCT x)` is in a meter: exact, with the values themselves as state.

use super::{
    fold::{Aggregate, Kind, Rows},
    values::{Values, as_exact, as_lists, elements, list_of, lists},
};
use arrow::{
    array::{Array, ArrayRef, Int64Array},
    datatypes::DataType,
};
use datafusion::{
    common::{Result, exec_datafusion_err, plan_err},
    logical_expr::function::AccumulatorArgs,
};
use std::{collections::BTreeSet, sync::Arc};

const NAME: &str = "count_distinct";

/// `count_distinct(x)`: BIGINT, how many different values there are; NULL is none. Its state is the
/// sorted list of the values, so a hash never decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CountDistinct;

impl Kind for CountDistinct {
    type Aggregate = Distinct;

    fn name(&self) -> &'static str {
        NAME
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![as_exact(NAME, argument)?]),
            _ => plan_err!("{NAME} takes one argument, not {}", arguments.len()),
        }
    }

    fn result(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![list_of(arguments[0].clone())])
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Distinct> {
        let values = Values::of(args.expr_fields[0].data_type())?;
        Ok(Distinct { values })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Distinct {
    values: Values,
}

impl Aggregate for Distinct {
    type Group = BTreeSet<Box<[u8]>>;

    fn update(
        &self,
        groups: &mut [Self::Group],
        arguments: &[ArrayRef],
        rows: Rows<'_>,
    ) -> Result<()> {
        let values = self.values.rows(&arguments[0])?;
        for (row, group) in rows.iter().filter(|(row, _)| arguments[0].is_valid(*row)) {
            add(&mut groups[group], values.row(row).data());
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Self::Group], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let lists = as_lists(&states[0])?;
        let values = self.values.rows(lists.values())?;
        for (row, group) in rows.iter() {
            for element in elements(lists, row) {
                add(&mut groups[group], values.row(element).data());
            }
        }
        Ok(())
    }

    fn states(&self, groups: &[Self::Group]) -> Result<Vec<ArrayRef>> {
        let values = groups.iter().flatten().map(|value| Some(&**value));
        let values = self.values.column(values)?;
        let lengths = groups.iter().map(BTreeSet::len).collect();
        Ok(vec![lists(lengths, values)?])
    }

    fn values(&self, groups: &[Self::Group]) -> Result<ArrayRef> {
        let counts = groups.iter().map(|group| i64::try_from(group.len()));
        let counts: Result<Vec<i64>, _> = counts.collect();
        let counts = counts.map_err(|_| exec_datafusion_err!("too many values to count"))?;
        Ok(Arc::new(Int64Array::from(counts)))
    }
}

/// Most values of an event are known already: they cost no memory.
fn add(group: &mut BTreeSet<Box<[u8]>>, value: &[u8]) {
    if !group.contains(value) {
        group.insert(value.into());
    }
}
