//! The connections that are open: never more than there may be, so that a crowd of silent clients takes neither the files
//! that the lake needs nor the place of a client that asks something.

use futures::task::AtomicWaker;
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

/// All of them.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

/// The seats by when they were taken or last answered, and the clock for that: it counts what happens.
#[derive(Debug, Default)]
struct Taken {
    since: BTreeMap<u64, Arc<State>>,
    now: u64,
}

/// What is known of one.
#[derive(Debug, Default)]
struct State {
    /// When it was taken, or last answered. Read and written by who holds the lock.
    since: AtomicU64,
    is_given_away: AtomicBool,
    waker: AtomicWaker,
}

/// The seat of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    state: Arc<State>,
}

impl Seats {
    /// So many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Seats {
            most: most.max(1),
            taken: Mutex::default(),
        })
    }

    /// A seat for a connection that came. When all are taken, it is the seat of the connection that has been without an
    /// answer for the longest time, which ends.
    pub(super) fn take(self: &Arc<Self>) -> Seat {
        let mut taken = self.taken();
        while taken.since.len() >= self.most
            && let Some((_, longest)) = taken.since.pop_first()
        {
            longest.is_given_away.store(true, Ordering::Release);
            longest.waker.wake();
        }
        let state = Arc::default();
        taken.seat(&state);
        Seat {
            seats: Arc::clone(self),
            state,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Seats a connection behind all others.
    fn seat(&mut self, state: &Arc<State>) {
        self.now += 1;
        state.since.store(self.now, Ordering::Relaxed);
        self.since.insert(self.now, Arc::clone(state));
    }

    /// Whether a connection was seated still.
    fn unseat(&mut self, state: &State) -> bool {
        let since = state.since.load(Ordering::Relaxed);
        self.since.remove(&since).is_some()
    }
}

impl Seat {
    /// Whether another connection has it now; `waker` is woken when that happens.
    pub(super) fn is_given_away(&self, waker: &Waker) -> bool {
        self.state.waker.register(waker);
        self.state.is_given_away.load(Ordering::Acquire)
    }

    /// Returns when another connection has it.
    pub(super) async fn given_away(&self) {
        poll_fn(|context| match self.is_given_away(context.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// The connection has sent an answer, or a part of one.
    pub(super) fn answered(&self) {
        let mut taken = self.seats.taken();
        if taken.unseat(&self.state) {
            taken.seat(&self.state);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().unseat(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn are_given_away(seats: &[&Seat]) -> Vec<bool> {
        let seats = seats.iter();
        seats
            .map(|seat| seat.is_given_away(Waker::noop()))
            .collect()
    }

    #[test]
    fn who_was_without_an_answer_the_longest_makes_room() {
        let seats = Seats::new(3);
        let (first, second, third) = (seats.take(), seats.take(), seats.take());
        first.answered();
        let fourth = seats.take();
        let all = [&first, &second, &third, &fourth];
        assert_eq!(are_given_away(&all), [false, true, false, false]);
        let _fifth = seats.take();
        assert_eq!(are_given_away(&all), [false, true, true, false]);
    }

    #[test]
    fn a_connection_that_ended_leaves_its_seat() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take(), seats.take());
        drop(second);
        let third = seats.take();
        assert_eq!(are_given_away(&[&first, &third]), [false, false]);
        // One that had to go frees nothing when it ends.
        let fourth = seats.take();
        assert_eq!(
            are_given_away(&[&first, &third, &fourth]),
            [true, false, false]
        );
        drop(first);
        let fifth = seats.take();
        assert_eq!(
            are_given_away(&[&third, &fourth, &fifth]),
            [true, false, false]
        );
    }
}
