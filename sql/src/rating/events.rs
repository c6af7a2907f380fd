//! The order of events in a price: by event time, then sequence, ordinal and shard, as `LATEST` has it.
//!
//! Several events may have one time, and what they cost must not depend on which of them a window function takes first.
//! So `ORDER BY event_time` over the events of a type means their place, in which no two events tie.

use super::lineage::repeated;
use datafusion::{
    common::Column,
    logical_expr::{
        Expr, LogicalPlan, SortExpr, TableScan, WindowFrameBound, WindowFrameUnits,
        expr::WindowFunction,
    },
};

const TIME: &str = "event_time";

/// What decides between events of one time, in turn.
const PLACE: [&str; 3] = ["sequence", "ordinal", "shard"];

/// What the order of a step's rows is, that is written by the time of events.
#[derive(Debug)]
pub(super) struct ByTime<'a> {
    /// The event type.
    pub(super) relation: &'a str,
    /// Where the time is in the order.
    at: usize,
    /// The rest of the place, in the direction of the time; what is missing in the step's rows is left out.
    place: Vec<SortExpr>,
    /// Whether a row is one event, and no event is several rows.
    is_of_single_events: bool,
}

impl<'a> ByTime<'a> {
    /// `None` for any other order, over rows of `input`.
    pub(super) fn of(order: &[SortExpr], input: &'a LogicalPlan) -> Option<Self> {
        let mut orders = order.iter().enumerate();
        orders.find_map(|(at, sort)| {
            let Expr::Column(time) = &sort.expr else {
                return None;
            };
            let time_of = Source::of(input, time).filter(|source| source.column == TIME)?;
            let place = PLACE.into_iter().filter_map(|name| {
                let column = place_column(input, time, &time_of, name)?;
                Some(Expr::Column(column).sort(sort.asc, sort.nulls_first))
            });
            Some(ByTime {
                relation: time_of.scan.table_name.table(),
                at,
                place: place.collect(),
                is_of_single_events: time_of.is_of_single_rows,
            })
        })
    }

    /// Whether the rows have the whole place.
    pub(super) fn is_whole(&self) -> bool {
        self.place.len() == PLACE.len()
    }

    /// Whether no two rows tie once the place is put into the order.
    pub(super) fn is_total(&self) -> bool {
        self.is_whole() && self.is_of_single_events
    }

    /// Puts the place after the time.
    pub(super) fn complete(self, order: &mut Vec<SortExpr>) {
        let rest = order.split_off(self.at + 1);
        let place = self.place.into_iter();
        let known = |part: &SortExpr| order.iter().any(|sort| sort.expr == part.expr);
        let mut place: Vec<SortExpr> = place.filter(|part| !known(part)).collect();
        let others = rest
            .into_iter()
            .filter(|sort| !place.iter().any(|part| part.expr == sort.expr));
        let others: Vec<SortExpr> = others.collect();
        order.append(&mut place);
        order.extend(others);
    }
}

/// Whether a call's frame is a span of time, `RANGE BETWEEN INTERVAL … PRECEDING …`: it has one order, whose ties are all
/// in the frame or none.
pub(super) fn is_span(call: &WindowFunction) -> bool {
    let frame = &call.params.window_frame;
    let is_offset = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => false,
        other => !other.is_unbounded(),
    };
    frame.units == WindowFrameUnits::Range
        && (is_offset(&frame.start_bound) || is_offset(&frame.end_bound))
}

/// The column of an event type that a column repeats.
#[derive(Debug)]
struct Source<'a> {
    scan: &'a TableScan,
    column: String,
    /// No step in between has a row more than once.
    is_of_single_rows: bool,
}

impl<'a> Source<'a> {
    fn of(plan: &'a LogicalPlan, column: &Column) -> Option<Self> {
        if let LogicalPlan::TableScan(scan) = plan {
            return is_of_events(scan).then(|| Source {
                scan,
                column: column.name.clone(),
                is_of_single_rows: true,
            });
        }
        let (input, column) = repeated(plan, column)?;
        let source = Source::of(input, &column)?;
        let is_join = matches!(plan, LogicalPlan::Join(_));
        Some(Source {
            is_of_single_rows: source.is_of_single_rows && !is_join,
            ..source
        })
    }
}

/// Whether a relation is an event type: no other has the place of an event beside who pays for it.
fn is_of_events(scan: &TableScan) -> bool {
    let schema = scan.source.schema();
    let has = |name: &str| schema.index_of(name).is_ok();
    ["customer", "event_id", TIME]
        .into_iter()
        .chain(PLACE)
        .all(has)
}

/// The column of `input` that is a part of the same event's place as a time.
fn place_column(
    input: &LogicalPlan,
    time: &Column,
    time_of: &Source<'_>,
    name: &str,
) -> Option<Column> {
    let columns = input.schema().columns().into_iter();
    let of_event = columns.filter(|column| {
        Source::of(input, column)
            .is_some_and(|source| source.column == name && std::ptr::eq(source.scan, time_of.scan))
    });
    let of_event: Vec<Column> = of_event.collect();
    // A query of WITH that is read twice is one scan, under two names.
    let beside = of_event
        .iter()
        .find(|column| column.relation == time.relation);
    beside
        .or(of_event.first().filter(|_| of_event.len() == 1))
        .cloned()
}
