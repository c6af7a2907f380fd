use super::{
    arm::arm,
    blocks::{BlockTerms, BlockTier, Policy, blocks},
    error::TierError,
    graduated::{TieredTerms, graduated},
    literal::TierListPlanner,
    package::{PackageTerms, package},
    per_unit::per_unit,
    register_currencies,
    tiers::{Tier, Tiers},
    volume::volume,
};
use crate::{
    definitions::CurrencyDefinition,
    error::Location,
    money::{Exact, Rounding, divide, round_to},
    session,
};
use datafusion::{
    arrow::util::display::array_value_to_string,
    common::DFSchema,
    error::DataFusionError,
    functions::core::named_struct,
    logical_expr::{
        lit,
        planner::{ExprPlanner, PlannerResult},
    },
};
use proptest::prelude::*;
use std::error::Error as _;

const LAGO: &str = "[{up_to: 10, unit_amount: 10, flat_amount: 2},
    {up_to: 20, unit_amount: 5, flat_amount: 3}, {up_to: NULL, unit_amount: 5, flat_amount: 3}]";

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

/// The one value a query answers, as text with its scale; NULL is empty.
async fn answer(sql: &str) -> Result<String, String> {
    let run = async { session::context().sql(sql).await?.collect().await };
    let batches = run.await.map_err(|error| causes(&error))?;
    assert_eq!(batches.len(), 1, "{sql}");
    Ok(array_value_to_string(batches[0].column(0), 0).unwrap())
}

fn causes(error: &DataFusionError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

async fn value(expression: &str) -> String {
    answer(&format!("SELECT {expression}")).await.unwrap()
}

async fn refusal(expression: &str) -> String {
    answer(&format!("SELECT {expression}")).await.unwrap_err()
}

/// Why it is refused while it is planned.
async fn plan_refusal(expression: &str) -> String {
    let planned = session::context()
        .sql(&format!("SELECT {expression}"))
        .await;
    causes(&planned.map(|_| ()).unwrap_err())
}

fn tiers(bands: &[(Option<&str>, &str, &str)]) -> TieredTerms {
    let bands = bands.iter().map(|(up_to, unit, flat)| Tier {
        up_to: up_to.map(exact),
        unit_amount: exact(unit),
        flat_amount: exact(flat),
        cap_amount: None,
    });
    TieredTerms {
        tiers: Tiers::new(bands.collect()).unwrap(),
        zero_usage_first_flat: false,
    }
}

#[tokio::test]
async fn tiers_with_mixed_types_and_missing_keys_are_read_from_sql() {
    let tiers =
        "[{up_to: 1000, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002, flat_amount: 1.50}]";
    assert_eq!(value(&format!("graduated(1000, {tiers})")).await, "0.000");
    assert_eq!(value(&format!("graduated(1500, {tiers})")).await, "2.500");
    assert_eq!(value(&format!("volume(1500, {tiers})")).await, "4.500");
    assert_eq!(value("graduated(3, [{unit_amount: 2}])").await, "6");
    assert_eq!(
        value("graduated(3, [{UP_TO: 5, flat_amount: -1}, {unit_amount: 1}])").await,
        "-1"
    );
    assert_eq!(
        value("graduated(7, [{up_to: 0.5, unit_amount: 1e-3}, {unit_amount: 1}])").await,
        "6.5005"
    );
}

#[tokio::test]
async fn a_fraction_of_a_unit_between_whole_tiers_is_never_lost() {
    let tiers = "[{up_to: 100, unit_amount: 1}, {up_to: 199, unit_amount: 2}, {up_to: NULL, unit_amount: 4}]";
    // 100 * 1 + 99 * 2 + 0.5 * 4
    assert_eq!(value(&format!("graduated(199.5, {tiers})")).await, "300.0");
    assert_eq!(value(&format!("volume(199.5, {tiers})")).await, "798.0");
    assert_eq!(value(&format!("volume(199.0, {tiers})")).await, "398.0");
}

#[tokio::test]
async fn up_to_is_inclusive() {
    let tiers = "[{up_to: 100, unit_amount: 2, flat_amount: 10}, {up_to: 200, unit_amount: 1}, {unit_amount: 0.5, flat_amount: 50}]";
    for (quantity, of_volume, of_graduated) in [
        ("99.999", "209.9980", "209.9980"),
        ("100", "210.0", "210.0"),
        ("100.001", "100.0010", "210.0010"),
        ("200", "200.0", "310.0"),
        ("201", "150.5", "360.5"),
    ] {
        assert_eq!(
            value(&format!("volume({quantity}, {tiers})")).await,
            of_volume
        );
        assert_eq!(
            value(&format!("graduated({quantity}, {tiers})")).await,
            of_graduated
        );
    }
}

#[tokio::test]
async fn flat_amounts_at_zero_usage_are_due_only_on_request() {
    for (quantity, plain, first_flat) in [
        ("0", "0", "2"),
        ("-5", "0", "2"),
        ("10", "102", "102"),
        ("12", "115", "115"),
        ("21", "163", "163"),
    ] {
        assert_eq!(
            value(&format!("graduated({quantity}, {LAGO})")).await,
            plain
        );
        assert_eq!(
            value(&format!("graduated({quantity}, {LAGO}, TRUE)")).await,
            first_flat
        );
        assert_eq!(
            value(&format!(
                "graduated({quantity}, {LAGO}, zero_usage_first_flat => TRUE)"
            ))
            .await,
            first_flat
        );
    }
    assert_eq!(value(&format!("volume(0, {LAGO})")).await, "0");
    assert_eq!(value(&format!("volume(0, {LAGO}, TRUE)")).await, "2");
}

#[test]
fn graduated_prices_known_from_other_systems_agree() {
    let openmeter = tiers(&[
        (Some("5"), "0", "100"),
        (Some("10"), "0", "50"),
        (Some("15"), "10", "0"),
        (None, "5", "0"),
    ]);
    let flexprice = tiers(&[
        (Some("10"), "50", "0"),
        (Some("20"), "40", "0"),
        (None, "30", "0"),
    ]);
    let rising = tiers(&[
        (Some("1"), "10", "0"),
        (Some("2"), "20", "0"),
        (None, "30", "0"),
    ]);
    let falling = tiers(&[
        (Some("1000"), "0.01", "0"),
        (Some("10000"), "0.008", "0"),
        (None, "0.005", "0"),
    ]);
    let free_first = tiers(&[
        (Some("5"), "0", "0"),
        (Some("10"), "2", "0"),
        (None, "3", "0"),
    ]);
    for (terms, quantity, amount) in [
        (&openmeter, "7", "150"),
        (&openmeter, "12", "170"),
        (&openmeter, "22", "235"),
        (&flexprice, "5", "250"),
        (&flexprice, "15", "700"),
        (&flexprice, "25", "1050"),
        (&rising, "2.5", "45"),
        (&falling, "15000", "107"),
        (&free_first, "7", "4"),
        (&free_first, "10", "10"),
        (&free_first, "15", "25"),
        (&tiers(&[(None, "1", "10")]), "5", "15"),
    ] {
        assert_eq!(
            graduated(exact(quantity), terms),
            Ok(exact(amount)),
            "{quantity}"
        );
    }
}

#[test]
fn volume_prices_known_from_other_systems_agree() {
    let lago = tiers(&[
        (Some("100"), "2", "10"),
        (Some("200"), "1", "0"),
        (None, "0.5", "50"),
    ]);
    let openmeter = tiers(&[
        (Some("5"), "0", "100"),
        (Some("10"), "0", "150"),
        (Some("15"), "10", "0"),
        (None, "5", "0"),
    ]);
    let falling = tiers(&[
        (Some("1000"), "0.10", "0"),
        (Some("10000"), "0.05", "0"),
        (None, "0.01", "0"),
    ]);
    for (terms, quantity, amount) in [
        (&lago, "100", "210"),
        (&lago, "101", "101"),
        (&lago, "200", "200"),
        (&lago, "300", "200"),
        (&openmeter, "100", "500"),
        (&falling, "15000", "150"),
        (&tiers(&[(None, "0.0006", "0")]), "65000", "39"),
    ] {
        assert_eq!(
            volume(exact(quantity), terms),
            Ok(exact(amount)),
            "{quantity}"
        );
    }
}

#[tokio::test]
async fn a_package_that_is_begun_is_paid_whole() {
    for (quantity, size, amount, free, expected) in [
        ("121", "10", "100", "10", "1200"),
        ("121", "10", "100", "200", "0"),
        ("3", "10", "100", "0", "100"),
        ("10", "10", "15", "0", "15"),
        ("25", "10", "50", "0", "150"),
        ("0", "100", "1", "0", "0"),
        ("100", "100", "1", "0", "1"),
        ("101", "100", "1", "0", "2"),
        ("10.001", "10", "1.25", "0", "2.50"),
        ("-1", "10", "1", "0", "0"),
        ("0.3", "0.1", "0.05", "0", "0.15"),
    ] {
        let call = format!("package({quantity}, {size}, {amount}, {free})");
        assert_eq!(value(&call).await, expected, "{call}");
    }
    assert_eq!(value("package(121, 10, 100)").await, "1300");
}

#[tokio::test]
async fn per_unit_prices_keep_every_digit() {
    assert_eq!(value("per_unit(10, 5.12345)").await, "51.23450");
    assert_eq!(value("per_unit(-5, 1)").await, "-5");
    assert_eq!(
        value("per_unit(1, 0.000000000000000001)").await,
        "0.000000000000000001"
    );
    // 64 bits hold neither the product nor the quantity.
    assert_eq!(
        value("per_unit(18446744073709551615, 1000)").await,
        "18446744073709551615000"
    );
    assert_eq!(
        value("per_unit(9223372036854775807, 9223372036854775807)").await,
        "85070591730234615847396907784232501249"
    );
}

#[tokio::test]
async fn money_is_rounded_by_the_currency_half_away_from_zero() {
    for (amount, currency, expected) in [
        ("0.125", "USD", "0.13"),
        ("-0.125", "USD", "-0.13"),
        ("1.995", "USD", "2.00"),
        ("0.5", "JPY", "1"),
        ("-0.4999", "JPY", "0"),
        ("1.0005", "KWD", "1.001"),
        ("7", "EUR", "7.00"),
    ] {
        assert_eq!(
            value(&format!("round_money({amount}, '{currency}')")).await,
            expected
        );
    }
    assert_eq!(
        plan_refusal("round_money(1, 'usd')").await,
        "currency `usd` is not an ISO 4217 code"
    );
}

#[tokio::test]
async fn money_of_ones_own_is_rounded_to_its_digits_half_away_from_zero() {
    let credits = CurrencyDefinition {
        name: "credits".into(),
        digits: 3,
        at: Location::default(),
    };
    let context = session::context();
    register_currencies(&context, &[credits]);
    let round = async |amount: &str, currency: &str| {
        let sql = format!("SELECT round_money({amount}, '{currency}')");
        let run = async { context.sql(&sql).await?.collect().await };
        let batches = run.await.map_err(|error| causes(&error))?;
        Ok::<_, String>(array_value_to_string(batches[0].column(0), 0).unwrap())
    };
    for (amount, currency, expected) in [
        ("2.3455", "credits", "2.346"),
        ("-2.3455", "credits", "-2.346"),
        ("2.34549", "credits", "2.345"),
        ("7", "credits", "7.000"),
        ("2.345", "USD", "2.35"),
    ] {
        let rounded = round(amount, currency).await;
        assert_eq!(rounded.as_deref(), Ok(expected), "{amount} {currency}");
    }
    assert_eq!(
        round("1", "credit").await.unwrap_err(),
        "`round_money`: `currency` is credit, but must be a code of ISO 4217 such as USD, or a name of CREATE CURRENCY"
    );
}

#[tokio::test]
async fn null_is_answered_with_null() {
    for call in [
        "per_unit(NULL, 1)",
        "per_unit(1, NULL)",
        "package(1, NULL, 1)",
        "package(NULL, 10, 1, 0)",
        "graduated(NULL, [{unit_amount: 1}])",
        "volume(CAST(NULL AS BIGINT), [{unit_amount: 1}])",
        "round_money(NULL, 'USD')",
    ] {
        assert_eq!(value(call).await, "", "{call}");
    }
}

#[tokio::test]
async fn columns_of_every_exact_type_are_rated_row_by_row() {
    for data_type in [
        "TINYINT",
        "INT",
        "BIGINT",
        "BIGINT UNSIGNED",
        "DECIMAL(9, 2)",
        "DECIMAL(38, 0)",
        "DECIMAL(50, 3)",
    ] {
        let sql = format!(
            "SELECT CAST(sum(graduated(CAST(q AS {data_type}), [{{up_to: 10, unit_amount: 1}}, {{unit_amount: 0.5}}])) AS DECIMAL(10, 1))
             FROM (VALUES (4), (10), (12), (NULL)) AS t(q)"
        );
        // 4 + 10 + 11
        assert_eq!(answer(&sql).await.unwrap(), "25.0", "{data_type}");
    }
}

#[tokio::test]
async fn aggregates_can_be_arguments() {
    let sql =
        "SELECT graduated(sum(q), [{up_to: 20, unit_amount: 0}, {unit_amount: 0.25}]) AS amount
               FROM (VALUES (4), (10), (12)) AS t(q)";
    assert_eq!(exact(&answer(sql).await.unwrap()), exact("1.5"));
}

#[tokio::test]
async fn floats_and_text_are_refused_when_planned() {
    assert_eq!(
        plan_refusal("per_unit(CAST(1 AS DOUBLE), 1)").await,
        "`per_unit`: `quantity` is Float64, but must be an integer or DECIMAL: CAST it to DECIMAL(38, 9), say"
    );
    assert!(
        plan_refusal("graduated('5', [{unit_amount: 1}])")
            .await
            .contains("`quantity` is VARCHAR")
    );
    assert!(
        plan_refusal("per_unit(TRUE, 1)")
            .await
            .contains("`quantity` is BOOLEAN")
    );
}

#[tokio::test]
async fn wrong_numbers_of_arguments_are_refused_with_what_is_taken() {
    assert_eq!(
        plan_refusal("per_unit(1)").await,
        "`per_unit` takes (quantity, unit_amount [, free_units]), not 1 arguments"
    );
    assert_eq!(
        plan_refusal("package(1, 2, 3, 4, 'round_up', 6)").await,
        "`package` takes (quantity, package_size, package_amount [, free_units] [, partial_package]), not 6 arguments"
    );
    assert!(plan_refusal("graduated()").await.contains("graduated"));
}

#[tokio::test]
async fn broken_tiers_are_refused_when_planned_with_tier_and_values() {
    for (tiers, problem) in [
        (
            "[{up_to: 10, unit_amount: 1}, {up_to: 10.0, unit_amount: 2}]",
            "tier 2 ends at 10, not above 10",
        ),
        (
            "[{up_to: 10, unit_amount: 1}, {up_to: 7.5, unit_amount: 2}]",
            "tier 2 ends at 7.5, not above 10",
        ),
        (
            "[{up_to: 0, unit_amount: 1}]",
            "tier 1 ends at 0, not above 0",
        ),
        (
            "[{up_to: -1, unit_amount: 1}]",
            "tier 1 ends at -1, not above 0",
        ),
        (
            "[{unit_amount: 1}, {up_to: 10, unit_amount: 2}]",
            "tier 1 has no `up_to`, so no quantity reaches tier 2",
        ),
        (
            "[{up_to: 10, unit_amount: 1}, {up_to: NULL}]",
            "tier 2 has neither `unit_amount` nor `flat_amount`",
        ),
        (
            "[{up_to: 10, unit_price: 1}]",
            "tier 1 has the key `unit_price`; there are up_to, unit_amount, flat_amount, cap_amount, rate_percent, block_size, block_amount, max_blocks",
        ),
        (
            "[{up_to: 10, up_to: 11, unit_amount: 1}]",
            "tier 1 has the key `up_to` twice",
        ),
        (
            "[{up_to: '10', unit_amount: 1}]",
            "tier 1: `up_to` is Utf8(\"10\"), but must be an exact number or NULL",
        ),
        (
            "[{up_to: 10, unit_amount: 1 / 3}]",
            "tier 1: `unit_amount` is Int64(1) / Int64(3), but must be an exact number or NULL",
        ),
    ] {
        for function in ["graduated", "volume"] {
            let refusal = plan_refusal(&format!("{function}(5, {tiers})")).await;
            assert_eq!(refusal, problem, "{function}(5, {tiers})");
        }
    }
}

#[tokio::test]
async fn tiers_that_are_not_written_in_the_query_are_refused() {
    for tiers in ["NULL", "5", "[]", "[1, 2]"] {
        let refusal = plan_refusal(&format!("graduated(5, {tiers})")).await;
        assert!(
            refusal.contains("up_to") || refusal.contains("array"),
            "{tiers}: {refusal}"
        );
    }
    let flag = plan_refusal("graduated(5, [{unit_amount: 1}], NULL)").await;
    assert!(flag.contains("TRUE or FALSE"), "{flag}");
}

#[tokio::test]
async fn a_quantity_above_the_last_tier_is_an_error() {
    let tiers = "[{up_to: 10, unit_amount: 1}, {up_to: 20, unit_amount: 2}]";
    assert_eq!(value(&format!("graduated(20, {tiers})")).await, "30");
    for function in ["graduated", "volume"] {
        assert_eq!(
            refusal(&format!("{function}(20.5, {tiers})")).await,
            "quantity 20.5 is above 20, where the last tier ends (tier 2)"
        );
    }
}

#[tokio::test]
async fn package_sizes_and_free_units_out_of_range_are_errors() {
    assert_eq!(
        plan_refusal("package(5, 0, 1)").await,
        "`package`: `package_size` is 0, but must be above 0"
    );
    assert_eq!(
        plan_refusal("package(5, -2, 1)").await,
        "`package`: `package_size` is -2, but must be above 0"
    );
    assert_eq!(
        plan_refusal("package(5, 1, 1, -1)").await,
        "`package`: `free_units` is -1, but must be 0 or more"
    );
    let sql = "SELECT package(5, size, 1) FROM (VALUES (0)) AS t(size)";
    assert_eq!(
        answer(sql).await.unwrap_err(),
        "`package`: `package_size` is 0, but must be above 0"
    );
}

#[tokio::test]
async fn overflow_is_an_error_never_a_wrapped_number() {
    let large = "99999999999999999999999999999999999999";
    assert_eq!(
        refusal(&format!("per_unit({large}, 10)")).await,
        format!("{large} * 10 needs more than 38 digits")
    );
    assert_eq!(
        refusal(&format!(
            "graduated({large}, [{{unit_amount: 1, flat_amount: 1}}])"
        ))
        .await,
        format!("{large} + 1 needs more than 38 digits")
    );
    assert!(
        refusal(&format!("volume({large}, [{{unit_amount: 2}}])"))
            .await
            .contains("38 digits")
    );
    assert!(
        refusal(&format!("package({large}, 0.1, 1)"))
            .await
            .contains("38 digits")
    );
    assert!(
        refusal(&format!("round_money({large}, 'USD')"))
            .await
            .contains("38 digits")
    );
}

#[tokio::test]
async fn results_beyond_the_largest_scale_must_fit_it_exactly() {
    let fits = "per_unit(CAST(0.5 AS DECIMAL(38, 18)), CAST(0.25 AS DECIMAL(38, 18)))";
    assert_eq!(value(fits).await, "0.125000000000000000000000000");
    let too_fine = "per_unit(0.000000000000000001, 0.000000000000000001)";
    assert_eq!(
        refusal(too_fine).await,
        "0.000000000000000000000000000000000001 does not fit exactly into 38 digits with 27 after the point"
    );
}

#[test]
fn other_arrays_are_left_alone() {
    let plan = |elements| TierListPlanner.plan_array_literal(elements, &DFSchema::empty());
    let other_struct = named_struct().call(vec![lit("a"), lit(1)]);
    for elements in [vec![], vec![lit(1), lit(2)], vec![other_struct]] {
        assert!(matches!(plan(elements), Ok(PlannerResult::Original(_))));
    }
    let tier = named_struct().call(vec![lit("unit_amount"), lit(1)]);
    assert!(matches!(plan(vec![tier]), Ok(PlannerResult::Planned(_))));
}

#[test]
fn tiers_are_checked_when_made_in_rust_too() {
    assert_eq!(Tiers::new(vec![]), Err(TierError::Empty));
}

fn amount() -> impl Strategy<Value = Exact> {
    (-1_000_000_i128..1_000_000, 0_u8..7).prop_map(|(digits, scale)| Exact { digits, scale })
}

fn quantity() -> impl Strategy<Value = Exact> {
    (0_i128..2_000_000, 0_u8..5).prop_map(|(digits, scale)| Exact { digits, scale })
}

prop_compose! {
    /// Two to six tiers with fractional ends; the last has no limit.
    fn any_tiers()(steps in prop::collection::vec((1_i128..50_000, amount(), amount()), 1..6), last in amount(), flat in amount()) -> TieredTerms {
        let mut end = 0;
        let mut bands: Vec<Tier> = steps.into_iter().map(|(step, unit_amount, flat_amount)| {
            end += step;
            Tier { up_to: Some(Exact { digits: end, scale: 2 }), unit_amount, flat_amount, cap_amount: None }
        }).collect();
        bands.push(Tier { up_to: None, unit_amount: last, flat_amount: flat, cap_amount: None });
        TieredTerms { tiers: Tiers::new(bands).unwrap(), zero_usage_first_flat: false }
    }
}

/// Graduated, computed another way: in whole hundred-billionths, tier by tier from the top.
fn graduated_from_the_top(quantity: Exact, terms: &TieredTerms) -> i128 {
    let mut left = quantity.digits_at(4).unwrap();
    let mut total = 0;
    let bands = terms.tiers.as_slice();
    for (index, band) in bands.iter().enumerate().rev() {
        let from = if index == 0 {
            0
        } else {
            bands[index - 1].up_to.unwrap().digits_at(4).unwrap()
        };
        if left > from {
            total += (left - from) * band.unit_amount.digits_at(6).unwrap();
            total += band.flat_amount.digits_at(10).unwrap();
            left = from;
        }
    }
    total
}

/// A price experiment goes on over upgrades: these arms were worked out with the `xxhash` of Python.
#[test]
fn an_arm_is_the_same_for_ever() {
    let dealt = ["a", "b", "c", "customer-1"].map(|key| arm(key, "spring", 1_000_000).unwrap());
    assert_eq!(dealt, [446901, 985636, 87982, 802563]);
    // The salt and the key are told apart.
    assert_ne!(
        arm("bc", "a", 1_000_000).unwrap(),
        arm("c", "ab", 1_000_000).unwrap()
    );
}

prop_compose! {
    /// Tiers, some of them with a cap.
    fn capped_tiers()(terms in any_tiers(), caps in prop::collection::vec(prop::option::of(amount()), 7)) -> TieredTerms {
        let bands = terms.tiers.as_slice().iter().zip(caps);
        let bands = bands.map(|(tier, cap_amount)| Tier { cap_amount, ..*tier });
        TieredTerms { tiers: Tiers::new(bands.collect()).unwrap(), ..terms }
    }
}

prop_compose! {
    fn any_blocks()(sizes in prop::collection::vec((1_i64..50, amount(), 1_i64..20), 1..5)) -> Vec<BlockTier> {
        let last = sizes.len() - 1;
        let tier = |(place, (size, amount, most)): (usize, &(i64, Exact, i64))| BlockTier {
            size: Exact::from(*size),
            amount: *amount,
            max_blocks: (place < last).then(|| Exact::from(*most)),
        };
        sizes.iter().enumerate().map(tier).collect()
    }
}

/// Blocks one by one: the amount of the block that each next part of the quantity begins.
fn blocks_one_by_one(quantity: Exact, tiers: &[BlockTier]) -> Exact {
    let (mut held, mut total) = (Exact::ZERO, Exact::ZERO);
    for tier in tiers {
        let mut used = Exact::ZERO;
        while held < quantity && tier.max_blocks.is_none_or(|most| used < most) {
            held = held.checked_add(tier.size).unwrap();
            used = used.checked_add(Exact::from(1_i64)).unwrap();
            total = total.checked_add(tier.amount).unwrap();
        }
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn increments_add_up_to_the_whole_in_every_rule(
        parts in prop::collection::vec(quantity(), 1..8), terms in capped_tiers(), tiers in any_blocks()
    ) {
        let all = BlockTerms::new(tiers.clone(), Policy::AllTiers).unwrap();
        let top = BlockTerms::new(tiers, Policy::TopTier).unwrap();
        let rules: [&dyn Fn(Exact) -> Exact; 4] = [
            &|n| graduated(n, &terms).unwrap(),
            &|n| volume(n, &terms).unwrap(),
            &|n| blocks(n, &all).unwrap(),
            &|n| blocks(n, &top).unwrap(),
        ];
        for rate in rules {
            let (mut running, mut billed) = (Exact::ZERO, Exact::ZERO);
            for part in &parts {
                let next = running.checked_add(*part).unwrap();
                let line = rate(next).checked_sub(rate(running)).unwrap();
                billed = billed.checked_add(line).unwrap();
                running = next;
            }
            prop_assert_eq!(billed, rate(running));
        }
    }

    #[test]
    fn blocks_are_what_they_are_one_by_one(quantity in 0_i64..3_000, tiers in any_blocks()) {
        let quantity = Exact::from(quantity);
        let terms = BlockTerms::new(tiers.clone(), Policy::AllTiers).unwrap();
        prop_assert_eq!(blocks(quantity, &terms).unwrap(), blocks_one_by_one(quantity, &tiers));
    }

    #[test]
    fn no_tier_costs_more_than_its_cap(quantity in quantity(), terms in capped_tiers()) {
        let caps = terms.tiers.as_slice().iter().map(|tier| tier.cap_amount);
        let most = caps.into_iter().collect::<Option<Vec<Exact>>>();
        if let Some(most) = most {
            let sum = most.into_iter().fold(Exact::ZERO, |sum, cap| sum.checked_add(cap.max(Exact::ZERO)).unwrap());
            prop_assert!(graduated(quantity, &terms).unwrap() <= sum);
        }
    }

    #[test]
    fn a_rounded_number_is_the_nearest_of_its_mode(digits in -10_000_000_i128..10_000_000, by in 1_i128..5_000) {
        let (x, by) = (Exact { digits, scale: 3 }, Exact { digits: by, scale: 1 });
        // In thousandths of `by`, so that x / by = n / d in integers.
        let (n, d) = (digits, by.digits * 100);
        let floor = n.div_euclid(d);
        let rest = 2 * n.rem_euclid(d);
        let ceil = floor + i128::from(rest > 0);
        let near = if rest > d { ceil } else { floor };
        let away = if rest == d && n > 0 { ceil } else { near };
        let even = if rest == d && floor % 2 != 0 { ceil } else { near };
        for (rounding, expected) in [
            (Rounding::Floor, floor), (Rounding::Ceil, ceil), (Rounding::HalfAway, away), (Rounding::HalfEven, even),
        ] {
            prop_assert_eq!(divide(x, by, 0, rounding).unwrap().digits, expected);
            let once = round_to(x, 1, rounding).unwrap();
            prop_assert_eq!(round_to(once, 1, rounding).unwrap().digits, once.digits);
        }
    }
}

proptest! {
    #[test]
    fn tiers_sum_to_the_total(quantity in quantity(), terms in any_tiers()) {
        let total = graduated(quantity, &terms).unwrap();
        prop_assert_eq!(total.digits_at(10).unwrap(), graduated_from_the_top(quantity, &terms));
    }

    #[test]
    fn one_tier_is_a_unit_price(quantity in quantity(), unit in amount()) {
        let single = Tier { up_to: None, unit_amount: unit, flat_amount: Exact::ZERO, cap_amount: None };
        let terms = TieredTerms { tiers: Tiers::new(vec![single]).unwrap(), zero_usage_first_flat: false };
        let expected = per_unit(quantity, unit).unwrap();
        prop_assert_eq!(graduated(quantity, &terms).unwrap(), expected);
        prop_assert_eq!(volume(quantity, &terms).unwrap(), expected);
    }

    #[test]
    fn splitting_a_tier_at_any_point_changes_nothing(quantity in quantity(), unit in amount(), at in 1_i128..1_000_000) {
        let at = Exact { digits: at, scale: 2 };
        let lower = Tier { up_to: Some(at), unit_amount: unit, flat_amount: Exact::ZERO, cap_amount: None };
        let upper = Tier { up_to: None, ..lower };
        let terms = TieredTerms { tiers: Tiers::new(vec![lower, upper]).unwrap(), zero_usage_first_flat: false };
        prop_assert_eq!(graduated(quantity, &terms).unwrap(), per_unit(quantity, unit).unwrap());
    }

    #[test]
    fn progress_within_a_period_adds_up_to_the_whole(parts in prop::collection::vec(quantity(), 1..8), terms in any_tiers()) {
        let (mut running, mut billed) = (Exact::ZERO, Exact::ZERO);
        for part in parts {
            let next = running.checked_add(part).unwrap();
            let line = graduated(next, &terms).unwrap().checked_sub(graduated(running, &terms).unwrap()).unwrap();
            billed = billed.checked_add(line).unwrap();
            running = next;
        }
        prop_assert_eq!(billed, graduated(running, &terms).unwrap());
    }

    #[test]
    fn packages_hold_the_quantity_and_the_last_one_is_needed(quantity in quantity(), size in 1_i128..100_000) {
        let size = Exact { digits: size, scale: 2 };
        let terms = PackageTerms { size, amount: Exact::from(1_i64), free_units: Exact::ZERO, partial: Rounding::Ceil };
        let count = package(quantity, terms).unwrap();
        prop_assert!(count.checked_mul(size).unwrap() >= quantity);
        let fewer = count.checked_sub(Exact::from(1_i64)).unwrap();
        prop_assert!(quantity.is_zero() || fewer.checked_mul(size).unwrap() < quantity);
    }
}
