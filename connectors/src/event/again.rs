//! An event that was kept, as it can be published again.

use super::envelope::{Attribute, Envelope};
use super::headers::quoted;
use super::text::trim;
use std::borrow::Cow;

/// The structured event of the column `raw`, which says when it happened: as it is when it has a `time`
/// of its own, else with this one, which is RFC 3339. What was sent without a time happened when it was
/// stored, and must not happen again when it is stored again.
///
/// An event that gets a time keeps its `data` byte by byte, and loses its extension attributes, which
/// are not stored either. `None` for bytes that are no event.
///
/// ```
/// # use tollgate_connectors::event::with_time;
/// let raw = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"u","data":{"n":1}}"#;
/// let event = with_time(raw, "2026-07-31T23:55:00Z").unwrap();
/// assert!(event.ends_with(br#""time":"2026-07-31T23:55:00Z","data":{"n":1}}"#));
/// assert_eq!(with_time(&event, "2027-01-01T00:00:00Z").unwrap(), event);
/// ```
pub fn with_time<'a>(raw: &'a [u8], time: &str) -> Option<Cow<'a, [u8]>> {
    let text = std::str::from_utf8(trim(raw)).ok()?;
    let mut envelope = Envelope::default();
    envelope.read_json(text, &mut Vec::new()).ok()?;
    if let Attribute::Text(_) = envelope.time {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let attributes = [
        ("specversion", envelope.specversion.text()),
        ("id", envelope.id.text()),
        ("source", envelope.source.text()),
        ("type", envelope.kind.text()),
        ("subject", envelope.subject.text()),
        ("datacontenttype", envelope.content_type.text()),
        ("time", Some(time)),
    ];
    let mut members: Vec<String> = attributes
        .into_iter()
        .filter_map(|(name, value)| Some(format!("\"{name}\":{}", quoted(value?))))
        .collect();
    members.extend(envelope.data.map(|data| format!("\"data\":{data}")));
    let opaque = envelope
        .opaque
        .and_then(|raw| std::str::from_utf8(raw).ok());
    members.extend(opaque.map(|raw| format!("\"data_base64\":{raw}")));
    Some(Cow::Owned(
        format!("{{{}}}", members.join(",")).into_bytes(),
    ))
}
