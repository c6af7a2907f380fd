//! The attributes of one event, from JSON or from headers, and what each must be.

use super::base64;
use super::scan::{Broken, FOLLOWED, Fault, Scanner, Token, json_text};
use super::text::{describe, payload_text, shorten};
use std::borrow::Cow;

/// One CloudEvents attribute as it was sent.
#[derive(Debug, Default)]
pub(super) enum Attribute<'a> {
    /// It was not sent.
    #[default]
    Absent,
    /// It was sent as `null`, which CloudEvents counts as not sent.
    Null,
    /// A string.
    Text(Cow<'a, str>),
    /// Another JSON value, as written.
    Other(&'a str),
}

impl<'a> Attribute<'a> {
    fn of(token: Token, text: &'a str) -> Self {
        let raw = token.raw(text);
        match token.text(text) {
            Some(content) => Attribute::Text(content),
            None if raw == "null" => Attribute::Null,
            None => Attribute::Other(raw),
        }
    }

    /// Whether it was sent at all, be it as `null`.
    pub(super) fn sent(&self) -> bool {
        !matches!(self, Attribute::Absent)
    }

    /// The string, if it is one and not empty.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Attribute::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The string, or `None` when it was not sent.
    ///
    /// # Errors
    /// The reason when it is not a string, or empty.
    pub(super) fn optional(&self, name: &str) -> Result<Option<&str>, String> {
        match self {
            Attribute::Absent | Attribute::Null => Ok(None),
            Attribute::Text(text) if text.is_empty() => Err(format!("`{name}` is empty")),
            Attribute::Text(text) => Ok(Some(text)),
            Attribute::Other(raw) => {
                Err(format!("`{name}` must be a string, got {}", describe(raw)))
            }
        }
    }

    /// The string.
    ///
    /// # Errors
    /// The reason when it was not sent, is not a string, or empty.
    pub(super) fn required(&self, name: &str) -> Result<&str, String> {
        self.optional(name)?
            .ok_or_else(|| format!("`{name}` is missing"))
    }
}

/// What a key of an event turned out to be.
enum Member {
    New,
    Again,
    Extension,
}

/// What an event says.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Nothing,
    /// One JSON value.
    Json(&'a str),
    /// Anything else.
    Opaque(&'a [u8]),
}

/// One event before anything in it is judged.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) specversion: Attribute<'a>,
    pub(super) id: Attribute<'a>,
    pub(super) source: Attribute<'a>,
    pub(super) kind: Attribute<'a>,
    pub(super) subject: Attribute<'a>,
    pub(super) time: Attribute<'a>,
    pub(super) content_type: Attribute<'a>,
    /// The raw text of `data`, without the blanks around it.
    pub(super) data: Option<&'a str>,
    /// Data that is not JSON: a payload, or the raw text of `data_base64`.
    pub(super) opaque: Option<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    /// The attribute of this name, if it is one that is read.
    pub(super) fn attribute(&mut self, name: &str) -> Option<&mut Attribute<'a>> {
        Some(match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            _ => return None,
        })
    }

    /// Reads a whole structured event. On an error, what was read before it stays.
    ///
    /// Extension attributes are checked as JSON and passed over. `extensions` is scratch space.
    ///
    /// # Errors
    /// The reason: not JSON, not an object, or a key given twice.
    pub(super) fn read_json(
        &mut self,
        text: &'a str,
        extensions: &mut Vec<Token>,
    ) -> Result<(), String> {
        extensions.clear();
        let mut scanner = Scanner::new(text.as_bytes());
        let twice = self.members(text, &mut scanner, extensions);
        let twice = twice.and_then(|twice| scanner.finish().map(|()| twice));
        if let Some(fault) = scanner.fault() {
            return Err(several(text, fault).unwrap_or_else(|| fault.to_string()));
        }
        match twice?.or_else(|| duplicate(extensions, text)) {
            Some(name) => Err(format!("key `{}` is given twice", shorten(&name))),
            None => Ok(()),
        }
    }

    /// Reads every member; returns the first key that came again, whose first value stays.
    fn members(
        &mut self,
        text: &'a str,
        scanner: &mut Scanner<'_>,
        extensions: &mut Vec<Token>,
    ) -> Result<Option<String>, Broken> {
        let mut twice = None;
        let mut more = scanner.enter(b'{', b'}')?;
        while more {
            let key = scanner.key()?;
            let value = scanner.value()?;
            let name = key.text(text).unwrap_or_default();
            match self.member(&name, value, text) {
                Member::New => {}
                Member::Again => {
                    twice.get_or_insert(name.into_owned());
                }
                Member::Extension => extensions.push(key),
            }
            more = scanner.more(b'}')?;
        }
        Ok(twice)
    }

    fn member(&mut self, name: &str, value: Token, text: &'a str) -> Member {
        let raw = value.raw(text);
        match name {
            "data" => first(&mut self.data, raw),
            "data_base64" => first(&mut self.opaque, raw.as_bytes()),
            _ => match self.attribute(name) {
                None => Member::Extension,
                Some(attribute) if attribute.sent() => Member::Again,
                Some(attribute) => {
                    *attribute = Attribute::of(value, text);
                    Member::New
                }
            },
        }
    }

    /// What the event says beside its attributes. `null` is no data.
    pub(super) fn content(&self) -> Content<'a> {
        match (self.data, self.opaque) {
            (Some(data), _) if data != "null" => Content::Json(data),
            (_, Some(opaque)) if opaque != b"null" => Content::Opaque(opaque),
            _ => Content::Nothing,
        }
    }

    /// The JSON text of `data`, or `None` when there is none.
    ///
    /// # Errors
    /// The reason when the data is not JSON.
    pub(super) fn json_data(&self) -> Result<Option<&'a str>, String> {
        if let Some(media) = self.content_type.optional("datacontenttype")?
            && !is_json(media)
        {
            return Err(format!(
                "data of content type `{}` is not JSON",
                shorten(media)
            ));
        }
        let data = self.data.filter(|data| *data != "null");
        match (self.opaque.filter(|opaque| *opaque != b"null"), data) {
            (None, data) => Ok(data),
            (Some(_), Some(_)) => Err("`data` and `data_base64` are both given".to_owned()),
            (Some(_), None) => Err(match self.decoded() {
                Err(reason) => format!("`data_base64`: {reason}"),
                Ok(_) => "`data_base64` is not read here".to_owned(),
            }),
        }
    }

    /// What `data_base64` holds, when it is all the data there is and must be JSON.
    pub(super) fn encoded_json(&self) -> Option<String> {
        let is_alone = self.data.is_none_or(|data| data == "null");
        let is_there = self.opaque.is_some_and(|opaque| opaque != b"null");
        let is_read = is_there && is_alone && self.json_expected();
        is_read.then(|| self.decoded().ok()).flatten()
    }

    /// The JSON text that is encoded in `data_base64`.
    ///
    /// # Errors
    /// The reason: it is no string, no base64, or not JSON.
    fn decoded(&self) -> Result<String, String> {
        let raw = std::str::from_utf8(self.opaque.unwrap_or_default()).unwrap_or_default();
        let text = Scanner::new(raw.as_bytes()).value().ok();
        let text = text.and_then(|token| token.text(raw));
        let text = text.ok_or_else(|| format!("expected a string, got {}", describe(raw)))?;
        let bytes = base64::decode(&text).ok_or("it is not base64")?;
        json_text(payload_text(&bytes)).map(str::to_owned)
    }
}

/// Keeps the first value.
fn first<T>(slot: &mut Option<T>, value: T) -> Member {
    if slot.is_some() {
        return Member::Again;
    }
    *slot = Some(value);
    Member::New
}

/// What is wrong with a text that goes on with another event.
fn several(text: &str, fault: Fault) -> Option<String> {
    let is_followed = fault.problem == FOLLOWED
        && text
            .get(fault.at..)
            .is_some_and(|rest| rest.starts_with('{'));
    let at = fault.at;
    is_followed.then(|| {
        format!(
            "another JSON object follows at byte {at}: one event a line needs the header `content-type: application/x-ndjson`"
        )
    })
}

/// Whether a content type says JSON; its parameters are ignored.
fn is_json(content_type: &str) -> bool {
    let media = media_type(content_type).to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// A content type without its parameters.
pub(super) fn media_type(content_type: &str) -> &str {
    let (media, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    media.trim()
}

/// The first key, in order of text, that is there twice. Few keys are compared with one another; many
/// are sorted, so that a hostile object costs no more than n log n.
pub(super) fn duplicate(keys: &[Token], text: &str) -> Option<String> {
    const FEW: usize = 16;
    if keys.len() < 2 {
        return None;
    }
    if keys.len() <= FEW && keys.iter().all(|key| !key.escaped) {
        let pairs = keys.iter().enumerate();
        let mut pairs = pairs.flat_map(|(i, key)| keys[..i].iter().map(move |other| (key, other)));
        let (key, _) = pairs.find(|(key, other)| key.raw(text) == other.raw(text))?;
        return key.text(text).map(Cow::into_owned);
    }
    let mut names: Vec<_> = keys.iter().filter_map(|key| key.text(text)).collect();
    names.sort_unstable();
    let pair = names.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(pair[0].clone().into_owned())
}
