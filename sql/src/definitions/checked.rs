//! Definitions of which some may be wrong: all that is wrong, and what can be used without it.

use super::Definitions;
use crate::{error::Error, parser::relations_of};
use std::collections::BTreeSet;

/// What a definitions folder says, as far as it is right, and everything that is wrong in it.
#[derive(Debug)]
pub struct Checked {
    /// What is right and needs nothing that is wrong.
    pub definitions: Definitions,
    /// What is wrong, one error a statement at most, in the order of files and places.
    pub errors: Vec<Error>,
    pub(crate) broken: BrokenNames,
}

/// Names of definitions that cannot be used.
#[derive(Debug, Default)]
pub(crate) struct BrokenNames {
    names: BTreeSet<String>,
    /// Whether there are statements whose names could not be read: any name may be defined by one of them.
    has_unread: bool,
}

impl BrokenNames {
    pub(crate) fn add(&mut self, name: Option<String>) {
        match name {
            Some(name) => {
                self.names.insert(name);
            }
            None => self.has_unread = true,
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether a name is that of a definition; `None` when it is that of a wrong one, or may be.
    pub(crate) fn is_good(&self, name: &str, is_known: bool) -> Option<bool> {
        match self.has(name) || (self.has_unread && !is_known) {
            true => None,
            false => Some(is_known),
        }
    }
}

impl Checked {
    /// Takes out a definition that was found wrong later, and all that needs it.
    pub fn leave_out(&mut self, name: &str) {
        self.broken.add(Some(name.to_owned()));
        self.leave_out_broken();
    }

    /// Whether a name may be that of a definition that is wrong.
    pub fn may_be_broken(&self, name: &str) -> bool {
        self.broken.is_good(name, false).is_none()
    }

    /// Takes out what is wrong, and what needs it.
    pub(crate) fn leave_out_broken(&mut self) {
        let broken = &mut self.broken;
        let all = &mut self.definitions;
        all.event_types.retain(|known| !broken.has(&known.name));
        all.rate_tables.retain(|known| !broken.has(&known.name));
        all.currencies.retain(|known| !broken.has(&known.name));
        for meter in &all.meters {
            if broken.has(&meter.event_type) {
                broken.add(Some(meter.name.clone()));
            }
        }
        all.meters.retain(|known| !broken.has(&known.name));
        for price in &all.prices {
            let mut read = relations_of(&price.query).into_iter();
            let needs = read.any(|name| {
                broken.has(&name) || broken.has(name.strip_suffix("_windows").unwrap_or_default())
            });
            if needs || broken.has(&price.currency) {
                broken.add(Some(price.name.clone()));
            }
        }
        all.prices.retain(|known| !broken.has(&known.name));
        for plan in &all.plans {
            let worth = plan.worth.iter().map(|worth| &worth.currency);
            if plan.prices.iter().chain(worth).any(|name| broken.has(name)) {
                broken.add(Some(plan.name.clone()));
            }
        }
        all.plans.retain(|known| !broken.has(&known.name));
    }
}
