//! Which tiers the lines of a document pass: for people who read it.

use super::trial::Trial;
use crate::{catalog::Catalog, error::Result};
use std::sync::Arc;
use tollgate_sql::{
    definitions::PriceDefinition,
    functions::explain::{TIERED, TierPart},
    invoice::LineItem,
    period::Period,
    rating::passed::tiers_passed,
};

/// The tiers that each line passes by the text of its price, in the order of the lines: none of a line that they do not explain.
///
/// # Errors
/// A price cannot be planned.
pub async fn tiers_of(catalog: &Arc<Catalog>, lines: &[LineItem]) -> Result<Vec<Vec<TierPart>>> {
    let mut all = Vec::with_capacity(lines.len());
    let mut trial = None;
    for line in lines {
        let price = price_of(catalog, line);
        let (Some(price), Some(quantity)) = (price, line.quantity) else {
            all.push(Vec::new());
            continue;
        };
        if trial.is_none() {
            let period = Period::of(line.period, "UTC")?;
            trial = Some(Trial::new(catalog, period, "").await?);
        }
        let Some(trial) = &trial else {
            continue;
        };
        let context = trial.session(price, &[]).await?.context;
        all.push(tiers_passed(&context, price, quantity, line.amount_exact).await?);
    }
    Ok(all)
}

/// The version of a price that a line comes from, if its text has tiers.
fn price_of<'a>(catalog: &'a Catalog, line: &LineItem) -> Option<&'a PriceDefinition> {
    let mut versions = catalog.definitions.prices.iter().filter(|price| {
        line.price.as_deref() == Some(price.name.as_str())
            && line.price_version == Some(price.version)
    });
    let text = |price: &PriceDefinition| price.query.to_lowercase();
    versions.find(|price| TIERED.iter().any(|name| text(price).contains(name)))
}
