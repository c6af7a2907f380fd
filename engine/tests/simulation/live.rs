//! A reader that asks a process for its live values at random moments, and knows what they must be.

use super::{
    Fact, Lake, Log, MINUTE_US, Random, Reading, START_US, Setup, StreamEnd, expected, measured,
    newest, readings,
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tollgate::{
    live::Live,
    view::{View, one_batch},
};
use tollgate_sql::meter::Meter;

/// How often one process is asked at most: a history has several, and there are many histories.
const ASKED_MAX: u32 = 4;

pub(crate) struct Asker<'a> {
    pub(crate) setup: &'a Setup,
    logs: &'a [Log],
    /// Which of them is read.
    at: usize,
    lake: &'a Lake,
    /// Where the clock closes its windows.
    closings: Vec<StreamEnd>,
    random: Random,
    /// How many answers were right.
    pub(crate) answers: Arc<AtomicU64>,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(
        random: &mut Random,
        setup: &'a Setup,
        logs: &'a [Log],
        at: usize,
        (lake, closings): (&'a Lake, Vec<StreamEnd>),
    ) -> Self {
        Asker {
            setup,
            logs,
            at,
            lake,
            closings,
            random: Random(random.next()),
            answers: Arc::default(),
        }
    }

    /// Asks now and then, and checks every answer.
    pub(crate) async fn ask(&mut self, live: &Live) -> Infallible {
        let mut position = 0;
        let mut closed = vec![BTreeSet::new(); self.setup.catalog.meters.len()];
        for _ in 0..self.random.below(ASKED_MAX + 1) {
            for _ in 0..self.random.below(100) {
                tokio::task::yield_now().await;
            }
            let view = live.view().await.unwrap();
            let cut = view.cuts().await.unwrap()[0].1.sequence.0;
            assert!(cut >= position, "back from {position} to {cut}");
            position = cut;
            let reading = [Reading {
                counted: self.counted_until(cut),
                ends: &self.closings,
            }];
            check_events(&view, &reading[0].counted).await;
            for (index, meter) in self.setup.catalog.meters.iter().enumerate() {
                let windows = view.windows(index, None).await.unwrap();
                let name = &meter.definition().name;
                let what = format!("{name}, live at {cut}");
                let mut wanted = expected(meter, &reading);
                assert_eq!(measured(&windows), wanted, "{what}");
                let from_us = START_US + self.random.below(120) * MINUTE_US;
                let from = windows_from(&view, name, from_us).await;
                wanted.retain(|(start, _), sums| *start >= from_us && sums.error.is_none());
                assert_eq!(measured(&from), wanted, "{what} from {from_us}");
                let draw = [3, 4, 3].map(|limit| self.random.below(limit));
                check_groups(&view, meter, &reading, draw).await;
                let now_closed = final_windows(&windows);
                assert!(closed[index].is_subset(&now_closed), "{what} opened again");
                closed[index] = now_closed;
            }
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
        pending().await
    }

    fn counted_until(&self, cut: u64) -> Vec<Fact> {
        let before = readings(&self.logs[..self.at], &newest(&self.lake.events));
        let known = before.iter().flat_map(|reading| &reading.counted);
        let known = known.map(|fact| fact.id).collect();
        self.logs[self.at].counted(&known, cut)
    }
}

/// A meter's windows that start at an instant or later, without those in error.
async fn windows_from(view: &View, meter: &str, from_us: i64) -> RecordBatch {
    let from = jiff::Timestamp::from_microsecond(from_us).unwrap();
    windows_where(view, meter, &format!("window_start >= '{from}'")).await
}

async fn windows_where(view: &View, meter: &str, condition: &str) -> RecordBatch {
    let sql = format!("SELECT * FROM {meter} WHERE {condition} AND error IS NULL");
    let context = view.session(&sql).await.unwrap();
    let frame = context.sql(&sql).await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    one_batch(&schema, &frame.collect().await.unwrap()).unwrap()
}

/// Asks for some groups of a meter, which are read without the others.
pub(crate) async fn check_groups(
    view: &View,
    meter: &Meter,
    readings: &[Reading<'_>],
    [kind, subject, model]: [i64; 3],
) {
    let name = &meter.definition().name;
    let of_model = format!("model = 'm{model}'");
    let (condition, group) = match (kind, meter.dimensions().is_empty()) {
        (_, true) => (format!("subject = 'u{subject}'"), format!("u{subject}")),
        (0, false) => (format!("subject = 'u{subject}'"), format!("u{subject}/")),
        (1, false) => (of_model, format!("/m{model}")),
        (_, false) => (
            format!("customer = 'u{subject}' AND {of_model}"),
            format!("u{subject}/m{model}"),
        ),
    };
    let mut wanted = expected(meter, readings);
    wanted.retain(|(_, of), sums| of.contains(&group) && sums.error.is_none());
    let found = windows_where(view, name, &condition).await;
    assert_eq!(measured(&found), wanted, "{name}, {condition}");
}

async fn check_events(view: &View, counted: &[Fact]) {
    let sql = "SELECT event_id FROM events WHERE status IN ('ok', 'late')";
    let context = view.session(sql).await.unwrap();
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    let ids = rows
        .iter()
        .flat_map(|rows| rows["event_id"].as_string::<i32>());
    let mut found: Vec<usize> = ids.map(|id| id.unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    let mut expected: Vec<usize> = counted.iter().map(|fact| fact.id).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn final_windows(rows: &RecordBatch) -> BTreeSet<i64> {
    let starts = rows["window_start"].as_primitive::<TimestampMicrosecondType>();
    let is_final = rows["is_final"].as_boolean();
    let finals = (0..rows.num_rows()).filter(|row| is_final.value(*row));
    finals.map(|row| starts.value(row)).collect()
}
