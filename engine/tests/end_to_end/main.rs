//! The whole path with the real binary against a real nats-server: what a newcomer, an accountant and
//! an operator paged at night will do to it.
//!
//! Every test has a server, a folder and a lake of its own ([`world::World`]). What must come out is
//! worked out here, in integers, or known from the input; never taken from the engine.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail like the tests themselves, and say what they leave out"
)]

mod accounts;
mod aggregates;
mod ai_company;
mod attacks;
mod backfill;
mod bad_input;
mod books;
mod by_event;
mod changes;
mod check;
mod company;
mod conflicts;
mod cookbook;
mod corrections;
mod crashes;
mod crowds;
mod customers;
mod doors;
mod errors;
mod event_types;
mod failpoints;
mod faults;
mod fencing;
mod first;
mod fuzzed;
mod golden;
mod guards;
mod guide;
mod histories;
mod hostile;
mod http;
mod invoices;
mod kill_loop;
mod late;
mod live;
mod live_values;
mod maintenance;
mod mistakes;
mod one_of_many;
mod operations;
mod overflow;
mod price_versions;
mod publishers;
mod publishing;
mod ranges;
mod rate_tables;
mod readers;
mod real_data;
mod real_inputs;
mod reload;
mod sessions;
mod standing;
mod starts;
mod storage;
mod streams;
mod time_zones;
mod trying;
mod twenty_meters;
mod until_end;
mod versions;
mod voids;
mod wide;
mod wire;
mod world;
