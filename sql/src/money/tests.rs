use super::*;
use proptest::prelude::*;

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

fn money(text: &str, code: &str) -> String {
    let currency = Currency::parse(code).unwrap();
    Money::round(exact(text), currency).unwrap().to_string()
}

#[test]
fn half_a_cent_rounds_away_from_zero_on_both_sides() {
    assert_eq!(money("1.005", "USD"), "1.01 USD");
    assert_eq!(money("-1.005", "USD"), "-1.01 USD");
    assert_eq!(money("1.004999999999999999", "USD"), "1.00 USD");
    assert_eq!(money("-1.004999999999999999", "USD"), "-1.00 USD");
    assert_eq!(money("1.015", "USD"), "1.02 USD");
    assert_eq!(money("0.005", "USD"), "0.01 USD");
    assert_eq!(money("-0.005", "USD"), "-0.01 USD");
    assert_eq!(money("-0.004", "USD"), "0.00 USD");
}

#[test]
fn a_quotient_is_rounded_once_half_away_from_zero() {
    assert_eq!(quotient(1, 0, 2), Some(1));
    assert_eq!(quotient(-1, 0, 2), Some(-1));
    assert_eq!(quotient(1, 0, 3), Some(0));
    assert_eq!(quotient(-200, 2, 31), Some(-645));
    assert_eq!(quotient(200, 6, 31), Some(6_451_613));
    // 10^37 · 10^12 / 10^13 needs more than 128 bits on the way, 10^38 more than 38 digits in the end.
    let large = 10_i128.pow(37);
    assert_eq!(quotient(large, 12, 10_i128.pow(13)), Some(large / 10));
    assert_eq!(quotient(large, 12, 10_i128.pow(11)), None);
    assert_eq!(quotient(1, 0, 0), None);
}

#[test]
fn every_currency_rounds_to_its_own_minor_unit() {
    assert_eq!(money("1234.5", "JPY"), "1235 JPY");
    assert_eq!(money("-1234.5", "JPY"), "-1235 JPY");
    assert_eq!(money("1.2345", "KWD"), "1.235 KWD");
    assert_eq!(money("1.23445", "CLF"), "1.2345 CLF");
    assert_eq!(money("1", "KWD"), "1.000 KWD");
}

#[test]
fn rounding_to_more_digits_than_there_are_adds_zeros() {
    let rounded = round(exact("1.5"), 4).unwrap();
    assert_eq!((rounded.digits, rounded.scale), (15_000, 4));
}

#[test]
fn rounding_drops_any_number_of_digits() {
    let smallest = Exact {
        digits: 1,
        scale: 38,
    };
    assert_eq!(round(smallest, 0).unwrap(), Exact::ZERO);
    let half = Exact {
        digits: 5 * 10_i128.pow(37),
        scale: 38,
    };
    assert_eq!(round(half, 0).unwrap().digits, 1);
    let below = Exact {
        digits: 5 * 10_i128.pow(37) - 1,
        scale: 38,
    };
    assert_eq!(round(below, 0).unwrap().digits, 0);
}

#[test]
fn rounding_that_takes_more_than_38_digits_fails() {
    let largest = exact("99999999999999999999999999999999999999");
    let dollars = Currency::parse("USD").unwrap();
    assert_eq!(
        Money::round(largest, dollars).unwrap_err().to_string(),
        "99999999999999999999999999999999999999 does not fit exactly into 38 digits with 2 after the point"
    );
}

#[test]
fn only_iso_codes_with_a_minor_unit_are_currencies() {
    assert_eq!(
        Currency::parse("usd"),
        Err(MoneyError::Currency("usd".into()))
    );
    assert_eq!(
        Currency::parse(""),
        Err(MoneyError::Currency(String::new()))
    );
    assert_eq!(
        Currency::parse("XAU"),
        Err(MoneyError::MinorUnit("XAU".into()))
    );
    assert_eq!(Currency::parse("EUR").unwrap().minor_digits(), 2);
}

#[test]
fn money_adds_only_within_a_currency() {
    let yen = Money::round(exact("10"), Currency::parse("JPY").unwrap()).unwrap();
    let euro = Money::round(exact("0.10"), Currency::parse("EUR").unwrap()).unwrap();
    assert_eq!(yen.checked_add(yen).unwrap().minor(), 20);
    assert_eq!(
        yen.checked_add(euro).unwrap_err().to_string(),
        "an amount in JPY cannot be added to one in EUR"
    );
}

#[test]
fn money_that_adds_up_to_more_than_38_digits_fails() {
    let currency = Currency::parse("JPY").unwrap();
    let most = Money {
        minor: 10_i128.pow(38) - 1,
        currency,
    };
    let one = Money { minor: 1, currency };
    assert!(matches!(
        most.checked_add(one),
        Err(MoneyError::Overflow { .. })
    ));
}

#[test]
fn numbers_are_equal_hashed_and_printed_by_value() {
    use std::collections::HashSet;
    assert_eq!(exact("1.50"), exact("1.5"));
    assert_eq!(exact("1.50").to_string(), "1.5");
    assert_eq!(exact("-0.050").to_string(), "-0.05");
    assert_eq!(exact("100").to_string(), "100");
    assert_eq!(exact("-0").to_string(), "0");
    assert_eq!(exact("-0.050").to_text_with_scale(), "-0.050");
    assert_eq!(
        HashSet::from([exact("1.50"), exact("1.5"), exact("0.0"), Exact::ZERO]).len(),
        2
    );
}

#[test]
fn order_holds_across_any_scales() {
    let tiny = Exact {
        digits: 1,
        scale: 38,
    };
    let far_apart = Exact {
        digits: 1,
        scale: 200,
    };
    assert!(exact("-1") < exact("-0.99"));
    assert!(tiny > Exact::ZERO);
    assert!(tiny < exact("99999999999999999999999999999999999999"));
    assert!(far_apart < exact("1") && far_apart > exact("-1") && far_apart > Exact::ZERO);
}

#[test]
fn what_is_not_a_plain_decimal_is_refused() {
    for text in [
        "", "-", ".5", "5.", "1e3", "1 0", " 1", "NaN", "1.2.3", "--1", "0x1", "1,5", "٣",
    ] {
        assert!(
            matches!(Exact::parse(text), Err(MoneyError::Parse { .. })),
            "{text}"
        );
    }
    assert!(Exact::parse(&"9".repeat(38)).is_ok());
    assert!(Exact::parse(&"9".repeat(39)).is_err());
    assert!(Exact::parse(&format!("0.{}", "0".repeat(300))).is_err());
    assert!(Exact::parse(&format!("0.{}1", "0".repeat(38))).is_err());
}

#[test]
fn a_product_keeps_every_digit_or_fails() {
    let nines = exact("9999999999999999999");
    assert_eq!(
        nines.checked_mul(nines).unwrap().to_string(),
        "99999999999999999980000000000000000001"
    );
    let left = exact("10000000000000000000000000000");
    let right = exact("0.0000000000000000000000000001");
    assert_eq!(left.checked_mul(right).unwrap(), Exact::from(1_i64));
    assert_eq!(
        exact("99999999999999999999")
            .checked_mul(exact("-99999999999999999999"))
            .unwrap_err()
            .to_string(),
        "99999999999999999999 * -99999999999999999999 needs more than 38 digits"
    );
}

#[test]
fn a_sum_past_38_digits_fails_on_both_sides() {
    let most = exact(&"9".repeat(38));
    let least = Exact::ZERO.checked_sub(most).unwrap();
    let one = Exact::from(1_i64);
    assert!(most.checked_add(one).is_err());
    assert!(least.checked_sub(one).is_err());
    assert_eq!(most.checked_add(least).unwrap(), Exact::ZERO);
    // In 128 bits the common scale overflows; in 256 it does not, and the sum is short again.
    let large = exact("12345678901234567890123456789012345678");
    assert!(large.checked_add(exact("0.5")).is_err());
    assert_eq!(large.checked_add(exact("0.00")).unwrap(), large);
}

#[test]
fn digits_at_a_scale_never_lose_any() {
    assert_eq!(exact("1.50").digits_at(1).unwrap(), 15);
    assert_eq!(exact("1.5").digits_at(3).unwrap(), 1500);
    assert!(exact("1.55").digits_at(1).is_err());
    assert!(exact(&"9".repeat(38)).digits_at(1).is_err());
    assert_eq!(
        Exact {
            digits: 0,
            scale: 0
        }
        .digits_at(200)
        .unwrap(),
        0
    );
}

#[test]
fn arrow_columns_of_exact_types_are_read_by_value() {
    use arrow::array::{Decimal128Array, Float64Array, Int64Array, NullArray, UInt64Array};
    let decimals = Decimal128Array::from(vec![Some(-1234), None])
        .with_precision_and_scale(10, 3)
        .unwrap();
    assert_eq!(
        Exact::from_array(&decimals, 0).unwrap(),
        Some(exact("-1.234"))
    );
    assert_eq!(Exact::from_array(&decimals, 1).unwrap(), None);
    let hundreds = Decimal128Array::from(vec![5])
        .with_precision_and_scale(10, -2)
        .unwrap();
    assert_eq!(Exact::from_array(&hundreds, 0).unwrap(), Some(exact("500")));
    let unsigned = UInt64Array::from(vec![u64::MAX]);
    assert_eq!(
        Exact::from_array(&unsigned, 0).unwrap(),
        Some(exact("18446744073709551615"))
    );
    let signed = Int64Array::from(vec![i64::MIN]);
    assert_eq!(
        Exact::from_array(&signed, 0).unwrap(),
        Some(exact("-9223372036854775808"))
    );
    assert_eq!(Exact::from_array(&NullArray::new(1), 0).unwrap(), None);
    assert!(Exact::from_array(&Float64Array::from(vec![0.5]), 0).is_err());
}

proptest! {
    #[test]
    fn text_is_read_back_as_the_same_number(digits in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_u8..=38) {
        let number = Exact { digits, scale };
        prop_assert_eq!(exact(&number.to_string()), number);
        let written = exact(&number.to_text_with_scale());
        prop_assert_eq!((written.digits, written.scale), (digits, scale));
    }

    #[test]
    fn arithmetic_agrees_with_whole_numbers(a in -10_i128.pow(15)..10_i128.pow(15), b in -10_i128.pow(15)..10_i128.pow(15), s in 0_u8..6, t in 0_u8..6) {
        let (left, right) = (Exact { digits: a, scale: s }, Exact { digits: b, scale: t });
        let (a6, b6) = (a * 10_i128.pow((6 - s).into()), b * 10_i128.pow((6 - t).into()));
        prop_assert_eq!(left.checked_add(right).unwrap(), Exact { digits: a6 + b6, scale: 6 });
        prop_assert_eq!(left.checked_sub(right).unwrap(), Exact { digits: a6 - b6, scale: 6 });
        prop_assert_eq!(left.checked_mul(right).unwrap(), Exact { digits: a * b, scale: s + t });
        prop_assert_eq!(left.cmp(&right), a6.cmp(&b6));
    }

    #[test]
    fn sums_and_products_of_many_digits_agree_with_256_bits(
        a in -10_i128.pow(38) + 1..10_i128.pow(38),
        b in -10_i128.pow(38) + 1..10_i128.pow(38),
        zeros in (0_u8..38, 0_u8..38),
        scales in (0_u8..=38, 0_u8..=38),
    ) {
        use arrow::datatypes::i256;
        let short = |digits: i128, zeros: u8| digits / 10_i128.pow(zeros.into());
        let left = Exact { digits: short(a, zeros.0), scale: scales.0 };
        let right = Exact { digits: short(b, zeros.1), scale: scales.1 };
        let scale = left.scale.max(right.scale);
        let wide = |of: Exact| {
            let power = i256::from_i128(10_i128.pow((scale - of.scale).into()));
            i256::from_i128(of.digits).checked_mul(power).unwrap()
        };
        let sum = wide(left).checked_add(wide(right)).unwrap();
        let difference = wide(left).checked_sub(wide(right)).unwrap();
        for (found, expected) in [(left.checked_add(right), sum), (left.checked_sub(right), difference)] {
            // What is found is that number; what is not found has more than 38 digits, whatever zeros are left off.
            match found {
                Ok(found) => {
                    let power = i256::from_i128(10_i128.pow((scale - found.scale).into()));
                    prop_assert_eq!(i256::from_i128(found.digits).checked_mul(power).unwrap(), expected);
                }
                Err(_) => prop_assert!(expected.to_i128().and_then(|digits| Exact::new(digits, scale).ok()).is_none()),
            }
        }
        prop_assert_eq!(left.cmp(&right), wide(left).cmp(&wide(right)));
        if let Ok(product) = left.checked_mul(right) {
            let whole = i256::from_i128(left.digits).checked_mul(i256::from_i128(right.digits)).unwrap();
            let zeros = u32::from(left.scale + right.scale - product.scale);
            let power = i256::from_i128(10).checked_pow(zeros).unwrap();
            prop_assert_eq!(i256::from_i128(product.digits).checked_mul(power).unwrap(), whole);
        }
    }

    #[test]
    fn a_quotient_in_128_bits_is_the_same_as_in_256(
        numerator in -10_i128.pow(38)..10_i128.pow(38),
        zeros in 0_u8..39,
        exponent in -38_i32..20,
        denominator in prop_oneof![1_i128..20, 1..10_i128.pow(19)],
    ) {
        use arrow::datatypes::i256;
        // Short numbers, which end at a half often, and long ones.
        let numerator = numerator / 10_i128.pow(u32::from(zeros.min(38)));
        for rounding in [Rounding::HalfAway, Rounding::HalfEven, Rounding::Floor, Rounding::Ceil] {
            let wide = rounding.wide(numerator.into(), exponent, i256::from_i128(denominator));
            if let Some(narrow) = rounding.narrow(numerator, exponent, denominator) {
                prop_assert_eq!(Some(narrow), wide);
            }
        }
    }

    #[test]
    fn rounding_moves_by_at_most_half_a_unit(digits in -10_i128.pow(20)..10_i128.pow(20), scale in 0_u8..12) {
        let value = Exact { digits, scale };
        let rounded = round(value, 2).unwrap();
        let moved = rounded.checked_sub(value).unwrap();
        prop_assert!(moved <= exact("0.005") && moved >= exact("-0.005"));
        let negated = round(Exact { digits: -digits, scale }, 2).unwrap();
        prop_assert_eq!(negated.digits, -rounded.digits);
    }
}

#[test]
fn a_rust_decimal_comes_and_goes_without_rounding() {
    let cent = rust_decimal::Decimal::new(-1_050, 3);
    let exact = Exact::from(cent);
    assert_eq!(exact, Exact::new(-105, 2).unwrap());
    assert_eq!(rust_decimal::Decimal::try_from(exact), Ok(cent));
    let longer = Exact::new(10_i128.pow(37) + 1, 0).unwrap();
    assert!(rust_decimal::Decimal::try_from(longer).is_err());
}
