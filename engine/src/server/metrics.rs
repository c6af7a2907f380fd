//! `/metrics`: what a process counts, in the text form of Prometheus.

use super::{Doors, health::Readiness};
use crate::telemetry::{Counts, memory_kib};
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

/// Upper bounds of the durations of requests: as Prometheus writes them, in seconds, and in microseconds.
const BUCKETS: [(&str, u128); 9] = [
    ("0.001", 1_000),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("30", 30_000_000),
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
}

#[derive(Debug, Default)]
struct Durations {
    /// How many took at most as long as each bucket says.
    at_most: [u64; BUCKETS.len()],
    count: u64,
    sum_us: u128,
}

impl Answered {
    /// Counts one answer; `route` is the pattern of its path, so that no caller makes a name.
    pub(super) fn count(&self, route: &str, status: u16, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.requests.entry((route.to_owned(), status)).or_default() += 1;
        let durations = seen.durations.entry(route.to_owned()).or_default();
        let took_us = took.as_micros();
        for ((_, bound_us), at_most) in BUCKETS.iter().zip(&mut durations.at_most) {
            *at_most += u64::from(took_us <= *bound_us);
        }
        durations.count += 1;
        durations.sum_us += took_us;
    }

    /// Counts events that JetStream has acknowledged.
    pub(super) fn stored(&self, events: usize) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events += u64::try_from(events).unwrap_or(u64::MAX);
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
            for ((bound, _), at_most) in BUCKETS.iter().zip(&durations.at_most) {
                line(
                    text,
                    &format!("{name}_bucket{{route=\"{route}\",le=\"{bound}\"}}"),
                    at_most,
                );
            }
            let all = format!("{name}_bucket{{route=\"{route}\",le=\"+Inf\"}}");
            line(text, &all, durations.count);
            let (seconds, rest) = (durations.sum_us / 1_000_000, durations.sum_us % 1_000_000);
            line(
                text,
                &format!("{name}_sum{{route=\"{route}\"}}"),
                format!("{seconds}.{rest:06}"),
            );
            line(
                text,
                &format!("{name}_count{{route=\"{route}\"}}"),
                durations.count,
            );
        }
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
        let progress = *progress.borrow();
        write_counts(&mut text, progress.counts);
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
        ] {
            describe(&mut text, name, "gauge", help);
            line(&mut text, name, value);
        }
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

    #[test]
    fn requests_are_counted_by_route_and_their_durations_add_up() {
        let answered = Answered::default();
        for (status, micros) in [(204, 900), (204, 40_000), (503, 31_000_000)] {
            answered.count("/api/v1/events", status, Duration::from_micros(micros));
        }
        answered.stored(7);
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
        ] {
            assert!(
                text.lines().any(|line| line == expected),
                "{expected}:\n{text}"
            );
        }
    }
}
