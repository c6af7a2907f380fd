//! The dedupe index with tens of millions of keys inside its horizon: what a key costs in time and
//! memory, and that none is misjudged.
//!
//! Every key is judged once (new), then all of them again (repeats), then every thousandth with other
//! content (conflicts). `TOLLGATE_BENCH_KEYS` sets how many, `TOLLGATE_DEDUPE_MEMORY` in bytes sets the
//! bound. The process ends with 1 if a verdict is wrong or the index took more than its bound.
#![expect(
    clippy::print_stdout,
    clippy::float_arithmetic,
    reason = "a bench prints ratios of times"
)]

use std::{
    error::Error,
    time::{Duration, Instant},
};
use tollgate::{
    dedupe::{Dedupe, Options, Verdict},
    telemetry::memory_kib,
};
use tollgate_sql::window::EventTime;

const KEYS: u64 = 50_000_000;
const MEMORY_BYTES: usize = 512_000_000;
/// Keys judged between two looks at the bound, as in a shard's batch.
const BATCH: u64 = 10_000;
/// Keys arrive at this distance, in microseconds: all of them are within the horizon.
const GAP_US: i64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let keys = setting("TOLLGATE_BENCH_KEYS")?.unwrap_or(KEYS);
    let memory_bytes = match setting("TOLLGATE_DEDUPE_MEMORY")? {
        Some(bytes) => usize::try_from(bytes)?,
        None => MEMORY_BYTES,
    };
    let before = resident_bytes()?;
    let directory = std::env::temp_dir().join("tollgate-bench-dedupe");
    let mut dedupe = Dedupe::new(Options {
        horizon_us: 35 * 86_400_000_000,
        memory_bytes,
        directory,
    });
    let end_us = i64::try_from(keys)? * GAP_US;
    let passes = [
        ("new", Verdict::New, 1, 0, 0),
        ("repeats", Verdict::Repeat, 1, 0, end_us),
        ("conflicts", Verdict::Conflict, 1_000, 1, end_us),
    ];
    let mut wrong = 0;
    for (name, expected, step, change, from_us) in passes {
        let started = Instant::now();
        let mut judged: u32 = 0;
        for number in (0..keys).step_by(step) {
            let at_us = match from_us {
                0 => i64::try_from(number)? * GAP_US,
                end_us => end_us,
            };
            let content = number.cast_signed() ^ change;
            wrong +=
                u64::from(dedupe.judge(key(number), content, at_us, EventTime(at_us))? != expected);
            judged += 1;
            if number % BATCH == 0 {
                dedupe.settle(EventTime(at_us), None)?;
            }
        }
        report(name, judged, started.elapsed());
    }
    let peak = resident_bytes()?.saturating_sub(before);
    println!(
        "{} keys, {wrong} misjudged; peak {} MB of a bound of {} MB",
        dedupe.len(),
        peak / 1_000_000,
        memory_bytes / 1_000_000
    );
    match wrong == 0 && peak <= memory_bytes {
        true => Ok(()),
        false => Err("misjudged, or over the bound".into()),
    }
}

fn report(name: &str, judged: u32, elapsed: Duration) {
    let each = elapsed.as_nanos() / u128::from(judged);
    let rate = f64::from(judged) / elapsed.as_secs_f64() / 1e6;
    println!("dedupe/{name}/{judged}: {rate:.2} M/s, {each} ns each");
}

/// 128 well-mixed bits of a number.
fn key(number: u64) -> u128 {
    let mix = |seed: u64| {
        let mut z = number
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(seed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(mix(1)) << 64 | u128::from(mix(2))
}

fn setting(name: &str) -> Result<Option<u64>, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse()?)),
        Err(_) => Ok(None),
    }
}

/// The most this process has had in memory.
fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let kib = memory_kib(std::process::id(), "VmHWM").ok_or("no VmHWM in /proc")?;
    Ok(usize::try_from(kib)? * 1024)
}
