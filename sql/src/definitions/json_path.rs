//! Where in an event's `data` a column's value is: `$.billing.cost`, `$['a b'].c`, `$.parts[kind='text'].tokens`.

use std::{iter::Peekable, str::Chars};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of a key of an object.
    Key(String),
    /// The one object of an array whose `key` has this value: a text, or a number, `true` or `false` as it is written.
    Element {
        /// The key that is compared.
        key: String,
        /// What its value must be.
        value: String,
    },
}

/// Steps from the top of `data` to the value, at least one. The first and the last are keys.
///
/// A key is written `.name` (letters, digits and `_`, not a digit first) or `['any text']`, in which
/// `\` takes the next character as it is. An element is written `[name=value]`, either part in quotes if it has other
/// characters. Array positions and wildcards are no steps.
///
/// # Errors
/// What is wrong, to be put after the path itself.
pub(crate) fn parse(path: &str) -> Result<Vec<Step>, String> {
    let mut rest = path.chars().peekable();
    if rest.next() != Some('$') {
        return Err("it must start with `$`, which stands for `data`".to_owned());
    }
    let mut steps = Vec::new();
    while let Some(opening) = rest.next() {
        let step = match opening {
            '.' => Step::Key(name(&mut rest)?),
            '[' => bracketed(&mut rest)?,
            other => return Err(format!("expected `.` or `[`, found `{other}`")),
        };
        steps.push(step);
    }
    match (steps.first(), steps.last()) {
        (None, _) => Err("it names no key".to_owned()),
        (Some(Step::Element { .. }), _) => Err("`data` is no array: name a key first".to_owned()),
        (_, Some(Step::Element { .. })) => {
            Err("an element is an object: name a key in it".to_owned())
        }
        _ => Ok(steps),
    }
}

/// Steps as a path that [`parse`] reads.
pub(crate) fn text(steps: &[Step]) -> String {
    let is_name = |key: &str| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let first = key.chars().next();
        first.is_some_and(|c| !c.is_numeric()) && key.chars().all(is_part)
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let step = |step: &Step| match step {
        Step::Key(key) if is_name(key) => format!(".{key}"),
        Step::Key(key) => format!("[{}]", quoted(key)),
        Step::Element { key, value } if is_name(key) => format!("[{key}={}]", quoted(value)),
        Step::Element { key, value } => format!("[{}={}]", quoted(key), quoted(value)),
    };
    format!("${}", steps.iter().map(step).collect::<String>())
}

/// Steps as the schema of `events` keeps them: a key as a text, an element as a list of its key and value.
pub(crate) fn json(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Key(key) => serde_json::Value::from(key.as_str()),
        Step::Element { key, value } => serde_json::Value::from(vec![key.as_str(), value.as_str()]),
    };
    serde_json::Value::from(steps.iter().map(step).collect::<Vec<_>>()).to_string()
}

fn name(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut key = String::new();
    while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
        key.push(c);
    }
    match key.chars().next() {
        None => Err("a `.` must be followed by a key".to_owned()),
        Some(first) if first.is_numeric() => Err(format!("key `{key}` starts with a digit")),
        Some(_) => Ok(key),
    }
}

fn bracketed(rest: &mut Peekable<Chars<'_>>) -> Result<Step, String> {
    let key = match rest.peek() {
        Some('\'' | '"') => quoted(rest)?,
        Some('*') => return Err("wildcards are not possible".to_owned()),
        Some(c) if c.is_ascii_digit() => {
            return Err("places in an array are not possible; `[kind='text']` is the element whose `kind` is `text`".to_owned());
        }
        _ => {
            let key = bare(rest);
            if key.is_empty() || rest.peek() != Some(&'=') {
                return Err("a `[` must be followed by a quoted key".to_owned());
            }
            key
        }
    };
    match rest.next() {
        Some(']') => Ok(Step::Key(key)),
        Some('=') => element(key, rest),
        _ => Err(format!("key `{key}` has no closing `]`")),
    }
}

fn element(key: String, rest: &mut Peekable<Chars<'_>>) -> Result<Step, String> {
    let value = match rest.peek() {
        Some('\'' | '"') => quoted(rest)?,
        _ => match bare(rest) {
            value if value.is_empty() => {
                return Err(format!("`{key}=` must be followed by a value"));
            }
            value => value,
        },
    };
    match rest.next() {
        Some(']') => Ok(Step::Element { key, value }),
        _ => Err(format!(
            "value `{value}` has no closing `]`; quote it if it has other characters"
        )),
    }
}

/// Letters, digits and what numbers and names have beside them.
fn bare(rest: &mut Peekable<Chars<'_>>) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let mut text = String::new();
    while let Some(c) = rest.next_if(is_part) {
        text.push(c);
    }
    text
}

fn quoted(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let quote = rest.next();
    let mut key = String::new();
    loop {
        match rest.next() {
            Some('\\') => key.extend(rest.next()),
            c if c == quote => return Ok(key),
            Some(c) => key.push(c),
            None => return Err(format!("key `{key}` has no closing quote")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> Step {
        Step::Key(key.to_owned())
    }

    fn element(key: &str, value: &str) -> Step {
        let (key, value) = (key.to_owned(), value.to_owned());
        Step::Element { key, value }
    }

    #[test]
    fn a_path_is_its_keys_from_the_top() {
        let keys = |path| -> Vec<String> {
            let steps = parse(path).unwrap().into_iter();
            steps
                .map(|step| match step {
                    Step::Key(key) => key,
                    Step::Element { .. } => panic!("{path}: {step:?}"),
                })
                .collect()
        };
        assert_eq!(keys("$.cost"), ["cost"]);
        assert_eq!(keys("$.billing.cost_2"), ["billing", "cost_2"]);
        assert_eq!(keys("$['a b'].c"), ["a b", "c"]);
        assert_eq!(keys(r#"$.x["it's"]"#), ["x", "it's"]);
        assert_eq!(keys(r"$['a\'b\\']"), [r"a'b\"]);
        assert_eq!(keys("$['']"), [""]);
        assert_eq!(keys("$.größe"), ["größe"]);
    }

    #[test]
    fn an_element_is_named_by_the_value_of_a_key() {
        let tokens = |element| vec![key("details"), element, key("tokens")];
        for (path, kind, value) in [
            ("$.details[modality=TEXT].tokens", "modality", "TEXT"),
            ("$.details[modality='TEXT'].tokens", "modality", "TEXT"),
            (
                r#"$.details["the kind"='a\'b=]'].tokens"#,
                "the kind",
                "a'b=]",
            ),
            ("$.details[n=-1.5e+3].tokens", "n", "-1.5e+3"),
            ("$.details[ok=true].tokens", "ok", "true"),
            ("$.details[modality=''].tokens", "modality", ""),
        ] {
            let steps = parse(path).unwrap();
            assert_eq!(steps, tokens(element(kind, value)), "{path}");
            assert_eq!(parse(&text(&steps)).unwrap(), steps, "{path}");
        }
        let nested = parse("$.a[b=c][d=e].f");
        assert_eq!(
            nested.unwrap(),
            [key("a"), element("b", "c"), element("d", "e"), key("f")]
        );
        let json = json(&tokens(element("modality", "TEXT")));
        assert_eq!(json, r#"["details",["modality","TEXT"],"tokens"]"#);
    }

    #[test]
    fn a_broken_path_says_what_is_wrong() {
        for (path, problem) in [
            ("", "it must start with `$`, which stands for `data`"),
            ("cost", "it must start with `$`, which stands for `data`"),
            ("$", "it names no key"),
            ("$.", "a `.` must be followed by a key"),
            ("$..a", "a `.` must be followed by a key"),
            ("$.a-b", "expected `.` or `[`, found `-`"),
            ("$.2a", "key `2a` starts with a digit"),
            (
                "$.a[0]",
                "places in an array are not possible; `[kind='text']` is the element whose `kind` is `text`",
            ),
            ("$[a=b].c", "`data` is no array: name a key first"),
            ("$.a[b=c]", "an element is an object: name a key in it"),
            ("$.a[b=].c", "`b=` must be followed by a value"),
            (
                "$.a[b=c d].e",
                "value `c` has no closing `]`; quote it if it has other characters",
            ),
            ("$.a[=b].c", "a `[` must be followed by a quoted key"),
            ("$[*]", "wildcards are not possible"),
            ("$[a]", "a `[` must be followed by a quoted key"),
            ("$['a", "key `a` has no closing quote"),
            ("$['a'", "key `a` has no closing `]`"),
        ] {
            assert_eq!(parse(path).unwrap_err(), problem, "{path}");
        }
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        for (keys, path) in [
            (&["billing", "cost"][..], "$.billing.cost"),
            (&["a b", "it's", "1", ""], r"$['a b']['it\'s']['1']['']"),
            (&[r"a\b", "größe", "_x"], r"$['a\\b'].größe._x"),
        ] {
            let keys: Vec<Step> = keys.iter().map(|name| key(name)).collect();
            assert_eq!(text(&keys), path);
            assert_eq!(parse(path).unwrap(), keys);
        }
    }
}
