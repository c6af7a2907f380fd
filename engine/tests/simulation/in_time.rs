//! Which events came in time for a meter, read from the log alone: message by message, by the watermark before it
//! and by what the clock had closed at the stream's ends before it.

use super::{Fact, StreamEnd};
use tollgate_sql::definitions::MeterDefinition;

/// The facts, in rising sequence, whose window was open before their message.
pub(crate) fn in_time(meter: &MeterDefinition, counted: &[Fact], ends: &[StreamEnd]) -> Vec<Fact> {
    let window_end =
        |fact: &Fact| fact.time_us - fact.time_us.rem_euclid(meter.window_us) + meter.window_us;
    let mut in_time: Vec<Fact> = Vec::new();
    let mut watermark = i64::MIN;
    let mut closed_by_clock = i64::MIN;
    let mut ends = ends.iter().peekable();
    for message in counted.chunk_by(|a, b| a.sequence == b.sequence) {
        while let Some(end) = ends.next_if(|end| end.sequence < message[0].sequence) {
            let held = in_time.iter().map(window_end);
            let due = held.filter(|held| held + meter.lateness_us <= end.now_us);
            closed_by_clock = closed_by_clock.max(due.max().unwrap_or(i64::MIN));
        }
        let is_open = |fact: &&Fact| {
            window_end(fact) + meter.lateness_us > watermark && window_end(fact) > closed_by_clock
        };
        in_time.extend(message.iter().filter(is_open).cloned());
        let reached = message.iter().map(|fact| fact.time_us.min(fact.ingest_us));
        watermark = watermark.max(reached.max().unwrap_or(i64::MIN));
    }
    in_time
}
