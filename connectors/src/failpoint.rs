//! Places where a process can be made to die, one at each durable step.
//!
//! Only builds with debug assertions look for them: a release build has none. Two variables steer it:
//!
//! * `TOLLGATE_FAILPOINT_TRACE=FILE` appends a line `TABLE/STEP` for every step passed;
//! * `TOLLGATE_FAILPOINT=TABLE/STEP:N` aborts the process at the N-th pass (from 1), as a crash would;
//!   `TABLE/STEP:N:stop` suspends it there instead, as a machine that hangs would, until it gets SIGCONT.
//!   With `any` for `TABLE/STEP`, the steps of all tables count together.

use std::{
    fs::OpenOptions,
    io::Write,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the environment asks for.
#[derive(Debug, Default)]
struct Plan {
    trace: Option<String>,
    fail: Option<Fail>,
}

#[derive(Debug)]
struct Fail {
    step: String,
    passes: AtomicU64,
    at: u64,
    suspends: bool,
}

/// Says that `step` of `table` is reached, such as `uploaded`; dies here if that was asked for.
pub fn reached(table: &str, step: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let plan = PLAN.get_or_init(Plan::of_environment);
    if plan.trace.is_none() && plan.fail.is_none() {
        return;
    }
    let step = format!("{table}/{step}");
    if let Some(file) = &plan.trace {
        let appended = OpenOptions::new().create(true).append(true).open(file);
        // One write a line, so that lines of several threads do not mix.
        let _ = appended.and_then(|mut file| file.write_all(format!("{step}\n").as_bytes()));
    }
    if let Some(fail) = plan.fail.as_ref().filter(|fail| fail.is_of(&step))
        && fail.passes.fetch_add(1, Ordering::SeqCst) + 1 == fail.at
    {
        fail.happen();
    }
}

impl Plan {
    fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        Plan {
            trace: variable("TOLLGATE_FAILPOINT_TRACE"),
            fail: variable("TOLLGATE_FAILPOINT").and_then(|text| Fail::parse(&text)),
        }
    }
}

impl Fail {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let step = parts.next()?.to_owned();
        let at = parts.next()?.parse().ok()?;
        Some(Fail {
            step,
            passes: AtomicU64::new(0),
            at,
            suspends: parts.next() == Some("stop"),
        })
    }

    fn is_of(&self, step: &str) -> bool {
        self.step == step || self.step == "any"
    }

    fn happen(&self) {
        if !self.suspends {
            std::process::abort();
        }
        let id = std::process::id().to_string();
        // Returns when another process continued us.
        let _ = Command::new("kill").args(["-STOP", &id]).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_step_pass_and_manner() {
        let fail = Fail::parse("meters/tokens/uploaded:3").unwrap();
        assert_eq!(
            (fail.step.as_str(), fail.at, fail.suspends),
            ("meters/tokens/uploaded", 3, false)
        );
        assert!(Fail::parse("events/committed:1:stop").unwrap().suspends);
        assert!(Fail::parse("events/committed").is_none());
    }

    #[test]
    fn steps_of_all_tables_count_together_where_any_is_named() {
        let of = |step: &str| Fail::parse(step).unwrap().is_of("invoices/uploaded");
        assert!(of("invoices/uploaded:2") && of("any:2"));
        assert!(!of("invoices/committed:2"));
    }
}
