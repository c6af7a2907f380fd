//! Each stage of the hot path alone, on one core, over the same events.
//!
//! ```text
//! cargo bench --bench stages
//! ```
//! A stage is named `stage/variant/size` and reported in events a second, best of some rounds. Since
//! machines differ, compare stages of one run: the last column is how many times slower than
//! generating the events a stage is.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::SchemaRef,
};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use tollgate::{
    cli::demo::generator::{Load, Workload},
    dedupe::{self, Dedupe},
    metering::{Lane, Metering, Written},
};
use tollgate_connectors::{
    CommitId, Message, Sequence, Table,
    event::{DecodeOptions, Decoded, Decoder, EventBatch},
    lake::Lake,
};
use tollgate_sql::{
    definitions::{Definitions, EventType, SourceFile},
    meter::Meter,
    schema,
    window::EventTime,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const EVENTS: u64 = 500_000;
const ROUNDS: u32 = 5;
/// What the shard decodes together varies with the load.
const BATCH_ROWS: [usize; 3] = [1_000, 8_192, 65_536];
/// 2026-01-01.
const START_US: i64 = 1_767_225_600_000_000;
const INGEST_US: i64 = START_US + 864_000_000_000;
const LOAD: Load = Load {
    seed: 42,
    events: EVENTS,
    start_us: START_US,
    events_per_second: 58,
};

const DEFINITIONS: &str = "
CREATE EVENT TYPE llm_completion (
    model VARCHAR NOT NULL, region VARCHAR NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, model, region, SUM(input_tokens) AS input, SUM(output_tokens) AS output, COUNT(*) AS calls
FROM llm_completion GROUP BY subject, model, region;
";

/// What one stage took at its best.
struct Timing {
    name: String,
    best: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let file = SourceFile {
        name: "tokens.sql".into(),
        text: DEFINITIONS.into(),
    };
    let definitions = Definitions::parse(&[file])?;
    let event_type = &definitions.event_types[0];
    let meter = Arc::new(Meter::plan(&definitions.meters[0], event_type).await?);
    let events_schema = schema::usage_events(&definitions.event_types);
    let messages = messages(100);
    let singles = self::messages(1);

    let mut timings = vec![
        generate(),
        decode("decode/ndjson/100", &events_schema, &messages)?,
        decode("decode/json/1", &events_schema, &singles)?,
    ];
    let decoded = decode_all(&events_schema, &messages)?;
    timings.push(judge(&decoded)?);
    for rows in BATCH_ROWS {
        timings.push(partial(&meter, &decoded.events, rows).await?);
    }
    for rows in BATCH_ROWS {
        timings.push(apply(&meter, event_type, &decoded.events, rows).await?);
    }
    let rows = decoded.events.whole()?;
    timings.push(encode("encode/parquet-zstd1/65536", &rows)?);
    timings.push(stage(&events_schema, &rows).await?);
    print_table(&timings);
    Ok(())
}

fn messages(per_message: usize) -> Vec<Message> {
    let mut workload = Workload::new(LOAD);
    let content_type = if per_message == 1 {
        "application/cloudevents+json"
    } else {
        "application/x-ndjson"
    };
    let mut messages = Vec::new();
    loop {
        let mut payload = Vec::with_capacity(300 * per_message);
        if workload.write(per_message, &mut payload) == 0 {
            return messages;
        }
        messages.push(Message {
            sequence: Sequence(messages.len() as u64 + 1),
            ingest_time_us: INGEST_US,
            headers: vec![("Content-Type".into(), content_type.into())],
            payload: Bytes::from(payload),
            unread: None,
        });
    }
}

fn generate() -> Timing {
    let mut payload = Vec::with_capacity(40_000);
    best("generate/ndjson/100", || {
        let mut workload = Workload::new(LOAD);
        while workload.write(100, &mut payload) > 0 {
            black_box(&payload);
            payload.clear();
        }
    })
}

/// As many messages at a time as the shard reads by default: 8 MB.
fn decode(name: &str, schema: &SchemaRef, messages: &[Message]) -> Result<Timing> {
    let mut decoder = Decoder::new(SchemaRef::clone(schema), "BENCH", DecodeOptions::default())?;
    let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
    let together = messages.len() / (bytes / 8_000_000).max(1);
    try_best(name, || {
        for some in messages.chunks(together) {
            black_box(decoder.decode(some)?);
        }
        Ok(())
    })
}

fn decode_all(schema: &SchemaRef, messages: &[Message]) -> Result<Decoded> {
    let mut decoder = Decoder::new(SchemaRef::clone(schema), "BENCH", DecodeOptions::default())?;
    Ok(decoder.decode(messages)?)
}

fn judge(decoded: &Decoded) -> Result<Timing> {
    try_best("dedupe/hash/500000", || {
        let mut dedupe = Dedupe::new(dedupe::Options {
            horizon_us: i64::MAX,
            memory_bytes: 1 << 30,
            directory: std::env::temp_dir(),
        });
        for key in &decoded.keys {
            black_box(dedupe.judge(*key, 0, INGEST_US, EventTime(INGEST_US))?);
        }
        Ok(())
    })
}

fn slices(events: &EventBatch, rows: usize) -> Vec<EventBatch> {
    let slice = |start: usize| events.slice(start, rows.min(events.num_rows() - start));
    (0..events.num_rows()).step_by(rows).map(slice).collect()
}

/// The meter's partial aggregate alone, over batches of so many rows.
async fn partial(meter: &Meter, events: &EventBatch, rows: usize) -> Result<Timing> {
    let batches: Vec<RecordBatch> = slices(events, rows)
        .iter()
        .map(|slice| input(meter, slice))
        .collect::<Result<_>>()?;
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for batch in &batches {
            black_box(meter.partial(batch.clone()).await?);
        }
        best = best.min(started.elapsed());
    }
    Ok(Timing {
        name: format!("partial/tokens/{rows}"),
        best,
    })
}

/// The columns that the meter reads.
fn input(meter: &Meter, events: &EventBatch) -> Result<RecordBatch> {
    let events = events.whole()?;
    let data = events["llm_completion"].as_struct();
    let columns = meter.input_schema().fields().iter().map(|field| {
        let column = data
            .column_by_name(field.name())
            .or_else(|| events.column_by_name(field.name()));
        column
            .map(Arc::clone)
            .ok_or_else(|| format!("events has no column {}", field.name()).into())
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(
        Arc::clone(meter.input_schema()),
        columns,
    )?)
}

/// All that metering does to a batch: watermark, lateness, partial aggregate, merging what piles up.
async fn apply(
    meter: &Arc<Meter>,
    event_type: &EventType,
    events: &EventBatch,
    rows: usize,
) -> Result<Timing> {
    let batches = slices(events, rows);
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let lane = Lane::new(
            Arc::clone(meter),
            event_type.clone(),
            Written::NOTHING,
            BTreeMap::new(),
        );
        let mut metering = Metering::new(vec![lane], usize::MAX).expect("a lane is measured");
        let started = Instant::now();
        for batch in &batches {
            black_box(metering.apply(batch).await?);
        }
        best = best.min(started.elapsed());
    }
    Ok(Timing {
        name: format!("meter/tokens/{rows}"),
        best,
    })
}

/// To Parquet in memory, with nothing but compression set.
fn encode(name: &str, events: &RecordBatch) -> Result<Timing> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .build();
    try_best(name, || {
        let mut writer =
            ArrowWriter::try_new(Vec::new(), events.schema(), Some(properties.clone()))?;
        for start in (0..events.num_rows()).step_by(65_536) {
            writer.write(&events.slice(start, 65_536.min(events.num_rows() - start)))?;
        }
        black_box(writer.into_inner()?);
        Ok(())
    })
}

/// As the lake stages a flush: encoding, statistics, the file and its fsync.
async fn stage(schema: &SchemaRef, events: &RecordBatch) -> Result<Timing> {
    let folder = tempfile::tempdir()?;
    let lake = Lake::open("file://./lake", folder.path()).await?;
    let table = lake
        .table("events", schema, &["ingest_day"], &BTreeMap::new())
        .await?;
    let mut best = Duration::MAX;
    for round in 0..ROUNDS {
        let started = Instant::now();
        let staged = table
            .stage(
                &CommitId(format!("round-{round}")),
                std::slice::from_ref(events),
            )
            .await?;
        black_box(staged);
        best = best.min(started.elapsed());
    }
    Ok(Timing {
        name: "stage/delta-local/500000".into(),
        best,
    })
}

fn best(name: &str, mut work: impl FnMut()) -> Timing {
    let times = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed()
    });
    Timing {
        name: name.into(),
        best: times.min().unwrap_or_default(),
    }
}

fn try_best(name: &str, mut work: impl FnMut() -> Result<()>) -> Result<Timing> {
    let mut result = Ok(());
    let timing = best(name, || {
        if result.is_ok() {
            result = work();
        }
    });
    result.map(|()| timing)
}

fn print_table(timings: &[Timing]) {
    println!(
        "{:<28} {:>12} {:>10}",
        "stage/variant/size", "events/s", "x generate"
    );
    let base = timings
        .first()
        .map_or(1, |timing| timing.best.as_micros().max(1));
    for Timing { name, best } in timings {
        let micros = best.as_micros().max(1);
        let slower = micros * 100 / base;
        println!(
            "{name:<28} {:>12} {:>7}.{:02}",
            u128::from(EVENTS) * 1_000_000 / micros,
            slower / 100,
            slower % 100
        );
    }
}
