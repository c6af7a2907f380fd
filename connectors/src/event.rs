//! CloudEvents to typed Arrow columns, and what is set aside, with its reason.
