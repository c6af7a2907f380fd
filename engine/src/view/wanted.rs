//! Which part of a meter is read: some time, and some groups.

use super::{inside::Inside, keys::Keys};

/// What of a meter is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// Some time, or ever.
    pub(super) inside: Option<&'a Inside>,
    /// Some groups, or all.
    pub(super) keys: Option<&'a Keys>,
}

impl<'a> Wanted<'a> {
    /// All groups.
    pub(super) fn all(inside: Option<&'a Inside>) -> Self {
        Wanted { inside, keys: None }
    }
}
