//! What holds for every tier table, split of a period and order of customers.

use super::*;
use crate::rating::progress::since;
use proptest::prelude::*;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

/// A tier: how many units it has, and what one costs in hundredths.
type Band = (i64, i64);

/// An event: which customer, and how many units.
type Used = (usize, i64);

const CUSTOMERS: [&str; 3] = ["acme", "Bolt", "é"];

fn list(bands: &[Band], last: i64) -> String {
    let (mut text, mut end) = (String::from("["), 0);
    for (width, unit) in bands {
        end += width;
        write!(text, "{{up_to: {end}, unit_amount: {}}}, ", cents(*unit)).unwrap();
    }
    text + &format!("{{unit_amount: {}}}]", cents(last))
}

fn cents(hundredths: i64) -> Exact {
    Exact {
        digits: hundredths.into(),
        scale: 2,
    }
}

/// Units from one number to another, one by one, in hundredths.
fn units(from: i64, to: i64, bands: &[Band], last: i64) -> i64 {
    let unit = |number: i64| {
        let mut end = 0;
        for (width, unit) in bands {
            end += width;
            if number <= end {
                return *unit;
            }
        }
        last
    };
    (from + 1..=to).map(unit).sum()
}

/// Events as a price sees them, in the order in which `order` has their places.
async fn session(events: &[Used], order: &[usize], names: [&str; 3]) -> SessionContext {
    let context = session::context();
    let mut rows = String::new();
    for place in order.iter().filter(|place| **place < events.len()) {
        let (customer, n) = events[*place];
        // Three events have one time.
        let (name, second) = (names[customer], place / 3);
        write!(
            rows,
            "('{name}', 'event-{place}', '{name}', CAST({second} AS TIMESTAMP), {place}, {n}), "
        )
        .unwrap();
    }
    let empty = match rows.is_empty() {
        true => {
            rows = "('', '', '', CAST(0 AS TIMESTAMP), 0, 0), ".into();
            "WHERE n > 0"
        }
        false => "",
    };
    let sql = format!(
        "SELECT customer, event_id, 'web' AS source, subject, event_time, 'shard' AS shard, CAST(sequence AS BIGINT) AS sequence,
            CAST(0 AS INT) AS ordinal, CAST(n AS BIGINT) AS n
         FROM (VALUES {}) AS t(customer, event_id, subject, event_time, sequence, n) {empty}",
        rows.trim_end_matches(", ")
    );
    let rows = session::query(&context, &sql).await.unwrap();
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let mut rows = rows.collect().await.unwrap();
    rows.push(RecordBatch::new_empty(schema));
    let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
    context.register_batch("calls", rows).unwrap();
    context
}

/// Amounts in hundredths, by customer.
fn amounts(charges: &[Charge]) -> BTreeMap<String, i128> {
    let mut amounts = BTreeMap::new();
    for charge in charges {
        *amounts.entry(charge.customer.to_string()).or_default() +=
            charge.amount.digits_at(2).unwrap();
    }
    amounts.retain(|_, amount| *amount != 0);
    amounts
}

async fn check(bands: Vec<Band>, last: i64, events: Vec<Used>, at: usize, order: Vec<usize>) {
    let tiers = list(&bands, last);
    let by_total = format!(
        "SELECT customer, graduated(SUM(n), {tiers}) AS amount FROM calls GROUP BY customer"
    );
    let by_event = format!(
        "SELECT customer, SUM(graduated(so_far, {tiers}) - graduated(so_far - n, {tiers})) AS amount
         FROM (SELECT customer, n, SUM(n) OVER (PARTITION BY customer ORDER BY event_time) AS so_far FROM calls) AS t
         GROUP BY customer"
    );
    let at = at.min(events.len());
    let in_order: Vec<usize> = (0..events.len()).collect();
    let whole = session(&events, &in_order, CUSTOMERS).await;
    let first = session(&events[..at], &in_order, CUSTOMERS).await;
    let [one, two, three] = CUSTOMERS;
    let shuffled = session(&events, &order, [three, one, two]).await;
    // What each part costs, unit by unit.
    let (mut used, mut parts) = ([0; 3], [BTreeMap::new(), BTreeMap::new()]);
    for (place, (customer, n)) in events.iter().enumerate() {
        let from = used[*customer];
        used[*customer] += n;
        let part = &mut parts[usize::from(place >= at)];
        let cost = units(from, from + n, &bands, last);
        *part
            .entry(CUSTOMERS[*customer].to_owned())
            .or_insert(0_i128) += i128::from(cost);
    }
    parts
        .iter_mut()
        .for_each(|part| part.retain(|_, amount| *amount != 0));
    for query in [by_total, by_event] {
        let before = charged(&first, &query).await.unwrap();
        let after = charged(&whole, &query).await.unwrap();
        let mut later = Vec::new();
        for customer in CUSTOMERS {
            let own = |charges: &[Charge]| -> Vec<Charge> {
                let own = charges
                    .iter()
                    .filter(|charge| *charge.customer == *customer);
                own.cloned().collect()
            };
            later.extend(since(&own(&before), own(&after)).unwrap());
        }
        assert_eq!(amounts(&before), parts[0], "{query}");
        assert_eq!(amounts(&later), parts[1], "{query}");
        let both = [before, later].concat();
        assert_eq!(amounts(&both), amounts(&after), "{query}");
        let others = charged(&shuffled, &query).await.unwrap();
        for (name, other) in [(one, three), (two, one), (three, two)] {
            assert_eq!(
                amounts(&others).get(other),
                amounts(&after).get(name),
                "{query}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    /// Both sides of any split add up to the whole, each unit at the tier that it is in; who has which name and in which
    /// order rows come decides nothing.
    #[test]
    fn a_period_may_be_split_anywhere(
        bands in prop::collection::vec((1_i64..40, -50_i64..500), 0..4), last in -50_i64..500,
        events in prop::collection::vec((0_usize..3, 1_i64..40), 0..10), at in 0_usize..11,
        order in Just((0_usize..10).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(bands, last, events, at, order));
    }
}
