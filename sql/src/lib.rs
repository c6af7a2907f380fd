//! What usage means: what is measured, and what it costs. Pure: no I/O, no clock, no randomness, so
//! the same input gives the same bytes.
//!
//! ```text
//!  .sql files ──parser──▶ Definitions ──┬─▶ EventChecks   events ─▶ those that may not count
//!                                       ├─▶ Meter    events ─▶ state ─▶ panes ─▶ period totals
//!                                       └─▶ rating   totals + rate tables ─▶ charges
//!                                                     └─▶ invoice   line items, total
//! ```
//!
//! Start at [`definitions::Definitions`], which holds everything a folder of `.sql` files says, then
//! follow one fact: [`meter::Meter`] turns events into quantities, [`rating`] quantities into charges,
//! [`invoice`] charges into line items, and [`money`] owns the only function that rounds.

pub mod accounts;
pub mod aggregates;
pub mod credits;
mod datafusion_messages;
pub mod definitions;
pub mod error;
pub mod event_checks;
pub mod functions;
pub mod invoice;
pub mod meter;
pub mod money;
pub mod parser;
pub mod period;
mod purity;
pub mod rating;
pub mod schema;
pub mod session;
pub mod statements;
pub mod subscriptions;
pub mod unplanned;
pub mod window;

pub use error::{Error, ErrorKind, Result};
