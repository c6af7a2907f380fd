//! What grants pay: balances, burn-down, and the rows of `credit_ledger`. Pure.
//!
//! ```text
//!  grants + what was burnt ──turns──▶ the balance of a grant at an instant, and how much of it may be burnt then
//!                                      ├─▶ pay, give_back   what is owed ─▶ burns
//!                                      └─▶ ledger           rows that add up to the balance
//! ```
//!
//! Nothing is kept but the grants and the burns of issued documents: every balance follows from them. A burn stands at the last
//! instant of the service period that it paid, whenever its document was issued, so late usage takes nothing that later burns
//! have taken.
//!
//! Amounts are in the currency of the grants. The caller passes the grants of one customer in one currency, in any order.

mod ledger;
#[cfg(test)]
mod tests;
mod turns;

pub use ledger::{Entry, EntryKind, Issued, check, credit_ledger_batch, ledger};

use crate::{
    accounts::{Grant, GrantKind},
    error::{Error, Result},
    money::Exact,
};
use turns::Turns;

/// What a grant paid at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burn {
    /// The grant's name.
    pub grant: String,
    /// The last instant of the service period that it paid, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// How much; below zero where it went back to the grant.
    pub amount: Exact,
}

/// What a grant paid of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The place of the line among those that are owed, from 0.
    pub line: usize,
    /// What was paid of it.
    pub burn: Burn,
}

/// What is left of a grant at an instant, after what was burnt at it; zero when it is not in force then.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits, [`crate::Error::Credits`] for a recurrence that cannot be read.
pub fn balance(grant: &Grant, burnt: &[Burn], at_us: i64) -> Result<Exact> {
    Turns::of(grant, burnt, at_us)?.balance(at_us)
}

/// What of a grant can still be burnt at an instant: what is left of it then, without what was burnt at later instants, as by documents of a service
/// period that is not over. Zero when it is not in force.
///
/// # Errors
/// Those of [`balance`].
pub fn available(grant: &Grant, burnt: &[Burn], at_us: i64) -> Result<Exact> {
    Turns::of(grant, burnt, at_us)?.available(at_us)
}

/// What grants pay of lines, see [`pay`], the burns of one grant added up.
///
/// # Errors
/// Those of [`pay`].
pub fn burn(
    grants: &[&Grant],
    burnt: &[Burn],
    at_us: i64,
    kind: GrantKind,
    owed: &[(Option<&str>, Exact)],
) -> Result<Vec<Burn>> {
    let mut burns: Vec<Burn> = Vec::new();
    for payment in pay(grants, burnt, at_us, kind, owed)? {
        match burns.last_mut() {
            Some(last) if last.grant == payment.burn.grant => {
                last.amount = last.amount.checked_add(payment.burn.amount)?;
            }
            _ => burns.push(payment.burn),
        }
    }
    Ok(burns)
}

/// What grants of a kind pay of lines whose service periods end with this instant, each a price (`None` of a line without one)
/// and an amount.
///
/// Grants pay by priority, lower first, then the one that expires first, then the one that was effective first, then by name;
/// each pays the lines that it applies to in their order. A grant that is limited to prices pays no line without one. Lines at
/// or below zero are paid nothing, others never more than they are.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits, [`crate::Error::Credits`] for a recurrence that cannot be read.
pub fn pay(
    grants: &[&Grant],
    burnt: &[Burn],
    at_us: i64,
    kind: GrantKind,
    owed: &[(Option<&str>, Exact)],
) -> Result<Vec<Payment>> {
    let mut owed: Vec<(Option<&str>, Exact)> = owed.to_vec();
    let mut payments = Vec::new();
    for grant in in_order(grants, kind) {
        let mut left = Turns::of(grant, burnt, at_us)?.available(at_us)?;
        for (line, (price, amount)) in owed.iter_mut().enumerate() {
            let paid = left.min(*amount);
            if !applies(grant, *price) || paid <= Exact::ZERO {
                continue;
            }
            left = left.checked_sub(paid)?;
            *amount = amount.checked_sub(paid)?;
            payments.push(Payment {
                line,
                burn: Burn {
                    grant: grant.grant.clone(),
                    at_us,
                    amount: paid,
                },
            });
        }
    }
    Ok(payments)
}

/// What goes back to grants of a kind where usage was taken back that they had paid: burns below zero. `at_us` is the last
/// instant of the service period, `by_us` that of the document which says so; each line is a price and how much less it is,
/// above zero.
///
/// The grant that was burnt last has it back first, as far as it had paid, and only while the occurrence that paid is in force:
/// what it would have lost by a recurrence or by its end is owed to the customer instead, as is all that is not among the burns.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits, [`crate::Error::Credits`] for a recurrence that cannot be read.
pub fn give_back(
    grants: &[&Grant],
    burnt: &[Burn],
    (at_us, by_us): (i64, i64),
    kind: GrantKind,
    less: &[(Option<&str>, Exact)],
) -> Result<Vec<Payment>> {
    let mut less: Vec<(Option<&str>, Exact)> = less.to_vec();
    let mut payments = Vec::new();
    for grant in in_order(grants, kind).into_iter().rev() {
        if !Turns::of(grant, burnt, by_us)?.is_one_occurrence(at_us, by_us) {
            continue;
        }
        let mut paid = Exact::ZERO;
        for burn in burnt {
            if burn.grant == grant.grant && burn.at_us == at_us {
                paid = paid.checked_add(burn.amount)?;
            }
        }
        for (line, (price, amount)) in less.iter_mut().enumerate() {
            let back = paid.min(*amount);
            if !applies(grant, *price) || back <= Exact::ZERO {
                continue;
            }
            paid = paid.checked_sub(back)?;
            *amount = amount.checked_sub(back)?;
            payments.push(Payment {
                line,
                burn: Burn {
                    grant: grant.grant.clone(),
                    at_us,
                    amount: Exact::ZERO.checked_sub(back)?,
                },
            });
        }
    }
    Ok(payments)
}

/// What a void burns: the burns of a document the other way, at their own instants, the last one first. `by_us` is when the void is issued.
///
/// A prepaid grant has back what it paid while the occurrence that paid is in force; after it that is owed to the customer instead, and
/// is not among the burns. A promotional grant always has it back where it was, for it is part of what the document was taxed on. What a
/// document gave back to a grant is paid again as far as it is left.
///
/// # Errors
/// [`crate::Error::Credits`] for a promotional grant that has spent what it had back; those of [`give_back`].
pub fn undo(grants: &[&Grant], burnt: &[Burn], own: &[Burn], by_us: i64) -> Result<Vec<Burn>> {
    let mut burnt = burnt.to_vec();
    let mut undone = Vec::with_capacity(own.len());
    for burn in own.iter().rev() {
        let mut named = grants.iter().filter(|grant| grant.grant == burn.grant);
        let Some(grant) = named.next() else {
            continue;
        };
        let amount = undone_of(grant, &burnt, burn, by_us)?;
        if !amount.is_zero() {
            let burn = Burn {
                amount,
                ..burn.clone()
            };
            burnt.push(burn.clone());
            undone.push(burn);
        }
    }
    Ok(undone)
}

/// What a void burns of a grant for one burn.
fn undone_of(grant: &Grant, burnt: &[Burn], burn: &Burn, by_us: i64) -> Result<Exact> {
    let back = Exact::ZERO.checked_sub(burn.amount)?;
    let is_promotional = grant.kind == GrantKind::Promotional;
    if back.is_negative() {
        let turns = Turns::of(grant, burnt, by_us.max(burn.at_us))?;
        let has_it = is_promotional || turns.is_one_occurrence(burn.at_us, by_us);
        return Ok(if has_it { back } else { Exact::ZERO });
    }
    let left = Turns::of(grant, burnt, burn.at_us)?.available(burn.at_us)?;
    let again = back.min(left.max(Exact::ZERO));
    if is_promotional && again < back {
        return Err(Error::Credits {
            grant: grant.grant.clone(),
            problem: format!("it had {back} back, and {again} of that is left"),
        });
    }
    Ok(again)
}

/// What a recurrence carries over of what is left: `min(rollover_max, max(rest, rollover_min))`.
pub fn carried(rest: Exact, rollover_min: Exact, rollover_max: Exact) -> Exact {
    rollover_max.min(rest.max(rollover_min))
}

/// The grants of a kind, in the order in which they pay.
fn in_order<'a>(grants: &[&'a Grant], kind: GrantKind) -> Vec<&'a Grant> {
    let of_kind = grants.iter().filter(|grant| grant.kind == kind);
    let mut ordered: Vec<&Grant> = of_kind.copied().collect();
    ordered.sort_by_key(|grant| {
        (
            grant.priority,
            grant.expires_at_us.is_none(),
            grant.expires_at_us,
            grant.effective_at_us,
            &grant.grant,
        )
    });
    ordered
}

/// Whether a grant pays lines of a price, `None` of a line without one.
pub(crate) fn applies(grant: &Grant, price: Option<&str>) -> bool {
    let is_named = |price: &str| grant.applies_to.iter().any(|name| name == price);
    grant.applies_to.is_empty() || price.is_some_and(is_named)
}
