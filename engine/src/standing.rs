//! Whether a shard may run: it does, it was retired, or another one replaced it. Kept as marks of `events`, and
//! changed by a commit that takes the shard over, so that an owner that is at work is fenced by it.
//!
//! A shard that is over holds up no invoice, and its open windows are closed: see [`crate::over`].

use crate::{
    clock::Clock,
    commit::{self, Marks, Owner, Position},
    error::{Error, Result},
};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::{Sequence, Table};
use tollgate_sql::parser::did_you_mean;

/// Whether a shard may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Live,
    /// It is over, until `tollgate shard resume`.
    Retired,
    /// Another shard, by name, has its place and its ids, for good.
    ReplacedBy(String),
}

impl Standing {
    /// Refuses a shard that may not run, and says how it may.
    ///
    /// # Errors
    /// [`Error::Shard`] unless it is live.
    pub fn check(&self, shard: &str) -> Result<()> {
        let (problem, hint) = match self {
            Standing::Live => return Ok(()),
            Standing::Retired => (
                "it was retired".to_owned(),
                format!("`tollgate shard resume {shard}` brings it back"),
            ),
            Standing::ReplacedBy(by) => (
                format!("it was replaced by shard `{by}`"),
                format!("read that one: set source.stream = '{by}'"),
            ),
        };
        Err(Error::Shard {
            shard: shard.to_owned(),
            problem,
            hint,
        })
    }
}

/// How all shards of a lake stand, by the marks of one snapshot of `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standings {
    shards: BTreeSet<String>,
    retired: BTreeSet<String>,
    taken: BTreeMap<String, Taken>,
}

/// That another shard has the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The shard that has it.
    pub by: String,
    /// When it took it, by its source's clock, in microseconds; 1 in a lake that does not say.
    pub at_us: i64,
}

/// What stands between the two shards in the mark by which one has the place of the other.
const REPLACES: &str = "/replaces/";

impl Standings {
    /// Reads the marks.
    pub fn of(events: &dyn Table) -> Self {
        let mut standings = Standings {
            shards: BTreeSet::new(),
            retired: BTreeSet::new(),
            taken: BTreeMap::new(),
        };
        for (mark, value) in events.marks() {
            if let Some((by, shard)) = mark.split_once(REPLACES) {
                let by = by.to_owned();
                let taken = Taken { by, at_us: value };
                standings.taken.insert(shard.to_owned(), taken);
            } else if let Some(shard) = mark.strip_suffix("/seq") {
                standings.shards.insert(shard.to_owned());
            } else if let Some(shard) = mark.strip_suffix("/retired")
                && value == 1
            {
                standings.retired.insert(shard.to_owned());
            }
        }
        standings
    }

    /// The names of all shards that were ever begun, in order, whether or not a message of theirs was read.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(String::as_str)
    }

    /// How one shard stands.
    pub fn standing(&self, shard: &str) -> Standing {
        match self.taken.get(shard) {
            Some(taken) => Standing::ReplacedBy(taken.by.clone()),
            None if self.retired.contains(shard) => Standing::Retired,
            None => Standing::Live,
        }
    }

    /// By which steps one shard has the place of another, beginning at that one: none for itself. `None` when it has
    /// not.
    pub fn way<'a>(&'a self, from: &'a str, to: &str) -> Option<Vec<&'a Taken>> {
        let mut way: Vec<&Taken> = Vec::new();
        while way.last().map_or(from, |taken| taken.by.as_str()) != to {
            let at = way.last().map_or(from, |taken| taken.by.as_str());
            way.push(self.taken.get(at)?);
        }
        Some(way)
    }

    /// The shards whose place one has, in order.
    pub fn behind<'a>(&'a self, shard: &'a str) -> impl Iterator<Item = &'a str> {
        let others = self.shards().filter(move |from| *from != shard);
        others.filter(move |from| self.heir(from) == shard)
    }

    /// The shard that has the place of this one in the end: itself unless it was replaced.
    fn heir<'a>(&'a self, shard: &'a str) -> &'a str {
        let mut heir = shard;
        while let Some(taken) = self.taken.get(heir) {
            heir = &taken.by;
        }
        heir
    }

    /// The marks by which a shard takes the place of others, and by which their owners are fenced. A shard whose place
    /// it has is left as it is, and so is one whose place goes with another that is named.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no such shard, or it is the same; [`Error::Shard`] when a third one replaced it.
    fn replacing(
        &self,
        events: &dyn Table,
        beginning: &Beginning<'_>,
    ) -> Result<BTreeMap<String, i64>> {
        let name = beginning.shard;
        let mut marks = BTreeMap::new();
        for replaced in beginning.replaces {
            self.check_known(replaced)?;
            if replaced == name {
                return Err(Error::Usage(format!(
                    "source.replaces: shard `{name}` cannot replace itself"
                )));
            }
            let heir = self.heir(replaced);
            if heir == name || heir != replaced && beginning.replaces.iter().any(|r| r == heir) {
                continue;
            }
            if heir != replaced {
                return Err(Error::Shard {
                    shard: replaced.clone(),
                    problem: format!("it was replaced by shard `{heir}`"),
                    hint: format!("name `{heir}` in source.replaces, which has its ids"),
                });
            }
            let theirs = Marks::of(replaced);
            let next = theirs.epoch_in(events).unwrap_or_default().next();
            marks.insert(theirs.epoch(), next.0);
            marks.insert(
                format!("{name}{REPLACES}{replaced}"),
                beginning.now_us.max(1),
            );
        }
        Ok(marks)
    }

    fn check_known(&self, shard: &str) -> Result<()> {
        if self.shards.contains(shard) {
            return Ok(());
        }
        let known: Vec<_> = self.shards().collect();
        Err(Error::Usage(format!(
            "there is no shard `{shard}` in this lake\n  hint: {}",
            did_you_mean(shard, "shards", &known)
        )))
    }
}

/// True when a shard has a position: something of it was read, or `source.start` said where it begins.
pub(crate) fn has_begun(events: &dyn Table, shard: &str) -> bool {
    let marks = Marks::of(shard);
    let read = events.mark(&marks.sequence()).unwrap_or(0) > 0;
    read || events.mark(&marks.start()).is_some()
}

/// What a process takes over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beginning<'a> {
    /// The shard.
    pub shard: &'a str,
    /// Where it begins if it has no position yet: the last sequence that it is not to read.
    pub start: Option<Sequence>,
    /// The shards whose place it takes, for good.
    pub replaces: &'a [String],
    /// When it does, by the source's clock, in microseconds.
    pub now_us: i64,
}

/// Takes a shard over, its place in the stream and the places of others with it, all in one commit: so a process that
/// dies leaves all of it or nothing, and one that was taken over itself replaces no other.
///
/// # Errors
/// [`Error::Fenced`] when another process took over in the same moment; [`Error::Shard`] when the shard may not run, or
/// a third one has a place that it is to take; [`Error::Usage`] when there is no such shard.
pub async fn acquire(
    events: &mut dyn Table,
    beginning: &Beginning<'_>,
    nonce: String,
    clock: &dyn Clock,
) -> Result<(Owner, Position)> {
    let shard = beginning.shard;
    let marks = Marks::of(shard);
    let before = marks.epoch_in(events).unwrap_or_default();
    commit::take_over(events, shard, nonce, clock, |events, position| {
        let now = marks.epoch_in(events).unwrap_or_default();
        if now != before {
            // The owner before us may commit until we are in; a process that took over meanwhile is the newer one.
            return Err(commit::fenced(shard, before.next(), Some(now)));
        }
        let standings = Standings::of(events);
        standings.standing(shard).check(shard)?;
        let mut further = standings.replacing(events, beginning)?;
        if let Some(after) = beginning.start.filter(|_| !has_begun(events, shard)) {
            position.sequence = after;
            further.insert(marks.start(), after.signed());
        }
        Ok(further)
    })
    .await
}

/// Retires a shard, or brings it back; fences its owner either way.
///
/// # Errors
/// [`Error::Usage`] when there is no such shard; [`Error::Shard`] when another one replaced it.
pub async fn set_retired(
    events: &mut dyn Table,
    shard: &str,
    is_retired: bool,
    clock: &dyn Clock,
) -> Result<()> {
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    commit::take_over(events, shard, nonce, clock, |events, _| {
        let standings = Standings::of(events);
        standings.check_known(shard)?;
        if let by @ Standing::ReplacedBy(_) = standings.standing(shard) {
            by.check(shard)?;
        }
        let mark = (Marks::of(shard).retired(), i64::from(is_retired));
        Ok(BTreeMap::from([mark]))
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::epoch::Epoch;
    use arrow::datatypes::Schema;
    use std::sync::Arc;
    use tollgate_connectors::{Attempt, Staged, memory::MemoryTable};

    async fn own(events: &mut MemoryTable, shard: &str) -> Result<Owner> {
        take(events, shard, &[]).await
    }

    /// Takes a shard over, with the places of others, at 5 µs.
    async fn take(events: &mut MemoryTable, shard: &str, replaces: &[&str]) -> Result<Owner> {
        events.refresh().await?;
        let replaces: Vec<String> = replaces.iter().map(|name| (*name).to_owned()).collect();
        let beginning = Beginning {
            shard,
            replaces: &replaces,
            now_us: 5,
            ..Beginning::default()
        };
        let clock = ManualClock::default();
        let owned = acquire(events, &beginning, shard.to_owned(), &clock).await;
        owned.map(|(owner, _)| owner)
    }

    fn events() -> MemoryTable {
        MemoryTable::new("events", Arc::new(Schema::empty()))
    }

    fn refusal<T: std::fmt::Debug>(refused: Result<T>) -> String {
        refused.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_retired_shard_does_not_start_until_it_is_resumed() {
        let (mut events, clock) = (events(), ManualClock::default());
        own(&mut events, "A").await.unwrap();
        set_retired(&mut events, "A", true, &clock).await.unwrap();
        assert_eq!(Standings::of(&events).standing("A"), Standing::Retired);
        assert_eq!(
            refusal(own(&mut events, "A").await),
            "shard `A`: it was retired\n  hint: `tollgate shard resume A` brings it back"
        );
        set_retired(&mut events, "A", false, &clock).await.unwrap();
        assert_eq!(own(&mut events, "A").await.unwrap().epoch, Epoch(4));
        assert_eq!(
            refusal(set_retired(&mut events, "B", true, &clock).await),
            "there is no shard `B` in this lake\n  hint: known shards: `A`"
        );
    }

    #[tokio::test]
    async fn a_chain_of_shards_is_replaced_from_its_end_or_by_all_its_names() {
        for replaces in [&["B"][..], &["A", "B"], &["B", "A"], &["B", "B"]] {
            let mut events = events();
            own(&mut events, "A").await.unwrap();
            take(&mut events, "B", &["A"]).await.unwrap();
            // The setting may stay, and is refused neither before nor after the place was taken.
            for _ in 0..2 {
                take(&mut events, "C", replaces).await.unwrap();
                let standings = Standings::of(&events);
                let steps = |from, to| standings.way(from, to).map(|way| way.len());
                assert_eq!(
                    (
                        steps("A", "C"),
                        steps("B", "C"),
                        steps("C", "C"),
                        steps("C", "A")
                    ),
                    (Some(2), Some(1), Some(0), None),
                    "{replaces:?}"
                );
            }
            assert_eq!(
                refusal(own(&mut events, "A").await),
                "shard `A`: it was replaced by shard `B`\n  hint: read that one: set source.stream = 'B'"
            );
            // No other shard has its place.
            assert_eq!(
                refusal(take(&mut events, "D", &["A"]).await),
                "shard `A`: it was replaced by shard `C`\n  hint: name `C` in source.replaces, which has its ids"
            );
            take(&mut events, "D", &["A", "C"]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_replaced_leaves_everything_as_it_was() {
        let mut events = events();
        own(&mut events, "A").await.unwrap();
        own(&mut events, "B").await.unwrap();
        let before = events.marks();
        for (replaces, says) in [
            (
                &["A", "Z"][..],
                "there is no shard `Z` in this lake\n  hint: known shards: `A`, `B`",
            ),
            (
                &["A", "B"],
                "source.replaces: shard `B` cannot replace itself",
            ),
        ] {
            assert_eq!(refusal(take(&mut events, "B", replaces).await), says);
            assert_eq!(events.marks(), before);
        }
    }

    /// What an owner commits of one message.
    fn flush(owner: &Owner, sequence: u64) -> Attempt {
        let position = Position {
            sequence: Sequence(sequence),
            ..Position::START
        };
        Attempt {
            commit_id: owner.commit_id(position.sequence, 1),
            marks: position.marks(&owner.marks, owner.epoch),
            info: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn the_owner_of_a_replaced_shard_commits_nothing_more() {
        let (mut events, clock) = (events(), ManualClock::default());
        let old = own(&mut events, "A").await.unwrap();
        let mut theirs = events.clone();
        take(&mut events, "B", &["A"]).await.unwrap();
        let late = flush(&old, 5);
        let late = commit::commit_once(&mut theirs, &late, &Staged::default(), &old, &clock).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    }

    #[tokio::test]
    async fn an_owner_at_work_is_replaced_after_its_commit() {
        let (mut events, clock) = (events(), ManualClock::default());
        let old = own(&mut events, "A").await.unwrap();
        let (mut theirs, mut ours) = (events.clone(), events.clone());
        let nothing = Staged::default();
        commit::commit_once(&mut theirs, &flush(&old, 5), &nothing, &old, &clock)
            .await
            .unwrap();
        let replaces = ["A".to_owned()];
        let beginning = Beginning {
            shard: "B",
            replaces: &replaces,
            ..Beginning::default()
        };
        // Its snapshot is from before that commit.
        acquire(&mut ours, &beginning, "b".into(), &clock)
            .await
            .unwrap();
        let position = Position::load(&ours, &Marks::of("A")).unwrap();
        assert_eq!(position.sequence, Sequence(5));
        let again = commit::commit_once(&mut theirs, &flush(&old, 6), &nothing, &old, &clock).await;
        assert!(matches!(again, Err(Error::Fenced { .. })), "{again:?}");
    }

    #[tokio::test]
    async fn a_process_that_was_taken_over_itself_replaces_no_other() {
        let (mut events, clock) = (events(), ManualClock::default());
        let old = own(&mut events, "A").await.unwrap();
        own(&mut events, "B").await.unwrap();
        let mut late = events.clone();
        // Both in between: a newer owner of B, which replaces nothing, and a commit by the owner of A.
        own(&mut events, "B").await.unwrap();
        commit::commit_once(
            &mut events,
            &flush(&old, 5),
            &Staged::default(),
            &old,
            &clock,
        )
        .await
        .unwrap();
        let replaces = ["A".to_owned()];
        let beginning = Beginning {
            shard: "B",
            replaces: &replaces,
            ..Beginning::default()
        };
        let refused = acquire(&mut late, &beginning, "late".into(), &clock).await;
        assert!(
            matches!(
                refused,
                Err(Error::Fenced {
                    ours: Epoch(2),
                    theirs: Some(Epoch(2)),
                    ..
                })
            ),
            "{refused:?}"
        );
        events.refresh().await.unwrap();
        assert_eq!(Standings::of(&events).standing("A"), Standing::Live);
    }

    #[tokio::test]
    async fn where_a_shard_begins_is_said_once_even_before_the_first_message() {
        let clock = ManualClock::default();
        for first in [0, 7] {
            let mut events = events();
            let mut begin = async |start: Option<u64>| {
                let beginning = Beginning {
                    shard: "A",
                    start: start.map(Sequence),
                    ..Beginning::default()
                };
                let acquired = acquire(&mut events, &beginning, "a".into(), &clock).await;
                (acquired.unwrap().1.sequence, has_begun(&events, "A"))
            };
            // Nothing is decided where nothing says where it begins.
            assert_eq!(begin(None).await, (Sequence(0), false));
            assert_eq!(begin(Some(first)).await, (Sequence(first), true));
            // A crash follows, and messages come: the place stays.
            assert_eq!(begin(Some(20)).await, (Sequence(first), true));
            assert_eq!(begin(None).await, (Sequence(first), true));
        }
    }
}
