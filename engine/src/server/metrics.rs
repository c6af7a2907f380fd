//! `/metrics`: what a process counts, in the text form of Prometheus.

use super::{Doors, health::Readiness};
use crate::telemetry::{BOUNDS_US, Counts, Durations, Flushes, Progress, memory_kib};
use axum::{
    extract::State,
    http::{HeaderName, header},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// [`BOUNDS_US`] as Prometheus writes them, in seconds.
const BUCKETS: [&str; BOUNDS_US.len()] = [
    "0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "30",
];

/// Requests that were answered.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By route and status.
    requests: BTreeMap<(String, u16), u64>,
    /// By route.
    durations: BTreeMap<String, Durations>,
    events: u64,
    /// From the first message of a request to the last acknowledgement.
    acknowledgements: Durations,
}

impl Answered {
    /// Counts one answer; `route` is the pattern of its path, so that no caller makes a name.
    pub(super) fn count(&self, route: &str, status: u16, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.requests.entry((route.to_owned(), status)).or_default() += 1;
        let durations = seen.durations.entry(route.to_owned());
        durations.or_default().add(took);
    }

    /// Counts events that JetStream has acknowledged.
    pub(super) fn stored(&self, events: usize, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events += u64::try_from(events).unwrap_or(u64::MAX);
        seen.acknowledgements.add(took);
    }

    fn write(&self, text: &mut String) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "tollgate_http_requests_total";
        describe(
            text,
            name,
            "counter",
            "HTTP requests that were answered, by route and status.",
        );
        for ((route, status), count) in &seen.requests {
            line(
                text,
                &format!("{name}{{route=\"{route}\",status=\"{status}\"}}"),
                count,
            );
        }
        let name = "tollgate_http_request_duration_seconds";
        describe(
            text,
            name,
            "histogram",
            "From the head of a request to its answer, by route.",
        );
        for (route, durations) in &seen.durations {
            histogram(text, name, &format!("route=\"{route}\""), durations);
        }
        let name = "tollgate_publish_ack_duration_seconds";
        let help = "From the first message of an HTTP request to JetStream's last acknowledgement.";
        describe(text, name, "histogram", help);
        histogram(text, name, "", &seen.acknowledgements);
        let name = "tollgate_http_events_acknowledged_total";
        let help = "Events of HTTP requests that JetStream has acknowledged, repeats included.";
        describe(text, name, "counter", help);
        line(text, name, seen.events);
    }
}

/// Everything that is counted here.
pub(super) async fn show(
    State(doors): State<Arc<Doors>>,
) -> ([(HeaderName, &'static str); 1], String) {
    let mut text = String::new();
    let name = "tollgate_build_info";
    describe(
        &mut text,
        name,
        "gauge",
        "The version of the program; its value is 1.",
    );
    line(
        &mut text,
        &format!("{name}{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")),
        1,
    );
    if let Readiness::Shard(progress) = &doors.readiness {
        write_shard(&mut text, &progress.borrow());
    }
    doors.answered.write(&mut text);
    if let Some(kib) = memory_kib(std::process::id(), "VmRSS") {
        let name = "process_resident_memory_bytes";
        describe(&mut text, name, "gauge", "What the process has in memory.");
        line(&mut text, name, kib.saturating_mul(1_024));
    }
    let media = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, media)], text)
}

fn write_counts(text: &mut String, counts: Counts) {
    let name = "tollgate_messages_total";
    describe(
        text,
        name,
        "counter",
        "Messages of the stream that were read, since the shard started.",
    );
    line(text, name, counts.messages);
    let name = "tollgate_events_total";
    let help = "Events in those messages, by what became of them; counted includes late.";
    describe(text, name, "counter", help);
    for (status, count) in [
        ("counted", counts.counted),
        ("late", counts.late),
        ("rejected", counts.rejected),
        ("unmatched", counts.unmatched),
        ("conflict", counts.conflicts),
        ("repeat", counts.repeats),
    ] {
        line(text, &format!("{name}{{status=\"{status}\"}}"), count);
    }
}

/// What the shard beside this door does.
fn write_shard(text: &mut String, progress: &Progress) {
    write_counts(text, progress.counts);
    let behind = progress.known_end.0.saturating_sub(progress.position.0);
    let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    for (name, help, value) in [
        (
            "tollgate_shard_reading",
            "1 when the shard is acquired and recovered, and reads.",
            u64::from(progress.is_reading),
        ),
        (
            "tollgate_shard_epoch",
            "The number of the shard's owner.",
            progress.epoch.0.unsigned_abs(),
        ),
        (
            "tollgate_shard_sequence",
            "The last message of the stream that was handled.",
            progress.position.0,
        ),
        (
            "tollgate_shard_lag_messages",
            "Messages of the stream that are known and not handled yet.",
            behind,
        ),
        (
            "tollgate_open_windows_bytes",
            "What open windows take in memory; windows.max_bytes bounds it.",
            size(progress.windows_bytes),
        ),
        (
            "tollgate_dedupe_ids",
            "Event ids that are remembered.",
            size(progress.ids),
        ),
        (
            "tollgate_meters_stopped",
            "Meters that were given up since the shard started.",
            size(progress.meters_stopped),
        ),
    ] {
        describe(text, name, "gauge", help);
        line(text, name, value);
    }
    for (name, help, time_us) in [
        (
            "tollgate_shard_read_until_timestamp_seconds",
            "Everything that the stream had stored by then is handled: the time since is the lag.",
            progress.read_until_us,
        ),
        (
            "tollgate_watermark_timestamp_seconds",
            "The watermark: windows that end a lateness before it are closed.",
            progress.watermark_us,
        ),
    ] {
        let Some(time_us) = time_us else { continue };
        describe(text, name, "gauge", help);
        line(text, name, seconds(i128::from(time_us)));
    }
    write_flushes(text, &progress.flushes);
}

fn write_flushes(text: &mut String, flushes: &Flushes) {
    let name = "tollgate_flush_duration_seconds";
    let help = "From the start of a flush to its last commit.";
    describe(text, name, "histogram", help);
    histogram(text, name, "", &flushes.durations);
    for (name, help, value) in [
        (
            "tollgate_flush_bytes_total",
            "Bytes of files of `events`.",
            flushes.bytes,
        ),
        (
            "tollgate_panes_total",
            "Rows added to the meters' tables.",
            flushes.panes,
        ),
        (
            "tollgate_panes_in_error_total",
            "Rows added to the meters' tables whose value could not be told.",
            flushes.panes_in_error,
        ),
    ] {
        describe(text, name, "counter", help);
        line(text, name, value);
    }
}

/// One histogram; `labels` as they stand in braces, or none.
fn histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let comma = if labels.is_empty() { "" } else { "," };
    let counts = BUCKETS.iter().zip(durations.at_most);
    for (bound, count) in counts.chain([(&"+Inf", durations.count)]) {
        let bucket = format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}}");
        line(text, &bucket, count);
    }
    let braced = match labels {
        "" => String::new(),
        labels => format!("{{{labels}}}"),
    };
    let sum_us = i128::try_from(durations.sum_us).unwrap_or(i128::MAX);
    line(text, &format!("{name}_sum{braced}"), seconds(sum_us));
    line(text, &format!("{name}_count{braced}"), durations.count);
}

/// Microseconds as seconds.
fn seconds(micros: i128) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn describe(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_connectors::Sequence;

    #[test]
    fn requests_are_counted_by_route_and_their_durations_add_up() {
        let answered = Answered::default();
        for (status, micros) in [(204, 900), (204, 40_000), (503, 31_000_000)] {
            answered.count("/api/v1/events", status, Duration::from_micros(micros));
        }
        answered.stored(7, Duration::from_millis(2));
        let mut text = String::new();
        answered.write(&mut text);
        let name = "tollgate_http_request_duration_seconds";
        for expected in [
            "tollgate_http_requests_total{route=\"/api/v1/events\",status=\"204\"} 2".to_owned(),
            "tollgate_http_requests_total{route=\"/api/v1/events\",status=\"503\"} 1".to_owned(),
            format!("{name}_bucket{{route=\"/api/v1/events\",le=\"0.001\"}} 1"),
            format!("{name}_bucket{{route=\"/api/v1/events\",le=\"0.05\"}} 2"),
            format!("{name}_bucket{{route=\"/api/v1/events\",le=\"30\"}} 2"),
            format!("{name}_bucket{{route=\"/api/v1/events\",le=\"+Inf\"}} 3"),
            format!("{name}_sum{{route=\"/api/v1/events\"}} 31.040900"),
            "tollgate_http_events_acknowledged_total 7".to_owned(),
            "tollgate_publish_ack_duration_seconds_bucket{le=\"0.001\"} 0".to_owned(),
            "tollgate_publish_ack_duration_seconds_bucket{le=\"0.005\"} 1".to_owned(),
            "tollgate_publish_ack_duration_seconds_sum 0.002000".to_owned(),
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected}:\n{text}"
            );
        }
    }

    #[test]
    fn a_shard_says_how_far_it_is_behind_and_what_it_wrote() {
        let mut durations = Durations::default();
        durations.add(Duration::from_micros(1_500));
        let progress = Progress {
            position: Sequence(90),
            known_end: Sequence(100),
            read_until_us: Some(1_790_000_000_000_001),
            watermark_us: Some(-1),
            flushes: Flushes {
                durations,
                bytes: 5,
                panes: 6,
                panes_in_error: 1,
            },
            ..Progress::default()
        };
        let mut text = String::new();
        write_shard(&mut text, &progress);
        for expected in [
            "tollgate_shard_lag_messages 10",
            "tollgate_shard_read_until_timestamp_seconds 1790000000.000001",
            "tollgate_watermark_timestamp_seconds -0.000001",
            "tollgate_flush_duration_seconds_bucket{le=\"0.001\"} 0",
            "tollgate_flush_duration_seconds_bucket{le=\"0.005\"} 1",
            "tollgate_flush_duration_seconds_sum 0.001500",
            "tollgate_flush_bytes_total 5",
            "tollgate_panes_total 6",
            "tollgate_panes_in_error_total 1",
        ] {
            let found = text.lines().any(|line| line == expected);
            assert!(found, "{expected}:\n{text}");
        }
    }
}
