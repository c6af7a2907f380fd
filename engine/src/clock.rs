//! The one place that reads the wall clock.

use async_trait::async_trait;
use std::{
    fmt::Debug,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// Time as the process sees it. Nothing that ends in a closed window may depend on it: the clock
/// decides when to flush and when to give up waiting, never what is counted.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// Microseconds since the Unix epoch, UTC.
    fn now_us(&self) -> i64;
    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        jiff::Timestamp::now().as_microsecond()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others must use"
    )]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that moves only when it is told to, or when a task sleeps on it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now_us`.
    pub fn at(now_us: i64) -> Self {
        ManualClock(AtomicI64::new(now_us))
    }

    /// Moves forward by `micros`.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
        tokio::task::yield_now().await;
    }
}
