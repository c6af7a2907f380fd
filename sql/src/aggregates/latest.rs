//! `first` and `latest`: the value of the first or last event, by event time, then sequence, then
//! ordinal in its message.

use super::{
    event_order::{self, Kept, Places},
    fold::{Aggregate, Kind, Rows},
    values::{Values, as_exact},
};
use arrow::{
    array::{Array, ArrayRef},
    datatypes::DataType,
};
use datafusion::{common::Result, logical_expr::function::AccumulatorArgs};

/// `first(x)` and `latest(x)`, of x's type: the value of the first or last event whose value is not
/// NULL; NULL if there is none. Its state is the value and the place of its event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum End {
    First,
    Latest,
}

impl Kind for End {
    type Aggregate = AtEnd;

    fn name(&self) -> &'static str {
        match self {
            End::First => "first",
            End::Latest => "latest",
        }
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let places = event_order::coerce(self.name(), &["x"], arguments)?;
        let value = as_exact(self.name(), &arguments[0])?;
        Ok([vec![value], places].concat())
    }

    fn result(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<AtEnd> {
        Ok(AtEnd {
            end: self.clone(),
            values: Values::of(args.expr_fields[0].data_type())?,
        })
    }
}

/// The value of one event, as bytes, and where that event stands.
type AtPlace = Option<(Kept, Box<[u8]>)>;

#[derive(Debug, Clone)]
pub(super) struct AtEnd {
    end: End,
    values: Values,
}

impl AtEnd {
    /// Arguments and states have the same columns, so a state is taken in like an event.
    fn take(&self, groups: &mut [AtPlace], columns: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let places = Places::of(&columns[1..])?;
        let values = self.values.rows(&columns[0])?;
        for (row, group) in rows.iter().filter(|(row, _)| columns[0].is_valid(*row)) {
            if !places.has(row) {
                continue;
            }
            let place = places.at(row);
            let replaces = match (&groups[group], &self.end) {
                (None, _) => true,
                (Some((kept, _)), End::First) => place < kept.as_place(),
                (Some((kept, _)), End::Latest) => place > kept.as_place(),
            };
            if replaces {
                groups[group] = Some((place.into(), values.row(row).data().into()));
            }
        }
        Ok(())
    }
}

impl Aggregate for AtEnd {
    type Group = AtPlace;

    fn update(&self, groups: &mut [AtPlace], arguments: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.take(groups, arguments, rows)
    }

    fn merge(&self, groups: &mut [AtPlace], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.take(groups, states, rows)
    }

    fn states(&self, groups: &[AtPlace]) -> Result<Vec<ArrayRef>> {
        let places = groups.iter().map(Option::as_ref);
        let places: Vec<_> = places
            .map(|kept| kept.map(|(place, _)| place.as_place()))
            .collect();
        let mut columns = vec![self.values(groups)?];
        columns.extend(event_order::columns(&places));
        Ok(columns)
    }

    fn values(&self, groups: &[AtPlace]) -> Result<ArrayRef> {
        let values = groups.iter().map(Option::as_ref);
        self.values
            .column(values.map(|kept| kept.map(|(_, value)| &**value)))
    }
}
