//! When things happen: the runtime, the commands, the binary.
//!
//! ```text
//! publishers ─▶ JetStream ─▶ shard::run ──┬─▶ events (Delta)   the commit point
//!                             │  dedupe   └─▶ meters/* (Delta) panes of closed windows
//!                             │  metering (open windows)
//!                             ▼
//!                       view::View ─▶ query · audit · billing ─▶ invoices, line_items (Delta), exports
//! ```
//!
//! What holds: an event that JetStream acknowledged is counted exactly once within the dedupe
//! horizon, whatever crashes; what cannot be counted is kept with its reason; quantities and amounts
//! are decimals throughout; and a live query, a draft and a final invoice are one query at different
//! cuts.
//!
//! Read [`shard`] for the loop, [`commit`] for the protocol, [`metering`] for windows and panes,
//! [`recovery`] for what a restart rebuilds, [`view`] for what SQL sees.

pub mod billing;
pub mod catalog;
pub mod checking;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod customers;
pub mod dedupe;
pub mod epoch;
pub mod error;
#[cfg(test)]
mod imports;
pub mod jobs;
pub mod keys;
pub mod live;
pub mod metering;
mod nearby;
mod outgoing;
pub mod over;
mod query;
pub mod recovery;
pub mod reload;
pub mod server;
mod several;
pub mod shard;
pub mod source;
pub mod standing;
pub mod supervisor;
pub mod tables;
pub mod telemetry;
pub mod view;
pub mod watermark;

pub use error::{Error, Result};
