//! The rows of `credit_ledger`: they add up to the balance of each grant.
//!
//! | kind | amount | when |
//! |---|---|---|
//! | `grant` | the grant's | it becomes effective |
//! | `burn` | below zero | the last instant of the service period that it paid |
//! | `return` | above zero | the same, where usage was taken back |
//! | `expire` | below zero: what is lost | it expires, or recurs and does not carry all over |
//! | `rollover` | what `rollover_min` adds to what was left | it recurs |
//! | `recur` | the grant's | it recurs |
//! | `void` | below zero: what is lost | it is voided |
//!
//! A row of nothing is not written.

use super::{
    Burn,
    turns::{Turn, Turns},
};
use crate::{
    accounts::Grant,
    error::{Error, Result},
    invoice::tables::{engine, instants, text},
    money::{Exact, MINOR_DIGITS_MAX, MoneyError},
    schema::{credits::credit_ledger_schema, invoices::money_type},
    window::EventTime,
};
use arrow::array::{ArrayRef, Decimal128Array, RecordBatch};
use std::sync::Arc;

/// A burn, and the number of the document that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued<'a> {
    /// What was burnt.
    pub burn: &'a Burn,
    /// The number of the document.
    pub document: &'a str,
}

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// The grant became effective.
    Grant,
    /// What was left is gone.
    Expire,
    /// A recurrence carried over more than was left.
    Rollover,
    /// It was granted anew.
    Recur,
    /// It was voided.
    Void,
    /// It paid.
    Burn,
    /// It has back what it had paid.
    Return,
}

impl EntryKind {
    /// The text in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Expire => "expire",
            Self::Rollover => "rollover",
            Self::Recur => "recur",
            Self::Void => "void",
            Self::Burn => "burn",
            Self::Return => "return",
        }
    }
}

/// A row of `credit_ledger`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The grant.
    pub grant: String,
    /// Whose.
    pub customer: String,
    /// What it says.
    pub kind: EntryKind,
    /// What it adds to the balance.
    pub amount: Exact,
    /// ISO 4217 code.
    pub currency: String,
    /// When, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// The number of the document of a burn or return.
    pub document: Option<String>,
}

/// The rows of grants up to an instant and with it, by grant and time. The sum of a grant's rows up to an instant is its balance.
///
/// # Errors
/// Those of [`super::balance`].
pub fn ledger(grants: &[&Grant], issued: &[Issued<'_>], until_us: i64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for grant in grants {
        let turns = Turns::issued(grant, issued, until_us)?;
        let mut rest = Exact::ZERO;
        for (place, (at_us, turn)) in turns.turns.iter().enumerate() {
            if *at_us > until_us {
                break;
            }
            let after = turns.after(place, rest)?;
            for (kind, amount, document) in rows(grant, *turn, rest, after)? {
                if !amount.is_zero() {
                    entries.push(Entry {
                        grant: grant.grant.clone(),
                        customer: grant.customer.clone(),
                        kind,
                        amount,
                        currency: grant.currency.clone(),
                        at_us: *at_us,
                        document: document.map(str::to_owned),
                    });
                }
            }
            rest = after;
        }
    }
    entries.sort_by(|a: &Entry, b| (&a.grant, a.at_us, a.kind).cmp(&(&b.grant, b.at_us, b.kind)));
    Ok(entries)
}

type Row<'a> = (EntryKind, Exact, Option<&'a str>);

/// The rows of one turn.
fn rows<'a>(grant: &Grant, turn: Turn<'a>, rest: Exact, after: Exact) -> Result<Vec<Row<'a>>> {
    let change = after.checked_sub(rest)?;
    Ok(match turn {
        Turn::Granted => vec![(EntryKind::Grant, change, None)],
        Turn::Expired => vec![(EntryKind::Expire, change, None)],
        Turn::Voided => vec![(EntryKind::Void, change, None)],
        Turn::Burnt(_, document) if change.is_negative() => {
            vec![(EntryKind::Burn, change, document)]
        }
        Turn::Burnt(_, document) => vec![(EntryKind::Return, change, document)],
        Turn::Recurred => {
            let carried = change.checked_sub(grant.amount)?;
            let kind = match carried.is_negative() {
                true => EntryKind::Expire,
                false => EntryKind::Rollover,
            };
            vec![
                (kind, carried, None),
                (EntryKind::Recur, grant.amount, None),
            ]
        }
    })
}

/// The entries as rows of `credit_ledger`, in their order.
///
/// # Errors
/// [`Error::Money`] for an amount that has more than four digits after the point, or 34 before it.
pub fn credit_ledger_batch(entries: &[Entry]) -> Result<RecordBatch> {
    let amounts = entries
        .iter()
        .map(|entry| entry.amount.digits_at(MINOR_DIGITS_MAX));
    let amounts = amounts.collect::<Result<Decimal128Array, MoneyError>>()?;
    let columns: Vec<ArrayRef> = vec![
        text(entries.iter().map(|entry| Some(&entry.grant))),
        text(entries.iter().map(|entry| Some(&entry.customer))),
        text(entries.iter().map(|entry| Some(entry.kind.as_str()))),
        Arc::new(amounts.with_data_type(money_type())),
        text(entries.iter().map(|entry| Some(&entry.currency))),
        instants(entries.iter().map(|entry| Some(entry.at_us))),
        text(entries.iter().map(|entry| entry.document.as_deref())),
    ];
    RecordBatch::try_new(credit_ledger_schema(), columns).map_err(engine)
}

/// Whether the rows of each grant up to each instant add up to no less than nothing and no more than was granted until then.
/// The rows come as [`ledger`] makes them.
///
/// # Errors
/// [`Error::Credits`] names the grant and the sum; [`Error::Money`] past 38 digits.
pub fn check(entries: &[Entry]) -> Result<()> {
    let (mut sum, mut granted) = (Exact::ZERO, Exact::ZERO);
    for (place, entry) in entries.iter().enumerate() {
        sum = sum.checked_add(entry.amount)?;
        if let EntryKind::Grant | EntryKind::Recur | EntryKind::Rollover = entry.kind {
            granted = granted.checked_add(entry.amount)?;
        }
        let next = entries.get(place + 1);
        let next = next.filter(|next| next.grant == entry.grant);
        if next.is_some_and(|next| next.at_us == entry.at_us) {
            continue;
        }
        if sum.is_negative() || sum > granted {
            return Err(Error::Credits {
                grant: entry.grant.clone(),
                problem: format!(
                    "{granted} {} was granted until {}, and its rows in `credit_ledger` add up to {sum}",
                    entry.currency,
                    EventTime(entry.at_us).instant(),
                ),
            });
        }
        if next.is_none() {
            (sum, granted) = (Exact::ZERO, Exact::ZERO);
        }
    }
    Ok(())
}
