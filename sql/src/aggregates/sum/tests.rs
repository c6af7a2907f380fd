//! What the two accumulators of `sum` add up, and what they refuse.

use super::{super::values::LARGEST, *};
use arrow::array::{
    AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array, new_null_array,
};
use datafusion::logical_expr::EmitTo;

fn sums(scale: i8) -> GroupSums {
    GroupSums::at_scale(scale)
}

fn integers(values: Vec<Option<i64>>) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from(values))]
}

fn states(values: Vec<Option<i128>>, scale: i8) -> Vec<ArrayRef> {
    let values = Decimal128Array::from(values);
    let values = values.with_precision_and_scale(38, scale).unwrap();
    let wide = new_null_array(&DataType::Utf8, values.len());
    vec![Arc::new(values), wide]
}

#[test]
fn groups_are_added_across_batches_and_new_ones_join() {
    let mut sums = sums(0);
    let first = integers(vec![Some(1), Some(20), Some(3)]);
    sums.update_batch(&first, &[0, 1, 0], None, 2).unwrap();
    let second = integers(vec![Some(-500), Some(7)]);
    sums.update_batch(&second, &[2, 1], None, 3).unwrap();
    let expected = states(vec![Some(4), Some(27), Some(-500)], 0);
    assert_eq!(sums.state(EmitTo::All).unwrap(), expected);
}

#[test]
fn a_group_of_nulls_and_filtered_rows_has_no_sum() {
    let mut sums = sums(0);
    let first = integers(vec![Some(1)]);
    sums.update_batch(&first, &[0], None, 1).unwrap();
    let second = integers(vec![None, Some(5), Some(6), Some(7)]);
    let filter = BooleanArray::from(vec![Some(true), Some(true), Some(false), None]);
    sums.update_batch(&second, &[1, 2, 3, 0], Some(&filter), 4)
        .unwrap();
    let expected = states(vec![Some(1), None, Some(5), None], 0);
    assert_eq!(sums.state(EmitTo::All).unwrap(), expected);
}

#[test]
fn a_group_without_a_sum_gets_one_from_a_later_batch() {
    let mut sums = sums(0);
    sums.update_batch(&integers(vec![None]), &[0], None, 1)
        .unwrap();
    sums.update_batch(&integers(vec![Some(0), None]), &[0, 1], None, 2)
        .unwrap();
    sums.update_batch(&integers(vec![Some(9)]), &[2], None, 3)
        .unwrap();
    assert_eq!(
        sums.state(EmitTo::First(1)).unwrap(),
        states(vec![Some(0)], 0)
    );
    let rest = states(vec![None, Some(9)], 0);
    assert_eq!(sums.state(EmitTo::All).unwrap(), rest);
}

#[test]
fn a_group_without_a_sum_gets_one_from_a_batch_without_nulls() {
    let mut sums = sums(0);
    sums.update_batch(&integers(vec![None, None]), &[0, 1], None, 2)
        .unwrap();
    sums.update_batch(&integers(vec![Some(7)]), &[1], None, 2)
        .unwrap();
    assert_eq!(
        sums.state(EmitTo::All).unwrap(),
        states(vec![None, Some(7)], 0)
    );
}

#[test]
fn unsigned_integers_count_in_full() {
    let mut sums = sums(0);
    let largest: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX]))];
    sums.update_batch(&largest, &[0, 0], None, 1).unwrap();
    // 2 × 18446744073709551615
    let expected = states(vec![Some(36_893_488_147_419_103_230)], 0);
    assert_eq!(sums.state(EmitTo::All).unwrap(), expected);
}

#[test]
fn thirty_eight_digits_fit_and_one_unit_more_does_not() {
    for sign in [1, -1] {
        let mut sums = sums(2);
        sums.merge_batch(
            &states(vec![Some(sign * (LARGEST - 1)), Some(sign)], 2),
            &[0, 0],
            1,
        )
        .unwrap();
        assert_eq!(
            sums.state(EmitTo::All).unwrap(),
            states(vec![Some(sign * LARGEST)], 2)
        );
        let mut sums = GroupSums::at_scale(2);
        sums.merge_batch(
            &states(vec![Some(sign * LARGEST), Some(sign)], 2),
            &[0, 0],
            1,
        )
        .unwrap();
        let error = sums.evaluate(EmitTo::All).unwrap_err().to_string();
        assert!(error.contains("more than 38 digits"), "{error}");
    }
}

/// What groups add up to that get these values in turn, through states that are taken out in between.
fn through_states(values: &[i128]) -> Result<Vec<ArrayRef>> {
    let mut whole = sums(0);
    for value in values {
        let mut one = sums(0);
        one.merge_batch(&states(vec![Some(*value); 3], 0), &[0, 1, 1], 2)?;
        whole.merge_batch(&one.state(EmitTo::All)?, &[0, 1], 2)?;
        let so_far = whole.state(EmitTo::All)?;
        whole = sums(0);
        whole.merge_batch(&so_far, &[0, 1], 2)?;
    }
    whole.state(EmitTo::All)
}

#[test]
fn a_sum_leaves_38_digits_and_128_bits_and_comes_back() {
    for sign in [1, -1] {
        let mut values = vec![sign * LARGEST; 5];
        let wide = through_states(&values).unwrap();
        assert_eq!(wide[0].null_count(), 2);
        // 5 × (10^38 − 1), and twice that.
        let texts = [
            "499999999999999999999999999999999999995",
            "999999999999999999999999999999999999990",
        ];
        let texts = texts.map(|text| {
            if sign < 0 {
                format!("-{text}")
            } else {
                text.to_owned()
            }
        });
        assert_eq!(
            wide[1]
                .as_string::<i32>()
                .iter()
                .flatten()
                .collect::<Vec<_>>(),
            texts
        );
        let mut finished = sums(0);
        finished.merge_batch(&wide, &[0, 1], 2).unwrap();
        assert!(finished.evaluate(EmitTo::All).is_err());
        values.extend([-sign * LARGEST; 5]);
        values.push(sign * 7);
        let back = through_states(&values).unwrap();
        assert_eq!(back, states(vec![Some(sign * 7), Some(sign * 14)], 0));
    }
}

#[test]
fn another_scale_is_never_added() {
    assert!(
        sums(2)
            .merge_batch(&states(vec![Some(1)], 3), &[0], 1)
            .is_err()
    );
}

#[test]
fn single_rows_become_states_that_add_up_to_the_same() {
    let values = integers(vec![Some(5), None, Some(7)]);
    let filter = BooleanArray::from(vec![true, true, false]);
    let converted = sums(0).convert_to_state(&values, Some(&filter)).unwrap();
    assert_eq!(converted, states(vec![Some(5), None, None], 0));
}

#[test]
fn one_sum_takes_values_back() {
    let mut sum = Sum::of(&DataType::Decimal128(38, 0)).unwrap();
    assert_eq!(
        sum.evaluate().unwrap(),
        ScalarValue::Decimal128(None, 38, 0)
    );
    sum.update_batch(&integers(vec![Some(5), None, Some(i64::MAX)]))
        .unwrap();
    sum.retract_batch(&integers(vec![Some(5)])).unwrap();
    let expected = ScalarValue::Decimal128(Some(i128::from(i64::MAX)), 38, 0);
    assert_eq!(sum.evaluate().unwrap(), expected);
    sum.retract_batch(&integers(vec![Some(i64::MAX)])).unwrap();
    assert_eq!(
        sum.evaluate().unwrap(),
        ScalarValue::Decimal128(None, 38, 0)
    );
}

#[test]
fn floats_and_text_are_refused_with_a_way_out() {
    let refused = |data_type| {
        let coerced = CheckedSum::new().coerce_types(&[data_type]);
        coerced.unwrap_err().to_string()
    };
    assert!(refused(DataType::Float64).contains("as DECIMAL"));
    assert!(refused(DataType::Float32).contains("as DECIMAL"));
    assert!(refused(DataType::Utf8).contains("integers and decimals"));
    assert!(refused(DataType::Decimal256(76, 0)).contains("integers and decimals"));
}

#[test]
fn small_integers_are_added_as_large_ones() {
    let coerced = |data_type| CheckedSum::new().coerce_types(&[data_type]).unwrap();
    assert_eq!(coerced(DataType::Int8), [DataType::Int64]);
    assert_eq!(coerced(DataType::UInt32), [DataType::Int64]);
    assert_eq!(coerced(DataType::UInt64), [DataType::UInt64]);
    assert_eq!(
        coerced(DataType::Decimal64(9, 2)),
        [DataType::Decimal128(9, 2)]
    );
}
