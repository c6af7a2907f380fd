//! What happens to one grant, in order of time.

use super::{Burn, Issued, carried};
use crate::{
    accounts::Grant,
    error::{Error, Result},
    money::Exact,
    parser::parse_billing_period,
    period::{Recurrence, local},
};
use jiff::tz::TimeZone;

/// What changes the balance of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// It becomes effective.
    Granted,
    /// It is granted anew.
    Recurred,
    /// It is gone, for it expired.
    Expired,
    /// It is gone, for it was voided.
    Voided,
    /// A part of it paid, or came back; the document that said so.
    Burnt(&'a Burn, Option<&'a str>),
}

/// All that happens to a grant up to an instant, and every burn of it.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    grant: &'a Grant,
    /// In order; of those at one instant, what follows from the grant is before the burns, and what came back before what was paid: it may be paid again.
    pub(super) turns: Vec<(i64, Turn<'a>)>,
    /// For each turn and the end: how much must be left before it so that no burn takes more than there is.
    needs: Vec<Exact>,
}

impl<'a> Turns<'a> {
    /// Those of a grant among all burns.
    pub(super) fn of(grant: &'a Grant, burnt: &'a [Burn], until_us: i64) -> Result<Self> {
        Self::new(grant, burnt.iter().map(|burn| (burn, None)), until_us)
    }

    /// The same, with the documents.
    pub(super) fn issued(
        grant: &'a Grant,
        issued: &'a [Issued<'a>],
        until_us: i64,
    ) -> Result<Self> {
        let burns = issued.iter();
        let burns = burns.map(|issued| (issued.burn, Some(issued.document)));
        Self::new(grant, burns, until_us)
    }

    fn new(
        grant: &'a Grant,
        burnt: impl Iterator<Item = (&'a Burn, Option<&'a str>)>,
        until_us: i64,
    ) -> Result<Self> {
        let own = burnt.filter(|(burn, _)| burn.grant == grant.grant);
        let mut burns: Vec<(&Burn, Option<&str>)> = own.collect();
        burns.sort_by_key(|(burn, document)| (burn.at_us, burn.amount, *document));
        let last_us = burns.last().map_or(until_us, |(burn, _)| burn.at_us);
        let mut turns = Self::by_itself(grant, until_us.max(last_us))?;
        let burns = burns.into_iter();
        turns.extend(burns.map(|(burn, document)| (burn.at_us, Turn::Burnt(burn, document))));
        // What follows from the grant was first, and the sort is stable.
        turns.sort_by_key(|(at_us, _)| *at_us);
        let mut all = Self {
            grant,
            turns,
            needs: Vec::new(),
        };
        all.needs = all.needs()?;
        Ok(all)
    }

    /// What follows from the grant alone.
    fn by_itself(grant: &Grant, until_us: i64) -> Result<Vec<(i64, Turn<'a>)>> {
        let start_us = grant.effective_at_us;
        let mut turns = vec![(start_us, Turn::Granted)];
        let expires = grant.expires_at_us.map(|at_us| (at_us, Turn::Expired));
        let voided = grant.voided_at_us.map(|at_us| (at_us, Turn::Voided));
        let end = expires
            .into_iter()
            .chain(voided)
            .min_by_key(|(at_us, _)| *at_us);
        if end.is_some_and(|(at_us, _)| at_us <= start_us) {
            return Ok(Vec::new());
        }
        if let Some(text) = &grant.recurs_every {
            let step = parse_billing_period(text).ok_or_else(|| Error::Credits {
                grant: grant.grant.clone(),
                problem: format!("`{text}` is not how often a grant recurs"),
            })?;
            let recurrence = Recurrence::new(local(start_us, &TimeZone::UTC), step);
            let starts = (1..).map_while(|k| recurrence.start_us(k, &TimeZone::UTC));
            let is_on =
                |at_us: &i64| *at_us <= until_us && end.is_none_or(|(end_us, _)| *at_us < end_us);
            turns.extend(
                starts
                    .take_while(is_on)
                    .map(|at_us| (at_us, Turn::Recurred)),
            );
        }
        turns.extend(end);
        turns.retain(|(at_us, _)| *at_us <= until_us);
        Ok(turns)
    }

    /// Backwards: what must be left before each turn.
    fn needs(&self) -> Result<Vec<Exact>> {
        let mut needs = vec![Exact::ZERO];
        let mut need = Exact::ZERO;
        for (_, turn) in self.turns.iter().rev() {
            need = match turn {
                Turn::Granted => Exact::ZERO,
                Turn::Expired | Turn::Voided => need,
                Turn::Burnt(burn, _) => need.checked_add(burn.amount)?.max(Exact::ZERO),
                // `amount + min(max, max(rest, min))` is at least the need from this rest on.
                Turn::Recurred => match need.checked_sub(self.grant.amount)? {
                    short if short > self.carried(Exact::ZERO) => short,
                    _ => Exact::ZERO,
                },
            };
            needs.push(need);
        }
        needs.reverse();
        Ok(needs)
    }

    fn carried(&self, rest: Exact) -> Exact {
        carried(rest, self.grant.rollover_min, self.grant.rollover_max)
    }

    /// What is left after a turn, of what was left before it.
    pub(super) fn after(&self, place: usize, rest: Exact) -> Result<Exact> {
        Ok(match self.turns[place].1 {
            Turn::Granted => self.grant.amount,
            Turn::Recurred => self.grant.amount.checked_add(self.carried(rest))?,
            // What was burnt later, before a row said that it ends now, stays burnt.
            Turn::Expired | Turn::Voided => rest.min(self.needs[place]),
            Turn::Burnt(burn, _) => rest.checked_sub(burn.amount)?,
        })
    }

    /// How many turns there are up to an instant, and what is left after them.
    fn rest(&self, at_us: i64) -> Result<(usize, Exact)> {
        let places = self.turns.partition_point(|(turn_us, _)| *turn_us <= at_us);
        let mut rest = Exact::ZERO;
        for place in 0..places {
            rest = self.after(place, rest)?;
        }
        Ok((places, rest))
    }

    /// What is left at an instant.
    pub(super) fn balance(&self, at_us: i64) -> Result<Exact> {
        match is_in_force(self.grant, at_us) {
            true => Ok(self.rest(at_us)?.1.max(Exact::ZERO)),
            false => Ok(Exact::ZERO),
        }
    }

    /// How much can be burnt at an instant so that later burns still have theirs.
    pub(super) fn available(&self, at_us: i64) -> Result<Exact> {
        if !is_in_force(self.grant, at_us) {
            return Ok(Exact::ZERO);
        }
        let (places, rest) = self.rest(at_us)?;
        Ok(rest.checked_sub(self.needs[places])?.max(Exact::ZERO))
    }

    /// Whether the grant is in force at both instants, and does not recur after the first and up to the second.
    pub(super) fn is_one_occurrence(&self, from_us: i64, to_us: i64) -> bool {
        let mut recurrences = self
            .turns
            .iter()
            .filter(|(_, turn)| *turn == Turn::Recurred);
        is_in_force(self.grant, from_us)
            && is_in_force(self.grant, to_us)
            && !recurrences.any(|(at_us, _)| from_us < *at_us && *at_us <= to_us)
    }
}

fn is_in_force(grant: &Grant, at_us: i64) -> bool {
    let is_before = |end_us: Option<i64>| end_us.is_none_or(|end_us| at_us < end_us);
    grant.effective_at_us <= at_us
        && is_before(grant.expires_at_us)
        && is_before(grant.voided_at_us)
}
