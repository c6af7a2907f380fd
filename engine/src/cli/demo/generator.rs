//! Usage that never happened: seeded events for the demo, the benches and tests, with exact totals.
//!
//! The same seed gives the same bytes. Nothing here reads a clock, and every total is integer
//! arithmetic beside the pipeline, never out of it, so what the pipeline counts can be checked.
//!
//! * [`Workload`] is a load: many small completions of many subjects, written at full speed.
//! * [`Month`] is a story: a month of a few customers' completions, agent tasks and GPU seconds, with
//!   everything that goes wrong on the way. [`stragglers`] are more of its events, which come when it is over.

mod customers;
mod faults;
mod month;
mod random;
mod text;
mod workload;

pub use customers::{CUSTOMERS, Customer};
pub use month::{Batch, Expected, MODELS, Month, MonthSettings, Tokens, Usage, stragglers};
pub use random::Random;
pub use workload::{Completion, Load, Totals, Workload};
