//! Which versions of a price rate a billing period.

use crate::{
    catalog::Catalog,
    error::{Error, Result},
};
use tollgate_sql::{
    definitions::{OnChange, PriceDefinition},
    period::Period,
};

/// A version of a price, and the part of a billing period that it rates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) price: &'a PriceDefinition,
    /// From when to when, in microseconds.
    pub(super) from_us: i64,
    pub(super) until_us: i64,
}

/// The parts of a period, one after the other. The first is rated by the latest version that applies on the first day;
/// a version that splits takes over on its own first day, at the start of that day in the period's zone.
///
/// # Errors
/// No version applies on the first day.
pub(super) fn parts_of<'a>(
    catalog: &'a Catalog,
    name: &str,
    period: &Period,
) -> Result<Vec<Part<'a>>> {
    let first = price_in_force(catalog, name, period)?;
    let prices = catalog.definitions.prices.iter();
    let versions = prices.filter(|price| price.name == name);
    let splits = versions.filter(|price| price.on_change == OnChange::Split);
    let begun = splits.filter_map(|price| Some((period.day_within(price.effective_from?)?, price)));
    let mut begun: Vec<(i64, &PriceDefinition)> = begun.collect();
    begun.sort_by_key(|(from_us, price)| (*from_us, price.version));
    begun.insert(0, (period.start_us, first));
    let ends = begun.iter().skip(1).map(|(from_us, _)| *from_us);
    let ends: Vec<i64> = ends.chain([period.end_us]).collect();
    let parts = begun.into_iter().zip(ends);
    Ok(parts
        .map(|((from_us, price), until_us)| Part {
            price,
            from_us,
            until_us,
        })
        .collect())
}

/// The version of a price that applies at the start of the period: the latest one already effective.
///
/// # Errors
/// There is none yet.
pub fn price_in_force<'a>(
    catalog: &'a Catalog,
    name: &str,
    period: &Period,
) -> Result<&'a PriceDefinition> {
    let prices = &catalog.definitions.prices;
    let effective = |price: &&PriceDefinition| {
        price.name == name
            && price
                .effective_from
                .is_none_or(|day| day <= period.first_day())
    };
    let latest = prices
        .iter()
        .filter(effective)
        .max_by_key(|p| (p.effective_from, p.version));
    latest.ok_or_else(|| Error::Billing {
        problem: format!(
            "no version of price `{name}` is effective on {}",
            period.first_day()
        ),
        hint: "give it an earlier effective_from, or take it out of the plan".into(),
    })
}
