//! Products that do not fit into a decimal: which factor to cast, and to what. Pure.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::Expr,
};
use std::{fmt::Write, sync::Arc};

/// How many digits before the point the advice leaves: amounts below 10^18.
const WHOLE_DIGITS: u8 = 18;
/// How many digits a decimal has.
const DIGITS: u8 = 38;
/// The fewest digits after the point that the advice leaves a factor: multipliers such as 1.25 have them.
const SCALE_MIN: u8 = 2;

/// A place in a query, line and column from 1.
pub(crate) type Place = (u64, u64);

/// A factor as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Factor {
    pub(crate) text: String,
    pub(crate) at: Option<Place>,
    /// Digits before and after the point of its type.
    pub(crate) whole: u8,
    pub(crate) scale: u8,
}

impl Factor {
    /// What is written, of a type with so many digits before and after the point.
    pub(super) fn of(written: &Written, (whole, scale): (u8, u8)) -> Self {
        Factor {
            text: written.text.to_string(),
            at: written.at,
            whole,
            scale,
        }
    }
}

/// An operand as it is written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) text: Arc<str>,
    pub(super) at: Option<Place>,
}

/// Longer texts of operands are cut, so that what is said stays short.
const TEXT_CHARS_MAX: usize = 60;

impl Written {
    pub(super) fn of(expr: &Expr) -> Self {
        Written::new(&text_of(expr), place_of(expr))
    }

    pub(super) fn new(text: &str, at: Option<Place>) -> Self {
        let mut short: String = text.chars().take(TEXT_CHARS_MAX).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        Written {
            text: short.into(),
            at,
        }
    }
}

/// How many digits a type has before and after the point.
pub(crate) fn digits_of(data_type: &DataType) -> (u8, u8) {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).unwrap_or(0);
            (precision.saturating_sub(scale), scale)
        }
        _ => (19, 0),
    }
}

/// A product that has more digits than a decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {hint}")]
pub(crate) struct TooManyDigits {
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// Where the factor is that is to be cast.
    pub(crate) at: Option<Place>,
}

impl TooManyDigits {
    /// Of a product whose type has too many digits after the point.
    pub(crate) fn in_type(factors: &[Factor]) -> Self {
        let after = sum(factors);
        let problem = format!(
            "{} would have {after} digits after the point, and a decimal has {DIGITS} in all",
            product(factors)
        );
        Self::advised(problem, factors, WHOLE_DIGITS)
    }

    /// Of a product whose value has so many digits before the point.
    pub(super) fn in_value(factors: &[Factor], whole: u8) -> Self {
        let problem = format!(
            "{} has {whole} digits before the point and {} after it, and a decimal has {DIGITS} in all",
            product(factors),
            sum(factors)
        );
        Self::advised(problem, factors, whole.max(WHOLE_DIGITS))
    }

    /// Of a sum of products whose type leaves it few digits before the point.
    pub(crate) fn in_sum(factors: &[Factor]) -> Self {
        let problem = format!(
            "a sum of {} has more than {DIGITS} digits, {} of them after the point",
            product(factors),
            sum(factors)
        );
        Self::advised(problem, factors, WHOLE_DIGITS)
    }

    /// With the casts that leave so many digits before the point.
    fn advised(problem: String, factors: &[Factor], whole: u8) -> Self {
        let casts = casts(factors, DIGITS.saturating_sub(whole));
        let Some((first, _)) = casts.first() else {
            return TooManyDigits {
                problem,
                hint: "no amount has more digits: check the quantity and the rate".into(),
                at: factors.iter().find_map(|factor| factor.at),
            };
        };
        let mut list = String::new();
        for (place, (factor, scale)) in casts.iter().enumerate() {
            let before = match place {
                0 => "",
                _ if place + 1 == casts.len() => " and ",
                _ => ", ",
            };
            let precision = factor.whole.saturating_add(*scale).min(DIGITS);
            let text = &factor.text;
            // Writing to a string cannot fail.
            let _ = write!(
                list,
                "{before}CAST({text} AS DECIMAL({precision}, {scale}))"
            );
        }
        let leaves = if casts.len() == 1 { "leaves" } else { "leave" };
        TooManyDigits {
            problem,
            hint: format!(
                "write {list}, which {leaves} {whole} digits before the point; a cast rounds: where these digits count, cast \
                 another factor"
            ),
            at: first.at,
        }
    }
}

/// How many digits after the point a product has.
pub(crate) fn sum(factors: &[Factor]) -> u32 {
    factors.iter().map(|factor| u32::from(factor.scale)).sum()
}

fn product(factors: &[Factor]) -> String {
    let texts: Vec<&str> = factors.iter().map(|factor| factor.text.as_str()).collect();
    format!("`{}`", texts.join(" * "))
}

/// The factors to cast, and the digits after the point that each is left, so that the product has so many: as few factors as
/// possible, those with the most digits first, the last of several.
fn casts(factors: &[Factor], scale: u8) -> Vec<(&Factor, u8)> {
    let mut excess = sum(factors).saturating_sub(u32::from(scale));
    let mut by_scale: Vec<&Factor> = factors.iter().rev().collect();
    by_scale.sort_by_key(|factor| std::cmp::Reverse(factor.scale));
    let mut casts = Vec::new();
    for factor in by_scale {
        if excess == 0 || factor.scale <= SCALE_MIN {
            break;
        }
        let most = factor.scale - SCALE_MIN;
        let less = most.min(u8::try_from(excess).unwrap_or(u8::MAX));
        excess -= u32::from(less);
        casts.push((factor, factor.scale - less));
    }
    casts
}

/// Where an expression begins, as far as its columns know.
fn place_of(expr: &Expr) -> Option<Place> {
    let mut place: Option<Place> = None;
    // The walk cannot fail: its steps only look.
    let _ = expr.apply(|expr| {
        if let Expr::Column(column) = expr
            && let Some(span) = column.spans.first()
        {
            let start = (span.start.line, span.start.column);
            place = Some(place.map_or(start, |known| known.min(start)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    place
}

/// An expression in words of SQL, as far as there are short ones.
fn text_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.flat_name(),
        Expr::Alias(alias) => text_of(&alias.expr),
        Expr::Literal(value, _) => match value {
            ScalarValue::Decimal128(Some(digits), _, scale) => {
                let exact = crate::money::Exact::from_decimal(*digits, *scale);
                exact.map_or_else(|_| value.to_string(), |exact| exact.to_text_with_scale())
            }
            other => other.to_string(),
        },
        other => other.human_display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(text: &str, whole: u8, scale: u8) -> Factor {
        Factor {
            text: text.into(),
            at: Some((1, u64::from(scale))),
            whole,
            scale,
        }
    }

    #[test]
    fn the_finest_factors_are_cast_and_as_few_as_possible() {
        let (n, rate, share) = (factor("n", 38, 0), factor("r", 20, 18), factor("s", 9, 9));
        let cases: [(&[Factor], u8, &str); 6] = [
            // 18 + 18 = 36 is 16 too many.
            (
                &[n.clone(), rate.clone(), factor("m", 20, 18)],
                18,
                "CAST(m AS DECIMAL(22, 2)), which leaves 18",
            ),
            // 27 is 7 too many.
            (
                &[rate.clone(), share.clone()],
                18,
                "CAST(r AS DECIMAL(31, 11)), which leaves 18",
            ),
            // 21 digits before the point leave 17 after it: 27 is 10 too many.
            (
                &[rate.clone(), share.clone()],
                21,
                "CAST(r AS DECIMAL(28, 8)), which leaves 21",
            ),
            // 54 is 34 too many: 16, 16 and 2.
            (
                &[rate.clone(), factor("m", 20, 18), factor("l", 20, 18)],
                18,
                "CAST(l AS DECIMAL(22, 2)), CAST(m AS DECIMAL(22, 2)) and CAST(r AS DECIMAL(36, 16)), which leave 18",
            ),
            // 36 is 18 too many where there are 20 before the point: 16 of one, 2 of the other.
            (
                &[rate.clone(), factor("m", 20, 18)],
                20,
                "CAST(m AS DECIMAL(22, 2)) and CAST(r AS DECIMAL(36, 16)), which leave 20",
            ),
            (
                &[n.clone(), n],
                39,
                "no amount has more digits: check the quantity and the rate",
            ),
        ];
        for (factors, whole, expected) in cases {
            let said = TooManyDigits::advised(String::new(), factors, whole).hint;
            let said = said.strip_prefix("write ").unwrap_or(&said);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
