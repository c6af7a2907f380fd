//! Whether a shard may run: it does, it was retired, or another one replaced it. Kept as marks of `events`, and
//! changed by a commit that takes the shard over, so that an owner that is at work is fenced by it.
//!
//! A retired shard holds up no invoice, and what its open windows hold counts as closed. Nothing of it is rewritten.

use crate::{
    clock::Clock,
    commit::{self, Marks, Owner, Position},
    error::{Error, Result},
};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::{Attempt, Staged, Table};

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
    /// The standing of a shard, from the marks of `events`.
    pub fn of(events: &dyn Table, shard: &str) -> Self {
        let suffix = replaces_suffix(shard);
        let marks = events.marks();
        let by = marks.keys().find_map(|mark| mark.strip_suffix(&suffix));
        match by {
            Some(by) => Standing::ReplacedBy(by.to_owned()),
            None if marks.get(&Marks::of(shard).retired()) == Some(&1) => Standing::Retired,
            None => Standing::Live,
        }
    }

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

/// How a mark ends that says which shard replaces this one: it begins with the name of that one.
fn replaces_suffix(shard: &str) -> String {
    format!("/replaces/{shard}")
}

/// The shards whose place one has, and those whose place they have, and so on.
pub fn replaced_by(events: &dyn Table, shard: &str) -> BTreeSet<String> {
    let marks = events.marks();
    let mut found = BTreeSet::new();
    let mut unseen = vec![shard.to_owned()];
    while let Some(name) = unseen.pop() {
        let prefix = format!("{name}/replaces/");
        for replaced in marks.keys().filter_map(|mark| mark.strip_prefix(&prefix)) {
            if found.insert(replaced.to_owned()) {
                unseen.push(replaced.to_owned());
            }
        }
    }
    found
}

/// The names of all shards that `events` has a position of, in order.
pub fn shards(events: &dyn Table) -> BTreeSet<String> {
    let marks = events.marks();
    let names = marks.keys().filter_map(|mark| mark.strip_suffix("/seq"));
    names.map(str::to_owned).collect()
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
    check_known(events, shard)?;
    if let by @ Standing::ReplacedBy(_) = Standing::of(events, shard) {
        return by.check(shard);
    }
    let mark = (Marks::of(shard).retired(), i64::from(is_retired));
    take(events, shard, BTreeMap::from([mark]), clock).await
}

/// Puts `owner`'s shard in the place of another one: fences that one for good, in the same commit in which its
/// ids become ours. Does nothing if it was done before.
///
/// # Errors
/// [`Error::Usage`] when there is no such shard; [`Error::Shard`] when a third one replaced it;
/// [`Error::Fenced`] when `owner` was taken over itself.
pub async fn replace(
    events: &mut dyn Table,
    owner: &Owner,
    replaced: &str,
    clock: &dyn Clock,
) -> Result<()> {
    check_known(events, replaced)?;
    match Standing::of(events, replaced) {
        Standing::ReplacedBy(by) if by == owner.shard => return Ok(()),
        by @ Standing::ReplacedBy(_) => return by.check(replaced),
        Standing::Live | Standing::Retired => {}
    }
    let (name, ours) = (&owner.shard, &owner.marks);
    if name == replaced || replaced_by(events, replaced).contains(name) {
        return Err(Error::Usage(format!(
            "source.replaces: shard `{name}` cannot replace `{replaced}`, which is itself or has its place"
        )));
    }
    let marks = BTreeMap::from([
        (format!("{name}{}", replaces_suffix(replaced)), 1),
        // Whoever took us over may decide otherwise.
        (ours.epoch(), owner.epoch),
    ]);
    take(events, replaced, marks, clock).await?;
    tracing::warn!(
        shard = name,
        replaced,
        "shard replaced, its owner is fenced"
    );
    Ok(())
}

fn check_known(events: &dyn Table, shard: &str) -> Result<()> {
    let known = shards(events);
    if known.contains(shard) {
        return Ok(());
    }
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::Usage(format!(
        "there is no shard `{shard}` in this lake; there are: {known}"
    )))
}

/// Takes a shard over in a commit that sets further marks. A commit of its owner that comes in between is in; the
/// next one is refused.
async fn take(
    events: &mut dyn Table,
    shard: &str,
    further: BTreeMap<String, i64>,
    clock: &dyn Clock,
) -> Result<()> {
    let mut tries = 0;
    loop {
        let marks = Marks::of(shard);
        let position = Position::load(events, &marks)?;
        let epoch = events.mark(&marks.epoch()).unwrap_or(0) + 1;
        let owner = Owner {
            marks,
            shard: shard.to_owned(),
            epoch,
            nonce: uuid::Uuid::now_v7().simple().to_string(),
        };
        let mut marks = position.marks(&owner.marks, epoch);
        marks.extend(further.clone());
        let attempt = Attempt {
            commit_id: owner.commit_id(position.sequence, 0),
            marks,
            info: BTreeMap::from([("take_over".into(), serde_json::json!({ "epoch": epoch }))]),
        };
        tries += 1;
        match commit::commit_once(events, &attempt, &Staged::default(), &owner, clock).await {
            Err(Error::Fenced { .. }) if tries < commit::TAKE_OVER_TRIES => {
                events.refresh().await?;
            }
            done => return done.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use arrow::datatypes::Schema;
    use std::sync::Arc;
    use tollgate_connectors::memory::MemoryTable;

    async fn own(events: &mut MemoryTable, shard: &str) -> Result<Owner> {
        events.refresh().await?;
        let clock = ManualClock::default();
        let owned = commit::acquire(events, shard, shard.to_owned(), &clock).await;
        owned.map(|(owner, _)| owner)
    }

    fn events() -> MemoryTable {
        MemoryTable::new("events", Arc::new(Schema::empty()))
    }

    #[tokio::test]
    async fn a_retired_shard_does_not_start_until_it_is_resumed() {
        let (mut events, clock) = (events(), ManualClock::default());
        own(&mut events, "A").await.unwrap();
        set_retired(&mut events, "A", true, &clock).await.unwrap();
        assert_eq!(Standing::of(&events, "A"), Standing::Retired);
        let refused = own(&mut events, "A").await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "shard `A`: it was retired\n  hint: `tollgate shard resume A` brings it back"
        );
        set_retired(&mut events, "A", false, &clock).await.unwrap();
        assert_eq!(own(&mut events, "A").await.unwrap().epoch, 4);
        let unknown = set_retired(&mut events, "B", true, &clock).await;
        assert_eq!(
            unknown.unwrap_err().to_string(),
            "there is no shard `B` in this lake; there are: A"
        );
    }

    #[tokio::test]
    async fn a_chain_of_shards_is_replaced_from_its_end() {
        let (mut events, clock) = (events(), ManualClock::default());
        own(&mut events, "A").await.unwrap();
        let b = own(&mut events, "B").await.unwrap();
        replace(&mut events, &b, "A", &clock).await.unwrap();
        let c = own(&mut events, "C").await.unwrap();
        replace(&mut events, &c, "B", &clock).await.unwrap();
        replace(&mut events, &c, "B", &clock).await.unwrap();
        let both = ["A", "B"].map(str::to_owned);
        assert_eq!(replaced_by(&events, "C"), BTreeSet::from(both));
        assert_eq!(replaced_by(&events, "A"), BTreeSet::new());
        let refused = own(&mut events, "A").await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "shard `A`: it was replaced by shard `B`\n  hint: read that one: set source.stream = 'B'"
        );
        // Nobody else has its place, and it cannot take the place of what has its own.
        let d = own(&mut events, "D").await.unwrap();
        assert!(replace(&mut events, &d, "A", &clock).await.is_err());
    }

    #[tokio::test]
    async fn the_owner_of_a_replaced_shard_commits_nothing_more() {
        let (mut events, clock) = (events(), ManualClock::default());
        let old = own(&mut events, "A").await.unwrap();
        let mut theirs = events.clone();
        let new = own(&mut events, "B").await.unwrap();
        replace(&mut events, &new, "A", &clock).await.unwrap();
        let late = Attempt {
            commit_id: old.commit_id(tollgate_connectors::Sequence(5), 1),
            marks: Position::START.marks(&old.marks, old.epoch),
            info: BTreeMap::new(),
        };
        let late = commit::commit_once(&mut theirs, &late, &Staged::default(), &old, &clock).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    }
}
