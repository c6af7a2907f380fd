//! Instalments: documents of a billing period that is not over, each when enough of it is unbilled. Pure.
//!
//! An instalment bills what the period comes to so far less what earlier instalments billed of it; the document that closes the
//! period bills the rest. So however many there are, together they are one rating of the whole period.

use super::LineItem;
use crate::{error::Result, money::Exact};

/// Which instalment a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instalment {
    /// The subscription.
    pub subscription: String,
    /// When its billing period begins, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// Its place among all instalments that were ever issued for the period, from 1.
    pub place: u32,
}

/// What lines come to less their discounts, without taxes.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn spend<'a>(lines: impl IntoIterator<Item = &'a LineItem>) -> Result<Exact> {
    let mut spend = Exact::ZERO;
    for line in lines.into_iter().filter(|line| !line.kind.is_tax()) {
        let net = line.amount.checked_sub(line.discount)?;
        spend = spend.checked_add(net.to_exact())?;
    }
    Ok(spend)
}

/// Whether an instalment is due: what is spent so far less what earlier ones billed has reached the threshold of its place. The last
/// threshold is that of all later places too; without any, none is due.
///
/// ```
/// # use tollgate_sql::{invoice::instalments::is_due, money::Exact};
/// let amount = |units: i64| Exact::from(units);
/// let thresholds = [amount(100), amount(500)];
/// assert!(!is_due(&thresholds, 0, (amount(99), amount(0)))?);
/// assert!(is_due(&thresholds, 0, (amount(100), amount(0)))?);
/// assert!(!is_due(&thresholds, 1, (amount(599), amount(100)))?);
/// assert!(is_due(&thresholds, 1, (amount(600), amount(100)))?);
/// assert!(is_due(&thresholds, 9, (amount(1_100), amount(600)))?);
/// assert!(!is_due(&[], 0, (amount(1_000_000), amount(0)))?);
/// # Ok::<(), tollgate_sql::Error>(())
/// ```
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn is_due(
    thresholds: &[Exact],
    issued: usize,
    (spent, billed): (Exact, Exact),
) -> Result<bool> {
    let Some(threshold) = thresholds.get(issued).or(thresholds.last()) else {
        return Ok(false);
    };
    Ok(spent.checked_sub(billed)? >= *threshold)
}
