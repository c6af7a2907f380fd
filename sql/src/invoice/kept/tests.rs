use super::*;
use crate::definitions::{Definitions, SourceFile};

const DEFINITIONS: &str = "
CREATE CURRENCY credits WITH (digits = 2);
CREATE RATE TABLE rates (
    model VARCHAR, rate DECIMAL(38, 18), valid_from DATE, valid_to DATE, PRIMARY KEY (model, PERIOD valid_from, valid_to)
) WITH (location = 'rates.csv');
CREATE RATE TABLE fees (amount DECIMAL(9, 2) NOT NULL) WITH (location = 's3://bucket/fees.parquet');
CREATE PRICE fee WITH (currency = 'credits') AS SELECT customer, 1 AS amount FROM subscription;
CREATE OR REPLACE PRICE fee WITH (currency = 'USD', effective_from = '2026-10-15', on_change = 'split') AS
SELECT customer, 2 AS amount -- \"quoted\"
FROM subscription;
CREATE PLAN pro WITH (
    currency = 'USD', worth = '1 credits = 0.01 USD', billing_period = '2 weeks', anchor = 'subscription', in_advance = 'fee',
    minimum = 10, maximum = '99.50', discount_order = 'percent_first', minimum_before_discounts = 'true',
    minimum_proration = 'minimum_less_fees', tax = 'included', trial_usage = 'billed', issue_after = '2 days',
    progressive_billing = '100.00, 0.50'
) AS (fee);
CREATE PLAN payg WITH (currency = 'USD') AS ();
";

fn definitions() -> Definitions {
    Definitions::parse(&[SourceFile {
        name: "all.sql".into(),
        text: DEFINITIONS.into(),
    }])
    .unwrap()
}

fn price() -> KeptPrice {
    let versions = definitions().prices.into_iter();
    let versions =
        versions
            .zip([None, Some(1_792_015_200_000_000)])
            .map(|(definition, from_us)| KeptVersion {
                worth: (definition.currency == "credits").then(|| Exact::parse("0.01").unwrap()),
                definition,
                from_us,
            });
    KeptPrice {
        versions: versions.collect(),
    }
}

#[test]
fn a_price_reads_back_with_its_hash_and_all_that_it_says() {
    let price = price();
    let text = price.to_json();
    let read = KeptPrice::from_json(&text).unwrap();
    assert_eq!(format!("{read:?}"), format!("{price:?}"));
    assert_eq!(read.hash(), price.hash());
    assert_eq!(read.versions[1].definition.query_at.line, 9);
    // What it is hashed by is stored in documents: it must not change.
    let first = "SELECT customer, 1 AS amount FROM subscription";
    let second = &price.versions[1].definition.query;
    let texts = [
        "1",
        first,
        "credits",
        "0.01",
        "1792015200000000",
        "2",
        second,
        "USD",
    ];
    assert_eq!(price.hash(), hash(texts.into_iter()));
    for other in [
        "[]",
        "{}",
        "",
        "[{}]",
        &text.replace("\"split\"", "\"cut\""),
    ] {
        assert!(KeptPrice::from_json(other).is_none(), "{other}");
    }
}

#[test]
fn each_part_of_a_price_is_in_its_hash() {
    let whole = price().hash();
    let changes: [fn(&mut KeptPrice); 6] = [
        |price| price.versions[0].definition.version = 7,
        |price| price.versions[0].definition.query.push(' '),
        |price| price.versions[1].definition.currency = "EUR".into(),
        |price| price.versions[1].from_us = Some(1),
        |price| price.versions[0].worth = Some(Exact::from(1_i64)),
        |price| drop(price.versions.pop()),
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut price = price();
        change(&mut price);
        assert_ne!(price.hash(), whole, "change {place}");
    }
}

#[test]
fn a_plan_reads_back_with_all_its_terms() {
    for plan in definitions().plans {
        let read = plan_from_json(&plan_to_json(&plan)).unwrap();
        assert_eq!(read.terms, plan.terms);
        assert_eq!(
            (&read.name, &read.currency, &read.prices, &read.at),
            (&plan.name, &plan.currency, &plan.prices, &plan.at)
        );
        let worth = |plan: &PlanDefinition| plan.worth_of("credits");
        assert_eq!(worth(&read), worth(&plan));
        assert_eq!(plan_hash(&read), plan_hash(&plan));
    }
    assert!(plan_from_json("{}").is_none());
}

#[test]
fn each_term_of_a_plan_is_in_its_hash_and_its_place_is_not() {
    let plan = definitions().plans.remove(0);
    let whole = plan_hash(&plan);
    let changes: [fn(&mut PlanDefinition); 16] = [
        |plan| plan.name.push('s'),
        |plan| plan.currency = "EUR".into(),
        |plan| plan.worth[0].amount = Exact::from(1_i64),
        |plan| plan.prices.push("more".into()),
        |plan| plan.terms.billing_period = BillingPeriod::Months(14),
        |plan| plan.terms.anchor = Anchor::Calendar,
        |plan| plan.terms.in_advance.clear(),
        |plan| plan.terms.minimum = None,
        |plan| plan.terms.maximum = Some(Exact::from(99_i64)),
        |plan| plan.terms.discount_order = DiscountOrder::Listed,
        |plan| plan.terms.minimum_before_discounts = false,
        |plan| plan.terms.minimum_proration = MinimumProration::Minimum,
        |plan| plan.terms.tax = TaxMode::Excluded,
        |plan| plan.terms.trial_usage = TrialUsage::Free,
        |plan| plan.terms.issue_after_us = 0,
        |plan| plan.terms.progressive_billing.truncate(1),
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut plan = plan.clone();
        change(&mut plan);
        assert_ne!(plan_hash(&plan), whole, "change {place}");
    }
    let mut moved = plan;
    moved.at.line += 1;
    assert_eq!(plan_hash(&moved), whole);
}

#[test]
fn a_rate_table_reads_back_beside_its_columns() {
    for table in definitions().rate_tables {
        let read = rate_table_from_json(&rate_table_to_json(&table), &table.schema()).unwrap();
        // Where its location is written is not kept.
        let table = RateTable {
            location_at: table.at.clone(),
            ..table
        };
        assert_eq!(format!("{read:?}"), format!("{table:?}"));
        assert_eq!(read.schema(), table.schema());
    }
    assert!(rate_table_from_json("{}", &Schema::empty()).is_none());
}
