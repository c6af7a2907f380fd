//! What one event type reads from `data`: its columns, and a small tree of the keys that lead there.

use super::envelope::duplicate;
use super::scan::{Scanner, Token};
use super::text::{describe, shorten};
use super::time::{date, instant};
use super::{DEFAULT_KEY, PATH_KEY, REQUIRED_KEY, STRINGS_KEY, TYPE_KEY, unfit};
use crate::Result;
use crate::number::{decimal, integer};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde::Deserialize;
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
    List(Vec<Value<'a>>),
}

/// The type of a column.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Boolean,
    Integer,
    Decimal { precision: u8, scale: u8 },
    Instant,
    Date,
    List(Box<Type>),
}

/// What a column, or an element of its lists, takes.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) kind: Kind,
    /// How reasons name it.
    name: String,
    /// Whether a number may come in quotes.
    strings: bool,
}

#[derive(Debug)]
struct Column {
    /// How reasons name it: ``field `cost` at `$.billing.cost` ``.
    label: String,
    takes: Type,
    required: bool,
    /// What stands for a value that is missing.
    default: Value<'static>,
}

/// One declared key and what is below it.
#[derive(Debug, Default)]
struct Node {
    key: String,
    /// How reasons name it: `$.billing`.
    path: String,
    /// Place in [`Scratch::seen`].
    number: usize,
    /// Columns whose value is here. Where columns are below too, an object is read for those and anything
    /// else for these.
    columns: Vec<usize>,
    children: Vec<Node>,
    /// Objects of the array that is here.
    elements: Vec<Element>,
}

/// The one object of an array in which a key has a value.
#[derive(Debug)]
struct Element {
    key: String,
    value: String,
    node: Node,
}

/// One step of a column's path, as the schema of `events` keeps it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Step {
    Key(String),
    Element(String, String),
}

impl Step {
    /// A path with this step at its end.
    fn after(&self, path: &str) -> String {
        match self {
            Step::Key(key) => format!("{path}.{key}"),
            Step::Element(key, value) => format!("{path}[{key}='{value}']"),
        }
    }
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
        let defaults = shape.columns.iter().map(|column| column.default.clone());
        self.values.extend(defaults);
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
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.columns.iter().map(|column| &column.takes.kind)
    }

    fn add(&mut self, field: &Field) -> Result<()> {
        let path = path_of(field)?;
        let name = field.name();
        let label = match path.as_slice() {
            [Step::Key(key)] if key == name => format!("field `{name}`"),
            steps => {
                let path = steps
                    .iter()
                    .fold("$".to_owned(), |path, step| step.after(&path));
                format!("field `{name}` at `{path}`")
            }
        };
        let number = self.columns.len();
        let says = |key: &str| {
            field
                .metadata()
                .get(key)
                .is_some_and(|value| value == "true")
        };
        let takes = Type::of(field, field.data_type(), says(STRINGS_KEY))?;
        self.columns.push(Column {
            label,
            default: default_of(field, &takes)?,
            takes,
            required: says(REQUIRED_KEY),
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

impl<'a> Walk<'_, 'a> {
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
            Some(child) if self.leads_on(child) => self.inner(child, key),
            Some(child) => self.leaf(child),
            None => self.undeclared(key),
        }
    }

    /// Whether the value that follows is read by what is declared below its key.
    fn leads_on(&mut self, node: &Node) -> bool {
        node.columns.is_empty() || node.is_above(self.scanner.next_byte())
    }

    fn leaf(&mut self, node: &Node) -> Result<(), String> {
        let token = self.scanner.value()?;
        self.take(node, token)
    }

    /// The value of the columns that are here.
    fn take(&mut self, node: &Node, token: Token) -> Result<(), String> {
        for &number in &node.columns {
            let column = &self.shape.columns[number];
            let value = column.takes.read(token, self.data, self.max_number_len);
            self.scratch.values[number] =
                value.map_err(|reason| format!("{}: {reason}", column.label))?;
        }
        Ok(())
    }

    /// An object or an array on the way to declared columns.
    fn inner(&mut self, node: &Node, key: Token) -> Result<(), String> {
        match self.scanner.next_byte() {
            Some(b'{') if !node.children.is_empty() => self.inner_object(node, key),
            Some(b'[') if !node.elements.is_empty() => self.inner_array(node, key),
            _ => match self.scanner.value()?.raw(self.data) {
                "null" => Ok(()),
                raw => Err(format!(
                    "`{}` must be {}, got {}",
                    node.path,
                    node.what(),
                    describe(raw)
                )),
            },
        }
    }

    /// An array with objects in which columns are. It goes to `extra` as it is, so that all of it is kept.
    fn inner_array(&mut self, node: &Node, key: Token) -> Result<(), String> {
        let token = self.scanner.value()?;
        let array = token.raw(self.data);
        let first = Scanner::new(array.get(1..).unwrap_or_default().as_bytes()).next_byte();
        if !node.columns.is_empty() && first != Some(b'{') {
            return self.take(node, token);
        }
        self.elements(node, array)?;
        self.scratch.key(key.raw(self.data));
        self.scratch.extra.push_str(array);
        Ok(())
    }

    /// Reads the objects of an array that a path names.
    fn elements(&mut self, node: &Node, array: &'a str) -> Result<(), String> {
        let mut scanner = Scanner::new(array.as_bytes());
        let mut found = vec![false; node.elements.len()];
        let mut more = scanner.enter(b'[', b']')?;
        while more {
            let object = scanner.value()?.raw(array);
            for (element, found) in node.elements.iter().zip(&mut found) {
                if !element.is(object)? {
                    continue;
                }
                if std::mem::replace(found, true) {
                    return Err(format!("two elements are `{}`", element.node.path));
                }
                let kept = self.scratch.extra.len();
                let mut walk = Walk {
                    shape: self.shape,
                    data: object,
                    max_number_len: self.max_number_len,
                    scanner: Scanner::new(object.as_bytes()),
                    scratch: &mut *self.scratch,
                };
                walk.object(&element.node)?;
                self.scratch.extra.truncate(kept);
            }
            more = scanner.more(b']')?;
        }
        Ok(())
    }

    /// An object on the way to declared columns. What else is in it goes to `extra`, below its key.
    fn inner_object(&mut self, node: &Node, key: Token) -> Result<(), String> {
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
    fn place(&mut self, path: &[Step], column: usize, nodes: &mut usize) {
        match path.split_first() {
            None => self.columns.push(column),
            Some((step, rest)) => self.below(step, nodes).place(rest, column, nodes),
        }
    }

    /// The node that a step leads to, made where there is none.
    fn below(&mut self, step: &Step, nodes: &mut usize) -> &mut Node {
        let mut new = || {
            *nodes += 1;
            Node {
                path: step.after(&self.path),
                number: *nodes - 1,
                ..Node::default()
            }
        };
        match step {
            Step::Key(key) => {
                let found = self.children.iter().position(|child| child.key == *key);
                let at = found.unwrap_or_else(|| {
                    let key = key.clone();
                    self.children.push(Node { key, ..new() });
                    self.children.len() - 1
                });
                &mut self.children[at]
            }
            Step::Element(key, value) => {
                let mut elements = self.elements.iter();
                let found = elements.position(|e| e.key == *key && e.value == *value);
                let at = found.unwrap_or_else(|| {
                    let (key, value, node) = (key.clone(), value.clone(), new());
                    self.elements.push(Element { key, value, node });
                    self.elements.len() - 1
                });
                &mut self.elements[at].node
            }
        }
    }

    /// Whether columns are declared below a value that begins with a byte.
    fn is_above(&self, byte: Option<u8>) -> bool {
        match byte {
            Some(b'{') => !self.children.is_empty(),
            Some(b'[') => !self.elements.is_empty(),
            _ => false,
        }
    }

    /// What must be here for the columns that are below.
    fn what(&self) -> &'static str {
        match (self.children.is_empty(), self.elements.is_empty()) {
            (_, true) => "an object",
            (true, false) => "an array",
            (false, false) => "an object or an array",
        }
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

impl Element {
    /// Whether an element of the array is the one: an object in which the key has the value.
    ///
    /// # Errors
    /// The object has the key twice.
    fn is(&self, element: &str) -> Result<bool, String> {
        let mut scanner = Scanner::new(element.as_bytes());
        let mut found: Option<Token> = None;
        let mut more = scanner.next_byte() == Some(b'{') && scanner.enter(b'{', b'}')?;
        while more {
            let key = scanner.key()?;
            let value = scanner.value()?;
            let is_key = key.text(element).is_some_and(|name| name == self.key);
            if is_key && found.replace(value).is_some() {
                return Err(twice(&self.key, &self.node));
            }
            more = scanner.more(b'}')?;
        }
        Ok(found.is_some_and(|value| match value.text(element) {
            Some(text) => text == self.value,
            None => value.raw(element) == self.value,
        }))
    }
}

impl Type {
    fn of(field: &Field, data_type: &DataType, strings: bool) -> Result<Self> {
        Ok(Type {
            kind: kind_of(field, data_type, strings)?,
            name: type_name(data_type),
            strings,
        })
    }

    /// One value of this type.
    ///
    /// # Errors
    /// The reason: it is of another type, out of range, or finer than the type.
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
        match &self.kind {
            Kind::Text => token
                .text(data)
                .map(Value::Text)
                .ok_or_else(|| self.mismatch(raw)),
            Kind::Boolean if raw == "true" => Ok(Value::Boolean(true)),
            Kind::Boolean if raw == "false" => Ok(Value::Boolean(false)),
            Kind::Boolean => Err(self.mismatch(raw)),
            Kind::Integer | Kind::Decimal { .. } => match token.text(data) {
                Some(text) if self.strings => self.number_in_quotes(&text, raw, max_number_len),
                _ => self.number(raw, max_number_len),
            },
            Kind::Instant | Kind::Date => match token.text(data) {
                Some(text) => self.time(&text),
                None => Err(self.mismatch(raw)),
            },
            Kind::List(element) if raw.starts_with('[') => element.elements(raw, max_number_len),
            Kind::List(_) => Err(self.mismatch(raw)),
        }
    }

    /// Every element of an array, each of this type.
    fn elements<'a>(&self, array: &'a str, max_number_len: usize) -> Result<Value<'a>, String> {
        let mut scanner = Scanner::new(array.as_bytes());
        let mut values = Vec::new();
        let mut more = scanner.enter(b'[', b']')?;
        while more {
            let number = values.len() + 1;
            let value = self.read(scanner.value()?, array, max_number_len);
            match value.map_err(|reason| format!("element {number}: {reason}"))? {
                Value::Null => {
                    return Err(format!(
                        "element {number} is null; leave it out of the list"
                    ));
                }
                value => values.push(value),
            }
            more = scanner.more(b']')?;
        }
        Ok(Value::List(values))
    }

    /// A string that is exactly one JSON number.
    fn number_in_quotes<'a>(
        &self,
        text: &str,
        raw: &str,
        max_number_len: usize,
    ) -> Result<Value<'a>, String> {
        let mut scanner = Scanner::new(text.as_bytes());
        match scanner.value() {
            Ok(token) if token.range() == (0..text.len()) && is_number(text) => {
                self.number(text, max_number_len)
            }
            _ => Err(format!(
                "{}, which is not exactly one JSON number",
                self.expected(raw)
            )),
        }
    }

    fn number<'a>(&self, raw: &str, max_number_len: usize) -> Result<Value<'a>, String> {
        if !is_number(raw) {
            return Err(self.mismatch(raw));
        }
        if raw.len() > max_number_len {
            let length = raw.len();
            return Err(format!(
                "a number of {length} bytes, above the limit of {max_number_len}"
            ));
        }
        let value = match self.kind {
            Kind::Decimal { precision, scale } => {
                decimal(raw, precision, u32::from(scale)).map(Value::Decimal)
            }
            _ => integer(raw).map(Value::Integer),
        };
        value.map_err(|fault| format!("{} {fault} {}", shorten(raw), self.name))
    }

    fn time<'a>(&self, text: &str) -> Result<Value<'a>, String> {
        let value = match self.kind {
            Kind::Date => date(text).map(Value::Date),
            _ => match instant(text) {
                // A column is data, and data is not rounded; only the event's own time is.
                Ok(instant) if !instant.exact => {
                    return Err(format!("\"{text}\" is finer than a microsecond"));
                }
                read => read.map(|instant| Value::Instant(instant.micros)),
            },
        };
        value.map_err(|fault| {
            let form = match self.kind {
                Kind::Date => "YYYY-MM-DD",
                _ => "RFC 3339 with an offset",
            };
            format!("\"{}\" {fault} ({form})", shorten(text))
        })
    }

    fn mismatch(&self, raw: &str) -> String {
        let is_quoted_number =
            matches!(self.kind, Kind::Integer | Kind::Decimal { .. }) && raw.starts_with('"');
        let hint = if is_quoted_number {
            "; send a number without quotes, or declare the column with OPTIONS (strings = 'true')"
        } else {
            ""
        };
        format!("{}{hint}", self.expected(raw))
    }

    fn expected(&self, raw: &str) -> String {
        format!("expected {}, got {}", self.name, describe(raw))
    }
}

/// Whether a JSON value is a number.
fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// What a field's metadata says of a value that is missing; NULL when it says nothing.
fn default_of(field: &Field, takes: &Type) -> Result<Value<'static>> {
    let Some(text) = field.metadata().get(DEFAULT_KEY) else {
        return Ok(Value::Null);
    };
    let mut scanner = Scanner::new(text.as_bytes());
    let value = match scanner
        .value()
        .and_then(|token| scanner.finish().map(|()| token))
    {
        Ok(token) => takes.read(token, text, text.len()),
        Err(broken) => Err(broken.into()),
    };
    value.map(Value::into_owned).map_err(|reason| {
        let name = field.name();
        unfit(format!("column `{name}`: the default {text}: {reason}"))
    })
}

impl Value<'_> {
    fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Boolean(value) => Value::Boolean(value),
            Value::Integer(value) => Value::Integer(value),
            Value::Decimal(value) => Value::Decimal(value),
            Value::Instant(value) => Value::Instant(value),
            Value::Date(value) => Value::Date(value),
            Value::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
        }
    }
}

fn twice(name: &str, node: &Node) -> String {
    let place = if node.path == "$" { "data" } else { &node.path };
    format!("key `{}` is given twice in `{place}`", shorten(name))
}

fn path_of(field: &Field) -> Result<Vec<Step>> {
    let Some(text) = field.metadata().get(PATH_KEY) else {
        return Ok(vec![Step::Key(field.name().clone())]);
    };
    match serde_json::from_str::<Vec<Step>>(text) {
        Ok(path) if !path.is_empty() => Ok(path),
        _ => Err(unfit(format!(
            "column `{}`: `{text}` is no path",
            field.name()
        ))),
    }
}

fn kind_of(field: &Field, data_type: &DataType, strings: bool) -> Result<Kind> {
    Ok(match data_type {
        DataType::List(element) if !matches!(element.data_type(), DataType::List(_)) => {
            Kind::List(Box::new(Type::of(field, element.data_type(), strings)?))
        }
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
        DataType::List(element) => format!("{}[]", type_name(element.data_type())),
        _ => "TIMESTAMP".to_owned(),
    }
}
