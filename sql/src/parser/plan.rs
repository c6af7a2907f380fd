//! `CREATE PLAN`: prices, and the terms on which they are billed.

use super::{
    ParsedPlan,
    cursor::{Cursor, Name},
    options::{Options, duration_us},
    suggest::did_you_mean,
};
use crate::{
    definitions::model::{
        Anchor, BillingPeriod, DiscountOrder, MinimumProration, PlanDefinition, PlanTerms, TaxMode,
        TrialUsage,
    },
    error::Result,
    money::{Currency, Exact, Money},
};
use datafusion::sql::sqlparser::tokenizer::Token;

const SHAPE: &str = "a plan lists its prices: `AS (price_one, price_two)`";

const OPTIONS: &[&str] = &[
    "currency",
    "worth",
    "billing_period",
    "anchor",
    "in_advance",
    "minimum",
    "maximum",
    "discount_order",
    "minimum_before_discounts",
    "minimum_proration",
    "tax",
    "trial_usage",
    "issue_after",
    "progressive_billing",
];

/// What a count of calendar units is at most: a century in the longest of them.
const UNITS_MAX: i32 = 100;

/// The units of billing periods, and one of each.
const UNITS: &[(&str, BillingPeriod)] = &[
    ("day", BillingPeriod::Days(1)),
    ("week", BillingPeriod::Days(7)),
    ("month", BillingPeriod::Months(1)),
    ("quarter", BillingPeriod::Months(3)),
    ("year", BillingPeriod::Months(12)),
];

/// Reads what follows the plan's name.
pub(super) fn plan(cursor: &mut Cursor<'_>, name: Name) -> Result<ParsedPlan> {
    let options = Options::parse(cursor, OPTIONS)?;
    let currency = options.currency(cursor)?;
    let worth = options.worth(cursor, &currency)?;
    let mut terms = terms(cursor, &options, &currency)?;
    cursor.expect_keyword("AS", SHAPE)?;
    let prices = price_names(cursor)?;
    terms.in_advance = in_advance(cursor, &options, &prices)?;
    Ok(ParsedPlan {
        definition: PlanDefinition {
            name: name.text,
            currency,
            worth,
            prices: prices.iter().map(|price| price.text.clone()).collect(),
            terms,
            at: name.at,
        },
        prices,
    })
}

/// Everything but which prices are billed in advance.
fn terms(cursor: &Cursor<'_>, options: &Options, currency: &str) -> Result<PlanTerms> {
    let minimum = amount(cursor, options, "minimum", currency)?;
    let maximum = amount(cursor, options, "maximum", currency)?;
    if let (Some(minimum), Some(maximum), Some(value)) = (minimum, maximum, options.get("maximum"))
        && maximum < minimum
    {
        let problem = format!("the maximum, {maximum}, is below the minimum, {minimum}");
        let hint = "a maximum caps what the lines add up to before the minimum tops it up";
        return Err(cursor.error(value.at.clone(), problem, hint));
    }
    let discount_order = options.choice(cursor, "discount_order", &DiscountOrder::ALL)?;
    let proration = options.choice(cursor, "minimum_proration", &MinimumProration::ALL)?;
    let trial_usage = options.choice(cursor, "trial_usage", &TrialUsage::ALL)?;
    let issue_after = options.get("issue_after");
    let issue_after = issue_after.map(|value| duration_us(cursor, "issue_after", value));
    Ok(PlanTerms {
        billing_period: billing_period(cursor, options)?,
        anchor: options
            .choice(cursor, "anchor", &Anchor::ALL)?
            .unwrap_or_default(),
        in_advance: Vec::new(),
        minimum,
        maximum,
        discount_order: discount_order.unwrap_or_default(),
        minimum_before_discounts: options.boolean(cursor, "minimum_before_discounts")?,
        minimum_proration: proration.unwrap_or_default(),
        tax: options
            .choice(cursor, "tax", &TaxMode::ALL)?
            .unwrap_or_default(),
        trial_usage: trial_usage.unwrap_or_default(),
        issue_after_us: issue_after.transpose()?.unwrap_or(0),
        progressive_billing: thresholds(cursor, options, currency)?,
    })
}

/// How much may be unbilled until an invoice of a running period is issued.
fn thresholds(cursor: &Cursor<'_>, options: &Options, currency: &str) -> Result<Vec<Exact>> {
    let Some(value) = options.get("progressive_billing") else {
        return Ok(Vec::new());
    };
    let hint = format!(
        "write how much may be unbilled until the next invoice of a period, in {currency}: progressive_billing = '100.00, 500.00'"
    );
    let mut thresholds = Vec::new();
    for text in value.text.split(',').map(str::trim) {
        let amount = minor_amount(text, currency).and_then(|amount| match amount.is_zero() {
            true => Err("it is not above zero".to_owned()),
            false => Ok(amount),
        });
        let amount = amount.map_err(|problem| {
            let problem = format!("option `progressive_billing`: {problem}");
            cursor.error(value.at.clone(), problem, &hint)
        });
        thresholds.push(amount?);
    }
    Ok(thresholds)
}

/// How long a billing period is: a unit of the calendar or several of one; a month unless given.
fn billing_period(cursor: &Cursor<'_>, options: &Options) -> Result<BillingPeriod> {
    let Some(value) = options.get("billing_period") else {
        return Ok(BillingPeriod::default());
    };
    parse_billing_period(&value.text).ok_or_else(|| {
        let problem = format!("billing period `{}` is not known", value.text);
        let hint = format!(
            "write 'day', 'week', 'month', 'quarter' or 'year', or up to {UNITS_MAX} of them: '2 weeks'"
        );
        cursor.error(value.at.clone(), problem, &hint)
    })
}

/// `month`, `2 weeks`: a unit of the calendar or 1 to [`UNITS_MAX`] of one. `None` for anything else.
pub(crate) fn parse_billing_period(text: &str) -> Option<BillingPeriod> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (count, unit) = match words.as_slice() {
        [unit] => (1, *unit),
        [count, unit] if count.bytes().all(|byte| byte.is_ascii_digit()) => {
            (count.parse().ok()?, unit.strip_suffix('s').unwrap_or(unit))
        }
        _ => return None,
    };
    if !(1..=UNITS_MAX).contains(&count) {
        return None;
    }
    let (_, one) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(match one {
        BillingPeriod::Days(days) => BillingPeriod::Days(days * count),
        BillingPeriod::Months(months) => BillingPeriod::Months(months * count),
    })
}

/// An amount in a currency's minor unit, not below zero, if given.
fn amount(
    cursor: &Cursor<'_>,
    options: &Options,
    key: &str,
    currency: &str,
) -> Result<Option<Exact>> {
    let Some(value) = options.get(key) else {
        return Ok(None);
    };
    let amount = minor_amount(&value.text, currency).map_err(|problem| {
        let problem = format!("option `{key}`: {problem}");
        let hint =
            format!("write what a whole billing period costs, in {currency}: {key} = '50.00'");
        cursor.error(value.at.clone(), problem, &hint)
    });
    amount.map(Some)
}

/// An amount in a currency's minor unit, not below zero, or what is wrong with it.
fn minor_amount(text: &str, currency: &str) -> std::result::Result<Exact, String> {
    let read = Currency::parse(currency).and_then(|currency| {
        let amount = Exact::parse(text)?;
        let rounded = Money::round(amount, currency)?;
        Ok((amount, rounded.to_exact()))
    });
    match read {
        Ok((amount, rounded)) if amount == rounded && !amount.is_negative() => Ok(amount),
        Ok((amount, _)) if amount.is_negative() => Err(format!("{amount} is below zero")),
        Ok((amount, _)) => Err(format!(
            "{amount} is finer than the minor unit of {currency}"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// The prices that are billed in advance, each one of the plan's.
fn in_advance(cursor: &Cursor<'_>, options: &Options, prices: &[Name]) -> Result<Vec<String>> {
    let Some(value) = options.get("in_advance") else {
        return Ok(Vec::new());
    };
    let known: Vec<&str> = prices.iter().map(|price| price.text.as_str()).collect();
    let mut names: Vec<String> = Vec::new();
    for name in value.text.split(',').map(str::trim) {
        let refused = |problem: &str, hint: &str| {
            let problem = format!("option `in_advance`: {problem}");
            Err(cursor.error(value.at.clone(), problem, hint))
        };
        if !known.contains(&name) {
            let hint = did_you_mean(name, "prices of the plan", &known);
            return refused(&format!("the plan has no price `{name}`"), &hint);
        }
        if names.iter().any(|given| given == name) {
            let problem = format!("price `{name}` is in it twice");
            return refused(&problem, "name each price once");
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The prices of a plan: none is allowed, the same twice is not.
fn price_names(cursor: &mut Cursor<'_>) -> Result<Vec<Name>> {
    cursor.expect(&Token::LParen, SHAPE)?;
    let mut prices: Vec<Name> = Vec::new();
    if cursor.accept(&Token::RParen) {
        return Ok(prices);
    }
    loop {
        let price = cursor.name("the name of a price")?;
        if prices.iter().any(|known| known.text == price.text) {
            let problem = format!("price `{}` is listed twice", price.text);
            return Err(cursor.error(price.at, problem, "list each price once"));
        }
        prices.push(price);
        if !cursor.another(&Token::RParen, SHAPE)? {
            return Ok(prices);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        definitions::SourceFile,
        parser::{Defines, Statement, statements},
    };

    /// The terms of a plan with these options.
    fn parsed(options: &str) -> Result<PlanTerms> {
        let text =
            format!("CREATE PLAN p WITH (currency = 'USD', {options}) AS (base, seats, calls)");
        let file = SourceFile {
            name: "f".to_owned(),
            text,
        };
        match statements(&file).remove(0) {
            Ok(Statement {
                defines: Defines::Plan(plan),
                ..
            }) => Ok(plan.definition.terms),
            Err(broken) => Err(broken.error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_billing_period_is_a_unit_or_several() {
        use BillingPeriod::{Days, Months};
        for (text, period) in [
            ("day", Some(Days(1))),
            ("week", Some(Days(7))),
            ("month", Some(Months(1))),
            ("quarter", Some(Months(3))),
            ("year", Some(Months(12))),
            ("2 weeks", Some(Days(14))),
            ("1 month", Some(Months(1))),
            ("6 month", Some(Months(6))),
            ("100 years", Some(Months(1_200))),
            ("0 days", None),
            ("101 years", None),
            ("-1 month", None),
            ("months", None),
            ("1.5 months", None),
            ("hour", None),
            ("2 monthss", None),
            ("month 2", None),
            ("", None),
        ] {
            assert_eq!(parse_billing_period(text), period, "{text}");
        }
    }

    #[test]
    fn a_plan_says_on_which_terms_it_is_billed() {
        assert_eq!(parsed("tax = 'excluded'").unwrap(), PlanTerms::default());
        let all = parsed(
            "billing_period = '2 weeks', anchor = 'subscription', in_advance = 'seats, base', minimum = 10, \
             maximum = '99.50', discount_order = 'percent_first', minimum_before_discounts = 'true', \
             minimum_proration = 'minimum_less_fees', tax = 'included', trial_usage = 'billed', issue_after = '2 days', \
             progressive_billing = '100, 0.50'",
        );
        let expected = PlanTerms {
            billing_period: BillingPeriod::Days(14),
            anchor: Anchor::Subscription,
            in_advance: vec!["seats".into(), "base".into()],
            minimum: Some(Exact::from(10_i64)),
            maximum: Exact::parse("99.5").ok(),
            discount_order: DiscountOrder::PercentFirst,
            minimum_before_discounts: true,
            minimum_proration: MinimumProration::MinimumLessFees,
            tax: TaxMode::Included,
            trial_usage: TrialUsage::Billed,
            issue_after_us: 2 * 86_400_000_000,
            progressive_billing: vec![Exact::from(100_i64), Exact::parse("0.5").unwrap()],
        };
        assert_eq!(all.unwrap(), expected);
    }

    #[test]
    fn terms_that_no_plan_can_have_are_refused() {
        for (option, problem, hint) in [
            (
                "minimum = '-1'",
                "option `minimum`: -1 is below zero",
                "write what a whole billing period costs, in USD: minimum = '50.00'",
            ),
            (
                "maximum = '0.005'",
                "option `maximum`: 0.005 is finer than the minor unit of USD",
                "write what a whole billing period costs, in USD: maximum = '50.00'",
            ),
            (
                "minimum = 5, maximum = '4.99'",
                "the maximum, 4.99, is below the minimum, 5",
                "a maximum caps what the lines add up to before the minimum tops it up",
            ),
            (
                "in_advance = 'bases'",
                "option `in_advance`: the plan has no price `bases`",
                "did you mean `base`? known prices of the plan: `base`, `seats`, `calls`",
            ),
            (
                "in_advance = 'base, base'",
                "option `in_advance`: price `base` is in it twice",
                "name each price once",
            ),
            (
                "anchor = 'calender'",
                "option `anchor`: `calender` is not known",
                "did you mean `calendar`? known values: `calendar`, `subscription`",
            ),
            (
                "progressive_billing = '100, 0'",
                "option `progressive_billing`: it is not above zero",
                "write how much may be unbilled until the next invoice of a period, in USD: progressive_billing = '100.00, 500.00'",
            ),
            (
                "progressive_billing = '100,'",
                "option `progressive_billing`: `` is not a number: it does not begin with a digit",
                "write how much may be unbilled until the next invoice of a period, in USD: progressive_billing = '100.00, 500.00'",
            ),
            (
                "issue_after = '2 weeks'",
                "option `issue_after`: `2 weeks` is not a duration",
                "write a whole number and a unit: '30 seconds', '10 minutes', '1 hour', '1 day'",
            ),
        ] {
            match parsed(option) {
                Err(crate::Error::Definition {
                    problem: found,
                    hint: way_out,
                    ..
                }) => assert_eq!(
                    (found, way_out),
                    (format!("plan `p`: {problem}"), hint.to_owned())
                ),
                other => panic!("{option}: {other:?}"),
            }
        }
    }
}
