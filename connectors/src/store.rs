//! A URL to an object store, with fsync on local disk.
