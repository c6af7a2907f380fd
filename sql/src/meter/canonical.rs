//! The text of a query by which a meter's table knows it, in words of our own: a library's printing may change with its
//! version, and every table would then be refused.
//!
//! | written | becomes |
//! |---|---|
//! | white space, `-- …`, `/* … */` | nothing |
//! | keywords and names without quotes | lower case |
//! | names in quotes, texts | as they are written, with their quotes |
//! | numbers | lower case |
//! | `!=` | `<>` |
//! | other operators and punctuation | as they are, the longest first |
//!
//! A text with anything else in it is one piece, so that it may differ in looks and can never pass for another query.

/// Operators of more than one character, longest first.
const OPERATORS: &[&str] = &[
    "!~~*", "!~~", "!~*", "->>", "<=>", "~~*", "!~", "!=", "#>", "->", "::", "<<", "<=", "<>",
    "=>", "==", ">=", ">>", "@>", "<@", "||", "~*", "~~", ":=", "&&", "|>",
];

/// Operators and punctuation of one character.
const CHARACTERS: &str = "()[]{},.;:+-*/%=<>&|^~!?";

/// The pieces of a query: queries that differ in layout, comments and letter case alone have the same.
pub(super) fn pieces(query: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = query;
    while !rest.is_empty() {
        let Some((length, piece)) = next(rest) else {
            return vec![query.to_owned()];
        };
        pieces.extend(piece);
        rest = &rest[length..];
    }
    pieces
}

/// How long the next piece is, in bytes, and what it becomes; `None` for what is not known here.
fn next(rest: &str) -> Option<(usize, Option<String>)> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some((first.len_utf8(), None));
    }
    if rest.starts_with("--") {
        return Some((rest.find('\n').unwrap_or(rest.len()), None));
    }
    if rest.starts_with("/*") {
        return Some((comment(rest)?, None));
    }
    if is_name_start(first) {
        return word(rest);
    }
    let second = rest[first.len_utf8()..].chars().next();
    if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
        let length = number(rest)?;
        return Some((length, Some(rest[..length].to_ascii_lowercase())));
    }
    if matches!(first, '\'' | '"' | '`') {
        let length = quoted(rest, first, false)?;
        return Some((length, Some(rest[..length].to_owned())));
    }
    let operator = OPERATORS
        .iter()
        .find(|operator| rest.starts_with(**operator));
    match operator {
        Some(&"!=") => Some((2, Some("<>".to_owned()))),
        Some(operator) => Some((operator.len(), Some((*operator).to_owned()))),
        None => CHARACTERS
            .contains(first)
            .then(|| (1, Some(first.to_string()))),
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// A keyword, a name, or a text with a letter before its quote.
fn word(rest: &str) -> Option<(usize, Option<String>)> {
    let is_part = |c: char| is_name_start(c) || c.is_ascii_digit() || matches!(c, '$' | '@' | '#');
    let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let word = rest[..length].to_ascii_lowercase();
    if !rest[length..].starts_with('\'') {
        return Some((length, Some(word)));
    }
    // In `E'…'` a backslash may stand before a quote. What others mean is not known here.
    let escapes = match word.as_str() {
        "e" => true,
        "x" | "n" | "b" => false,
        _ => return None,
    };
    let text = quoted(&rest[length..], '\'', escapes)?;
    let piece = format!("{word}{}", &rest[length..length + text]);
    Some((length + text, Some(piece)))
}

/// The length of what is in quotes, the quotes included; a quote is doubled in it.
fn quoted(rest: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if escapes && c == '\\' {
            characters.next()?;
        } else if c == quote && characters.next_if(|(_, c)| *c == quote).is_none() {
            return Some(at + c.len_utf8());
        }
    }
    None
}

/// The length of a number; `None` when a name follows at once, which is a part of it to some readers.
fn number(rest: &str) -> Option<usize> {
    let digits = |from: usize| {
        let end = rest[from..].find(|c: char| !c.is_ascii_digit());
        end.map_or(rest.len(), |end| from + end)
    };
    let mut end = digits(0);
    if rest[end..].starts_with('.') {
        end = digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent == end + 1 + sign {
            return None;
        }
        end = exponent;
    }
    let follows = rest[end..].chars().next();
    follows
        .is_none_or(|c| !is_name_start(c) && c != '.')
        .then_some(end)
}

/// The length of a comment, in which others may stand; `None` when it has no end, or is one that some readers obey.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("/*!") || rest.starts_with("/*+") {
        return None;
    }
    let mut depth = 0_u32;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next()?.len_utf8();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::syntax;

    fn text(query: &str) -> String {
        pieces(query).join(" ")
    }

    /// The table above, row by row.
    #[test]
    fn looks_are_left_out_and_all_else_is_kept() {
        for (query, expected) in [
            (
                "SELECT  Subject,\n\tSUM(n) AS N -- all\nFROM E",
                "select subject , sum ( n ) as n from e",
            ),
            ("a /* b /* c */ d */ e", "a e"),
            ("\"Subject\" \"a\"\"b\" `x`", "\"Subject\" \"a\"\"b\" `x`"),
            ("'It''s' 'a--b' '/*'", "'It''s' 'a--b' '/*'"),
            ("E'a\\'B' x'0F' N'ä'", "e'a\\'B' x'0F' n'ä'"),
            ("1 1.50 .5 2. 1E5 1e-05", "1 1.50 .5 2. 1e5 1e-05"),
            (
                "a!=b<>c<=d>=e||f::TEXT",
                "a <> b <> c <= d >= e || f :: text",
            ),
            ("a=-1 - -2", "a = - 1 - - 2"),
            (
                "x IN (1,2)AND[1]{a:1}",
                "x in ( 1 , 2 ) and [ 1 ] { a : 1 }",
            ),
            ("Ä_1$ größe", "Ä_1$ größe"),
        ] {
            assert_eq!(text(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_not_known_is_one_piece() {
        for query in [
            "SELECT $1",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT /* open",
            "SELECT /*! 1 */ 2",
            "SELECT 10L",
            "SELECT 1.2.3",
            "SELECT 1e",
            "SELECT q'[a]'",
            "SELECT @x",
            "SELECT e'a\\'",
        ] {
            assert_eq!(pieces(query), [query]);
        }
    }

    /// sqlparser splits the same text in the same places, so that no query passes for another.
    #[test]
    fn pieces_are_the_tokens_that_the_parser_reads() {
        for query in [
            "SELECT subject, SUM(a) FILTER (WHERE b<>0 AND c!='it''s') AS x, COUNT(*) FROM \"Big\" t WHERE a IS NOT DISTINCT FROM 1.5
             GROUP BY subject, date_trunc('day', event_time AT TIME ZONE 'UTC')::DATE HAVING MAX(a)>=-1.5e3 -- end",
            "SELECT a||b, x[1], CASE WHEN a<b THEN .5 ELSE 2. END, a->>'k', NOT b ~* 'c' AND d !~~ 'e', {a:1}.a, [1,2]",
            "SELECT CAST(a AS DECIMAL(38,9))*b%c, x << 2, y >> 3, a <=> b, f(k => 1), g(k := 2), a && b, a <@ b, a @> b",
        ] {
            let ours: Vec<String> = pieces(query);
            let theirs = syntax::tokens_as_printed(query).unwrap();
            // Their printing of a text leaves a doubled quote single.
            let ours: Vec<String> = ours.iter().map(|piece| piece.replace("''", "'")).collect();
            assert_eq!(ours, theirs, "{query}");
        }
    }
}
