//! The commit protocol: who owns a shard, and what a failed commit was.
//!
//! ```text
//!  acquire   load `events`: marks seq = S, epoch = E ──▶ commit nothing but epoch = E + 1
//!                                                        from here every older snapshot is refused
//!  flush     stage files (invisible so far) ──▶ commit files + marks seq, epoch, watermark, anchor
//!                                                  │
//!            any error ──▶ read the log since our snapshot ──▶ decide:
//!                            our commit id is there      ──▶ it landed: go on
//!                            marks are still ours        ──▶ same files, same id, again
//!                            another owner moved a mark  ──▶ fenced: stop
//! ```
//!
//! A commit is made by Delta's compare-and-swap on `txn` marks: it fails when any commit after our
//! snapshot carries one of the same app ids. Versions prove nothing, so every commit has an id that
//! is looked for in the log before anything is decided.

use crate::{
    clock::Clock,
    epoch::Epoch,
    error::{Error, Result},
};
use std::{collections::BTreeMap, time::Duration};
use tollgate_connectors::{
    Anchor, Attempt, CommitId, ErrorKind, LoggedCommit, Sequence, Staged, Table, Version,
};
use tollgate_sql::window::EventTime;

/// The `txn` app ids of one shard in the `events` table and in the meters' tables.
#[derive(Debug, Clone)]
pub struct Marks {
    shard: String,
}

impl Marks {
    /// The marks of `shard`.
    pub fn of(shard: &str) -> Self {
        Marks {
            shard: shard.to_owned(),
        }
    }

    /// The shard's name.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// Last committed sequence, in `events`.
    pub fn sequence(&self) -> String {
        format!("{}/seq", self.shard)
    }

    /// The owner's number, in `events`.
    pub fn epoch(&self) -> String {
        format!("{}/epoch", self.shard)
    }

    /// The newest owner that a table's commits say; `None` when none does.
    pub fn epoch_in(&self, table: &dyn Table) -> Option<Epoch> {
        table.mark(&self.epoch()).map(Epoch)
    }

    /// The watermark at that sequence in microseconds, in `events`; in a meter's table the one at its cut.
    pub fn watermark(&self) -> String {
        format!("{}/watermark", self.shard)
    }

    /// Sequence of the last message that was read, in `events`: below the last committed sequence when
    /// holes follow it.
    pub fn anchor_sequence(&self) -> String {
        format!("{}/anchor_seq", self.shard)
    }

    /// Hash of that message, in `events`.
    pub fn anchor_hash(&self) -> String {
        format!("{}/anchor_hash", self.shard)
    }

    /// Server timestamp of that message in microseconds, in `events`.
    pub fn anchor_time(&self) -> String {
        format!("{}/anchor_time", self.shard)
    }

    /// When the shard was last caught up, in microseconds, in `events`: everything that the stream had
    /// stored by then is committed.
    pub fn caught_up(&self) -> String {
        format!("{}/caught_up", self.shard)
    }

    /// The sequence at which it was and the clock closed what was due, in `events`; 0 where it closed nothing.
    pub fn caught_up_sequence(&self) -> String {
        format!("{}/caught_up_seq", self.shard)
    }

    /// 1 when the shard is retired, in `events`.
    pub fn retired(&self) -> String {
        format!("{}/retired", self.shard)
    }

    /// The sequence after which the shard began, in `events`, if `source.start` said where.
    pub fn start(&self) -> String {
        format!("{}/start", self.shard)
    }

    /// The sequence up to which a meter has written its panes, in the meter's table.
    pub fn cut(&self) -> String {
        format!("{}/cut", self.shard)
    }

    /// The watermark that closes what was closed at that cut, in microseconds, in the meter's table.
    pub fn closed(&self) -> String {
        format!("{}/closed", self.shard)
    }

    /// The start of the first window that panes are written for, in microseconds, in the meter's table:
    /// only after a backfill that did not begin with the first event.
    pub fn from(&self) -> String {
        format!("{}/from", self.shard)
    }

    /// The number of the policy for late events that panes are written by, in the meter's table.
    pub fn late(&self) -> String {
        format!("{}/late", self.shard)
    }

    /// The fingerprint of a version of a meter, from the second on, in the meter's table.
    pub fn version(&self, number: u32) -> String {
        format!("{}/version_{number}", self.shard)
    }

    /// The rule that this fingerprint is made by; it is missing beside one of the first rule.
    pub fn version_rule(&self, number: u32) -> String {
        format!("{}/version_{number}_rule", self.shard)
    }

    /// From which window on, in microseconds, this version measures; [`i64::MAX`] of one that was taken back. It is missing
    /// beside a version of before.
    pub fn version_from(&self, number: u32) -> String {
        format!("{}/version_{number}_from", self.shard)
    }
}

/// How far a shard has come: what one `events` commit says about everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last message that is in the lake, or explained.
    pub sequence: Sequence,
    /// The last message that was read, and what it looked like; `None` before the first.
    pub anchor: Option<(Sequence, Anchor)>,
    /// The watermark after it.
    pub watermark: EventTime,
    /// When everything that the stream had stored was last included.
    pub caught_up: Option<CaughtUp>,
}

/// A place after one message of a shard, at which windows close and panes are written: what a [`Position`] says of it,
/// without what the stream looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The last message before it.
    pub sequence: Sequence,
    /// When the stream stored that message, in microseconds; 0 before the first.
    pub ingest_time_us: i64,
    /// The watermark there.
    pub watermark: EventTime,
}

/// Where a shard had read all there was, and when, by the stream's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaughtUp {
    /// Everything that the stream had stored by this time is included.
    pub time: EventTime,
    /// The last message then, with which the clock closed what was due; `None` where it closed nothing.
    pub sequence: Option<Sequence>,
}

impl Position {
    /// Before the first message.
    pub const START: Position = Position {
        sequence: Sequence(0),
        anchor: None,
        watermark: EventTime::MIN,
        caught_up: None,
    };

    /// The place that it is at.
    pub fn cut(&self) -> Cut {
        Cut {
            sequence: self.sequence,
            ingest_time_us: self.anchor.map_or(0, |(_, anchor)| anchor.ingest_time_us),
            watermark: self.watermark,
        }
    }

    /// Reads the position that `events` was committed with.
    pub fn load(events: &dyn Table, marks: &Marks) -> Result<Self> {
        let number = |mark: String| match events.mark(&mark) {
            None => Ok(None),
            Some(value) => match u64::try_from(value) {
                Ok(value) => Ok(Some(Sequence(value))),
                Err(_) => Err(Error::Shard {
                    shard: marks.shard.clone(),
                    problem: format!("the lake says `{mark}` is {value}"),
                    hint: "the `events` table was written by something else; restore it".into(),
                }),
            },
        };
        let Some(sequence) = number(marks.sequence())? else {
            return Ok(Position::START);
        };
        let anchor = events
            .mark(&marks.anchor_hash())
            .zip(events.mark(&marks.anchor_time()))
            .map(|(hash, ingest_time_us)| Anchor {
                hash,
                ingest_time_us,
            });
        let watermark = events.mark(&marks.watermark());
        Ok(Position {
            sequence,
            anchor: number(marks.anchor_sequence())?.zip(anchor),
            watermark: watermark.map_or(EventTime::MIN, EventTime),
            caught_up: match events.mark(&marks.caught_up()) {
                None => None,
                Some(time_us) => Some(CaughtUp {
                    time: EventTime(time_us),
                    // A mark stays until it is set again, so 0 takes it back; no window can close there.
                    sequence: number(marks.caught_up_sequence())?
                        .filter(|sequence| *sequence > Sequence(0)),
                }),
            },
        })
    }

    /// The marks that say so, for a commit by the owner with this epoch.
    pub fn marks(&self, marks: &Marks, epoch: Epoch) -> BTreeMap<String, i64> {
        let mut values = BTreeMap::from([
            (marks.sequence(), self.sequence.signed()),
            (marks.epoch(), epoch.0),
        ]);
        if self.watermark != EventTime::MIN {
            values.insert(marks.watermark(), self.watermark.0);
        }
        if let Some((sequence, anchor)) = self.anchor {
            values.insert(marks.anchor_sequence(), sequence.signed());
            values.insert(marks.anchor_hash(), anchor.hash);
            values.insert(marks.anchor_time(), anchor.ingest_time_us);
        }
        if let Some(caught_up) = self.caught_up {
            values.insert(marks.caught_up(), caught_up.time.0);
            let sequence = caught_up.sequence.unwrap_or_default();
            values.insert(marks.caught_up_sequence(), sequence.signed());
        }
        values
    }
}

/// What a commit turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It landed as this version, though the answer was lost.
    Committed(Version),
    /// It did not land and the shard is still ours: commit the same files with the same id again.
    Retry,
    /// Another owner moved one of our marks.
    Fenced {
        /// The version that did.
        version: Version,
        /// The epoch it carried, if any.
        epoch: Option<Epoch>,
    },
}

/// Decides what a failed commit was, from the log since our snapshot. Does no I/O.
pub fn decide(ours: &Attempt, epoch_mark: &str, log: &[LoggedCommit]) -> Outcome {
    if let Some(landed) = log
        .iter()
        .find(|c| c.commit_id.as_ref() == Some(&ours.commit_id))
    {
        return Outcome::Committed(landed.version);
    }
    let stranger = log
        .iter()
        .find(|c| ours.marks.keys().any(|mark| c.marks.contains_key(mark)));
    match stranger {
        Some(commit) => Outcome::Fenced {
            version: commit.version,
            epoch: commit.marks.get(epoch_mark).copied().map(Epoch),
        },
        None => Outcome::Retry,
    }
}

/// The owner of a shard, as every commit of this process names it.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The shard's marks.
    pub marks: Marks,
    /// The shard.
    pub shard: String,
    /// The owner's number, from 1.
    pub epoch: Epoch,
    /// Tells this process from any other that ever tries the same epoch.
    pub nonce: String,
}

impl Owner {
    /// An identity for what this process commits at `sequence`, as the `step`-th of its kind.
    pub fn commit_id(&self, sequence: Sequence, step: u64) -> CommitId {
        CommitId(format!(
            "e{}-{}-{step}-{}",
            self.epoch, sequence.0, self.nonce
        ))
    }

    /// The error of this owner when another one has the shard, whose epoch may not be known.
    pub(crate) fn fenced(&self, theirs: Option<Epoch>) -> Error {
        fenced(&self.shard, self.epoch, theirs)
    }
}

/// How often a commit is tried before the store counts as unavailable.
const TRIES: u32 = 8;

/// Commits an attempt exactly once and returns its version.
///
/// # Errors
/// [`Error::Fenced`] when another owner took over; the store's error when it stayed unavailable, in
/// which case whether the commit landed is unknown and the shard must start again from the lake.
pub async fn commit_once(
    table: &mut dyn Table,
    attempt: &Attempt,
    staged: &Staged,
    owner: &Owner,
    clock: &dyn Clock,
) -> Result<Version> {
    let mut wait = Duration::from_millis(50);
    for tried in 1.. {
        let error = match table.commit(attempt, staged).await {
            Ok(version) => return Ok(version),
            Err(error) => error,
        };
        let outcome = match table.log_since().await {
            Ok(log) => decide(attempt, &owner.marks.epoch(), &log),
            // The log cannot be read either: nothing is known, so nothing is decided yet.
            Err(_) if tried < TRIES => Outcome::Retry,
            Err(log_error) => return Err(log_error.into()),
        };
        match outcome {
            Outcome::Committed(version) => {
                table.refresh().await?;
                check_marks(table, &attempt.marks, owner)?;
                return Ok(version);
            }
            Outcome::Fenced { epoch, .. } => return Err(owner.fenced(epoch)),
            Outcome::Retry if tried >= TRIES || error.kind() == ErrorKind::Invalid => {
                return Err(error.into());
            }
            Outcome::Retry => {
                tracing::warn!(table = table.name(), tried, %error, "commit was tried again");
                clock.sleep(wait).await;
                wait *= 2;
            }
        }
    }
    Err(Error::Contradiction {
        what: "a commit is decided before its tries are used up",
    })
}

/// Refuses a snapshot on which any mark is not the one we set last. A fenced owner that refreshed
/// would otherwise pass the compare-and-swap.
pub fn check_marks(table: &dyn Table, ours: &BTreeMap<String, i64>, owner: &Owner) -> Result<()> {
    let moved = ours
        .iter()
        .any(|(mark, value)| table.mark(mark) != Some(*value));
    if moved {
        return Err(owner.fenced(owner.marks.epoch_in(table)));
    }
    Ok(())
}

/// How often the owner before us may commit just when we take over.
pub(crate) const TAKE_OVER_TRIES: u32 = 100;

/// Commits the next epoch of a shard together with the marks that `further` decides on, which may also give a shard
/// its first position. `further` sees the very snapshot that each try commits from: what another process committed in
/// between cannot pass unseen, since any commit of an owner moves that owner's epoch mark.
///
/// # Errors
/// Those of `further`, and of [`commit_once`].
pub(crate) async fn take_over(
    events: &mut dyn Table,
    shard: &str,
    nonce: String,
    clock: &dyn Clock,
    further: impl Fn(&dyn Table, &mut Position) -> Result<BTreeMap<String, i64>>,
) -> Result<(Owner, Position)> {
    for tried in 1.. {
        let marks = Marks::of(shard);
        let mut position = Position::load(events, &marks)?;
        let further = further(events, &mut position)?;
        let owner = Owner {
            epoch: marks.epoch_in(events).unwrap_or_default().next(),
            marks,
            shard: shard.to_owned(),
            nonce: nonce.clone(),
        };
        let mut marks = position.marks(&owner.marks, owner.epoch);
        marks.extend(further);
        let attempt = Attempt {
            commit_id: owner.commit_id(position.sequence, events.version().unsigned_abs()),
            marks,
            info: BTreeMap::from([(
                "take_over".into(),
                serde_json::json!({ "epoch": owner.epoch.0 }),
            )]),
        };
        match commit_once(events, &attempt, &Staged::default(), &owner, clock).await {
            // An owner of one of these shards was at work: its commit is in.
            Err(Error::Fenced { .. }) if tried < TAKE_OVER_TRIES => events.refresh().await?,
            done => return done.map(|_| (owner, position)),
        }
    }
    Err(Error::Contradiction {
        what: "a take-over is decided before its tries are used up",
    })
}

/// The error of an owner whose shard another one has.
pub(crate) fn fenced(shard: &str, ours: Epoch, theirs: Option<Epoch>) -> Error {
    Error::Fenced {
        shard: shard.to_owned(),
        ours,
        theirs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use arrow::datatypes::Schema;
    use std::sync::Arc;
    use tollgate_connectors::memory::MemoryTable;

    fn attempt(id: &str) -> Attempt {
        Attempt {
            commit_id: CommitId(id.into()),
            marks: BTreeMap::from([("s/seq".into(), 20), ("s/epoch".into(), 3)]),
            info: BTreeMap::new(),
        }
    }

    fn logged(version: Version, id: &str, marks: &[(&str, i64)]) -> LoggedCommit {
        LoggedCommit {
            version,
            commit_id: Some(CommitId(id.into())),
            info: BTreeMap::new(),
            marks: marks.iter().map(|(m, v)| ((*m).to_owned(), *v)).collect(),
        }
    }

    #[test]
    fn a_commit_that_landed_is_found_by_its_id() {
        let log = [logged(7, "ours", &[("s/seq", 20), ("s/epoch", 3)])];
        assert_eq!(
            decide(&attempt("ours"), "s/epoch", &log),
            Outcome::Committed(7)
        );
    }

    #[test]
    fn the_same_marks_under_another_id_are_another_owner() {
        let log = [logged(7, "theirs", &[("s/seq", 20), ("s/epoch", 3)])];
        let outcome = decide(&attempt("ours"), "s/epoch", &log);
        assert_eq!(
            outcome,
            Outcome::Fenced {
                version: 7,
                epoch: Some(Epoch(3))
            }
        );
    }

    #[test]
    fn a_take_over_fences_though_the_sequence_did_not_move() {
        let log = [logged(8, "theirs", &[("s/epoch", 4)])];
        let outcome = decide(&attempt("ours"), "s/epoch", &log);
        assert_eq!(
            outcome,
            Outcome::Fenced {
                version: 8,
                epoch: Some(Epoch(4))
            }
        );
    }

    #[test]
    fn another_shard_and_commits_without_marks_do_not_matter() {
        let log = [
            logged(7, "x", &[("other/seq", 5), ("other/epoch", 9)]),
            logged(8, "y", &[]),
        ];
        assert_eq!(decide(&attempt("ours"), "s/epoch", &log), Outcome::Retry);
        assert_eq!(decide(&attempt("ours"), "s/epoch", &[]), Outcome::Retry);
    }

    #[test]
    fn a_landed_commit_counts_even_when_somebody_took_over_afterwards() {
        let log = [
            logged(7, "ours", &[("s/seq", 20)]),
            logged(8, "theirs", &[("s/epoch", 4)]),
        ];
        assert_eq!(
            decide(&attempt("ours"), "s/epoch", &log),
            Outcome::Committed(7)
        );
    }

    #[tokio::test]
    async fn a_take_over_wins_though_the_owner_before_commits_just_then() {
        let clock = ManualClock::default();
        let schema = Arc::new(Schema::empty());
        let mut theirs = MemoryTable::new("events", schema);
        let nothing_more = |_: &dyn Table, _: &mut Position| Ok(BTreeMap::new());
        let (older, position) = take_over(&mut theirs, "s", "old".into(), &clock, nothing_more)
            .await
            .unwrap();
        let mut ours = theirs.clone();
        let flushed = Position {
            sequence: Sequence(5),
            ..position
        };
        let attempt = Attempt {
            commit_id: older.commit_id(flushed.sequence, 1),
            marks: flushed.marks(&older.marks, older.epoch),
            info: BTreeMap::new(),
        };
        let nothing = Staged::default();
        commit_once(&mut theirs, &attempt, &nothing, &older, &clock)
            .await
            .unwrap();

        let (newer, position) = take_over(&mut ours, "s", "new".into(), &clock, nothing_more)
            .await
            .unwrap();
        assert_eq!((newer.epoch, position.sequence), (Epoch(2), Sequence(5)));
        let again = Attempt {
            commit_id: older.commit_id(flushed.sequence, 2),
            ..attempt
        };
        let error = commit_once(&mut theirs, &again, &nothing, &older, &clock).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Fenced);
    }
}
