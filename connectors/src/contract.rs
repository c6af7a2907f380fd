//! The tests that every implementation of a seam passes, whatever is behind it.
//!
//! They are part of the library, without a feature, so that the one build which makes the binary also
//! serves the tests; the author of another [`Source`](crate::Source) or [`Table`](crate::Table) runs
//! them from its tests.

pub mod source;
pub mod table;
