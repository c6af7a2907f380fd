//! Whether an event counts: its attributes, its time, its type, its data, in this order.

use super::envelope::Envelope;
use super::shape::{Scratch, Shape};
use super::text::shorten;
use super::{Decoder, time};

/// What was decided about one event.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its values are in the scratch.
    Ok { shape: usize },
    /// Nothing is wrong but that its type is not defined; the reason.
    Unmatched(String),
    /// The reason.
    Rejected(String),
}

/// When an event happened, as far as is known. In microseconds since the Unix epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// The event says so.
    Sent(i64),
    /// It does not say, so when it was stored.
    Ingest(i64),
    /// What it says cannot be read; the reason.
    Unreadable(String),
    /// The event could not be read far enough.
    Unknown,
}

impl Time {
    /// The time of an event; one that `is_broken` may have had a time that was not reached.
    pub(super) fn of(envelope: &Envelope<'_>, is_broken: bool, ingest_time_us: i64) -> Self {
        match envelope.time.optional("time") {
            Ok(None) if is_broken => Time::Unknown,
            Ok(None) => Time::Ingest(ingest_time_us),
            Err(reason) => Time::Unreadable(reason),
            Ok(Some(text)) => match time::instant(text) {
                Ok(instant) => Time::Sent(instant.micros),
                Err(fault) => Time::Unreadable(format!(
                    "`time` \"{}\" {fault} (RFC 3339 with an offset, such as 2026-01-15T10:00:00Z)",
                    shorten(text)
                )),
            },
        }
    }

    /// The column `event_time`.
    pub(super) fn micros(&self) -> Option<i64> {
        match self {
            Time::Sent(micros) | Time::Ingest(micros) => Some(*micros),
            Time::Unreadable(_) | Time::Unknown => None,
        }
    }

    /// # Errors
    /// The reason when it is unreadable, before 1970 or too far after the ingest time.
    fn check(&self, ingest_time_us: i64, max_future_skew_us: i64) -> Result<(), String> {
        let micros = match self {
            Time::Sent(micros) => *micros,
            Time::Unreadable(reason) => return Err(reason.clone()),
            Time::Ingest(_) | Time::Unknown => return Ok(()),
        };
        if micros < 0 {
            return Err("`time` is before 1970".to_owned());
        }
        let ahead = micros.saturating_sub(ingest_time_us);
        if ahead > max_future_skew_us {
            let (ahead, limit) = durations(ahead, max_future_skew_us);
            return Err(format!(
                "`time` is {ahead} after the ingest time, above the limit of {limit}"
            ));
        }
        Ok(())
    }
}

/// Decides about events, one after another.
#[derive(Debug)]
pub(super) struct Judge<'d> {
    decoder: &'d Decoder,
    last_shape: usize,
    /// The last unknown type, and what was said of it: a publisher's events come one after another.
    last_unmatched: Option<(String, String)>,
}

impl<'d> Judge<'d> {
    pub(super) fn new(decoder: &'d Decoder) -> Self {
        Judge {
            decoder,
            last_shape: 0,
            last_unmatched: None,
        }
    }

    /// Decides about one event that is well formed; an accepted one's values are in the scratch then.
    pub(super) fn judge<'a>(
        &mut self,
        envelope: &Envelope<'a>,
        time: &Time,
        ingest_time_us: i64,
        scratch: &mut Scratch<'a>,
    ) -> Verdict {
        let kind = match self.check(envelope, time, ingest_time_us) {
            Ok(kind) => kind,
            Err(reason) => return Verdict::Rejected(reason),
        };
        let Some((number, shape)) = self.shape(kind) else {
            return Verdict::Unmatched(self.unmatched(&shorten(kind)));
        };
        let max_number_len = self.decoder.options.max_number_len;
        let read = envelope.json_data().and_then(|data| {
            let read = shape.read(data, max_number_len, scratch);
            read.map_err(|reason| match data {
                Some(_) => reason,
                None => format!("{reason}; the event has no `data`"),
            })
        });
        match read {
            Ok(()) => Verdict::Ok { shape: number },
            Err(reason) => Verdict::Rejected(reason),
        }
    }

    /// Why an event of an unknown type is set aside, and which type its publisher may have meant.
    fn unmatched(&mut self, kind: &str) -> String {
        if let Some((last, reason)) = &self.last_unmatched
            && last == kind
        {
            return reason.clone();
        }
        let known = self.decoder.shapes.iter().map(|shape| shape.kind.as_str());
        let known: Vec<&str> = known.collect();
        let near = (self.decoder.options.nearest_type.0)(kind, &known);
        let near = near.and_then(|place| known.get(place));
        let meant = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let reason = format!("no event type is defined for `{kind}`{meant}");
        self.last_unmatched = Some((kind.to_owned(), reason.clone()));
        reason
    }

    /// Checks everything but the data; returns the type.
    ///
    /// # Errors
    /// The reason to reject it.
    fn check<'e>(
        &self,
        envelope: &'e Envelope<'_>,
        time: &Time,
        ingest_time_us: i64,
    ) -> Result<&'e str, String> {
        let version = envelope.specversion.required("specversion")?;
        if version != "1.0" {
            let version = shorten(version);
            return Err(format!("`specversion` must be \"1.0\", got \"{version}\""));
        }
        envelope.id.required("id")?;
        envelope.source.required("source")?;
        let kind = envelope.kind.required("type")?;
        envelope.subject.required("subject")?;
        time.check(ingest_time_us, self.decoder.options.max_future_skew_us)?;
        Ok(kind)
    }

    /// The shape of a type; most often it is that of the event before.
    fn shape(&mut self, kind: &str) -> Option<(usize, &'d Shape)> {
        let last = self.decoder.shapes.get(self.last_shape);
        if last.is_none_or(|shape| shape.kind != kind) {
            self.last_shape = *self.decoder.by_type.get(kind)?;
        }
        let shape = self.decoder.shapes.get(self.last_shape)?;
        Some((self.last_shape, shape))
    }
}

/// Two durations for people, so exactly that they differ.
fn durations(left_us: i64, right_us: i64) -> (String, String) {
    let texts = |parts| {
        (
            duration_text(left_us, parts),
            duration_text(right_us, parts),
        )
    };
    let rough = texts(2);
    if rough.0 == rough.1 {
        texts(usize::MAX)
    } else {
        rough
    }
}

/// A duration of microseconds in words: of its units, so many of the largest that are not zero.
fn duration_text(micros: i64, parts: usize) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (mut seconds, fraction) = (
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000,
    );
    let mut words = Vec::new();
    for (size, unit) in UNITS {
        match seconds / size {
            0 => {}
            1 => words.push(format!("1 {unit}")),
            count => words.push(format!("{count} {unit}s")),
        }
        seconds %= size;
    }
    let fraction = format!("{fraction:06}");
    match (seconds, fraction.trim_end_matches('0')) {
        (0, "") if !words.is_empty() => {}
        (1, "") => words.push("1 second".to_owned()),
        (seconds, "") => words.push(format!("{seconds} seconds")),
        (seconds, fraction) => words.push(format!("{seconds}.{fraction} seconds")),
    }
    words.truncate(parts);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_words_and_never_look_alike_when_they_differ() {
        let limit = 300_000_000;
        for (ahead, text) in [
            (300_000_001, "5 minutes 0.000001 seconds"),
            (301_000_000, "5 minutes 1 second"),
            (362_500_000, "6 minutes 2.5 seconds"),
            (3_600_000_000, "1 hour"),
            (90_061_000_000, "1 day 1 hour"),
            (2_275_013_201_748_110, "26331 days 4 hours"),
            (i64::MAX, "106751991 days 4 hours"),
        ] {
            assert_eq!(
                durations(ahead, limit),
                (text.to_owned(), "5 minutes".to_owned())
            );
        }
        assert_eq!(
            durations(1, 0),
            ("0.000001 seconds".to_owned(), "0 seconds".to_owned())
        );
    }
}
