//! An amount spread over parts so that the parts add up to it.

use arrow::datatypes::i256;

/// Splits an amount in proportion to weights, none below zero, all in minor units: each part is cut toward zero, and the
/// units that are left go one each to the largest remainders, of equal ones to the first. Parts of weight zero have nothing.
/// All are zero when every weight is, or the amount.
///
/// ```
/// # use tollgate_sql::invoice::shares::shares;
/// assert_eq!(shares(100, &[333, 333, 334]), [33, 33, 34]);
/// assert_eq!(shares(-10, &[0, 1, 2]), [0, -3, -7]);
/// ```
pub fn shares(amount: i128, weights: &[i128]) -> Vec<i128> {
    let wide = i256::from_i128;
    let whole = weights
        .iter()
        .fold(i256::ZERO, |sum, weight| sum.wrapping_add(wide(*weight)));
    if whole == i256::ZERO {
        return vec![0; weights.len()];
    }
    let size = wide(amount).wrapping_abs();
    // Sizes of at most 38 digits have products of at most 76, which 256 bits hold.
    let parts = weights.iter().map(|weight| {
        let product = size.wrapping_mul(wide(*weight));
        (product.wrapping_div(whole), product.wrapping_rem(whole))
    });
    let parts: Vec<(i256, i256)> = parts.collect();
    let cut = parts
        .iter()
        .fold(i256::ZERO, |sum, (part, _)| sum.wrapping_add(*part));
    let left = size
        .wrapping_sub(cut)
        .to_i128()
        .and_then(|left| usize::try_from(left).ok());
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| parts[*b].1.cmp(&parts[*a].1));
    let mut shares: Vec<i128> = parts
        .iter()
        .map(|(part, _)| part.to_i128().unwrap_or(0))
        .collect();
    for place in order.into_iter().take(left.unwrap_or(0)) {
        shares[place] += 1;
    }
    if amount < 0 {
        shares.iter_mut().for_each(|share| *share = -*share);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rest_goes_to_the_largest_remainders() {
        for (amount, weights, expected) in [
            (1_000, vec![0, 1_000, 2_000], vec![0, 333, 667]),
            (1_000, vec![6_000, 4_000], vec![600, 400]),
            (1, vec![1, 1, 1], vec![1, 0, 0]),
            (2, vec![1, 1, 1], vec![1, 1, 0]),
            (0, vec![3, 4], vec![0, 0]),
            (5, vec![0, 0], vec![0, 0]),
            (5, vec![], vec![]),
        ] {
            assert_eq!(shares(amount, &weights), expected, "{amount} {weights:?}");
        }
    }

    proptest! {
        #[test]
        fn shares_add_up_and_none_is_a_unit_off(
            amount in -1_000_000_i128..1_000_000,
            weights in proptest::collection::vec(0_i128..1_000_000, 1..20),
        ) {
            let parts = shares(amount, &weights);
            let whole: i128 = weights.iter().sum();
            let expected = if whole == 0 { 0 } else { amount };
            prop_assert_eq!(parts.iter().sum::<i128>(), expected);
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!((part * whole - amount * weight).abs() < whole.max(1));
            }
        }
    }
}
