//! Statements that another connection may cancel, by a number and a secret that only the client knows.

use crate::{error::Result, keys::random_bytes};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// A secret that goes with a connection's number.
pub(super) type Secret = [u8; 4];

/// Every connection that is open.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u32,
    known: BTreeMap<u32, (Secret, Arc<Notify>)>,
}

/// One connection, for as long as it is open.
#[derive(Debug)]
pub(super) struct Cancellable {
    cancels: Arc<Cancels>,
    pub(super) process: u32,
    pub(super) secret: Secret,
    /// Wakes what waits when the client cancels; what comes later does not know of it.
    pub(super) cancelled: Arc<Notify>,
}

impl Cancels {
    /// A connection that may be cancelled.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn open(self: &Arc<Self>) -> Result<Cancellable> {
        let secret: Secret = random_bytes()?;
        let cancelled = Arc::new(Notify::new());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.last = open.last.wrapping_add(1);
        let process = open.last;
        open.known.insert(process, (secret, Arc::clone(&cancelled)));
        Ok(Cancellable {
            cancels: Arc::clone(self),
            process,
            secret,
            cancelled,
        })
    }

    /// Cancels what a connection waits for, if there is one of this number and secret.
    pub(super) fn cancel(&self, process: u32, secret: &[u8]) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, cancelled)) = open.known.get(&process)
            && known == secret
        {
            cancelled.notify_waiters();
        }
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let open = self.cancels.open.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        open.known.remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn only_who_knows_the_secret_cancels_and_only_what_waits() {
        let cancels = Arc::new(Cancels::default());
        let (one, other) = (cancels.open().unwrap(), cancels.open().unwrap());
        assert_ne!(one.process, other.process);
        // Nothing waits yet.
        cancels.cancel(one.process, &one.secret);
        let waits = one.cancelled.notified();
        tokio::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        let wrong = one.secret.map(|byte| !byte);
        cancels.cancel(one.process, &wrong);
        cancels.cancel(one.process, &[]);
        cancels.cancel(99, &one.secret);
        assert!(waits.as_mut().now_or_never().is_none());
        cancels.cancel(one.process, &one.secret);
        assert!(waits.as_mut().now_or_never().is_some());
        let process = other.process;
        drop(other);
        assert!(!cancels.open.lock().unwrap().known.contains_key(&process));
    }
}
