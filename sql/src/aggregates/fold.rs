//! One shape for our aggregates: what a group keeps, and how events and states enter it.
//!
//! DataFusion asks for two accumulators of each aggregate, over one group and over many. [`Fold`] is
//! both, so an aggregate is written once, as an [`Aggregate`] over the groups of a batch.

use arrow::{
    array::{Array, ArrayRef, BooleanArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::{Result, ScalarValue, not_impl_err, plan_err},
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};
use std::{fmt::Debug, hash::Hash, sync::Arc};

/// What an aggregate keeps for each group and makes of it. The result of any number of updates and
/// merges must not depend on their order.
pub(super) trait Aggregate: Debug + Clone + Send + Sync + 'static {
    /// What one group keeps; the default is what it keeps of nothing.
    type Group: Debug + Clone + Default + Send + Sync;

    /// Takes rows of events into their groups.
    fn update(
        &self,
        groups: &mut [Self::Group],
        arguments: &[ArrayRef],
        rows: Rows<'_>,
    ) -> Result<()>;

    /// Takes rows of states into their groups. A state of NULLs is one of nothing.
    fn merge(&self, groups: &mut [Self::Group], states: &[ArrayRef], rows: Rows<'_>) -> Result<()>;

    /// The state columns, one row for each group.
    fn states(&self, groups: &[Self::Group]) -> Result<Vec<ArrayRef>>;

    /// The results, one for each group.
    fn values(&self, groups: &[Self::Group]) -> Result<ArrayRef>;
}

/// The rows of a batch that count, and their groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    count: usize,
    /// `None` when there is one group.
    groups: Option<&'a [usize]>,
    filter: Option<&'a BooleanArray>,
}

impl<'a> Rows<'a> {
    /// All rows of some columns, in one group.
    fn all(columns: &[ArrayRef]) -> Self {
        Rows {
            count: row_count(columns),
            groups: None,
            filter: None,
        }
    }

    /// The rows of some columns that pass a filter, each in its group.
    fn grouped(
        columns: &[ArrayRef],
        groups: &'a [usize],
        filter: Option<&'a BooleanArray>,
    ) -> Self {
        Rows {
            groups: Some(groups),
            filter,
            ..Rows::all(columns)
        }
    }

    /// Row and group of each row that counts.
    pub(super) fn iter(self) -> impl Iterator<Item = (usize, usize)> + 'a {
        let counts = move |row: &usize| match self.filter {
            Some(filter) => filter.is_valid(*row) && filter.value(*row),
            None => true,
        };
        let group = move |row| self.groups.map_or(0, |groups| groups[row]);
        (0..self.count)
            .filter(counts)
            .map(move |row| (row, group(row)))
    }
}

/// The name, types and state of an aggregate, from which DataFusion plans it.
pub(super) trait Kind:
    Debug + Clone + PartialEq + Eq + Hash + Send + Sync + 'static
{
    /// What it computes with.
    type Aggregate: Aggregate;

    /// The SQL name.
    fn name(&self) -> &'static str;

    /// The types in which arguments are taken.
    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>>;

    /// The type of the result.
    fn result(&self, arguments: &[DataType]) -> Result<DataType>;

    /// The types of the state columns.
    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>>;

    /// How many of them, the last ones, hold the digits of [wide sums](super::wide).
    fn wide(&self) -> usize {
        0
    }

    /// The aggregate for arguments that were coerced.
    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Self::Aggregate>;
}

/// A kind of aggregate as DataFusion takes it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Exact<K> {
    kind: K,
    signature: Signature,
}

impl<K> Exact<K> {
    pub(super) fn new(kind: K) -> Self {
        Self {
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl<K: Kind> Exact<K> {
    fn fold(&self, args: &AccumulatorArgs) -> Result<Fold<K::Aggregate>> {
        if args.is_distinct {
            let name = self.kind.name();
            return plan_err!("{name}(DISTINCT …) is not supported: only count takes DISTINCT");
        }
        Ok(Fold {
            aggregate: self.kind.aggregate(args)?,
            groups: Vec::new(),
        })
    }
}

impl<K: Kind> AggregateUDFImpl for Exact<K> {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.kind.coerce(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.kind.result(arguments)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let types: Vec<DataType> = args
            .input_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let states = self.kind.state(&types)?;
        let own = states.len() - self.kind.wide();
        let field = |(number, data_type)| {
            let kind = if number < own { "state" } else { "wide" };
            let name = format_state_name(args.name, &format!("{kind}{number}"));
            Arc::new(Field::new(name, data_type, true))
        };
        Ok((0_usize..).zip(states).map(field).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let mut fold = self.fold(&args)?;
        fold.grow(1);
        Ok(Box::new(fold))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.fold(&args)?))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// An aggregate with its groups: one for [`Accumulator`], any number for [`GroupsAccumulator`].
#[derive(Debug, Clone)]
pub(super) struct Fold<A: Aggregate> {
    aggregate: A,
    groups: Vec<A::Group>,
}

impl<A: Aggregate> Fold<A> {
    fn grow(&mut self, group_count: usize) {
        if group_count > self.groups.len() {
            self.groups.resize_with(group_count, A::Group::default);
        }
    }

    /// Without what the groups hold on the heap: nothing decides by it.
    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<A::Group>()
    }
}

fn row_count(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, |column| column.len())
}

impl<A: Aggregate> GroupsAccumulator for Fold<A> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let rows = Rows::grouped(values, group_indices, opt_filter);
        self.aggregate.update(&mut self.groups, values, rows)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let rows = Rows::grouped(values, group_indices, None);
        self.aggregate.merge(&mut self.groups, values, rows)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        self.aggregate.values(&groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = emit_to.take_needed(&mut self.groups);
        self.aggregate.states(&groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        if values.is_empty() {
            return not_impl_err!("an aggregate without arguments");
        }
        let own: Vec<usize> = (0..row_count(values)).collect();
        let mut each = Self {
            aggregate: self.aggregate.clone(),
            groups: Vec::new(),
        };
        GroupsAccumulator::update_batch(&mut each, values, &own, opt_filter, own.len())?;
        each.aggregate.states(&each.groups)
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}

impl<A: Aggregate> Accumulator for Fold<A> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.aggregate
            .update(&mut self.groups, values, Rows::all(values))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.aggregate
            .merge(&mut self.groups, states, Rows::all(states))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.aggregate.values(&self.groups)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.aggregate.states(&self.groups)?;
        let states = states.iter();
        states
            .map(|state| ScalarValue::try_from_array(state, 0))
            .collect()
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}
