//! Taxes by region: a rate is that of the last instant of a line's service period, and each is rounded once over the lines
//! that it is for.

use crate::{
    definitions::RateTable,
    error::{Error, Result},
    money::{Exact, Money, Rounding, share},
    schema,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::TimestampMicrosecondType,
};

/// A row of the rate table of taxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaxRate {
    /// Where it is charged.
    pub region: String,
    /// In per cent, not below zero.
    pub rate_percent: Exact,
    /// From when on, in microseconds since the Unix epoch; `None` is since ever.
    pub from_us: Option<i64>,
    /// The first instant after it; `None` until further notice.
    pub to_us: Option<i64>,
}

/// The rows of a rate table of taxes: columns `region`, `rate_percent`, and the period of its primary key, if it has one, whose
/// days begin in UTC.
///
/// # Errors
/// [`Error::Definition`] for a table without the two columns, or with a rate that is not a number from 0 to 100.
pub fn rates_of(table: &RateTable, rows: &RecordBatch) -> Result<Vec<TaxRate>> {
    let refused = |problem: &str| {
        Error::Definition {
        at: table.at.clone(),
        problem: format!("rate table `{}`, which has the tax rates: {problem}", table.name),
        hint: "it has the columns region VARCHAR and rate_percent DECIMAL(9, 4), and may have a period in its primary key"
            .into(),
    }
    };
    let column = |name: &str| rows.column_by_name(name);
    let (Some(regions), Some(rates)) = (column("region"), column("rate_percent")) else {
        return Err(refused("it lacks a column"));
    };
    let regions = regions
        .as_string_opt::<i32>()
        .ok_or_else(|| refused("`region` is no text"))?;
    let instants = |name: Option<&str>| -> Result<Option<Vec<Option<i64>>>> {
        let Some(values) = name.and_then(column) else {
            return Ok(None);
        };
        let values =
            cast(values, &schema::timestamp()).map_err(|_| refused("its period is no time"))?;
        let values = values.as_primitive::<TimestampMicrosecondType>();
        Ok(Some(values.iter().collect()))
    };
    let from = instants(table.period.as_ref().map(|period| period.from.as_str()))?;
    let to = instants(table.period.as_ref().map(|period| period.to.as_str()))?;
    let at = |times: &Option<Vec<Option<i64>>>, row: usize| {
        times
            .as_ref()
            .and_then(|times| times.get(row).copied().flatten())
    };
    let mut all = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let percent = Exact::from_array(rates.as_ref(), row)?;
        let percent =
            percent.filter(|percent| !percent.is_negative() && *percent <= Exact::from(100_i64));
        if regions.is_null(row) {
            return Err(refused("a row has no region"));
        }
        all.push(TaxRate {
            region: regions.value(row).to_owned(),
            rate_percent: percent.ok_or_else(|| refused("a rate is not a number from 0 to 100"))?,
            from_us: at(&from, row),
            to_us: at(&to, row),
        });
    }
    Ok(all)
}

/// The rate of a region at an instant; `None` without one.
pub fn rate_at<'a>(rates: &'a [TaxRate], region: &str, at_us: i64) -> Option<&'a TaxRate> {
    rates.iter().find(|rate| {
        rate.region == region
            && rate.from_us.is_none_or(|from_us| from_us <= at_us)
            && rate.to_us.is_none_or(|to_us| at_us < to_us)
    })
}

/// The tax that comes on top of an amount.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn on_top(rate_percent: Exact, taxable: Money) -> Result<Money> {
    let rate = rate_percent.checked_mul(Exact::new(1, 2)?)?;
    Ok(Money::round(
        taxable.to_exact().checked_mul(rate)?,
        taxable.currency(),
    )?)
}

/// The tax that an amount has in it: what is left when the amount without tax is rounded.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn included(rate_percent: Exact, gross: Money) -> Result<Money> {
    let hundred = Exact::from(100_i64);
    let currency = gross.currency();
    let digits = currency.minor_digits();
    let whole = hundred.checked_add(rate_percent)?;
    // Four at most.
    let digits = i8::try_from(digits).unwrap_or(i8::MAX);
    let net = share(gross.to_exact(), hundred, whole, digits, Rounding::HalfAway)?;
    let tax = gross.to_exact().checked_sub(net)?;
    Ok(Money::round(tax, currency)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    fn money(text: &str, code: &str) -> Money {
        Money::round(Exact::parse(text).unwrap(), Currency::parse(code).unwrap()).unwrap()
    }

    #[test]
    fn tax_is_rounded_once() {
        for (percent, taxable, code, tax) in [
            ("8.875", "100.00", "USD", "8.88"),
            ("20", "99.99", "USD", "20.00"),
            ("21", "21.40", "EUR", "4.49"),
            ("10", "1127", "JPY", "113"),
            ("10", "-10.05", "USD", "-1.01"),
        ] {
            let percent = Exact::parse(percent).unwrap();
            assert_eq!(
                on_top(percent, money(taxable, code)).unwrap(),
                money(tax, code)
            );
        }
        // 119.00 / 1.19 = 100.00; 10.00 / 1.19 = 8.4033…, 8.40, so 1.60.
        let percent = Exact::from(19_i64);
        assert_eq!(
            included(percent, money("119.00", "EUR")).unwrap(),
            money("19.00", "EUR")
        );
        assert_eq!(
            included(percent, money("10.00", "EUR")).unwrap(),
            money("1.60", "EUR")
        );
    }

    #[test]
    fn a_rate_is_in_force_from_its_start_to_before_its_end() {
        let rate = |percent: i64, from_us, to_us| TaxRate {
            region: "DE".into(),
            rate_percent: Exact::from(percent),
            from_us,
            to_us,
        };
        let rates = [rate(16, None, Some(10)), rate(19, Some(10), None)];
        let at = |at_us| rate_at(&rates, "DE", at_us).map(|rate| rate.rate_percent);
        assert_eq!(
            [at(9), at(10)],
            [Some(Exact::from(16_i64)), Some(Exact::from(19_i64))]
        );
        assert_eq!(rate_at(&rates, "FR", 10), None);
    }
}
