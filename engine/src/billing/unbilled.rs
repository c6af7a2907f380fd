//! The relation `unbilled`: usage that no subscription pays for, because its subject has no customer then, or that customer no
//! subscription.

use super::{
    accounts::ByRange,
    due::zones_of,
    starts::{Calendar, Starts},
    usage::usage_of_all,
};
use crate::{
    config::BillingSettings,
    error::{Result, query_error},
    view::{Paid, Totals, View},
};
use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema},
};
use std::sync::Arc;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::Index,
    invoice::{self, basis::Usage},
    period::Period,
};

/// Times, `[from, until)` in microseconds.
type Times = Vec<(i64, i64)>;

/// What one subject used of one measure while no one paid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unbilled {
    /// Who used it.
    pub subject: String,
    /// Who would pay; `None` where that is no one.
    pub customer: Option<String>,
    /// The meter.
    pub meter: String,
    /// The measure.
    pub measure: String,
    /// How much, as text: a sum over all dimensions.
    pub quantity: String,
}

/// Usage in some time that no subscription pays for, by subject, meter and measure. Usage in a trial is paid for: it is free.
///
/// # Errors
/// The lake cannot be read, or a meter does not know that time.
pub async fn unbilled(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    accounts: &ByRange,
    time: invoice::Period,
) -> Result<Vec<Unbilled>> {
    let starts = Starts::in_lake(lake, settings).await?;
    let calendar = Calendar {
        zone: &settings.time_zone,
        starts: &starts,
    };
    let start_us = time.start_us.max(settings.starts_us()?.unwrap_or(i64::MIN));
    let time = invoice::Period { start_us, ..time };
    let mut rows = Vec::new();
    if time.end_us <= start_us {
        return Ok(rows);
    }
    let period = Period::of(time, calendar.zone)?;
    let unknown = unknown(&view.all_totals(&period).await?, accounts, &starts)?;
    for (_, usage) in usage_of_all(view.catalog(), &unknown)? {
        rows.extend(usage.into_iter().flat_map(|usage| rows_of(usage, None)));
    }
    drop(unknown);
    // What they name, while no one pays.
    let view = &view.knowing(settings.max_bytes.0 / 2);
    let before = starts.subjects();
    let before = before.filter(|subject| !accounts.names_subject(subject));
    let (mut paid, nothing) = (Paid::default(), Index::empty());
    for subject in before {
        let of_nobody = unpaid(&nothing, calendar, subject, time, |_| true)?;
        of_nobody
            .into_iter()
            .for_each(|(_, times)| paid.add(subject, NOBODY, times));
    }
    add_used(view, &period, paid, &mut rows).await?;
    for customers in accounts.ranges() {
        let accounts = accounts.of(&customers).await?;
        let mut paid = Paid::default();
        for subject in accounts.subjects() {
            let is_of_these = |customer: &str| customers.has(customer);
            for (customer, times) in unpaid(&accounts, calendar, subject, time, is_of_these)? {
                paid.add(subject, customer.unwrap_or(NOBODY), times);
            }
        }
        add_used(view, &period, paid, &mut rows).await?;
    }
    rows.sort();
    Ok(rows)
}

/// The totals of subjects that no row of accounts names, nor an invoice from before there were any.
fn unknown(totals: &Totals, accounts: &ByRange, starts: &Starts) -> Result<Vec<RecordBatch>> {
    let unknown = totals.meters.iter().map(|rows| {
        let subjects = rows["subject"].as_string::<i32>().iter().flatten();
        let is_known = |name: &str| accounts.names_subject(name) || starts.has_subject(name);
        let unknown = subjects.map(|subject| Some(!is_known(subject)));
        filter_record_batch(rows, &unknown.collect::<BooleanArray>())
    });
    let unknown = unknown.collect::<std::result::Result<Vec<_>, _>>();
    unknown.map_err(query_error("looking for usage that no one pays for"))
}

/// No customer is called so: names are not empty.
const NOBODY: &str = "";

/// Adds what was used in some times, by who would pay for it.
async fn add_used(
    view: &View,
    period: &Period,
    paid: Paid,
    rows: &mut Vec<Unbilled>,
) -> Result<()> {
    if paid.is_empty() {
        return Ok(());
    }
    let totals = view.paid_totals(period, paid).await?;
    for (customer, usage) in usage_of_all(view.catalog(), &totals.meters)? {
        let customer = (customer != NOBODY).then_some(customer);
        let usage = usage.into_iter();
        rows.extend(usage.flat_map(|usage| rows_of(usage, customer.clone())));
    }
    Ok(())
}

fn rows_of(usage: Usage, customer: Option<String>) -> impl Iterator<Item = Unbilled> {
    let Usage {
        meter,
        subject,
        quantities,
        ..
    } = usage;
    quantities
        .into_iter()
        .map(move |(measure, quantity)| Unbilled {
            subject: subject.clone(),
            customer: customer.clone(),
            meter: meter.clone(),
            measure,
            quantity,
        })
}

/// When no subscription pays for a subject, by who would; `None` is no one. Of several customers who pay one after the other, those are
/// told that are of these, and no one's time with the first.
fn unpaid<'a>(
    accounts: &'a Index,
    calendar: Calendar<'_>,
    subject: &str,
    time: invoice::Period,
    is_of_these: impl Fn(&str) -> bool,
) -> Result<Vec<(Option<&'a str>, Times)>> {
    let time = invoice::Period {
        start_us: time.start_us.max(calendar.starts.of_subject(subject)),
        ..time
    };
    let mut unpaid = Vec::new();
    let mut from_us = time.start_us;
    let payers = accounts.payers_of(subject);
    let first = payers.first().map(|payer| payer.customer);
    let tells_of_nobody = first.is_none_or(&is_of_these);
    for payer in payers {
        let start_us = payer.from_us.unwrap_or(i64::MIN).max(time.start_us);
        let end_us = payer.to_us.unwrap_or(i64::MAX).min(time.end_us);
        if start_us >= end_us {
            continue;
        }
        if from_us < start_us && tells_of_nobody {
            unpaid.push((None, vec![(from_us, start_us)]));
        }
        from_us = end_us;
        if !is_of_these(payer.customer) {
            continue;
        }
        // A zone that is not one is told by the job.
        zones_of(accounts, calendar.zone, payer.customer)?;
        let gaps = gaps(subscribed(accounts, payer.customer), (start_us, end_us));
        if !gaps.is_empty() {
            unpaid.push((Some(payer.customer), gaps));
        }
    }
    if from_us < time.end_us && tells_of_nobody {
        unpaid.push((None, vec![(from_us, time.end_us)]));
    }
    Ok(unpaid)
}

/// When a customer has a subscription, in order; times may overlap.
fn subscribed(accounts: &Index, customer: &str) -> Times {
    let mut times = Vec::new();
    for rows in accounts.subscriptions_of(customer) {
        let next = rows.iter().skip(1).map(|row| row.starts_at_us);
        for (row, next_us) in rows.iter().zip(next.chain([i64::MAX])) {
            let end_us = row.ends_at_us.unwrap_or(i64::MAX).min(next_us);
            times.push((row.starts_at_us, end_us));
        }
    }
    times.sort_unstable();
    times
}

/// What of some time no other times cover.
fn gaps(covered: Times, (from_us, until_us): (i64, i64)) -> Times {
    let mut gaps = Vec::new();
    let mut at_us = from_us;
    for (start_us, end_us) in covered {
        if at_us < start_us.min(until_us) {
            gaps.push((at_us, start_us.min(until_us)));
        }
        at_us = at_us.max(end_us);
    }
    if at_us < until_us {
        gaps.push((at_us, until_us));
    }
    gaps
}

/// Rows of the relation: `subject, customer, meter, measure, quantity`, the last as text.
///
/// # Errors
/// The columns do not make a batch.
pub fn unbilled_batch(rows: &[Unbilled]) -> Result<RecordBatch> {
    let text = |of: fn(&Unbilled) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let field = |name| Field::new(name, DataType::Utf8, name == "customer");
    let names = ["subject", "customer", "meter", "measure", "quantity"];
    let columns = vec![
        text(|row| Some(&row.subject)),
        text(|row| row.customer.as_deref()),
        text(|row| Some(&row.meter)),
        text(|row| Some(&row.measure)),
        text(|row| Some(&row.quantity)),
    ];
    let schema = Schema::new(names.map(field).to_vec());
    RecordBatch::try_new(Arc::new(schema), columns).map_err(query_error("listing what is unbilled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_no_time_covers() {
        for (covered, expected) in [
            (vec![], vec![(10, 20)]),
            (vec![(0, 30)], vec![]),
            (vec![(0, 12), (15, 18)], vec![(12, 15), (18, 20)]),
            (vec![(12, 14), (13, 30)], vec![(10, 12)]),
            (vec![(25, 30)], vec![(10, 20)]),
            (vec![(0, 10), (20, 30)], vec![(10, 20)]),
        ] {
            assert_eq!(gaps(covered.clone(), (10, 20)), expected, "{covered:?}");
        }
    }
}
