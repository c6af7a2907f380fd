//! Hints that name what could have been meant.

/// `` `a`, `b`, `c` `` for a message; `none` for nothing.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let quoted: Vec<_> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    quoted.join(", ")
}

/// A hint for a name that is not among those known: the nearest one, if it is near, and all of them.
pub fn did_you_mean<S: AsRef<str>>(name: &str, what: &str, known: &[S]) -> String {
    let all = format!("known {what}: {}", list(known));
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

/// The known name with the fewest edits, if that is at most a third of its length.
pub fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    let near = known
        .iter()
        .map(|candidate| (edits(name, candidate.as_ref()), candidate.as_ref()))
        .min_by_key(|(edits, _)| *edits);
    let is_near = |edits: usize, length: usize| edits <= length.div_ceil(3) && edits < length;
    near.filter(|(edits, candidate)| is_near(*edits, candidate.chars().count()))
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed or changed to turn one name into the other.
pub fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, from) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&to) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = change.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_counts_insertions_removals_and_changes() {
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("windw", "window"), 1);
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        // One letter for another is no name that was misspelt.
        assert_eq!(nearest("b", &["a"]), None);
        let known = ["window", "unit"];
        assert_eq!(
            did_you_mean("windows", "options", &known),
            "did you mean `window`? known options: `window`, `unit`"
        );
        assert_eq!(
            did_you_mean("colour", "options", &known),
            "known options: `window`, `unit`"
        );
        assert_eq!(
            did_you_mean::<&str>("x", "prices", &[]),
            "known prices: none"
        );
    }
}
