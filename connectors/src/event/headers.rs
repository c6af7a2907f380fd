//! What headers say: the form of a payload, and in binary mode the event's attributes.

use super::base64;
use super::envelope::{Attribute, Envelope, media_type};
use super::scan::json_text;
use super::text::{payload_text, shorten};
use crate::Message;
use std::borrow::Cow;

/// How a payload holds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object.
    Structured,
    /// A JSON array of such objects.
    Batch,
    /// One such object a line.
    Lines,
    /// Attributes in `ce-` headers, `data` as the payload.
    Binary,
}

impl Form {
    /// The form of a message, by its headers alone.
    ///
    /// # Errors
    /// The reason when the content type is none of ours, or given twice.
    pub(super) fn of(message: &Message) -> Result<Form, String> {
        if message.headers.is_empty() {
            return Ok(Form::Structured);
        }
        let content_type = content_type(message)?;
        let media = content_type.map(|text| media_type(text).to_ascii_lowercase());
        match media.as_deref() {
            Some("application/cloudevents+json") => Ok(Form::Structured),
            Some("application/cloudevents-batch+json") => Ok(Form::Batch),
            Some(other) if other.starts_with("application/cloudevents") => Err(unread(other)),
            _ if message
                .headers
                .iter()
                .any(|(name, _)| attribute_name(name).is_some()) =>
            {
                Ok(Form::Binary)
            }
            Some("application/x-ndjson") => Ok(Form::Lines),
            None | Some("application/json") => Ok(Form::Structured),
            Some(other) => Err(unread(other)),
        }
    }
}

fn unread(media: &str) -> String {
    format!("content type `{}` is not read", shorten(media))
}

/// The content type, names compared without case.
fn content_type(message: &Message) -> Result<Option<&str>, String> {
    let is_it = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-type");
    let mut found = message.headers.iter().filter(is_it);
    let first = found.next().map(|(_, value)| value.as_str());
    match found.next() {
        Some(_) => Err("header `content-type` is given twice".to_owned()),
        None => Ok(first),
    }
}

/// The attribute's name in a `ce-` header, in lower case.
fn attribute_name(header: &str) -> Option<String> {
    let (prefix, name) = header.split_at_checked(3)?;
    prefix
        .eq_ignore_ascii_case("ce-")
        .then(|| name.to_ascii_lowercase())
}

impl<'a> Envelope<'a> {
    /// Reads a binary mode message. On an error, everything that could be read is there.
    ///
    /// # Errors
    /// The reason: a header given twice or not UTF-8 when decoded, or a payload that is not JSON
    /// where no content type says that it need not be.
    pub(super) fn read_binary(&mut self, message: &'a Message) -> Result<(), String> {
        let headers = self.read_headers(message);
        let data = self.read_payload(&message.payload);
        headers.and(data)
    }

    fn read_headers(&mut self, message: &'a Message) -> Result<(), String> {
        let mut first_problem = Ok(());
        for (header, value) in &message.headers {
            let Some(name) = attribute_name(header) else {
                continue;
            };
            let read = self.read_header(&name, value);
            first_problem = first_problem.and(read);
        }
        // In binary mode the content type is the header of that name, whatever `ce-` headers say.
        self.content_type = content_type(message)?
            .map(|text| Attribute::Text(Cow::Borrowed(text)))
            .unwrap_or_default();
        first_problem
    }

    fn read_header(&mut self, name: &str, value: &'a str) -> Result<(), String> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(());
        };
        if attribute.sent() {
            return Err(format!("header `ce-{name}` is given twice"));
        }
        let text = percent_decode(value)
            .ok_or_else(|| format!("header `ce-{name}` is not valid percent-encoded UTF-8"))?;
        *attribute = Attribute::Text(text);
        Ok(())
    }

    /// An empty payload is an event without data.
    fn read_payload(&mut self, payload: &'a [u8]) -> Result<(), String> {
        let payload = payload_text(payload);
        if payload.is_empty() {
            return Ok(());
        }
        match json_text(payload) {
            Ok(text) => self.data = Some(text),
            Err(reason) => {
                self.opaque = Some(payload);
                // With a content type that is not JSON this is no fault of the payload: then it is
                // judged with the type, which may be unknown.
                if self.json_expected() {
                    return Err(format!("payload: {reason}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn json_expected(&self) -> bool {
        let media = self
            .content_type
            .text()
            .map(|text| media_type(text).to_ascii_lowercase());
        media.is_none_or(|media| media == "application/json" || media.ends_with("+json"))
    }
}

/// Decodes `%41` to `A`, once. `None` when a `%` is not followed by two hex digits, or when the bytes
/// are not UTF-8.
pub(crate) fn percent_decode(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A binary mode message as the structured event it stands for, so that it can be decoded again
/// without its headers.
///
/// A payload that is JSON becomes `data` byte by byte, another one `data_base64`. A header that
/// cannot be decoded is kept as it came; one given twice stays there twice, and is refused again.
pub(super) fn as_structured(message: &Message) -> Vec<u8> {
    let mut members = Vec::new();
    for (header, value) in &message.headers {
        let Some(name) = attribute_name(header) else {
            continue;
        };
        if !matches!(name.as_str(), "data" | "data_base64" | "datacontenttype") {
            let value = percent_decode(value).unwrap_or(Cow::Borrowed(value));
            members.push(format!("{}:{}", quoted(&name), quoted(&value)));
        }
    }
    for (header, value) in &message.headers {
        if header.eq_ignore_ascii_case("content-type") {
            members.push(format!("\"datacontenttype\":{}", quoted(value)));
        }
    }
    let payload = payload_text(&message.payload);
    match json_text(payload) {
        _ if payload.is_empty() => {}
        Ok(text) => members.push(format!("\"data\":{text}")),
        Err(_) => members.push(format!(
            "\"data_base64\":\"{}\"",
            base64::encode(&message.payload)
        )),
    }
    format!("{{{}}}", members.join(",")).into_bytes()
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_once_and_only_to_utf8() {
        let decode = |text: &'static str| percent_decode(text).map(Cow::into_owned);
        assert_eq!(decode("a b"), Some("a b".to_owned()));
        assert_eq!(
            decode("Euro%20%E2%82%AC%20%F0%9F%98%80"),
            Some("Euro € 😀".to_owned())
        );
        assert_eq!(decode("%2541"), Some("%41".to_owned()));
        for bad in ["%", "%4", "%zz", "%ff", "%C3", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
