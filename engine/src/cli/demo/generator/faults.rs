//! Events that cannot be counted, each wrong in one way that is seen in real streams.

/// What makes an event impossible to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection broke in the middle of the payload.
    BrokenJson,
    /// 2^63, one more than a BIGINT holds.
    TooLarge,
    /// A word where a number belongs.
    WrongType,
    /// A NOT NULL field is not there.
    Missing,
    /// Half a token.
    Fraction,
    /// A clock that is decades ahead.
    Future,
    /// More fraction digits than the column keeps.
    TooFine,
    /// A number that only fits a float, as infinity.
    TooGreat,
}

impl Fault {
    pub(super) const ALL: [Fault; 8] = [
        Fault::BrokenJson,
        Fault::TooLarge,
        Fault::WrongType,
        Fault::Missing,
        Fault::Fraction,
        Fault::Future,
        Fault::TooFine,
        Fault::TooGreat,
    ];

    /// The event's `type` and `data`.
    fn payload(self) -> (&'static str, &'static str) {
        let tokens = "llm.completion";
        let gpu = "gpu.usage";
        match self {
            Fault::BrokenJson => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_to"#,
            ),
            Fault::TooLarge => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_tokens":9223372036854775808,"cached_tokens":0,"output_tokens":9}"#,
            ),
            Fault::WrongType => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_tokens":"many","cached_tokens":0,"output_tokens":9}"#,
            ),
            Fault::Missing => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_tokens":120,"cached_tokens":0}"#,
            ),
            Fault::Fraction => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_tokens":120,"cached_tokens":0,"output_tokens":12.5}"#,
            ),
            Fault::Future => (
                tokens,
                r#"{"model":"atlas-large","region":"us-west-2","input_tokens":120,"cached_tokens":0,"output_tokens":9}"#,
            ),
            Fault::TooFine => (gpu, r#"{"gpu":"h100","gpu_seconds":3.0000001}"#),
            Fault::TooGreat => (gpu, r#"{"gpu":"h100","gpu_seconds":1e400}"#),
        }
    }

    /// The whole event; `time` is when it happened, as text.
    pub(super) fn event(self, id: u128, subject: &str, time: &str) -> String {
        let (kind, data) = self.payload();
        let time = match self {
            Fault::Future => "2099-01-01T00:00:00.000000Z",
            _ => time,
        };
        let end = match self {
            Fault::BrokenJson => "",
            _ => "}",
        };
        format!(
            r#"{{"specversion":"1.0","id":"{id:032x}","source":"demo","type":"{kind}","subject":"{subject}","time":"{time}","data":{data}{end}"#
        )
    }
}

/// An event that is sound, of a type that is not defined.
pub(super) fn unknown_event(id: u128, subject: &str, time: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id:032x}","source":"demo","type":"image.generation","subject":"{subject}","time":"{time}","data":{{"images":4,"size":"1024x1024"}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_broken_one_is_no_json() {
        for fault in Fault::ALL {
            let event = fault.event(1, "acme", "2026-10-01T00:00:00.000000Z");
            let parsed = serde_json::from_str::<&serde_json::value::RawValue>(&event);
            assert_eq!(parsed.is_err(), fault == Fault::BrokenJson, "{event}");
        }
        let unknown = unknown_event(1, "acme", "2026-10-01T00:00:00.000000Z");
        assert!(
            serde_json::from_str::<serde_json::Value>(&unknown).is_ok(),
            "{unknown}"
        );
    }
}
