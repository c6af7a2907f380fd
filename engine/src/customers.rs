//! Some customers, who are neighbours in the order of their names.

use arrow::array::{Array, StringArray};
use datafusion::prelude::{Expr, lit};
use std::ops::Range;

/// All customers, one, or a range of them that a job goes through at once. Names are in the order of their bytes, as in Rust and in SQL.
///
/// ```
/// use tollgate::customers::Customers;
///
/// let range = Customers::between(Some("b".into()), Some("d".into()));
/// assert!(range.has("b") && range.has("cé") && !range.has("d") && !range.has("a"));
/// assert!(Customers::All.has("a") && !Customers::One("a".into()).has("ab"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Customers {
    /// All of them.
    All,
    /// The one with this name.
    One(String),
    /// Those from a name on, and before another; `None` is without such a bound.
    Range {
        /// The first.
        from: Option<String>,
        /// The first that is not among them.
        until: Option<String>,
    },
}

impl Customers {
    /// The one that is named, or all.
    pub fn named(name: Option<&str>) -> Self {
        name.map_or(Customers::All, |name| Customers::One(name.to_owned()))
    }

    /// Those from a name on, and before another.
    pub fn between(from: Option<String>, until: Option<String>) -> Self {
        match (&from, &until) {
            (None, None) => Customers::All,
            _ => Customers::Range { from, until },
        }
    }

    /// Whether a customer is among them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Customers::All => true,
            Customers::One(one) => one == name,
            Customers::Range { until, .. } => {
                !self.is_after(name) && until.as_deref().is_none_or(|until| name < until)
            }
        }
    }

    /// Whether all of them come after a customer.
    fn is_after(&self, name: &str) -> bool {
        match self {
            Customers::All => false,
            Customers::One(one) => name < one.as_str(),
            Customers::Range { from, .. } => from.as_deref().is_some_and(|from| name < from),
        }
    }

    /// The places of theirs among names that are in order.
    pub(crate) fn places_in(&self, names: &StringArray) -> Range<usize> {
        let from = place_after(names, 0, |name| self.is_after(name));
        from..place_after(names, from, |name| self.has(name))
    }

    /// That a column names one of them; `None` of all.
    pub(crate) fn condition(&self, column: &Expr) -> Option<Expr> {
        let text = |name: &String| lit(name.as_str());
        match self {
            Customers::All => None,
            Customers::One(one) => Some(column.clone().eq(text(one))),
            Customers::Range { from, until } => {
                let from = from.as_ref().map(|from| column.clone().gt_eq(text(from)));
                let until = until.as_ref().map(|until| column.clone().lt(text(until)));
                from.into_iter().chain(until).reduce(Expr::and)
            }
        }
    }
}

/// Names, each once, in order.
pub(crate) fn in_order<'n>(names: impl Iterator<Item = &'n str>) -> StringArray {
    let mut names: Vec<&str> = names.collect();
    // Most are in order already: a sort that finds runs.
    names.sort();
    names.dedup();
    StringArray::from_iter_values(names)
}

/// The first place from one on of a name that does not come before what is sought; what comes before stands before it.
pub(crate) fn place_after(
    names: &StringArray,
    from: usize,
    is_before: impl Fn(&str) -> bool,
) -> usize {
    let (mut low, mut high) = (from, names.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match is_before(names.value(middle)) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}
