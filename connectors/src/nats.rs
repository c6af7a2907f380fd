//! A [`Source`](crate::Source) over a JetStream pull consumer.
