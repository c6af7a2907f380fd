//! An import: rows of files against the rows that are there, checked whole.

use super::{
    Accounts,
    check::{self, New},
    files::{AccountsFile, Place, Read},
    problem::Problems,
    table::Table,
};
use crate::{
    definitions::Definitions,
    error::{Error, Result},
};

/// What an import writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The rows that say something else than what stands; none when everything is there already.
    pub rows: Accounts,
    /// How many rows were read.
    pub read: usize,
}

/// Reads the files of an import and checks their rows together with those that are there. A row that says what stands already
/// is not written again.
///
/// `zone` is `billing.time_zone`: in it a day begins for a customer without a zone. A day of a `customers` row begins in that
/// row's own zone.
///
/// # Errors
/// [`Error::Accounts`] with everything that is wrong, by file and line; [`Error::Zone`] when `zone` is none.
pub fn import(
    accounts: &Accounts,
    files: &[AccountsFile],
    definitions: &Definitions,
    zone: &str,
) -> Result<Import> {
    let before = accounts.clone().indexed().into_accounts();
    let mut read = Read::customers(files, zone)?;
    let customers = Accounts {
        customers: with_new(&before.customers, &read.customers),
        ..Accounts::default()
    };
    let customers = customers.indexed();
    let new = New {
        customers: std::mem::take(&mut read.customers),
        subjects: read.table(Some(&customers)),
        subscriptions: read.table(Some(&customers)),
        grants: read.table(Some(&customers)),
        one_offs: read.table(Some(&customers)),
        discounts: read.table(Some(&customers)),
    };
    let all = Accounts {
        customers: customers.into_accounts().customers,
        subjects: with_new(&before.subjects, &new.subjects),
        subscriptions: with_new(&before.subscriptions, &new.subscriptions),
        grants: with_new(&before.grants, &new.grants),
        one_offs: with_new(&before.one_offs, &new.one_offs),
        discounts: with_new(&before.discounts, &new.discounts),
        serial: before.serial,
    };
    check::check_new(&all.indexed(), &before, &new, definitions, &mut read)?;
    if !read.problems.is_empty() {
        read.problems.sort_by_key(|(place, _)| *place);
        let problems = read.problems.into_iter().map(|(_, problem)| problem);
        return Err(Error::Accounts(Problems(problems.collect())));
    }
    Ok(Import {
        rows: Accounts {
            customers: changes(&before, new.customers),
            subjects: changes(&before, new.subjects),
            subscriptions: changes(&before, new.subscriptions),
            grants: changes(&before, new.grants),
            one_offs: changes(&before, new.one_offs),
            discounts: changes(&before, new.discounts),
            serial: before.serial,
        },
        read: read.rows,
    })
}

/// The new rows stand where the others have the same key and time.
fn with_new<R: Table>(before: &[R], new: &[(R, Place)]) -> Vec<R> {
    let new = new.iter().map(|(row, _)| row);
    before.iter().chain(new).cloned().collect()
}

fn changes<R: Table>(before: &Accounts, new: Vec<(R, Place)>) -> Vec<R> {
    let before = R::rows(before);
    let is_there = |row: &R| {
        let found = before.binary_search_by(|other| other.place().cmp(&row.place()));
        found.is_ok_and(|at| before[at] == *row)
    };
    let new = new.into_iter().map(|(row, _)| row);
    new.filter(|row| !is_there(row)).collect()
}

#[cfg(test)]
mod tests;
