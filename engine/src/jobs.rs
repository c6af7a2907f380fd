//! Work that has an end, over the whole lake: each job is one function, which a command or a shard's process calls.
//!
//! It owns what is done to, or found out from, tables that are already there: comparing meters with the events they come
//! from ([`audit`]), whether definitions go on with them ([`fit`]), filling a new meter in ([`backfill`]), merging and deleting files
//! ([`maintenance`]). It does not read from a source, and prints nothing.

pub mod audit;
pub mod backfill;
pub mod fit;
pub mod maintenance;
