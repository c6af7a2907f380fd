//! Where in an event's `data` a column's value is: `$.billing.cost`, `$['a b'].c`.

use std::{iter::Peekable, str::Chars};

/// Keys from the top of `data` to the value, at least one.
///
/// A key is written `.name` (letters, digits and `_`, not a digit first) or `['any text']`, in which
/// `\` takes the next character as it is. Array positions and wildcards are not keys.
///
/// # Errors
/// What is wrong, to be put after the path itself.
pub(crate) fn parse(path: &str) -> Result<Vec<String>, String> {
    let mut rest = path.chars().peekable();
    if rest.next() != Some('$') {
        return Err("it must start with `$`, which stands for `data`".to_owned());
    }
    let mut keys = Vec::new();
    while let Some(opening) = rest.next() {
        let key = match opening {
            '.' => name(&mut rest)?,
            '[' => bracketed(&mut rest)?,
            other => return Err(format!("expected `.` or `[`, found `{other}`")),
        };
        keys.push(key);
    }
    match keys.is_empty() {
        true => Err("it names no key".to_owned()),
        false => Ok(keys),
    }
}

/// Keys as a path that [`parse`] reads.
pub(crate) fn text(keys: &[String]) -> String {
    let is_name = |key: &str| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let first = key.chars().next();
        first.is_some_and(|c| !c.is_numeric()) && key.chars().all(is_part)
    };
    let key = |key: &String| match is_name(key) {
        true => format!(".{key}"),
        false => format!("['{}']", key.replace('\\', "\\\\").replace('\'', "\\'")),
    };
    format!("${}", keys.iter().map(key).collect::<String>())
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

fn bracketed(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let quote = match rest.next() {
        Some(quote @ ('\'' | '"')) => quote,
        Some('*') => return Err("wildcards are not possible".to_owned()),
        Some(c) if c.is_ascii_digit() => {
            return Err("places in an array are not possible".to_owned());
        }
        _ => return Err("a `[` must be followed by a quoted key".to_owned()),
    };
    let mut key = String::new();
    loop {
        match rest.next() {
            Some('\\') => key.extend(rest.next()),
            Some(c) if c == quote => break,
            Some(c) => key.push(c),
            None => return Err(format!("key `{key}` has no closing quote")),
        }
    }
    match rest.next() {
        Some(']') => Ok(key),
        _ => Err(format!("key `{key}` has no closing `]`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_keys_from_the_top() {
        assert_eq!(parse("$.cost").unwrap(), ["cost"]);
        assert_eq!(parse("$.billing.cost_2").unwrap(), ["billing", "cost_2"]);
        assert_eq!(parse("$['a b'].c").unwrap(), ["a b", "c"]);
        assert_eq!(parse(r#"$.x["it's"]"#).unwrap(), ["x", "it's"]);
        assert_eq!(parse(r"$['a\'b\\']").unwrap(), [r"a'b\"]);
        assert_eq!(parse("$['']").unwrap(), [""]);
        assert_eq!(parse("$.größe").unwrap(), ["größe"]);
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
            ("$[0]", "places in an array are not possible"),
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
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(text(&keys), path);
            assert_eq!(parse(path).unwrap(), keys);
        }
    }
}
