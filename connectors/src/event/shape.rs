//! What one event type reads from `data`: its columns, and a small tree of the keys that lead there.

use super::envelope::duplicate;
use super::number::{decimal, integer};
use super::scan::{Scanner, Token};
use super::text::{describe, shorten};
use super::time::{date, instant};
use super::{PATH_KEY, REQUIRED_KEY, TYPE_KEY, unfit};
use crate::Result;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use std::borrow::Cow;

/// One value, typed, before it is appended. Instants are microseconds, dates days, decimals scaled.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Value<'a> {
    #[default]
    Null,
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i64),
    Decimal(i128),
    Instant(i64),
    Date(i32),
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Integer,
    Decimal { precision: u8, scale: u8 },
    Instant,
    Date,
}

#[derive(Debug)]
struct Column {
    /// How reasons name it: ``field `cost` at `$.billing.cost` ``.
    label: String,
    kind: Kind,
    /// How reasons name its type.
    type_name: String,
    required: bool,
}

/// One declared key and what is below it.
#[derive(Debug, Default)]
struct Node {
    key: String,
    /// How reasons name it: `$.billing`.
    path: String,
    /// Place in [`Scratch::seen`].
    number: usize,
    /// Columns whose value is here; with any, nothing below is looked for.
    columns: Vec<usize>,
    children: Vec<Node>,
}

/// One event type.
#[derive(Debug)]
pub(super) struct Shape {
    /// The CloudEvents `type`.
    pub(super) kind: String,
    columns: Vec<Column>,
    root: Node,
    nodes: usize,
}

/// What reading one event leaves behind; used again for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch<'a> {
    /// One value a column.
    pub(super) values: Vec<Value<'a>>,
    /// An unfinished JSON object of what is not declared.
    extra: String,
    /// For each node the number of the last event that had it, so that nothing is cleared between.
    seen: Vec<u64>,
    event: u64,
    /// Undeclared keys of the objects that are open, to find duplicates.
    undeclared: Vec<Token>,
}

impl<'a> Scratch<'a> {
    /// Undeclared fields as the text of a JSON object, if there are any.
    pub(super) fn extra(&self) -> Option<&str> {
        (!self.extra.is_empty()).then_some(self.extra.as_str())
    }

    fn start(&mut self, shape: &Shape) {
        self.event += 1;
        self.values.clear();
        self.values.resize(shape.columns.len(), Value::Null);
        self.seen.resize(self.seen.len().max(shape.nodes), 0);
        self.undeclared.clear();
        self.extra.clear();
        self.extra.push('{');
    }

    /// Ends the object of undeclared fields; an empty one becomes the empty text.
    fn finish(&mut self) {
        if self.extra.len() == 1 {
            self.extra.clear();
        } else {
            self.extra.push('}');
        }
    }

    fn key(&mut self, raw: &str) {
        if !self.extra.ends_with('{') {
            self.extra.push(',');
        }
        self.extra.push_str(raw);
        self.extra.push(':');
    }

    /// Notes a node; false when this event had it before.
    fn first_sight(&mut self, node: &Node) -> bool {
        match self.seen.get_mut(node.number) {
            Some(last) => std::mem::replace(last, self.event) != self.event,
            None => true,
        }
    }
}

impl Shape {
    /// The shape of one struct field of `events`, from its metadata.
    pub(super) fn new(field: &Field, children: &Fields) -> Result<Self> {
        let kind = field.metadata().get(TYPE_KEY);
        let kind =
            kind.ok_or_else(|| unfit(format!("column `{}` has no `{TYPE_KEY}`", field.name())))?;
        let mut shape = Shape {
            kind: kind.clone(),
            columns: Vec::with_capacity(children.len()),
            root: Node {
                path: "$".to_owned(),
                ..Node::default()
            },
            nodes: 1,
        };
        for child in children {
            shape.add(child)?;
        }
        Ok(shape)
    }

    /// The types of the columns, in order.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.columns.iter().map(|column| column.kind)
    }

    fn add(&mut self, field: &Field) -> Result<()> {
        let path = path_of(field)?;
        let name = field.name();
        let is_plain = path.len() == 1 && path.first() == Some(name);
        let label = match is_plain {
            true => format!("field `{name}`"),
            false => format!("field `{name}` at `$.{}`", path.join(".")),
        };
        let number = self.columns.len();
        self.columns.push(Column {
            label,
            kind: kind_of(field)?,
            type_name: type_name(field.data_type()),
            required: field
                .metadata()
                .get(REQUIRED_KEY)
                .is_some_and(|v| v == "true"),
        });
        self.root.place(&path, number, &mut self.nodes);
        Ok(())
    }

    /// Reads all columns from the text of `data` into the scratch.
    ///
    /// # Errors
    /// The reason: no object, a value that does not fit, a required one missing, a key given twice.
    pub(super) fn read<'a>(
        &self,
        data: Option<&'a str>,
        max_number_len: usize,
        scratch: &mut Scratch<'a>,
    ) -> Result<(), String> {
        scratch.start(self);
        if let Some(data) = data {
            if !data.starts_with('{') {
                return Err(format!("`data` must be an object, got {}", describe(data)));
            }
            let scanner = Scanner::new(data.as_bytes());
            let mut walk = Walk {
                shape: self,
                data,
                max_number_len,
                scanner,
                scratch,
            };
            walk.object(&self.root)?;
        }
        scratch.finish();
        let mut pairs = self.columns.iter().zip(&scratch.values);
        match pairs.find(|(column, value)| column.required && **value == Value::Null) {
            Some((column, _)) => Err(format!("{} is required but missing or null", column.label)),
            None => Ok(()),
        }
    }
}

/// One pass over the text of `data`, which was checked before.
struct Walk<'w, 'a> {
    shape: &'w Shape,
    data: &'a str,
    max_number_len: usize,
    scanner: Scanner<'a>,
    scratch: &'w mut Scratch<'a>,
}

impl Walk<'_, '_> {
    /// One object. Recursion is as deep as the declared paths, not as the input.
    fn object(&mut self, node: &Node) -> Result<(), String> {
        let outer_keys = self.scratch.undeclared.len();
        let mut guess = 0;
        if self.scanner.enter(b'{', b'}')? {
            loop {
                self.member(node, &mut guess)?;
                if !self.scanner.more(b'}')? {
                    break;
                }
            }
        }
        let keys = self
            .scratch
            .undeclared
            .get(outer_keys..)
            .unwrap_or_default();
        if let Some(name) = duplicate(keys, self.data) {
            return Err(twice(&name, node));
        }
        self.scratch.undeclared.truncate(outer_keys);
        Ok(())
    }

    /// One key with its value. `guess` is the child expected next, for publishers keep an order.
    fn member(&mut self, node: &Node, guess: &mut usize) -> Result<(), String> {
        let key = self.scanner.key()?;
        match node.child(key, self.data, guess) {
            Some(child) if !self.scratch.first_sight(child) => Err(twice(&child.key, node)),
            Some(child) if child.columns.is_empty() => self.inner(child, key),
            Some(child) => self.leaf(child),
            None => self.undeclared(key),
        }
    }

    fn leaf(&mut self, node: &Node) -> Result<(), String> {
        let token = self.scanner.value()?;
        for &number in &node.columns {
            let column = &self.shape.columns[number];
            self.scratch.values[number] = column.read(token, self.data, self.max_number_len)?;
        }
        Ok(())
    }

    /// An object on the way to declared columns. What else is in it goes to `extra`, below its key.
    fn inner(&mut self, node: &Node, key: Token) -> Result<(), String> {
        if self.scanner.next_byte() != Some(b'{') {
            let raw = self.scanner.value()?.raw(self.data);
            return match raw {
                "null" => Ok(()),
                _ => Err(format!(
                    "`{}` must be an object, got {}",
                    node.path,
                    describe(raw)
                )),
            };
        }
        let before = self.scratch.extra.len();
        self.scratch.key(key.raw(self.data));
        self.scratch.extra.push('{');
        let opened = self.scratch.extra.len();
        self.object(node)?;
        if self.scratch.extra.len() == opened {
            self.scratch.extra.truncate(before);
        } else {
            self.scratch.extra.push('}');
        }
        Ok(())
    }

    fn undeclared(&mut self, key: Token) -> Result<(), String> {
        let value = self.scanner.value()?;
        self.scratch.undeclared.push(key);
        self.scratch.key(key.raw(self.data));
        self.scratch.extra.push_str(value.raw(self.data));
        Ok(())
    }
}

impl Node {
    fn place(&mut self, path: &[String], column: usize, nodes: &mut usize) {
        let Some((key, rest)) = path.split_first() else {
            self.columns.push(column);
            return;
        };
        let found = self.children.iter().position(|child| child.key == *key);
        let at = found.unwrap_or_else(|| {
            self.children.push(Node {
                key: key.clone(),
                path: format!("{}.{key}", self.path),
                number: *nodes,
                ..Node::default()
            });
            *nodes += 1;
            self.children.len() - 1
        });
        self.children[at].place(rest, column, nodes);
    }

    fn child(&self, key: Token, data: &str, guess: &mut usize) -> Option<&Node> {
        let name = key.text(data)?;
        let expected = self.children.get(*guess).filter(|child| child.key == name);
        if expected.is_some() {
            *guess += 1;
            return expected;
        }
        let at = self.children.iter().position(|child| child.key == name)?;
        *guess = at + 1;
        self.children.get(at)
    }
}

impl Column {
    fn read<'a>(
        &self,
        token: Token,
        data: &'a str,
        max_number_len: usize,
    ) -> Result<Value<'a>, String> {
        let raw = token.raw(data);
        if raw.starts_with('n') {
            return Ok(Value::Null);
        }
        match self.kind {
            Kind::Text => token
                .text(data)
                .map(Value::Text)
                .ok_or_else(|| self.mismatch(raw)),
            Kind::Boolean if raw == "true" => Ok(Value::Boolean(true)),
            Kind::Boolean if raw == "false" => Ok(Value::Boolean(false)),
            Kind::Boolean => Err(self.mismatch(raw)),
            Kind::Integer | Kind::Decimal { .. } => self.number(raw, max_number_len),
            Kind::Instant | Kind::Date => match token.text(data) {
                Some(text) => self.time(&text),
                None => Err(self.mismatch(raw)),
            },
        }
    }

    fn number<'a>(&self, raw: &str, max_number_len: usize) -> Result<Value<'a>, String> {
        if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(self.mismatch(raw));
        }
        if raw.len() > max_number_len {
            let length = raw.len();
            let label = &self.label;
            return Err(format!(
                "{label}: a number of {length} bytes, above the limit of {max_number_len}"
            ));
        }
        let value = match self.kind {
            Kind::Decimal { precision, scale } => {
                decimal(raw, precision, u32::from(scale)).map(Value::Decimal)
            }
            _ => integer(raw).map(Value::Integer),
        };
        value.map_err(|fault| {
            format!(
                "{}: {} {fault} {}",
                self.label,
                shorten(raw),
                self.type_name
            )
        })
    }

    fn time<'a>(&self, text: &str) -> Result<Value<'a>, String> {
        let value = match self.kind {
            Kind::Date => date(text).map(Value::Date),
            _ => match instant(text) {
                // A column is data, and data is not rounded; only the event's own time is.
                Ok(instant) if !instant.exact => {
                    let label = &self.label;
                    return Err(format!("{label}: \"{text}\" is finer than a microsecond"));
                }
                read => read.map(|instant| Value::Instant(instant.micros)),
            },
        };
        value.map_err(|fault| {
            let form = match self.kind {
                Kind::Date => "YYYY-MM-DD",
                _ => "RFC 3339 with an offset",
            };
            format!("{}: \"{}\" {fault} ({form})", self.label, shorten(text))
        })
    }

    fn mismatch(&self, raw: &str) -> String {
        let is_quoted_number =
            matches!(self.kind, Kind::Integer | Kind::Decimal { .. }) && raw.starts_with('"');
        let hint = if is_quoted_number {
            "; send a number without quotes"
        } else {
            ""
        };
        format!(
            "{}: expected {}, got {}{hint}",
            self.label,
            self.type_name,
            describe(raw)
        )
    }
}

fn twice(name: &str, node: &Node) -> String {
    let place = if node.path == "$" { "data" } else { &node.path };
    format!("key `{}` is given twice in `{place}`", shorten(name))
}

fn path_of(field: &Field) -> Result<Vec<String>> {
    let Some(text) = field.metadata().get(PATH_KEY) else {
        return Ok(vec![field.name().clone()]);
    };
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(path) if !path.is_empty() => Ok(path),
        _ => Err(unfit(format!(
            "column `{}`: `{text}` is no path",
            field.name()
        ))),
    }
}

fn kind_of(field: &Field) -> Result<Kind> {
    Ok(match field.data_type() {
        DataType::Utf8 => Kind::Text,
        DataType::Boolean => Kind::Boolean,
        DataType::Int64 => Kind::Integer,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Kind::Instant,
        DataType::Date32 => Kind::Date,
        DataType::Decimal128(precision, scale) => match u8::try_from(*scale) {
            Ok(scale) => Kind::Decimal {
                precision: *precision,
                scale,
            },
            Err(_) => {
                return Err(unfit(format!(
                    "column `{}` has a negative scale",
                    field.name()
                )));
            }
        },
        other => {
            return Err(unfit(format!(
                "column `{}`: {other} cannot be decoded",
                field.name()
            )));
        }
    })
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "VARCHAR".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        _ => "TIMESTAMP".to_owned(),
    }
}
