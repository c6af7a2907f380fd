//! Prices over usage that is made up: what `tollgate price` is asked for, and what `tollgate check` looks for surprises
//! with. No lake, no events: rows are put where the totals of a period would be.

use super::{on_default, subscription};
use crate::{
    catalog::Catalog,
    error::{Error, Result, query_error},
    view::{PeriodSession, Totals, View, referenced, register_rows},
};
use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, SchemaRef},
};
use datafusion::{common::TableReference, prelude::SessionContext, scalar::ScalarValue};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_sql::{
    definitions::{PriceDefinition, parse_decimal, parse_instant},
    money::Exact,
    parser::did_you_mean,
    period::Period,
};

/// A row of usage: what one subject used of one meter, by column.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The meter, event type or `subscription` it is of; `None` where its columns say so.
    pub relation: Option<String>,
    /// Who pays.
    pub customer: String,
    /// Who used it.
    pub subject: String,
    /// Values as text, by column. Other measures are 0, other dimensions NULL.
    pub values: BTreeMap<String, String>,
}

/// Prices over made-up usage of one billing period.
pub struct Trial<'a> {
    catalog: &'a Catalog,
    view: View,
    period: Period,
    totals: Totals,
    plan: String,
}

/// The session that a price sees, and where rows of usage go in it.
pub struct TrialSession {
    /// The session.
    pub context: SessionContext,
    /// The relations of usage that the price reads: name, what a row is of, and the columns.
    pub relations: Vec<(String, String, SchemaRef)>,
    /// The rows of the rate tables that it reads.
    pub rates: Vec<RecordBatch>,
    /// The measures of each meter that it reads.
    measures: BTreeMap<String, Vec<(String, DataType)>>,
}

impl TrialSession {
    /// A row of each relation for one customer whose measures, or numbers of an event, are all so much; the values are those of the
    /// columns that there are.
    pub fn rows(
        &self,
        customer: &str,
        values: &BTreeMap<String, String>,
        quantity: Exact,
    ) -> Vec<Row> {
        let mut rows: BTreeMap<&String, Row> = BTreeMap::new();
        for (_, of, schema) in &self.relations {
            if of == SUBSCRIPTION {
                continue;
            }
            let row = rows.entry(of).or_insert_with(|| Row {
                relation: Some(of.clone()),
                customer: customer.to_owned(),
                subject: customer.to_owned(),
                values: BTreeMap::new(),
            });
            for field in schema.fields() {
                let name = field.name();
                if let Some(value) = values.get(name) {
                    row.values.insert(name.clone(), value.clone());
                } else if self.measures.get(of).is_some_and(|measures| {
                    measures
                        .iter()
                        .any(|(measure, of)| measure == name && of.is_numeric())
                }) {
                    row.values.insert(name.clone(), quantity.to_string());
                } else if !field.is_nullable()
                    && field.data_type() == &DataType::Utf8
                    && !HEAD.contains(&name.as_str())
                {
                    row.values.insert(name.clone(), "example".to_owned());
                } else if !field.is_nullable()
                    && field.data_type() == &DataType::Boolean
                    && name != "is_final"
                {
                    row.values.insert(name.clone(), "false".to_owned());
                }
            }
        }
        rows.into_values().collect()
    }
}

/// The texts that every row has.
const HEAD: [&str; 5] = ["customer", "subject", "event_id", "source", "shard"];

/// The columns of a window that a row need not give.
const WINDOW: [&str; 3] = ["window_start", "window_end", "is_final"];
const SUBSCRIPTION: &str = "subscription";

impl<'a> Trial<'a> {
    /// Nothing used yet.
    ///
    /// # Errors
    /// A meter cannot be evaluated.
    pub async fn new(catalog: &'a Arc<Catalog>, period: Period, plan: &str) -> Result<Self> {
        let view = View::empty(Arc::clone(catalog));
        let totals = view.all_totals(&period).await?;
        Ok(Trial {
            catalog,
            view,
            period,
            totals,
            plan: plan.to_owned(),
        })
    }

    /// The same on another plan.
    pub fn put_on(&mut self, plan: &str) {
        plan.clone_into(&mut self.plan);
    }

    /// The relations that a price sees, with these rows in them.
    ///
    /// # Errors
    /// A value does not fit its column, a column that has one in every row has none, or two rows are the same group of a total.
    pub async fn session(&self, price: &PriceDefinition, rows: &[Row]) -> Result<TrialSession> {
        let customers = rows.iter().map(|row| row.customer.clone()).collect();
        let default = on_default(customers, &self.plan, &self.period);
        let default = subscription(&default, &self.period)?;
        let session = self
            .view
            .period_session(&self.period, &price.query, &self.totals, default);
        let PeriodSession { context, .. } = session.await?;
        let mut relations = Vec::new();
        let wanted = referenced(&context, &price.query)?;
        for relation in wanted.clone() {
            let Some(of) = self.row_of(&relation) else {
                continue;
            };
            let reference = TableReference::bare(relation.as_str());
            let Ok(provider) = context.table_provider(reference.clone()).await else {
                continue;
            };
            let schema = provider.schema();
            let rows: Vec<&Row> = rows
                .iter()
                .filter(|row| row.relation.as_deref() == Some(&of))
                .collect();
            let batch = match of.as_str() {
                SUBSCRIPTION => self.subscriptions(&context, &rows).await?,
                _ => Some(self.usage(&relation, &schema, &rows)?),
            };
            if let Some(batch) = batch {
                context
                    .deregister_table(reference)
                    .map_err(query_error("trying a price"))?;
                register_rows(&context, &relation, batch)?;
            }
            relations.push((relation, of, schema));
        }
        let definitions = &self.catalog.definitions;
        let tables = definitions
            .rate_tables
            .iter()
            .zip(&self.catalog.rate_tables);
        let rates = tables.filter(|(table, _)| wanted.contains(&table.name));
        let mut measures: BTreeMap<String, Vec<(String, DataType)>> = BTreeMap::new();
        for meter in &self.catalog.meters {
            let fields = meter.measures().iter();
            let fields = fields.map(|field| (field.name().clone(), field.data_type().clone()));
            measures.insert(meter.definition().name.clone(), fields.collect());
        }
        for event_type in &definitions.event_types {
            let columns = event_type.columns.iter();
            let columns = columns.map(|column| (column.name.clone(), column.data_type.clone()));
            measures.insert(event_type.name.clone(), columns.collect());
        }
        Ok(TrialSession {
            rates: rates.map(|(_, rows)| rows.clone()).collect(),
            context,
            relations,
            measures,
        })
    }

    /// What a row of a relation is of: a meter's for its totals and its windows.
    fn row_of(&self, relation: &str) -> Option<String> {
        let definitions = &self.catalog.definitions;
        let meters = definitions.meters.iter().map(|meter| meter.name.as_str());
        let meter = relation.strip_suffix("_windows").unwrap_or(relation);
        if let Some(meter) = meters
            .clone()
            .find(|name| *name == relation)
            .or(meters.clone().find(|name| *name == meter))
        {
            return Some(meter.to_owned());
        }
        let is_known = relation == SUBSCRIPTION || definitions.event_type(relation).is_some();
        is_known.then(|| relation.to_owned())
    }

    /// Says of each row what it is of, from the columns of what some prices read.
    ///
    /// # Errors
    /// No relation, or more than one, has the columns of a row.
    pub async fn place(&self, prices: &[&PriceDefinition], rows: &[Row]) -> Result<Vec<Row>> {
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for price in prices {
            for (_, of, schema) in self.session(price, &[]).await?.relations {
                let columns = known.entry(of).or_default();
                columns.extend(schema.fields().iter().map(|field| field.name().clone()));
            }
        }
        for columns in known.values_mut() {
            let given_elsewhere = |name: &String| ["customer", "subject"].contains(&name.as_str());
            columns.retain(|name| !given_elsewhere(name));
            columns.sort();
            columns.dedup();
        }
        rows.iter().map(|row| placed(row, &known)).collect()
    }

    /// The subscriptions of the rows' customers, where a row says something else of one.
    async fn subscriptions(
        &self,
        context: &SessionContext,
        rows: &[&Row],
    ) -> Result<Option<RecordBatch>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let doing = "reading subscriptions";
        let table = context
            .table(SUBSCRIPTION)
            .await
            .map_err(query_error(doing))?;
        let schema = Arc::clone(table.schema().inner());
        let known = table.collect().await.map_err(query_error(doing))?;
        let known = crate::view::one_batch(&schema, &known)?;
        let columns = schema.fields().iter().map(|field| {
            let values = (0..known.num_rows()).map(|place| {
                let value = |column: &str| {
                    ScalarValue::try_from_array(&known[column], place).map_err(query_error(doing))
                };
                let customer = value("customer")?.to_string();
                let own = rows.iter().rfind(|row| row.customer == customer);
                match own.and_then(|row| row.values.get(field.name())) {
                    Some(text) => read(SUBSCRIPTION, field, text),
                    None => value(field.name()),
                }
            });
            ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)
                .map_err(query_error(doing))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(&schema), columns)
            .map(Some)
            .map_err(query_error(doing))
    }

    /// Rows of a meter's totals or windows, or of an event type.
    fn usage(&self, relation: &str, schema: &SchemaRef, rows: &[&Row]) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        self.check_groups(relation, schema, rows)?;
        let columns = schema.fields().iter().map(|field| {
            let values = rows
                .iter()
                .enumerate()
                .map(|(place, row)| self.value(relation, field, row, place));
            ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)
                .map_err(query_error("trying a price"))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(query_error("trying a price"))
    }

    fn value(&self, relation: &str, field: &Field, row: &Row, place: usize) -> Result<ScalarValue> {
        if let Some(text) = row.values.get(field.name()) {
            return read(relation, field, text);
        }
        let name = field.name().as_str();
        let meter = self.catalog.meters.iter().find(|meter| {
            let defined = &meter.definition().name;
            relation == defined || relation == format!("{defined}_windows")
        });
        let instant = |us: i64| {
            let value = ScalarValue::TimestampMicrosecond(Some(us), None);
            value
                .cast_to(field.data_type())
                .map_err(query_error("trying a price"))
        };
        let start_us = self.period.start_us;
        let is_measure = meter.is_some_and(|meter| {
            meter
                .measures()
                .iter()
                .any(|measure| measure.name() == name)
        });
        let number = |number: i64| {
            let value = ScalarValue::Int64(Some(number)).cast_to(field.data_type());
            value.map_err(query_error("trying a price"))
        };
        match (name, field.data_type()) {
            ("customer", _) => Ok(ScalarValue::Utf8(Some(row.customer.clone()))),
            ("subject", _) => Ok(ScalarValue::Utf8(Some(row.subject.clone()))),
            ("window_end", _) => {
                let start = row
                    .values
                    .get("window_start")
                    .map(|text| instant_us(relation, "window_start", text));
                let width = meter.map_or(0, |meter| meter.definition().window_us);
                instant(start.transpose()?.unwrap_or(start_us) + width)
            }
            ("is_final", _) => Ok(ScalarValue::Boolean(Some(true))),
            (_, DataType::Timestamp(..)) if !field.is_nullable() || meter.is_none() => {
                instant(start_us)
            }
            (_, data_type) if is_measure && data_type.is_numeric() => number(0),
            (_, data_type) if field.is_nullable() => {
                ScalarValue::try_from(data_type).map_err(query_error("trying a price"))
            }
            // What an event has beside its data: its place among the others.
            ("event_id" | "source" | "shard", _) => {
                Ok(ScalarValue::Utf8(Some(format!("trial-{place}"))))
            }
            ("sequence" | "ordinal", _) => number(i64::try_from(place).unwrap_or(i64::MAX)),
            _ => Err(Error::Usage(format!(
                "`{relation}` has a value of `{name}` in every row: add {name}=… to the input"
            ))),
        }
    }

    /// Refuses two rows of one group of a meter's total, which has one.
    fn check_groups(&self, relation: &str, schema: &SchemaRef, rows: &[&Row]) -> Result<()> {
        let meter = self
            .catalog
            .meters
            .iter()
            .find(|meter| meter.definition().name == relation);
        let Some(meter) = meter else { return Ok(()) };
        let is_dimension = |name: &str| {
            meter
                .dimensions()
                .iter()
                .any(|dimension| dimension.name() == name)
        };
        let dimensions = schema
            .fields()
            .iter()
            .map(|field| field.name())
            .filter(|name| is_dimension(name));
        let dimensions: Vec<&String> = dimensions.collect();
        let mut known = Vec::new();
        for row in rows {
            let group: Vec<Option<&String>> = dimensions
                .iter()
                .map(|name| row.values.get(*name))
                .collect();
            let group = (&row.subject, group);
            if known.contains(&group) && relation != SUBSCRIPTION {
                let of = match dimensions.is_empty() {
                    true => "subject".to_owned(),
                    false => format!(
                        "subject and {}",
                        dimensions
                            .iter()
                            .map(|name| format!("`{name}`"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                };
                return Err(Error::Usage(format!(
                    "`{relation}` is the total of the period, one row for each {of}: add the two inputs up"
                )));
            }
            known.push(group);
        }
        Ok(())
    }
}

/// Finds the one relation that has the columns of a row.
fn placed(row: &Row, known: &BTreeMap<String, Vec<String>>) -> Result<Row> {
    let names: Vec<&String> = known.keys().collect();
    let lacks = |columns: &Vec<String>| {
        let of_window = |name: &&String| !WINDOW.contains(&name.as_str());
        row.values
            .keys()
            .filter(of_window)
            .find(|name| !columns.contains(name))
            .cloned()
    };
    if let Some(relation) = &row.relation {
        // A meter's windows are made of its rows, whichever of the two a price reads.
        let of_windows = relation.strip_suffix("_windows");
        if let Some(meter) = of_windows.filter(|meter| known.contains_key(*meter)) {
            let relation = Some(meter.to_owned());
            let row = row.clone();
            return placed(&Row { relation, ..row }, known);
        }
        let Some(columns) = known.get(relation) else {
            return Err(Error::Usage(format!(
                "no usage of `{relation}` is read here; {}",
                did_you_mean(relation, "relations", &names)
            )));
        };
        return match lacks(columns) {
            None => Ok(row.clone()),
            Some(name) => Err(Error::Usage(format!(
                "`{relation}` has no column `{name}`; {}",
                did_you_mean(&name, "columns", columns)
            ))),
        };
    }
    let mut fitting = known.iter().filter(|(_, columns)| lacks(columns).is_none());
    let found = match (fitting.next(), fitting.next(), known.len()) {
        (Some((relation, _)), None, _) => relation.clone(),
        (Some((one, _)), Some((other, _)), _) => {
            return Err(Error::Usage(format!(
                "both `{one}` and `{other}` have these columns: write which one is meant, as in '{one}: …'"
            )));
        }
        (None, _, 1) => {
            let relation = names[0].clone();
            let row = Row {
                relation: Some(relation),
                ..row.clone()
            };
            return placed(&row, known);
        }
        (None, ..) => {
            let columns = known
                .iter()
                .map(|(name, columns)| format!("`{name}` ({})", columns.join(", ")));
            return Err(Error::Usage(format!(
                "nothing that is read here has all of these columns; there are {}",
                columns.collect::<Vec<_>>().join(", ")
            )));
        }
    };
    Ok(Row {
        relation: Some(found),
        ..row.clone()
    })
}

/// A value as text, read exactly.
fn read(relation: &str, field: &Field, text: &str) -> Result<ScalarValue> {
    let name = field.name();
    let refused = |problem: String| {
        Error::Usage(format!(
            "`{relation}`, column `{name}`: `{text}`: {problem}"
        ))
    };
    Ok(match field.data_type() {
        DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::Boolean => match text {
            "true" => ScalarValue::Boolean(Some(true)),
            "false" => ScalarValue::Boolean(Some(false)),
            _ => return Err(refused("neither true nor false".into())),
        },
        DataType::Decimal128(precision, scale) => {
            let digits = parse_decimal(text, *precision, *scale);
            let digits = digits.map_err(|error| refused(error.to_string()))?;
            ScalarValue::Decimal128(Some(digits), *precision, *scale)
        }
        data_type if data_type.is_integer() => {
            let whole: i64 = text
                .parse()
                .map_err(|_| refused("not a whole number".into()))?;
            let value = ScalarValue::Int64(Some(whole)).cast_to(data_type);
            value.map_err(|_| refused("does not fit the column".into()))?
        }
        DataType::Timestamp(..) | DataType::Date32 => {
            let value =
                ScalarValue::TimestampMicrosecond(Some(instant_us(relation, name, text)?), None);
            value
                .cast_to(field.data_type())
                .map_err(query_error("trying a price"))?
        }
        other => return Err(refused(format!("a column of {other} cannot be made up"))),
    })
}

fn instant_us(relation: &str, name: &str, text: &str) -> Result<i64> {
    let instant = parse_instant(text).ok_or_else(|| {
        Error::Usage(format!(
            "`{relation}`, column `{name}`: `{text}`: neither a date nor an instant such as 2026-10-01T00:00:00Z"
        ))
    })?;
    Ok(instant.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_meters_windows_is_one_of_the_meter() {
        let known = BTreeMap::from([
            ("gpu".to_owned(), vec!["seconds".to_owned()]),
            ("tokens".to_owned(), vec!["input".to_owned()]),
        ]);
        let of = |relation: &str| {
            let row = Row {
                relation: Some(relation.to_owned()),
                values: BTreeMap::from([("seconds".to_owned(), "60".to_owned())]),
                ..Row::default()
            };
            match placed(&row, &known) {
                Ok(row) => row.relation.unwrap_or_default(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(of("gpu"), "gpu");
        assert_eq!(of("gpu_windows"), "gpu");
        assert_eq!(
            of("gpus_windows"),
            "no usage of `gpus_windows` is read here; known relations: `gpu`, `tokens`"
        );
        assert_eq!(
            of("tokens_windows"),
            "`tokens` has no column `seconds`; known columns: `input`"
        );
    }
}
