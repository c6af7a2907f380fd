//! Each file is read once, and what is remembered of it is what merging all anew gives.

use super::*;
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::Decimal128Type,
};
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use tollgate_connectors::{Attempt, CommitId, Table, memory::MemoryTable};
use tollgate_sql::definitions::{Definitions, SourceFile};

const HOUR: i64 = 3_600_000_000;

const DEFINITIONS: &str = "
CREATE EVENT TYPE call (tokens BIGINT NOT NULL) WITH (type = 'call');
CREATE METER tokens WITH (window = '1 hour') AS SELECT subject, SUM(tokens) AS tokens FROM call GROUP BY subject;
CREATE METER sessions WITH (window = 'session 30 minutes') AS
SELECT subject, SUM(tokens) AS tokens FROM call GROUP BY subject;
";

async fn meter(name: &str) -> Meter {
    let file = SourceFile {
        name: "stored.sql".into(),
        text: DEFINITIONS.into(),
    };
    let definitions = Definitions::parse(&[file]).unwrap();
    let mut meters = definitions.meters.iter();
    let meter = meters.find(|meter| meter.name == name).unwrap();
    let event_type = definitions.event_type(&meter.event_type).unwrap();
    Meter::plan(meter, event_type).await.unwrap()
}

/// Events as time, subject and tokens.
type Events = [(i64, &'static str, i64)];

async fn states(meter: &Meter, events: &Events) -> RecordBatch {
    let columns = meter.input_columns().map(|name| match name {
        "event_time" => {
            let times = events.iter().map(|event| event.0);
            let times = TimestampMicrosecondArray::from_iter_values(times);
            Arc::new(times.with_timezone("UTC")) as ArrayRef
        }
        "subject" => Arc::new(StringArray::from_iter_values(events.iter().map(|e| e.1))),
        _ => Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.2))),
    });
    let events = RecordBatch::try_new(Arc::clone(meter.input_schema()), columns.collect());
    meter.partial(events.unwrap()).await.unwrap()
}

/// A meter's table and what is remembered of it.
struct World {
    meter: Meter,
    table: MemoryTable,
    remembered: Remembered,
}

impl World {
    async fn new(meter_name: &str) -> Self {
        let meter = meter(meter_name).await;
        World {
            table: MemoryTable::new("meters/tokens", Arc::clone(meter.pane_schema())),
            meter,
            remembered: Remembered::new(1),
        }
    }

    /// Commits the panes of these events as one file.
    async fn write(&mut self, id: &str, events: &Events) {
        let states = states(&self.meter, events).await;
        let panes = self.meter.finish(&[states]).await.unwrap();
        let attempt = Attempt {
            commit_id: CommitId(id.to_owned()),
            marks: BTreeMap::new(),
            info: BTreeMap::new(),
        };
        let staged = self
            .table
            .stage(&attempt.commit_id, &[panes])
            .await
            .unwrap();
        self.table.commit(&attempt, &staged).await.unwrap();
    }

    /// How many panes had to be read, and what all of them are.
    async fn recall(&self, inside: Option<&Inside>) -> (usize, Arc<Stored>) {
        self.recall_of(Wanted::all(inside)).await
    }

    async fn recall_of(&self, wanted: Wanted<'_>) -> (usize, Arc<Stored>) {
        let snapshot = self.table.provider().unwrap();
        let recalled = self.remembered.recall(0, snapshot.as_ref(), wanted);
        let panes = match &recalled.unread {
            Some(unread) => {
                let frame = SessionContext::new()
                    .read_table(Arc::clone(unread))
                    .unwrap();
                let frame = match wanted.keys.and_then(Keys::on_panes) {
                    Some(of_groups) => frame.filter(of_groups).unwrap(),
                    None => frame,
                };
                frame.collect().await.unwrap()
            }
            None => Vec::new(),
        };
        let states = panes
            .iter()
            .map(|panes| self.meter.states_of(panes).unwrap());
        let read = panes.iter().map(RecordBatch::num_rows).sum();
        let stored = self
            .remembered
            .complete(recalled, &self.meter, states.collect())
            .await
            .unwrap();
        (read, stored)
    }
}

/// What is remembered, by itself.
fn panes(stored: &Stored) -> Vec<RecordBatch> {
    stored.parts.iter().map(|part| part.panes.clone()).collect()
}

/// Rows as `hour subject tokens`, sorted.
fn shown(rows: &[RecordBatch]) -> Vec<String> {
    let mut shown = Vec::new();
    for rows in rows {
        let tokens = rows["tokens"].as_primitive::<Decimal128Type>();
        let subjects = rows["subject"].as_string::<i32>();
        for (row, start) in micros(rows, "window_start").iter().enumerate() {
            let hour = start / HOUR;
            shown.push(format!(
                "{hour} {} {}",
                subjects.value(row),
                tokens.value(row)
            ));
        }
    }
    shown.sort();
    shown
}

#[tokio::test]
async fn each_file_is_read_once() {
    let mut world = World::new("tokens").await;
    let (read, nothing) = world.recall(None).await;
    assert_eq!((read, panes(&nothing).len()), (0, 0));
    world.write("c1", &[(0, "a", 1), (1, "b", 10)]).await;
    assert_eq!(world.recall(None).await.0, 2);
    assert_eq!(world.recall(None).await.0, 0);
    // A late pane of hour 0, and hour 2.
    world
        .write("c2", &[(5, "a", 100), (2 * HOUR, "a", 7)])
        .await;
    let (read, stored) = world.recall(None).await;
    assert_eq!(read, 2);
    assert_eq!(shown(&panes(&stored)), ["0 a 101", "0 b 10", "2 a 7"]);
}

#[tokio::test]
async fn only_windows_that_move_are_merged_again() {
    let mut world = World::new("tokens").await;
    world
        .write("c1", &[(0, "a", 1), (HOUR, "a", 2), (HOUR, "b", 3)])
        .await;
    let (_, stored) = world.recall(None).await;
    let rows_with = async |events: &Events| {
        let others = vec![states(&world.meter, events).await];
        let rows = stored.rows_with(&world.meter, others).await.unwrap();
        let (_, resting) = rows.split_last().unwrap();
        let resting: usize = resting.iter().map(RecordBatch::num_rows).sum();
        (resting, shown(&rows))
    };
    let (resting, rows) = rows_with(&[(2 * HOUR, "a", 50)]).await;
    assert_eq!(
        (resting, rows),
        (
            3,
            ["0 a 1", "1 a 2", "1 b 3", "2 a 50"]
                .map(String::from)
                .into()
        )
    );
    let (resting, rows) = rows_with(&[(HOUR + 1, "a", 50), (2 * HOUR, "c", 60)]).await;
    let merged = ["0 a 1", "1 a 52", "1 b 3", "2 c 60"].map(String::from);
    assert_eq!((resting, rows), (1, merged.into()));
    let (resting, rows) = rows_with(&[]).await;
    assert_eq!(
        (resting, rows),
        (3, ["0 a 1", "1 a 2", "1 b 3"].map(String::from).into())
    );
}

#[tokio::test]
async fn what_maintenance_has_replaced_is_read_again() {
    let mut world = World::new("tokens").await;
    world.write("c1", &[(0, "a", 1)]).await;
    world.write("c2", &[(HOUR, "a", 2)]).await;
    let (read, before) = world.recall(None).await;
    assert_eq!(read, 2);
    world.table = MemoryTable::new("meters/tokens", Arc::clone(world.meter.pane_schema()));
    world.write("merged", &[(0, "a", 1), (HOUR, "a", 2)]).await;
    let (read, after) = world.recall(None).await;
    assert_eq!(read, 2);
    let rows = |stored: &Stored| shown(&panes(stored));
    assert_eq!(
        (rows(&before), rows(&after)),
        (rows(&after), vec!["0 a 1".into(), "1 a 2".into()])
    );
}

#[tokio::test]
async fn an_older_snapshot_is_answered_by_its_own_files() {
    let mut world = World::new("tokens").await;
    world.write("c1", &[(0, "a", 1)]).await;
    let older = world.table.clone();
    world.write("c2", &[(0, "a", 2)]).await;
    let newer = world.table.clone();
    let mut seen = Vec::new();
    for table in [&newer, &older, &newer] {
        world.table = table.clone();
        let (_, stored) = world.recall(None).await;
        seen.extend(shown(&panes(&stored)));
    }
    assert_eq!(seen, ["0 a 3", "0 a 1", "0 a 3"]);
}

#[tokio::test]
async fn times_are_remembered_apart() {
    let mut world = World::new("tokens").await;
    world.write("c1", &[(0, "a", 1)]).await;
    let hour = Inside::of(0, HOUR, HOUR);
    for inside in [None, Some(&hour)] {
        assert_eq!(world.recall(inside).await.0, 1);
    }
    for inside in [None, Some(&hour)] {
        assert_eq!(world.recall(inside).await.0, 0);
    }
}

#[tokio::test]
async fn some_groups_are_those_of_all_and_remembered_apart() {
    let mut world = World::new("tokens").await;
    world.write("c1", &[(0, "a", 1), (HOUR, "b", 2)]).await;
    let (a, b) = (Keys::subjects(&["a"]), Keys::subjects(&["b"]));
    let of = |keys| Wanted {
        inside: None,
        keys: Some(keys),
    };
    let shown_of = async |world: &World, wanted| {
        let (read, stored) = world.recall_of(wanted).await;
        (read, shown(&panes(&stored)))
    };
    // What is not known of all is read for these groups alone.
    assert_eq!(shown_of(&world, of(&a)).await, (1, vec!["0 a 1".into()]));
    assert_eq!(shown_of(&world, of(&a)).await, (0, vec!["0 a 1".into()]));
    assert_eq!(world.remembered.take_asked(), Vec::<usize>::new());
    assert_eq!(world.recall(None).await.0, 2);
    assert_eq!(world.remembered.take_asked(), [0]);
    // What is known of all is not read again, and all stays known.
    assert_eq!(shown_of(&world, of(&b)).await, (0, vec!["1 b 2".into()]));
    world.write("c2", &[(HOUR, "b", 10), (0, "c", 5)]).await;
    assert_eq!(shown_of(&world, of(&b)).await, (1, vec!["1 b 12".into()]));
    assert_eq!(shown_of(&world, of(&a)).await, (0, vec!["0 a 1".into()]));
    let all = ["0 a 1", "0 c 5", "1 b 12"].map(String::from);
    assert_eq!(
        shown_of(&world, Wanted::default()).await,
        (2, all.clone().into())
    );
    assert_eq!(shown_of(&world, Wanted::default()).await, (0, all.into()));
}

#[tokio::test]
async fn fragments_of_a_session_join_across_files() {
    let mut world = World::new("sessions").await;
    let minute = HOUR / 60;
    world.write("c1", &[(50 * minute, "a", 1)]).await;
    world.recall(None).await;
    world
        .write("c2", &[(70 * minute, "a", 2), (200 * minute, "a", 4)])
        .await;
    let (read, stored) = world.recall(None).await;
    assert_eq!(read, 2);
    let states = stored.states(&world.meter).unwrap();
    let sessions = world.meter.rows(&states).await;
    assert_eq!(shown(&[sessions.unwrap()]), ["0 a 3", "3 a 4"]);
}

#[tokio::test]
async fn many_parts_become_one() {
    let mut world = World::new("tokens").await;
    for hour in 0..70 {
        world
            .write(&format!("c{hour}"), &[(hour * HOUR, "a", hour)])
            .await;
        world.recall(None).await;
    }
    let (read, stored) = world.recall(None).await;
    assert_eq!(read, 0);
    assert!(stored.parts.len() <= Stored::PARTS_MAX);
    let mut expected: Vec<String> = (0..70).map(|hour| format!("{hour} a {hour}")).collect();
    expected.sort();
    assert_eq!(shown(&panes(&stored)), expected);
}

#[tokio::test]
async fn an_answer_that_is_never_finished_takes_nothing_away() {
    let mut world = World::new("tokens").await;
    world.write("c1", &[(0, "a", 1)]).await;
    world.recall(None).await;
    world.write("c2", &[(HOUR, "a", 2)]).await;
    let snapshot = world.table.provider().unwrap();
    let given_up = world
        .remembered
        .recall(0, snapshot.as_ref(), Wanted::default());
    assert!(given_up.unread.is_some());
    drop(given_up);
    assert_eq!(
        world.recall(None).await.0,
        1,
        "the first file is known still"
    );
}
