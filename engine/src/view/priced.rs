//! The events of a billing period, as prices see them and as invoices keep how many there were.
//!
//! A price by the event reads each counted event of the period in which it happened, however late it came: the policy
//! of a meter is that meter's. Without accounts every subject is its own customer; with them an event is its payer's at the
//! time when it happened.

use super::{
    Totals, View,
    keys::Keys,
    paid::{self, Paid},
    relation_column,
    relations::register_rows,
};
use crate::error::{Error, Result, query_error};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, view::ViewTable},
    common::{JoinType, TableReference},
    error::{DataFusionError, Result as Planned},
    functions_aggregate::expr_fn::{count, max},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, ident},
    physical_plan::ExecutionPlan,
    prelude::{DataFrame, SessionContext, col, lit},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_sql::{
    definitions::EventType,
    invoice::basis::{self, Usage},
    period::Period,
    schema, session,
};

const DOING: &str = "selecting the events of a billing period";

impl View {
    /// Registers the event types that a price reads.
    pub(super) fn register_priced_events(
        &self,
        context: &SessionContext,
        wanted: &BTreeSet<String>,
        period: &Period,
        totals: &Totals,
    ) -> Result<()> {
        let types = self.catalog.definitions.event_types.iter();
        for event_type in types.filter(|event_type| wanted.contains(&event_type.name)) {
            let Some(events) = self.counted_in(event_type, period, totals)? else {
                let empty = RecordBatch::new_empty(schema::priced_events(event_type));
                register_rows(context, &event_type.name, empty)?;
                continue;
            };
            let stored = events
                .schema()
                .field_with_unqualified_name(&event_type.name);
            let stored = Arc::clone(stored.map_err(query_error(DOING))?);
            let relation = schema::event_relation(event_type);
            let columns = relation.fields().iter();
            let columns = columns.map(|field| relation_column(event_type, &stored, field));
            let mut columns: Vec<Expr> = columns.collect::<Result<_>>()?;
            columns.insert(0, ident(PAYER).alias(schema::CUSTOMER));
            let events = events.select(columns).map_err(query_error(DOING))?;
            let (_, plan) = events.into_parts();
            let name = TableReference::bare(event_type.name.as_str());
            context
                .register_table(name, Arc::new(Opaque(ViewTable::new(plan, None))))
                .map_err(query_error(DOING))?;
        }
        Ok(())
    }

    /// How many events of some types each customer has in a period, of those customers that the totals are of.
    pub(crate) async fn events_used(
        &self,
        types: &BTreeSet<&str>,
        period: &Period,
        totals: &Totals,
    ) -> Result<BTreeMap<String, Vec<Usage>>> {
        let mut used: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
        for name in types {
            let event_type = self.catalog.definitions.event_type(name);
            let event_type = event_type.ok_or(Error::Contradiction {
                what: "an event type that a price reads is defined",
            })?;
            if let Some(events) = self.counted_in(event_type, period, totals)? {
                for (customer, usage) in counts(name, events).await? {
                    used.entry(customer).or_default().push(usage);
                }
            }
        }
        Ok(used)
    }

    /// The counted events of a type that happened in a period, of those that totals are of, each with who pays for it in
    /// [`PAYER`]; `None` when there is no table yet.
    fn counted_in(
        &self,
        event_type: &EventType,
        period: &Period,
        totals: &Totals,
    ) -> Result<Option<DataFrame>> {
        let Some(events) = self.counted(event_type, None)? else {
            return Ok(None);
        };
        let time = col("event_time");
        let within = time
            .clone()
            .gt_eq(schema::instant(period.start_us))
            .and(time.lt(schema::instant(period.end_us)));
        let keys = match &totals.paid {
            Some(paid) => paid.keys(),
            None => totals.keys.clone(),
        };
        let within = match keys.as_ref().and_then(Keys::on_events) {
            Some(of_subjects) => within.and(of_subjects),
            None => within,
        };
        let events = events.filter(within).map_err(query_error(DOING))?;
        let events = match &totals.paid {
            None => events.with_column(PAYER, col("subject")),
            Some(paid) => with_payer(events, paid),
        };
        events.map(Some).map_err(query_error(DOING))
    }
}

/// Who pays for an event.
const PAYER: &str = "$payer";

/// The events that are paid for, and by whom.
fn with_payer(events: DataFrame, paid: &Paid) -> Planned<DataFrame> {
    let rows = paid
        .rows()
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    let paid = session::context().read_batch(rows)?;
    let is_paid = vec![
        ident("subject").eq(ident(paid::SUBJECT)),
        ident("event_time").gt_eq(ident(paid::FROM)),
        ident("event_time").lt(ident(paid::UNTIL)),
    ];
    let joined = events.join_on(paid, JoinType::Inner, is_paid)?;
    let joined = joined.with_column(PAYER, ident(paid::CUSTOMER))?;
    joined.drop_columns(&[paid::SUBJECT, paid::CUSTOMER, paid::FROM, paid::UNTIL])
}

/// How many events each customer's subjects have in each shard, and the last of them, by customer and subject. Events are
/// never taken away, so other usage is another count.
async fn counts(event_type: &str, events: DataFrame) -> Result<Vec<(String, Usage)>> {
    let groups = vec![ident(PAYER), col("subject"), col("shard")];
    let counts = vec![
        count(lit(1)).alias("events"),
        max(col("sequence")).alias("last"),
    ];
    let rows = events
        .aggregate(groups, counts)
        .map_err(query_error(DOING))?;
    let order = vec![
        ident(PAYER).sort(true, true),
        col("subject").sort(true, true),
        col("shard").sort(true, true),
    ];
    let rows = rows.sort(order).map_err(query_error(DOING))?;
    let rows = rows.collect().await.map_err(query_error(DOING))?;
    let mut of_subjects: BTreeMap<(String, String), (i64, Vec<String>)> = BTreeMap::new();
    for rows in &rows {
        let text = |name: &str| rows[name].as_string::<i32>();
        let number = |name: &str| rows[name].as_primitive::<Int64Type>();
        let (payers, subjects, shards) = (text(PAYER), text("subject"), text("shard"));
        let (counts, last) = (number("events"), number("last"));
        for row in 0..rows.num_rows() {
            let key = (payers.value(row).to_owned(), subjects.value(row).to_owned());
            let of_subject = of_subjects.entry(key);
            let (total, parts) = of_subject.or_default();
            *total = total.saturating_add(counts.value(row));
            parts.push(shards.value(row).to_owned());
            parts.push(counts.value(row).to_string());
            parts.push(last.value(row).to_string());
        }
    }
    let usage = of_subjects
        .into_iter()
        .map(|((payer, subject), (total, parts))| {
            let usage = Usage {
                meter: event_type.to_owned(),
                subject,
                quantities: BTreeMap::from([("events".to_owned(), total.to_string())]),
                hash: basis::hash(parts.iter().map(String::as_str)),
            };
            (payer, usage)
        });
    Ok(usage.collect())
}

/// A view that a plan names and does not look into: what a price reads is judged by its name.
#[derive(Debug)]
struct Opaque(ViewTable);

#[async_trait]
impl TableProvider for Opaque {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Planned<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }
}
