//! Definitions as they are kept with documents: the versions of a price that rated a billing period, a plan, and what a rate
//! table's file does not say of it. A basis names each by a hash, and what is kept is read back by it.
//!
//! Each field is a list of texts; one without a value is empty.
//!
//! ```json
//! [{"price":["used"],"version":["1"],"currency":["USD"],"worth":[],"from_us":[],"effective_from":["2026-10-01"],
//!   "on_change":["next_period"],"query":["SELECT …"],"at":["all.sql","7","1"],"query_at":["all.sql","8","1"]}]
//! ```

use super::basis::hash;
use crate::{
    definitions::{
        Anchor, BillingPeriod, Column, DiscountOrder, MinimumProration, OnChange, PlanDefinition,
        PlanTerms, PriceDefinition, RateTable, Step, TaxMode, TrialUsage, Validity, Worth,
    },
    error::Location,
    money::Exact,
};
use arrow::datatypes::Schema;
use serde_json::{Map, Value};
use std::fmt::Display;

/// A price as it rated a billing period.
#[derive(Debug, Clone)]
pub struct KeptPrice {
    /// Its versions in order of time, at least one.
    pub versions: Vec<KeptVersion>,
}

/// One version of it.
#[derive(Debug, Clone)]
pub struct KeptVersion {
    /// The definition.
    pub definition: PriceDefinition,
    /// When it took over within the period, in microseconds; `None` for the version that was there at its start.
    pub from_us: Option<i64>,
    /// What one unit of its currency was worth in the plan's, where that is another.
    pub worth: Option<Exact>,
}

impl KeptPrice {
    /// The hash by which a basis names it: of each version's number, query and currency, and of the instants between them.
    pub fn hash(&self) -> String {
        let mut texts = Vec::new();
        for version in &self.versions {
            let price = &version.definition;
            texts.extend(version.from_us.map(|from_us| from_us.to_string()));
            texts.push(price.version.to_string());
            texts.push(price.query.clone());
            texts.push(price.currency.clone());
            // What a currency of one's own is worth is a part of the price; other hashes stay as they were.
            texts.extend(version.worth.map(|worth| worth.to_string()));
        }
        hash(texts.iter().map(String::as_str))
    }

    /// As text.
    pub fn to_json(&self) -> String {
        let versions = self.versions.iter().map(|version| {
            let price = &version.definition;
            object(vec![
                one("price", &price.name),
                one("version", price.version),
                one("currency", &price.currency),
                optional("worth", version.worth),
                optional("from_us", version.from_us),
                optional("effective_from", price.effective_from),
                one("on_change", name_of(&OnChange::ALL, price.on_change)),
                one("query", &price.query),
                place("at", &price.at),
                place("query_at", &price.query_at),
            ])
        });
        Value::Array(versions.collect()).to_string()
    }

    /// Reads [`KeptPrice::to_json`]; `None` when it is something else.
    pub fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let versions = value.as_array()?.iter().map(|version| {
            let fields = Fields(version.as_object()?);
            Some(KeptVersion {
                definition: PriceDefinition {
                    name: fields.one("price")?.to_owned(),
                    currency: fields.one("currency")?.to_owned(),
                    effective_from: fields.optional("effective_from", |day| day.parse().ok())?,
                    on_change: value_of(&OnChange::ALL, fields.one("on_change")?)?,
                    query: fields.one("query")?.to_owned(),
                    query_at: fields.place("query_at")?,
                    version: fields.one("version")?.parse().ok()?,
                    at: fields.place("at")?,
                },
                from_us: fields.optional("from_us", |from_us| from_us.parse().ok())?,
                worth: fields.optional("worth", |worth| Exact::parse(worth).ok())?,
            })
        });
        let versions: Vec<KeptVersion> = versions.collect::<Option<_>>()?;
        (!versions.is_empty()).then_some(KeptPrice { versions })
    }
}

/// The hash by which a basis names a plan: of everything that it says.
pub fn plan_hash(plan: &PlanDefinition) -> String {
    let mut texts = Vec::new();
    for (name, values) in plan_fields(plan) {
        texts.push(name.to_owned());
        texts.push(values.len().to_string());
        texts.extend(values);
    }
    hash(texts.iter().map(String::as_str))
}

/// A plan as text.
pub fn plan_to_json(plan: &PlanDefinition) -> String {
    let mut fields = plan_fields(plan);
    fields.push(place("at", &plan.at));
    object(fields).to_string()
}

fn plan_fields(plan: &PlanDefinition) -> Vec<Field> {
    let terms = &plan.terms;
    let (unit, count) = match terms.billing_period {
        BillingPeriod::Days(days) => (DAYS, days),
        BillingPeriod::Months(months) => (MONTHS, months),
    };
    let worth = plan.worth.iter();
    let worth = worth.flat_map(|worth| [worth.currency.clone(), worth.amount.to_string()]);
    let proration = name_of(&MinimumProration::ALL, terms.minimum_proration);
    let mut fields = vec![
        one("plan", &plan.name),
        one("currency", &plan.currency),
        ("worth", worth.collect()),
        ("prices", plan.prices.clone()),
        ("billing_period", vec![unit.to_owned(), count.to_string()]),
        one("anchor", name_of(&Anchor::ALL, terms.anchor)),
        ("in_advance", terms.in_advance.clone()),
        optional("minimum", terms.minimum),
        optional("maximum", terms.maximum),
        one(
            "discount_order",
            name_of(&DiscountOrder::ALL, terms.discount_order),
        ),
        one("minimum_before_discounts", terms.minimum_before_discounts),
        one("minimum_proration", proration),
        one("tax", name_of(&TaxMode::ALL, terms.tax)),
        one("trial_usage", name_of(&TrialUsage::ALL, terms.trial_usage)),
        one("issue_after_us", terms.issue_after_us),
    ];
    // Plans without it have the hash that they had before there was such an option.
    if !terms.progressive_billing.is_empty() {
        let thresholds = terms.progressive_billing.iter();
        let thresholds = thresholds.map(ToString::to_string).collect();
        fields.push((PROGRESSIVE_BILLING, thresholds));
    }
    fields
}

const PROGRESSIVE_BILLING: &str = "progressive_billing";

/// Reads [`plan_to_json`]; `None` when it is something else.
pub fn plan_from_json(text: &str) -> Option<PlanDefinition> {
    let value: Value = serde_json::from_str(text).ok()?;
    let fields = Fields(value.as_object()?);
    let at = fields.place("at")?;
    let worth = fields.all("worth")?;
    let worth = worth.chunks(2).map(|worth| match worth {
        [currency, amount] => Some(Worth {
            currency: currency.clone(),
            amount: Exact::parse(amount).ok()?,
            at: at.clone(),
        }),
        _ => None,
    });
    let worth = worth.collect::<Option<_>>()?;
    let amount = |text: &str| Exact::parse(text).ok();
    let proration = fields.one("minimum_proration")?;
    Some(PlanDefinition {
        name: fields.one("plan")?.to_owned(),
        currency: fields.one("currency")?.to_owned(),
        worth,
        prices: fields.all("prices")?,
        terms: PlanTerms {
            billing_period: billing_period(&fields.all("billing_period")?)?,
            anchor: value_of(&Anchor::ALL, fields.one("anchor")?)?,
            in_advance: fields.all("in_advance")?,
            minimum: fields.optional("minimum", amount)?,
            maximum: fields.optional("maximum", amount)?,
            discount_order: value_of(&DiscountOrder::ALL, fields.one("discount_order")?)?,
            minimum_before_discounts: fields.one("minimum_before_discounts")?.parse().ok()?,
            minimum_proration: value_of(&MinimumProration::ALL, proration)?,
            tax: value_of(&TaxMode::ALL, fields.one("tax")?)?,
            trial_usage: value_of(&TrialUsage::ALL, fields.one("trial_usage")?)?,
            issue_after_us: fields.one("issue_after_us")?.parse().ok()?,
            progressive_billing: match fields.0.contains_key(PROGRESSIVE_BILLING) {
                true => {
                    let thresholds = fields.all(PROGRESSIVE_BILLING)?.into_iter();
                    let thresholds = thresholds.map(|text| Exact::parse(&text).ok());
                    thresholds.collect::<Option<_>>()?
                }
                false => Vec::new(),
            },
        },
        at,
    })
}

const DAYS: &str = "days";
const MONTHS: &str = "months";

fn billing_period(texts: &[String]) -> Option<BillingPeriod> {
    let [unit, count] = texts else {
        return None;
    };
    let count = count.parse().ok()?;
    match unit.as_str() {
        DAYS => Some(BillingPeriod::Days(count)),
        MONTHS => Some(BillingPeriod::Months(count)),
        _ => None,
    }
}

/// What the rows of a rate table do not say of it, as text.
pub fn rate_table_to_json(table: &RateTable) -> String {
    let period = table.period.iter();
    let period = period.flat_map(|period| [period.from.clone(), period.to.clone()]);
    object(vec![
        one("rate_table", &table.name),
        ("key", table.key.clone()),
        ("period", period.collect()),
        one("location", &table.location),
        place("at", &table.at),
    ])
    .to_string()
}

/// Reads [`rate_table_to_json`] beside the columns of the rows; `None` when it is something else.
pub fn rate_table_from_json(text: &str, columns: &Schema) -> Option<RateTable> {
    let value: Value = serde_json::from_str(text).ok()?;
    let fields = Fields(value.as_object()?);
    let columns = columns.fields().iter().map(|field| Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
        path: vec![Step::Key(field.name().clone())],
        default: None,
        strings: false,
    });
    let period = match fields.all("period")?.as_slice() {
        [] => None,
        [from, to] => Some(Validity {
            from: from.clone(),
            to: to.clone(),
        }),
        _ => return None,
    };
    Some(RateTable {
        name: fields.one("rate_table")?.to_owned(),
        columns: columns.collect(),
        key: fields.all("key")?,
        period,
        location: fields.one("location")?.to_owned(),
        location_at: fields.place("at")?,
        at: fields.place("at")?,
    })
}

/// A field and its texts.
type Field = (&'static str, Vec<String>);

fn one(name: &'static str, value: impl Display) -> Field {
    (name, vec![value.to_string()])
}

fn optional(name: &'static str, value: Option<impl Display>) -> Field {
    (name, value.iter().map(ToString::to_string).collect())
}

fn place(name: &'static str, at: &Location) -> Field {
    let texts = [at.file.clone(), at.line.to_string(), at.column.to_string()];
    (name, texts.to_vec())
}

fn object(fields: Vec<Field>) -> Value {
    let fields = fields.into_iter();
    Value::Object(
        fields
            .map(|(name, texts)| (name.to_owned(), Value::from(texts)))
            .collect(),
    )
}

/// The fields of one object.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn all(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.0.get(name)?.as_array()?.iter();
        texts.map(|text| text.as_str().map(str::to_owned)).collect()
    }

    fn one(&self, name: &str) -> Option<&str> {
        match self.0.get(name)?.as_array()?.as_slice() {
            [text] => text.as_str(),
            _ => None,
        }
    }

    /// A value if there is one; `None` when it cannot be read.
    fn optional<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
        match self.all(name)?.as_slice() {
            [] => Some(None),
            [text] => Some(Some(read(text)?)),
            _ => None,
        }
    }

    fn place(&self, name: &str) -> Option<Location> {
        match self.all(name)?.as_slice() {
            [file, line, column] => Some(Location {
                file: file.clone(),
                line: line.parse().ok()?,
                column: column.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// The word for a value that has one of several.
fn name_of<T: PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    let mut named = all.iter().filter(|(_, known)| *known == value);
    named.next().map_or("", |(name, _)| *name)
}

/// The value that a word stands for.
fn value_of<T: Copy>(all: &[(&'static str, T)], name: &str) -> Option<T> {
    let mut named = all.iter().filter(|(known, _)| *known == name);
    named.next().map(|(_, value)| *value)
}

#[cfg(test)]
mod tests;
