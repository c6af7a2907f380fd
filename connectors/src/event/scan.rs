//! A strict cursor over one JSON text. It checks the grammar of everything it passes, also of
//! values that no column reads, and copies nothing.
//!
//! It never recurses, so depth costs no stack. Two faults do not hide where a value ends, and are
//! noted instead of ending the scan: a lone surrogate and too deep a nesting. So
//! an event with such a fault in an array can be set aside alone.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// What a fault says of a text that goes on after its value.
pub(super) const FOLLOWED: &str = "something follows the end of the value";

/// Objects and arrays inside one another; one more is a fault.
const MAX_DEPTH: usize = 128;

/// Where a text stops being JSON, and what was expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte offset from the start of the text.
    pub(super) at: usize,
    /// What is wrong.
    pub(super) problem: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not valid JSON at byte {}: {}", self.at, self.problem)
    }
}

/// The scan has ended at a fault, which [`Scanner::fault`] tells. It is not carried along, for results
/// that fit into registers spare the scan its slowest steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl From<Broken> for String {
    /// For a text that was checked before, where it cannot happen.
    fn from(_: Broken) -> Self {
        "not valid JSON".to_owned()
    }
}

/// The place of one value or key; a string's includes its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    /// First byte.
    start: u32,
    /// After the last byte.
    end: u32,
    /// It is a string that holds a backslash.
    pub(super) escaped: bool,
}

impl Token {
    /// Its bytes.
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The value as it is written.
    pub(super) fn raw<'a>(&self, text: &'a str) -> &'a str {
        // A token starts and ends at ASCII bytes, so the slice is always there.
        text.get(self.range()).unwrap_or_default()
    }

    /// The content of a string; `None` when it holds a lone surrogate, or is no string.
    pub(super) fn text<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        let Range { start, end } = self.range();
        if text.as_bytes().get(start) != Some(&b'"') {
            return None;
        }
        let content = text.get(start + 1..end - 1)?;
        if self.escaped {
            unescape(content).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(content))
        }
    }
}

/// The cursor.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    noted: Option<Fault>,
    broken: Option<Fault>,
}

impl<'a> Scanner<'a> {
    /// A cursor before the first byte.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Scanner {
            text,
            at: 0,
            noted: None,
            broken: None,
        }
    }

    /// Passes bytes without a look at them.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Bytes passed so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What is wrong with the text as far as it was passed: the fault that ended the scan, else the
    /// first that was noted.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.broken.or(self.noted)
    }

    /// The first byte of what comes next, blanks aside.
    pub(super) fn next_byte(&mut self) -> Option<u8> {
        self.blanks();
        self.peek()
    }

    /// Steps into an object or array; false when it is empty, and then it is already left.
    pub(super) fn enter(&mut self, open: u8, close: u8) -> Result<bool, Broken> {
        self.blanks();
        if self.peek() != Some(open) {
            return Err(self.broken(match open {
                b'{' => "expected an object",
                _ => "expected an array",
            }));
        }
        self.at += 1;
        Ok(!self.eat(close))
    }

    /// After a value inside an object or array: true when another follows, false when it is left.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Broken> {
        self.blanks();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.broken(match close {
                b'}' => "expected `,` or `}`",
                _ => "expected `,` or `]`",
            })),
        }
    }

    /// A key and the colon after it.
    pub(super) fn key(&mut self) -> Result<Token, Broken> {
        self.blanks();
        if self.peek() != Some(b'"') {
            return Err(self.broken("expected a key in quotes"));
        }
        let key = self.string()?;
        if self.eat(b':') {
            Ok(key)
        } else {
            Err(self.broken("expected `:`"))
        }
    }

    /// Passes one whole value, whatever it holds.
    pub(super) fn value(&mut self) -> Result<Token, Broken> {
        self.blanks();
        match self.peek() {
            Some(b'{' | b'[') => self.nested(),
            _ => self.scalar(),
        }
    }

    /// Nothing but blanks may follow.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        self.blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.broken(FOLLOWED))
        }
    }

    /// An object or array with all that is in it.
    fn nested(&mut self) -> Result<Token, Broken> {
        let start = self.at;
        let mut nest = Nest::default();
        loop {
            self.blanks();
            let entered = match self.peek() {
                Some(b'{') => self.step_into(&mut nest, true)?,
                Some(b'[') => self.step_into(&mut nest, false)?,
                _ => {
                    self.scalar()?;
                    false
                }
            };
            if !entered && !self.step_out(&mut nest)? {
                return Ok(self.token(start, false));
            }
            if nest.in_object() {
                self.key()?;
            }
        }
    }

    /// Enters a container and remembers it; false when it is empty.
    fn step_into(&mut self, nest: &mut Nest, object: bool) -> Result<bool, Broken> {
        if nest.depth >= MAX_DEPTH {
            self.note(Fault {
                at: self.at,
                problem: "nested too deeply",
            });
        }
        let (open, close) = brackets(object);
        let entered = self.enter(open, close)?;
        if entered {
            nest.push(object);
        }
        Ok(entered)
    }

    /// Leaves every container that ends here; false when the outermost has ended.
    fn step_out(&mut self, nest: &mut Nest) -> Result<bool, Broken> {
        while nest.depth > 0 {
            let (_, close) = brackets(nest.in_object());
            if self.more(close)? {
                return Ok(true);
            }
            nest.pop();
        }
        Ok(false)
    }

    /// A string, number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<Token, Broken> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(_) => Err(self.broken("expected a value")),
            None => Err(self.broken("the text ends too early")),
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<Token, Broken> {
        let start = self.at;
        if !self.rest().starts_with(word) {
            return Err(self.broken("expected a value"));
        }
        self.at += word.len();
        Ok(self.token(start, false))
    }

    fn number(&mut self) -> Result<Token, Broken> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let zero_first = self.peek() == Some(b'0');
        if self.digits()? > 1 && zero_first {
            self.at = start;
            return Err(self.broken("a number may not start with 0"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(self.token(start, false))
    }

    /// At least one digit; returns how many.
    fn digits(&mut self) -> Result<usize, Broken> {
        let count = self
            .rest()
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        self.at += count;
        if count == 0 {
            return Err(self.broken("expected a digit"));
        }
        Ok(count)
    }

    #[inline]
    fn string(&mut self) -> Result<Token, Broken> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain_length(self.rest());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(self.token(start, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.broken("a control character in a string")),
                None => return Err(self.broken("the text ends inside a string")),
            }
        }
    }

    /// One escape, both halves of a surrogate pair included.
    fn escape(&mut self) -> Result<(), Broken> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let unit = self.unit()?;
                let paired = (0xD800..0xDC00).contains(&unit)
                    && self.rest().starts_with(b"\\u")
                    && self.low_half()?;
                if (0xD800..0xE000).contains(&unit) && !paired {
                    self.note(Fault {
                        at: start,
                        problem: "a lone surrogate in a string",
                    });
                }
            }
            _ => return Err(self.broken("an unknown escape in a string")),
        }
        Ok(())
    }

    /// Passes the second half of a pair; when it is something else, nothing is passed.
    fn low_half(&mut self) -> Result<bool, Broken> {
        let start = self.at;
        self.at += 1;
        let found = (0xDC00..0xE000).contains(&self.unit()?);
        if !found {
            self.at = start;
        }
        Ok(found)
    }

    /// `uXXXX`.
    fn unit(&mut self) -> Result<u32, Broken> {
        let unit = hex_unit(self.rest().get(1..5).unwrap_or_default());
        let Some(unit) = unit else {
            return Err(self.broken("expected four hex digits"));
        };
        self.at += 5;
        Ok(unit)
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn token(&self, start: usize, escaped: bool) -> Token {
        Token {
            start: place(start),
            end: place(self.at),
            escaped,
        }
    }

    fn note(&mut self, fault: Fault) {
        self.noted.get_or_insert(fault);
    }

    #[cold]
    fn broken(&mut self, problem: &'static str) -> Broken {
        let problem = match self.peek() {
            None => "the text ends too early",
            Some(_) => problem,
        };
        self.broken = Some(Fault {
            at: self.at,
            problem,
        });
        Broken
    }
}

/// Bytes as text, when they are one JSON value.
///
/// # Errors
/// Where they are none.
pub(super) fn json_text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| format!("not valid UTF-8 at byte {}", e.valid_up_to()))?;
    let mut scanner = Scanner::new(bytes);
    let _ = scanner.value().and_then(|_| scanner.finish());
    match scanner.fault() {
        Some(fault) => Err(fault.to_string()),
        None => Ok(text),
    }
}

/// Which containers are open, one bit each. Depth beyond the first word spills to the heap, so a
/// hostile text costs an eighth of a byte per bracket.
#[derive(Debug, Default)]
struct Nest {
    depth: usize,
    bits: u128,
    spilled: Vec<u128>,
}

impl Nest {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(128) {
            self.spilled.push(self.bits);
        }
        self.bits = (self.bits << 1) | u128::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(128) {
            self.bits = self.spilled.pop().unwrap_or_default();
        }
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.bits & 1 == 1
    }
}

/// A place in a text, which is never longer than a batch may be.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn brackets(object: bool) -> (u8, u8) {
    if object { (b'{', b'}') } else { (b'[', b']') }
}

/// How many bytes from here are neither a quote, a backslash nor a control character.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(word) = text.get(length..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = special_bytes(u64::from_le_bytes(*word));
        if marks != 0 {
            return length + usize::from(first_marked(marks));
        }
        length += 8;
    }
    let tail = text.get(length..).unwrap_or_default();
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    length + tail.iter().position(special).unwrap_or(tail.len())
}

/// Marks the high bit of bytes that are special. Above the first mark there may be false ones.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5C);
    let marks = (quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word);
    marks & (ONES * 0x80)
}

fn first_marked(marks: u64) -> u8 {
    u8::try_from(marks.trailing_zeros() / 8).unwrap_or(0)
}

fn hex_unit(digits: &[u8]) -> Option<u32> {
    if digits.len() != 4 {
        return None;
    }
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit * 16 + char::from(digit).to_digit(16)?)
    })
}

/// The content of a string whose escapes were checked; `None` when it holds a lone surrogate.
fn unescape(content: &str) -> Option<String> {
    let mut plain = String::with_capacity(content.len());
    let mut rest = content;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let (character, length) = escaped_character(after)?;
        plain.push(character);
        rest = after.get(length..)?;
    }
    plain.push_str(rest);
    Some(plain)
}

/// The character that an escape means, and the bytes it takes after its backslash.
fn escaped_character(after: &str) -> Option<(char, usize)> {
    let character = match after.bytes().next()? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_character(after.as_bytes()),
        other => char::from(other),
    };
    Some((character, 1))
}

fn unicode_character(after: &[u8]) -> Option<(char, usize)> {
    let high = hex_unit(after.get(1..5)?)?;
    if let Some(character) = char::from_u32(high) {
        return Some((character, 5));
    }
    let low = hex_unit(after.get(5..)?.strip_prefix(b"\\u")?.get(..4)?)?;
    if !(0xD800..0xDC00).contains(&high) || !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    let character = char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))?;
    Some((character, 11))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<(), Fault> {
        let mut scanner = Scanner::new(text.as_bytes());
        let _ = scanner.value().and_then(|_| scanner.finish());
        scanner.fault().map_or(Ok(()), Err)
    }

    #[test]
    fn every_kind_of_value_passes() {
        for text in [
            "{}",
            "[]",
            " [ ] ",
            "{ }",
            "0",
            "-0",
            "-0.5e+10",
            "1E5",
            "true",
            "false",
            "null",
            r#""""#,
            r#""a\"\\\/\b\f\n\r\tA😀é""#,
            r#"{"a":[1,{"b":[]},"c"],"d":{"e":null}}"#,
            "[[],[[]],{}]",
            "\"long enough to cross several eight byte words é\"",
        ] {
            assert_eq!(scan(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "[1}",
            "{\"a\":1]",
            "01",
            "-",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "NaN",
            "Infinity",
            "nul",
            "truely",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "\"\u{0}\"",
            "1 2",
            "{} {}",
            "// c\n1",
            "\u{feff}1",
            "[1 2]",
            "{\"a\" 1}",
        ] {
            assert!(scan(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agrees_with_serde_json_on_the_grammar_of_small_texts() {
        let alphabet = [
            b'{', b'}', b'[', b']', b',', b':', b'"', b'a', b'0', b'-', b'.', b'e',
        ];
        let mut texts = vec![Vec::new()];
        for _ in 0..5 {
            let longer = texts.iter().flat_map(|text: &Vec<u8>| {
                alphabet
                    .iter()
                    .map(move |&byte| [text.as_slice(), &[byte]].concat())
            });
            texts = longer.collect();
            for text in &texts {
                let text = std::str::from_utf8(text).unwrap();
                let oracle = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
                assert_eq!(scan(text).is_ok(), oracle, "{text}");
            }
        }
    }

    #[test]
    fn lone_surrogates_are_noted_and_the_scan_goes_on() {
        for text in [
            r#"["\ud800"]"#,
            r#"["\udc00"]"#,
            r#"["\ud800A"]"#,
            r#"["\ud800\ud800"]"#,
            r#"["\udc00\ud800"]"#,
        ] {
            let mut scanner = Scanner::new(text.as_bytes());
            assert!(scanner.value().is_ok(), "{text}");
            assert_eq!(
                scanner.fault().map(|f| (f.at, f.problem)),
                Some((2, "a lone surrogate in a string")),
                "{text}"
            );
        }
    }

    #[test]
    fn depth_is_noted_and_a_hundred_thousand_brackets_do_no_harm() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(&nested(128)), Ok(()));
        assert_eq!(scan(&nested(129)).unwrap_err().problem, "nested too deeply");
        assert_eq!(
            scan(&nested(100_000)).unwrap_err().problem,
            "nested too deeply"
        );
        assert_eq!(
            scan(&"[".repeat(100_000)).unwrap_err().problem,
            "the text ends too early"
        );
        let objects = format!("{}1{}", "{\"a\":[".repeat(700), "]}".repeat(700));
        assert_eq!(scan(&objects).unwrap_err().problem, "nested too deeply");
        let mixed = format!("{}1{}", "{\"a\":[".repeat(700), "}]".repeat(700));
        assert_eq!(scan(&mixed).unwrap_err().problem, "expected `,` or `]`");
    }

    #[test]
    fn the_first_special_byte_is_found_at_every_offset() {
        for special in [b'"', b'\\', 0, 0x1F] {
            for offset in 0..20 {
                let mut text = vec![0xC3; 24];
                text[offset] = special;
                text[23] = b'"';
                assert_eq!(plain_length(&text), offset);
            }
        }
        assert_eq!(
            plain_length(&[b' ', b'!', b'#', b'[', b']', 0x7F, 0x80, 0xA2, 0xDC, 0xFF]),
            10
        );
    }

    #[test]
    fn escapes_mean_what_the_standard_says() {
        let cases = [
            (r#""a\u0041\n\"\\\/""#, Some("aA\n\"\\/")),
            (r#""\ud83d\ude00!""#, Some("\u{1F600}!")),
            (r#""\ud83d""#, None),
            (r#""\ude00""#, None),
        ];
        for (text, expected) in cases {
            let token = Scanner::new(text.as_bytes()).value().unwrap();
            assert_eq!(token.text(text).as_deref(), expected, "{text}");
        }
    }
}
