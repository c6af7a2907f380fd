//! `POST /lago/api/v1/events` and `/batch`: events as Lago's clients send them, as the CloudEvents that they stand for.
//!
//! | Lago | CloudEvents |
//! |---|---|
//! | `transaction_id` | `id` |
//! | | `source` is `lago` |
//! | `code` | `type` |
//! | `external_subscription_id` | `subject` |
//! | `timestamp`, seconds since 1970, a number or a text | `time`; without it the event happened when it was stored |
//! | `properties` | `data` |
//! | `precise_total_amount_cents` | a field of `data`, unless `properties` has one of that name |

use super::{
    Doors,
    events::accept,
    inbox,
    problem::{Fault, Faults, Problem},
    rendering::json,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Deserialize)]
struct One {
    event: Sent,
}

#[derive(Deserialize)]
struct Batch {
    events: Vec<Sent>,
}

/// An event as it is sent. Everything may be missing: what is, is said.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Sent {
    transaction_id: Option<String>,
    external_subscription_id: Option<String>,
    code: Option<String>,
    timestamp: Option<Box<RawValue>>,
    precise_total_amount_cents: Option<String>,
    properties: Option<Box<RawValue>>,
}

/// An event as Lago answers with it.
#[derive(Debug, Serialize)]
struct Stored {
    lago_id: Option<String>,
    transaction_id: String,
    lago_customer_id: Option<String>,
    lago_subscription_id: Option<String>,
    external_subscription_id: String,
    code: String,
    timestamp: String,
    precise_total_amount_cents: Option<String>,
    properties: Option<Box<RawValue>>,
    created_at: String,
}

/// Stores one event.
pub(super) async fn one(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.events(&headers, body).await?;
    let One { event } = read(&body)?;
    let mut stored = store(&doors, vec![event]).await?;
    json(&BTreeMap::from([("event", stored.pop())]))
}

/// Stores events; all of them, or none that was refused with others.
pub(super) async fn batch(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.events(&headers, body).await?;
    let Batch { events } = read(&body)?;
    let stored = store(&doors, events).await?;
    json(&BTreeMap::from([("events", stored)]))
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let code = "body_invalid";
        Problem::new(StatusCode::BAD_REQUEST, code, format!("the body: {error}"))
    })
}

async fn store(doors: &Arc<Doors>, events: Vec<Sent>) -> Result<Vec<Stored>, Problem> {
    let (mut lines, mut faults) = (Vec::new(), Faults::default());
    for (index, event) in events.iter().enumerate() {
        match event.as_cloud_event() {
            Ok(line) => {
                lines.extend_from_slice(line.as_bytes());
                lines.push(b'\n');
            }
            Err(reason) => faults.push(Fault::at(index, reason)),
        }
    }
    if !faults.is_empty() {
        return Err(Problem::refused(events.len(), faults));
    }
    accept(doors, inbox::lines(lines), false).await?;
    Ok(events.into_iter().map(Sent::stored).collect())
}

impl Sent {
    /// The event on one line.
    ///
    /// # Errors
    /// What is missing or cannot be read.
    fn as_cloud_event(&self) -> Result<String, String> {
        let text = |name: &str, value: &Option<String>| match value.as_deref() {
            None | Some("") => Err(format!("`{name}` is missing")),
            Some(text) => Ok(Value::from(text).to_string()),
        };
        let id = text("transaction_id", &self.transaction_id)?;
        let subject = text("external_subscription_id", &self.external_subscription_id)?;
        let kind = text("code", &self.code)?;
        let time = match self.time()? {
            None => String::new(),
            Some(time) => format!(r#","time":"{time}""#),
        };
        let data = self.data()?;
        Ok(format!(
            r#"{{"specversion":"1.0","id":{id},"source":"lago","type":{kind},"subject":{subject}{time},"data":{data}}}"#
        ))
    }

    fn time(&self) -> Result<Option<Timestamp>, String> {
        // Its own text: a number would pass through a float.
        let text = match self.timestamp.as_deref().map(RawValue::get) {
            None | Some("null") => return Ok(None),
            Some(text) if text.starts_with('"') => {
                serde_json::from_str::<String>(text).unwrap_or_default()
            }
            Some(text) => text.to_owned(),
        };
        let time = seconds(&text).ok_or_else(|| {
            format!("`timestamp` is `{text}`; write seconds since 1970, such as 1790848800 or \"1790848800.123\"")
        })?;
        Ok(Some(time))
    }

    /// The properties on one line, every number as it was written.
    fn data(&self) -> Result<String, String> {
        let properties = self.properties.as_deref().map_or("{}", RawValue::get);
        let properties = match properties {
            "null" => "{}",
            other => other,
        };
        let names: BTreeMap<String, IgnoredAny> = serde_json::from_str(properties)
            .map_err(|_| "`properties` must be an object".to_owned())?;
        let line = properties.replace(['\n', '\r'], " ");
        let amount = "precise_total_amount_cents";
        match &self.precise_total_amount_cents {
            Some(cents) if !names.contains_key(amount) => {
                let rest = line.trim_start().strip_prefix('{').unwrap_or_default();
                let comma = if names.is_empty() { "" } else { "," };
                Ok(format!(
                    r#"{{"{amount}":{}{comma}{rest}"#,
                    Value::from(cents.as_str())
                ))
            }
            _ => Ok(line),
        }
    }

    fn stored(self) -> Stored {
        let now = Timestamp::now();
        let time = self.time().ok().flatten().unwrap_or(now);
        Stored {
            lago_id: None,
            transaction_id: self.transaction_id.unwrap_or_default(),
            lago_customer_id: None,
            lago_subscription_id: None,
            external_subscription_id: self.external_subscription_id.unwrap_or_default(),
            code: self.code.unwrap_or_default(),
            timestamp: time.to_string(),
            precise_total_amount_cents: self.precise_total_amount_cents,
            properties: self.properties,
            created_at: now.to_string(),
        }
    }
}

/// Seconds since 1970 with up to nine fraction digits; what is below a nanosecond is left off.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || text.ends_with('.') {
        return None;
    }
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Timestamp::new(whole.parse().ok()?, nanos.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Result<String, String> {
        serde_json::from_str::<Sent>(text).unwrap().as_cloud_event()
    }

    #[test]
    fn an_event_of_lago_is_a_cloud_event_to_the_last_digit() {
        let sent = r#"{"transaction_id":"t\"1","external_subscription_id":"sub","code":"llm","timestamp":"1651240791.123",
            "properties":{"n":0.1000000000000000055511151231257827,
            "m":"5"},"precise_total_amount_cents":"12.5"}"#;
        assert_eq!(
            event(sent).unwrap(),
            "{\"specversion\":\"1.0\",\"id\":\"t\\\"1\",\"source\":\"lago\",\"type\":\"llm\",\"subject\":\"sub\",\
             \"time\":\"2022-04-29T13:59:51.123Z\",\"data\":{\"precise_total_amount_cents\":\"12.5\",\
             \"n\":0.1000000000000000055511151231257827,             \"m\":\"5\"}}"
        );
        let least = r#"{"transaction_id":"1","external_subscription_id":"s","code":"c"}"#;
        let line = event(least).unwrap();
        assert!(line.ends_with(r#""subject":"s","data":{}}"#), "{line}");
    }

    #[test]
    fn what_is_missing_or_cannot_be_read_is_named() {
        let with = |rest: &str| {
            format!(r#"{{"transaction_id":"1","external_subscription_id":"s","code":"c"{rest}}}"#)
        };
        for (text, name) in [
            (r#"{"code":"c"}"#.to_owned(), "`transaction_id`"),
            (with(r#","timestamp":"soon""#), "`timestamp`"),
            (with(r#","timestamp":-1"#), "`timestamp`"),
            (with(r#","timestamp":1e9"#), "`timestamp`"),
            (with(r#","properties":[1]"#), "`properties`"),
        ] {
            let reason = event(&text).unwrap_err();
            assert!(reason.contains(name), "{text}: {reason}");
        }
    }

    #[test]
    fn seconds_have_fractions_and_no_floats() {
        let at = |text| seconds(text).map(|at| at.as_nanosecond());
        assert_eq!(at("1"), Some(1_000_000_000));
        assert_eq!(at("1.000000001"), Some(1_000_000_001));
        assert_eq!(at("1.0000000019"), Some(1_000_000_001));
        for wrong in ["", ".5", "1.", "1,5", "+1", "99999999999999999999"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
