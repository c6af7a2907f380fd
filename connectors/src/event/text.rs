//! How values are shown in reasons, and the blanks around them.

use crate::files::BYTE_ORDER_MARK;

/// At most forty characters of a text, so that a reason stays readable and small.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Names the kind of a raw JSON value and shows it: `a number (5)`.
pub(super) fn describe(raw: &str) -> String {
    let kind = match raw.bytes().next() {
        Some(b'{') => return "an object".to_owned(),
        Some(b'[') => return "an array".to_owned(),
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => return "null".to_owned(),
        _ => "a number",
    };
    format!("{kind} ({})", shorten(raw))
}

/// A payload without the mark that some editors and Windows programs begin a file with, and without the blanks around it.
pub(super) fn payload_text(payload: &[u8]) -> &[u8] {
    let payload = trim(payload);
    trim(payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(payload))
}

/// A text without the blanks that JSON allows around a value.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let start = text
        .iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}
