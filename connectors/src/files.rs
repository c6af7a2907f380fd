//! A [`Source`](crate::Source) over NDJSON files.
