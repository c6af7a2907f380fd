//! Which plan is in force when: the billing periods of a subscription, and what each is made of. Pure.
//!
//! ```text
//! rows of a subscription ──▶ stretches: rows whose plans have periods of one kind and one anchor
//!                              └─▶ billing periods, one after the other, without a gap
//!                                    └─▶ parts, one for each plan: the time whose usage it rates
//!                                          └─▶ segments: a fixed price is prorated by each
//! ```
//!
//! A row is in force from its start to its end or the next row. The time until a trial's end has no segment, and no usage
//! unless the plan bills it. A period in which nothing is in force is left out.

use crate::{
    accounts::Subscription,
    definitions::{Anchor, BillingPeriod, PlanDefinition, TrialUsage},
    error::{Error, Result},
    invoice,
    money::Exact,
    period::{Period, Recurrence, days_ended, local, zone_of},
    schema,
};
use arrow::{
    array::{
        ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use jiff::tz::TimeZone;
use std::sync::Arc;

/// The zones of a customer, from when on each.
#[derive(Debug, Clone)]
pub struct Zones {
    first: TimeZone,
    later: Vec<(i64, TimeZone)>,
}

impl Zones {
    /// The zone that was first, and those that came later, in order of time.
    ///
    /// # Errors
    /// A name is not that of a zone.
    pub fn new<'a>(first: &str, later: impl IntoIterator<Item = (i64, &'a str)>) -> Result<Self> {
        let later = later.into_iter();
        let later = later.map(|(from_us, name)| Ok((from_us, zone_of(name)?)));
        Ok(Zones {
            first: zone_of(first)?,
            later: later.collect::<Result<_>>()?,
        })
    }

    fn at(&self, time_us: i64) -> &TimeZone {
        let begun = self.later.iter().rev();
        let mut begun = begun.skip_while(|(from_us, _)| *from_us > time_us);
        begun.next().map_or(&self.first, |(_, zone)| zone)
    }
}

/// One billing period of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// Whose.
    pub subscription: String,
    /// Who pays.
    pub customer: String,
    /// The whole period, by the zone in which it began.
    pub period: Period,
    /// When a plan is first in force in it.
    pub opens_us: i64,
    /// When it is over: its end, or the change to a plan whose periods are others.
    pub closes_us: i64,
    /// What is in force in it, by plan, in the order in which they came; at least one.
    pub parts: Vec<Part>,
}

impl Cycle {
    /// The time from when a plan is first in force in it until it is over.
    pub fn closed(&self) -> invoice::Period {
        invoice::Period {
            start_us: self.opens_us,
            end_us: self.closes_us,
        }
    }
}

/// What one plan rates of a billing period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The plan's name.
    pub plan: String,
    /// The time whose usage it rates, `[from, until)` in microseconds, in order, no two of which meet.
    pub usage: Vec<(i64, i64)>,
    /// The time that is paid for, in order.
    pub segments: Vec<Segment>,
}

/// A time in which plan, seats and terms stay the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its first instant, in microseconds.
    pub from_us: i64,
    /// The first instant after it.
    pub until_us: i64,
    /// How many seats.
    pub seats: i64,
    /// How many days end in it, by the zone of the period.
    pub active_days: i64,
    /// Instead of the plan's minimum.
    pub minimum: Option<Exact>,
    /// Instead of the plan's maximum.
    pub maximum: Option<Exact>,
}

/// The billing periods of one subscription that begin by `until_us` and are over at `from_us` or later, in order.
///
/// `rows` are those of the subscription in order of their start, no two with one. `plan` finds a plan by its name.
///
/// # Errors
/// [`Error::Invoice`] for a plan that is not defined, or a time beyond the calendar.
pub fn cycles<'a>(
    rows: &[&Subscription],
    plan: impl Fn(&str) -> Option<&'a PlanDefinition>,
    zones: &Zones,
    (from_us, until_us): (i64, i64),
) -> Result<Vec<Cycle>> {
    let mut found = Vec::new();
    for stretch in stretches(rows, plan)? {
        if stretch.from_us <= until_us && stretch.until_us >= from_us {
            stretch.cycles(zones, (from_us, until_us), &mut found)?;
        }
    }
    Ok(found)
}

/// A row, and until when it is in force.
#[derive(Debug, Clone, Copy)]
struct InForce<'a> {
    row: &'a Subscription,
    until_us: i64,
    trial_usage: TrialUsage,
}

/// Rows one after the other whose plans have periods of one kind, counted from one anchor.
#[derive(Debug)]
struct Stretch<'a> {
    step: BillingPeriod,
    /// `None` by the calendar.
    anchor_us: Option<i64>,
    from_us: i64,
    /// When another stretch begins.
    until_us: i64,
    rows: Vec<InForce<'a>>,
}

fn stretches<'a, 'p>(
    rows: &[&'a Subscription],
    plan: impl Fn(&str) -> Option<&'p PlanDefinition>,
) -> Result<Vec<Stretch<'a>>> {
    let mut stretches: Vec<Stretch<'a>> = Vec::new();
    let next = rows.iter().skip(1).map(|row| row.starts_at_us);
    for (row, next_us) in rows.iter().zip(next.chain([i64::MAX])) {
        let plan = plan(&row.plan).ok_or_else(|| refused(row, "it is not defined"))?;
        let terms = &plan.terms;
        let in_force = InForce {
            row,
            until_us: row.ends_at_us.map_or(next_us, |end_us| end_us.min(next_us)),
            trial_usage: terms.trial_usage,
        };
        let anchor_us = match terms.anchor {
            Anchor::Calendar => None,
            Anchor::Subscription => Some(row.anchor_us),
        };
        match stretches.last_mut() {
            Some(last) if last.goes_on(terms.billing_period, anchor_us) => last.rows.push(in_force),
            last => {
                if let Some(last) = last {
                    last.until_us = row.starts_at_us;
                }
                stretches.push(Stretch {
                    step: terms.billing_period,
                    anchor_us: anchor_us.map(|anchor_us| anchor_us.unwrap_or(row.starts_at_us)),
                    from_us: row.starts_at_us,
                    until_us: i64::MAX,
                    rows: vec![in_force],
                });
            }
        }
    }
    Ok(stretches)
}

fn refused(row: &Subscription, problem: &str) -> Error {
    Error::Invoice {
        customer: row.customer.clone(),
        plan: row.plan.clone(),
        problem: format!("subscription `{}`: {problem}", row.subscription),
    }
}

impl Stretch<'_> {
    /// Whether periods go on with a row on these: without an anchor of its own it keeps the one that runs.
    fn goes_on(&self, step: BillingPeriod, anchor_us: Option<Option<i64>>) -> bool {
        let same_anchor = match (self.anchor_us, anchor_us) {
            (None, None) => true,
            (Some(running), Some(own)) => own.is_none_or(|own| own == running),
            _ => false,
        };
        self.step == step && same_anchor
    }

    fn periods(&self, zones: &Zones) -> Recurrence {
        match self.anchor_us {
            None => Recurrence::by_calendar(self.step),
            Some(us) => Recurrence::new(local(us, zones.at(us)), self.step),
        }
    }

    /// When nothing of it is in force any more.
    fn ends_us(&self) -> i64 {
        let ends = self.rows.iter().map(|in_force| in_force.until_us);
        ends.max().unwrap_or(i64::MIN).min(self.until_us)
    }

    fn cycles(
        &self,
        zones: &Zones,
        (from_us, until_us): (i64, i64),
        found: &mut Vec<Cycle>,
    ) -> Result<()> {
        let beyond = || refused(self.rows[0].row, "a time is beyond the calendar");
        let periods = self.periods(zones);
        // With one zone for ever, what is over need not be walked through.
        let first_us = match zones.later.is_empty() {
            true => from_us.clamp(self.from_us, self.ends_us().max(self.from_us)),
            false => self.from_us,
        };
        let zone = zones.at(first_us);
        let k = periods
            .occurrence(local(first_us, zone))
            .ok_or_else(beyond)?;
        // The one before may be over at `from_us` exactly.
        let mut k = match first_us > self.from_us {
            true => k.checked_sub(1).ok_or_else(beyond)?,
            false => k,
        };
        let mut start_us = periods.start_us(k, zone).ok_or_else(beyond)?;
        while start_us <= until_us && start_us < self.ends_us() {
            let zone = zones.at(start_us.max(self.from_us));
            k = k.checked_add(1).ok_or_else(beyond)?;
            let end_us = periods.start_us(k, zone).ok_or_else(beyond)?;
            // A zone that changes may leave no time to a period.
            if end_us <= start_us {
                continue;
            }
            let closes_us = end_us.min(self.until_us);
            if closes_us >= from_us {
                let period = Period::in_zone(zone, start_us, end_us);
                found.extend(self.cycle(zone, period, closes_us));
            }
            start_us = end_us;
        }
        Ok(())
    }

    /// `None` when nothing is in force.
    fn cycle(&self, zone: &TimeZone, period: Period, closes_us: i64) -> Option<Cycle> {
        let mut parts: Vec<Part> = Vec::new();
        let mut opens_us = None;
        for InForce {
            row,
            until_us,
            trial_usage,
        } in &self.rows
        {
            let from_us = row.starts_at_us.max(period.start_us);
            let until_us = (*until_us).min(closes_us);
            if from_us >= until_us {
                continue;
            }
            opens_us = opens_us.or(Some(from_us));
            let paid_us = row
                .trial_ends_at_us
                .map_or(from_us, |end_us| end_us.max(from_us));
            let used_us = match trial_usage {
                TrialUsage::Free => paid_us,
                TrialUsage::Billed => from_us,
            };
            let place = parts.iter().position(|part| part.plan == row.plan);
            let place = place.unwrap_or(parts.len());
            if place == parts.len() {
                parts.push(Part::of(&row.plan));
            }
            let part = &mut parts[place];
            if used_us < until_us {
                match part.usage.last_mut() {
                    Some((_, last_us)) if *last_us == used_us => *last_us = until_us,
                    _ => part.usage.push((used_us, until_us)),
                }
            }
            if paid_us < until_us {
                part.segments.push(Segment {
                    from_us: paid_us,
                    until_us,
                    seats: row.seats,
                    active_days: days_ended(paid_us, until_us, zone),
                    minimum: row.minimum,
                    maximum: row.maximum,
                });
            }
        }
        let first = self.rows.first()?.row;
        Some(Cycle {
            subscription: first.subscription.clone(),
            customer: first.customer.clone(),
            period,
            opens_us: opens_us?,
            closes_us,
            parts,
        })
    }
}

impl Part {
    fn of(plan: &str) -> Self {
        Part {
            plan: plan.to_owned(),
            usage: Vec::new(),
            segments: Vec::new(),
        }
    }
}

/// A row of the relation `subscription`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who pays.
    pub customer: String,
    /// Whose segment it is; `None` without accounts.
    pub subscription: Option<String>,
    /// The plan's name.
    pub plan: String,
    /// What is in force.
    pub segment: Segment,
}

impl Row {
    /// What a customer without a subscription has: one seat on a plan all the time.
    pub fn of_default(customer: String, plan: &str, period: &Period) -> Self {
        Row {
            customer,
            subscription: None,
            plan: plan.to_owned(),
            segment: Segment {
                from_us: period.start_us,
                until_us: period.end_us,
                seats: 1,
                active_days: period.days_ended(),
                minimum: None,
                maximum: None,
            },
        }
    }

    /// What of it lies before an instant in the period; `None` when nothing does.
    pub fn until(&self, until_us: i64, period: &Period) -> Option<Self> {
        if until_us >= self.segment.until_us {
            return Some(self.clone());
        }
        let mut row = self.clone();
        row.segment.until_us = until_us;
        row.segment.active_days = period.days_ended_in(row.segment.from_us, until_us);
        (row.segment.from_us < until_us).then_some(row)
    }
}

/// The relation `subscription`, which prices read: `customer, subscription, plan, seats, segment_start, segment_end,
/// period_start, period_end, active_days, period_days, active_seconds, period_seconds`. Days are those that end in the
/// segment and in the period; seconds have six digits after the point.
///
/// # Errors
/// The columns do not make a batch.
pub fn relation(rows: &[Row], period: &Period) -> std::result::Result<RecordBatch, ArrowError> {
    let text = |of: fn(&Row) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let whole = |of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
    };
    let instants = |instants: Vec<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC"))
    };
    let instant = |of: fn(&Row) -> i64| instants(rows.iter().map(of).collect());
    let seconds = |lengths: Vec<i128>| -> std::result::Result<ArrayRef, ArrowError> {
        let lengths = Decimal128Array::from(lengths);
        let lengths = lengths.with_precision_and_scale(SECONDS.0, SECONDS.1)?;
        Ok(Arc::new(lengths))
    };
    let length = |from_us: i64, until_us: i64| i128::from(until_us) - i128::from(from_us);
    let active = rows
        .iter()
        .map(|row| length(row.segment.from_us, row.segment.until_us));
    let count = rows.len();
    let columns = vec![
        text(|row| Some(&row.customer)),
        text(|row| row.subscription.as_deref()),
        text(|row| Some(&row.plan)),
        whole(|row| row.segment.seats),
        instant(|row| row.segment.from_us),
        instant(|row| row.segment.until_us),
        instants(vec![period.start_us; count]),
        instants(vec![period.end_us; count]),
        whole(|row| row.segment.active_days),
        Arc::new(Int64Array::from(vec![period.days_ended(); count])),
        seconds(active.collect())?,
        seconds(vec![length(period.start_us, period.end_us); count])?,
    ];
    RecordBatch::try_new(Arc::new(relation_schema()), columns)
}

/// Precision and scale of seconds.
const SECONDS: (u8, i8) = (20, 6);

fn relation_schema() -> Schema {
    let of = |name, data_type| Field::new(name, data_type, false);
    Schema::new(vec![
        of("customer", DataType::Utf8),
        Field::new("subscription", DataType::Utf8, true),
        of("plan", DataType::Utf8),
        of("seats", DataType::Int64),
        of("segment_start", schema::timestamp()),
        of("segment_end", schema::timestamp()),
        of("period_start", schema::timestamp()),
        of("period_end", schema::timestamp()),
        of("active_days", DataType::Int64),
        of("period_days", DataType::Int64),
        of("active_seconds", DataType::Decimal128(SECONDS.0, SECONDS.1)),
        of("period_seconds", DataType::Decimal128(SECONDS.0, SECONDS.1)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{definitions::PlanTerms, error::Location};
    use arrow::{array::AsArray, datatypes::Int64Type};
    use jiff::Timestamp;

    fn us(text: &str) -> i64 {
        let text = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.to_owned(),
        };
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn text(us: i64) -> String {
        let text = Timestamp::from_microsecond(us).unwrap().to_string();
        text.trim_end_matches("T00:00:00Z").to_owned()
    }

    fn plan(name: &str, billing_period: BillingPeriod, anchor: Anchor) -> PlanDefinition {
        PlanDefinition {
            name: name.to_owned(),
            currency: "USD".to_owned(),
            worth: Vec::new(),
            prices: Vec::new(),
            terms: PlanTerms {
                billing_period,
                anchor,
                ..PlanTerms::default()
            },
            at: Location::default(),
        }
    }

    /// By the calendar, by an anchor, by another calendar, and a trial that is billed.
    fn plans() -> Vec<PlanDefinition> {
        let mut all = vec![
            plan("small", BillingPeriod::Months(1), Anchor::Calendar),
            plan("big", BillingPeriod::Months(1), Anchor::Calendar),
            plan("anchored", BillingPeriod::Months(1), Anchor::Subscription),
            plan("yearly", BillingPeriod::Months(12), Anchor::Subscription),
            plan("weekly", BillingPeriod::Days(7), Anchor::Calendar),
            plan("eager", BillingPeriod::Months(1), Anchor::Calendar),
        ];
        all[5].terms.trial_usage = TrialUsage::Billed;
        all
    }

    fn row(plan: &str, starts: &str) -> Subscription {
        Subscription {
            subscription: "s".to_owned(),
            customer: "acme".to_owned(),
            plan: plan.to_owned(),
            seats: 1,
            starts_at_us: us(starts),
            ends_at_us: None,
            trial_ends_at_us: None,
            anchor_us: None,
            minimum: None,
            maximum: None,
        }
    }

    fn ending(plan: &str, starts: &str, ends: &str) -> Subscription {
        Subscription {
            ends_at_us: Some(us(ends)),
            ..row(plan, starts)
        }
    }

    /// `period [closes] plan from..until(days) …` of each billing period; usage where it is not that of the segments.
    fn all(rows: &[Subscription], zones: &Zones, from: &str, until: &str) -> Vec<String> {
        let plans = plans();
        let find = |name: &str| plans.iter().find(|plan| plan.name == name);
        let rows: Vec<&Subscription> = rows.iter().collect();
        let cycles = cycles(&rows, find, zones, (us(from), us(until))).unwrap();
        let cycles = cycles.iter().map(|cycle| {
            let mut line = format!(
                "{}..{}",
                text(cycle.period.start_us),
                text(cycle.period.end_us)
            );
            if cycle.closes_us != cycle.period.end_us {
                line += &format!(" closes {}", text(cycle.closes_us));
            }
            for part in &cycle.parts {
                line += &format!(" {}", part.plan);
                let mut paid = Vec::new();
                for segment in &part.segments {
                    let (from_us, until_us) = (segment.from_us, segment.until_us);
                    line += &format!(
                        " {}..{}({})",
                        text(from_us),
                        text(until_us),
                        segment.active_days
                    );
                    match paid.last_mut() {
                        Some((_, last)) if *last == from_us => *last = until_us,
                        _ => paid.push((from_us, until_us)),
                    }
                }
                if paid != part.usage {
                    line += &format!(
                        " uses {:?}",
                        part.usage
                            .iter()
                            .map(|(a, b)| (text(*a), text(*b)))
                            .collect::<Vec<_>>()
                    );
                }
            }
            line
        });
        cycles.collect()
    }

    fn utc() -> Zones {
        Zones::new("UTC", []).unwrap()
    }

    #[test]
    fn a_change_of_plan_cuts_a_period_and_the_period_goes_on() {
        let rows = [row("small", "2026-03-20"), row("big", "2026-04-16")];
        assert_eq!(
            all(&rows, &utc(), "2026-01-01", "2026-05-01"),
            [
                "2026-03-01..2026-04-01 small 2026-03-20..2026-04-01(12)",
                "2026-04-01..2026-05-01 small 2026-04-01..2026-04-16(15) big 2026-04-16..2026-05-01(15)",
                "2026-05-01..2026-06-01 big 2026-05-01..2026-06-01(31)",
            ]
        );
        // Back to the first plan: it rates both sides.
        let rows = [
            row("small", "2026-04-01"),
            row("big", "2026-04-11"),
            row("small", "2026-04-21"),
        ];
        assert_eq!(
            all(&rows, &utc(), "2026-04-01", "2026-04-30"),
            [
                "2026-04-01..2026-05-01 small 2026-04-01..2026-04-11(10) 2026-04-21..2026-05-01(10) \
                 big 2026-04-11..2026-04-21(10)"
            ]
        );
    }

    #[test]
    fn an_anchor_does_not_drift_and_a_later_row_keeps_it() {
        let mut rows = vec![row("anchored", "2024-01-30"), row("anchored", "2024-03-10")];
        rows[1].seats = 2;
        assert_eq!(
            all(&rows, &utc(), "2024-01-01", "2024-03-30"),
            [
                "2024-01-30..2024-02-29 anchored 2024-01-30..2024-02-29(30)",
                "2024-02-29..2024-03-30 anchored 2024-02-29..2024-03-10(10) 2024-03-10..2024-03-30(20)",
                "2024-03-30..2024-04-30 anchored 2024-03-30..2024-04-30(31)",
            ]
        );
        // An anchor after the start: the first period began before it.
        rows[0].anchor_us = Some(us("2024-02-15"));
        rows.truncate(1);
        assert_eq!(
            all(&rows, &utc(), "2024-01-01", "2024-02-14"),
            ["2024-01-15..2024-02-15 anchored 2024-01-30..2024-02-15(16)"]
        );
    }

    #[test]
    fn a_plan_with_other_periods_begins_one_at_the_change() {
        let rows = [row("small", "2026-04-01"), row("yearly", "2026-05-11")];
        assert_eq!(
            all(&rows, &utc(), "2026-04-01", "2026-12-01"),
            [
                "2026-04-01..2026-05-01 small 2026-04-01..2026-05-01(30)",
                "2026-05-01..2026-06-01 closes 2026-05-11 small 2026-05-01..2026-05-11(10)",
                "2026-05-11..2027-05-11 yearly 2026-05-11..2027-05-11(365)",
            ]
        );
    }

    #[test]
    fn what_ends_and_begins_again_pauses() {
        let rows = [
            ending("anchored", "2026-01-15", "2026-02-01"),
            row("anchored", "2026-04-01"),
        ];
        assert_eq!(
            all(&rows, &utc(), "2026-01-01", "2026-04-14"),
            [
                "2026-01-15..2026-02-15 anchored 2026-01-15..2026-02-01(17)",
                "2026-03-15..2026-04-15 anchored 2026-04-01..2026-04-15(14)",
            ]
        );
        let rows = [ending("small", "2026-01-15", "2026-02-01")];
        assert_eq!(
            all(&rows, &utc(), "2026-01-01", "2027-01-01"),
            ["2026-01-01..2026-02-01 small 2026-01-15..2026-02-01(17)"]
        );
        // It ends where it begins, or before: it never was.
        assert!(
            all(
                &[ending("small", "2026-01-15", "2026-01-15")],
                &utc(),
                "2026-01-01",
                "2027-01-01"
            )
            .is_empty()
        );
    }

    #[test]
    fn a_trial_is_not_paid_and_its_usage_is_free_unless_the_plan_bills_it() {
        let trial = |plan: &str| Subscription {
            trial_ends_at_us: Some(us("2024-03-18")),
            ..row(plan, "2024-03-05")
        };
        let later = |plan: &str| Subscription {
            starts_at_us: us("2024-03-10"),
            ..trial(plan)
        };
        assert_eq!(
            all(
                &[trial("small"), later("big")],
                &utc(),
                "2024-03-01",
                "2024-03-31"
            ),
            ["2024-03-01..2024-04-01 small big 2024-03-18..2024-04-01(14)"]
        );
        assert_eq!(
            all(&[trial("eager")], &utc(), "2024-03-01", "2024-03-31"),
            ["2024-03-01..2024-04-01 eager 2024-03-18..2024-04-01(14) \
                 uses [(\"2024-03-05\", \"2024-04-01\")]"]
        );
    }

    #[test]
    fn periods_are_those_of_the_zone_in_which_they_begin() {
        let berlin = Zones::new("Europe/Berlin", []).unwrap();
        assert_eq!(
            all(
                &[row("small", "2026-01-01")],
                &berlin,
                "2026-03-15",
                "2026-03-15"
            ),
            [
                "2026-02-28T23:00:00Z..2026-03-31T22:00:00Z small 2026-02-28T23:00:00Z..2026-03-31T22:00:00Z(31)"
            ]
        );
        // The running month keeps its zone; the next one begins where it ended, and ends by the new clock.
        let moved = Zones::new("Europe/Berlin", [(us("2026-03-10"), "America/New_York")]).unwrap();
        assert_eq!(
            all(
                &[row("small", "2026-01-01")],
                &moved,
                "2026-03-15",
                "2026-05-01"
            ),
            [
                "2026-02-28T23:00:00Z..2026-03-31T22:00:00Z small 2026-02-28T23:00:00Z..2026-03-31T22:00:00Z(31)",
                "2026-03-31T22:00:00Z..2026-05-01T04:00:00Z small 2026-03-31T22:00:00Z..2026-05-01T04:00:00Z(31)",
            ]
        );
        assert!(Zones::new("Mars/Olympus", []).is_err());
    }

    #[test]
    fn only_periods_that_begin_by_the_end_and_are_not_over_before_the_start_are_made() {
        let rows = [row("weekly", "2000-01-01")];
        assert_eq!(
            all(&rows, &utc(), "2026-11-30", "2026-11-30"),
            [
                "2026-11-23..2026-11-30 weekly 2026-11-23..2026-11-30(7)",
                "2026-11-30..2026-12-07 weekly 2026-11-30..2026-12-07(7)",
            ]
        );
        assert_eq!(all(&rows, &utc(), "1999-01-01", "2000-01-02").len(), 1);
    }

    #[test]
    fn a_whole_period_from_any_time_of_day_is_active_on_all_of_its_days() {
        let plans = plans();
        let find = |name: &str| plans.iter().find(|plan| plan.name == name);
        let begun = row("anchored", "2026-01-31T10:30:00Z");
        let until = (us("2026-01-01"), us("2026-03-01"));
        let cycles = cycles(&[&begun], find, &utc(), until).unwrap();
        let days = cycles.iter().map(|cycle| {
            let row = Row {
                customer: cycle.customer.clone(),
                subscription: Some(cycle.subscription.clone()),
                plan: cycle.parts[0].plan.clone(),
                segment: cycle.parts[0].segments[0].clone(),
            };
            let rows = relation(&[row], &cycle.period).unwrap();
            let days = |name: &str| rows[name].as_primitive::<Int64Type>().value(0);
            (days("active_days"), days("period_days"))
        });
        // To 28 February and to 31 March, at half past ten.
        assert_eq!(days.collect::<Vec<_>>(), [(28, 28), (31, 31)]);
    }

    #[test]
    fn a_plan_that_is_not_defined_is_named() {
        let lost = row("gone", "2026-01-01");
        let error = cycles(&[&lost], |_| None, &utc(), (0, i64::MAX)).unwrap_err();
        assert!(error.to_string().contains("subscription `s`"), "{error}");
    }
}
