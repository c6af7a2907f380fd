//! Accounts of one range of customers after the other: a job over very many does not hold the rows of them all.

use super::{Counted, existing, load_counted};
use crate::{
    customers::{Customers, in_order, place_after},
    error::{Result, query_error},
};
use arrow::{
    array::{Array, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
};
use std::{collections::BTreeSet, sync::Arc};
use tollgate_connectors::lake::Lake;
use tollgate_sql::accounts::Index;

/// The rows that counted at one time, as they are read for some customers. Imports that land later are not seen.
pub struct ByRange {
    lake: Lake,
    counted: Counted,
    /// Who has a row or a subscription, by name.
    pub(in crate::billing) names: StringArray,
    /// Who has a row in `subjects`, by name; nobody where that was not looked for.
    pub(in crate::billing) subjects: StringArray,
    /// The plans that subscriptions are or were on.
    pub(in crate::billing) plans: BTreeSet<String>,
    /// The subjects that several customers pay for, one after the other; `None` where that was not looked for.
    moved: Option<BTreeSet<String>>,
    /// What holds of the only customer.
    own: Option<Arc<Index>>,
}

impl ByRange {
    /// Those of all customers, or of one.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn begin(lake: &Lake, customer: Option<&str>) -> Result<Self> {
        let mut all = ByRange {
            lake: lake.clone(),
            counted: Counted::of(lake).await?,
            names: StringArray::from_iter_values(customer),
            subjects: StringArray::from_iter_values(None::<&str>),
            plans: BTreeSet::new(),
            moved: None,
            own: None,
        };
        match customer {
            Some(_) => {
                let own = all.of(&Customers::named(customer)).await?;
                let rows = own.subscriptions().flatten();
                all.plans = rows.map(|row| row.plan.clone()).collect();
                all.own = Some(own);
            }
            None => {
                let [customers] = all.texts("customers", ["customer"]).await?;
                let [subscribed, plans] = all.texts("subscriptions", ["customer", "plan"]).await?;
                all.names = in_order(customers.iter().chain(&subscribed).flatten());
                let plans: BTreeSet<&str> = plans.iter().flatten().collect();
                all.plans = plans.into_iter().map(str::to_owned).collect();
                let [subjects, payers] = all.texts("subjects", ["subject", "customer"]).await?;
                all.moved = Some(with_several(&subjects, &payers));
                all.subjects = in_order(subjects.iter().flatten());
            }
        }
        Ok(all)
    }

    /// What holds of some customers, and of the subjects that they pay for at some time.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(in crate::billing) async fn of(&self, customers: &Customers) -> Result<Arc<Index>> {
        if let Some(own) = &self.own {
            return Ok(Arc::clone(own));
        }
        let moved = self.moved.as_ref();
        let accounts = load_counted(&self.lake, &self.counted, customers, moved);
        Ok(Arc::new(accounts.await?.indexed()))
    }

    /// Whether a subject has a row.
    pub(in crate::billing) fn names_subject(&self, subject: &str) -> bool {
        let place = place_after(&self.subjects, 0, |name| name < subject);
        place < self.subjects.len() && self.subjects.value(place) == subject
    }

    /// All customers, some after the others.
    pub(in crate::billing) fn ranges(&self) -> impl Iterator<Item = Customers> {
        let from = (0..self.names.len().max(1)).step_by(CUSTOMERS_AT_ONCE);
        let name = |place: usize| {
            (0 < place && place < self.names.len()).then(|| self.names.value(place).to_owned())
        };
        from.map(move |from| Customers::between(name(from), name(from + CUSTOMERS_AT_ONCE)))
    }

    /// Columns of the rows of a table that count, each a text and not NULL.
    async fn texts<const N: usize>(
        &self,
        table: &str,
        columns: [&str; N],
    ) -> Result<[StringArray; N]> {
        let nothing = StringArray::from_iter_values(None::<&str>);
        let table = match self.counted.imports.is_empty() {
            true => None,
            false => existing(&self.lake, table).await?,
        };
        let Some(table) = table else {
            return Ok([(); N].map(|()| nothing.clone()));
        };
        let rows = self.counted.columns(&table, &columns).await?;
        let mut found = [(); N].map(|()| nothing.clone());
        for (found, name) in found.iter_mut().zip(columns) {
            let parts = rows.iter().map(|rows| cast(&rows[name], &DataType::Utf8));
            let parts = parts.collect::<Result<Vec<_>, _>>();
            let parts = parts.map_err(query_error("reading accounts"))?;
            let texts = parts.iter().flat_map(|part| part.as_string::<i32>().iter());
            *found = texts.collect();
        }
        Ok(found)
    }
}

/// Of so many customers rows are in memory at once where nothing else is.
const CUSTOMERS_AT_ONCE: usize = 50_000;

/// The subjects that stand beside more than one customer.
fn with_several(subjects: &StringArray, customers: &StringArray) -> BTreeSet<String> {
    let pairs = subjects.iter().zip(customers);
    let mut pairs: Vec<(Option<&str>, Option<&str>)> = pairs.collect();
    pairs.sort();
    let pairs = pairs.windows(2);
    let moved = pairs.filter(|two| two[0].0 == two[1].0 && two[0].1 != two[1].1);
    let moved = moved.filter_map(|two| two[0].0);
    moved.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once_in_order_and_subjects_of_several_customers_are_found() {
        let texts = |texts: &[&str]| StringArray::from(texts.to_vec());
        let names = in_order(["b", "a", "c", "b"].into_iter());
        assert_eq!(names, texts(&["a", "b", "c"]));
        let moved = with_several(
            &texts(&["bot", "cat", "bot", "dog", "dog"]),
            &texts(&["b", "a", "a", "c", "c"]),
        );
        assert_eq!(moved, BTreeSet::from(["bot".to_owned()]));
    }
}
