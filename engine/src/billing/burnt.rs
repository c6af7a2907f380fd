//! What issued documents burnt of grants, as their rows keep it.

use super::documents::{issued_table, of_customers, rows_where};
use crate::{
    customers::Customers,
    error::{Error, Result},
};
use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::prelude::col;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{credits::Burn, money::Exact};

/// What was burnt, by customer, in the order in which it was issued.
#[derive(Debug, Default)]
pub struct Burnt(BTreeMap<String, Vec<Burn>>);

impl Burnt {
    /// What issued documents burnt, of some customers.
    ///
    /// # Errors
    /// The lake cannot be read, or a document does not say it as it was written.
    pub async fn of(lake: &Lake, customers: &Customers) -> Result<Self> {
        Self::in_rows(&burning_rows(lake, customers).await?)
    }

    /// The same, by the rows of the documents.
    pub(super) fn in_rows(issued: &[RecordBatch]) -> Result<Self> {
        let mut burnt = Burnt::default();
        for document in burning_in(issued)? {
            burnt.add(&document.customer, &document.burns);
        }
        Ok(burnt)
    }

    /// What was burnt of a customer's grants.
    pub fn of_customer(&self, customer: &str) -> &[Burn] {
        self.0.get(customer).map_or(&[], Vec::as_slice)
    }

    /// Adds what a document burns that is made now.
    pub(super) fn add(&mut self, customer: &str, burns: &[Burn]) {
        let of_customer = self.0.entry(customer.to_owned()).or_default();
        of_customer.extend_from_slice(burns);
    }
}

/// An issued document that burnt of grants.
#[derive(Debug)]
pub(super) struct Burning {
    pub(super) customer: String,
    pub(super) number: String,
    pub(super) burns: Vec<Burn>,
}

/// The documents that burnt, in the order in which they were issued.
pub(super) async fn burning(lake: &Lake) -> Result<Vec<Burning>> {
    burning_in(&burning_rows(lake, &Customers::All).await?)
}

async fn burning_rows(lake: &Lake, customers: &Customers) -> Result<Vec<RecordBatch>> {
    let Some(invoices) = issued_table(lake).await? else {
        return Ok(Vec::new());
    };
    rows_where(
        &invoices,
        col("burns").is_not_null().and(of_customers(customers)),
    )
    .await
}

/// Those of some rows of issued documents that burnt.
fn burning_in(issued: &[RecordBatch]) -> Result<Vec<Burning>> {
    let mut documents = Vec::new();
    for rows in issued {
        let text = |name: &str| rows[name].as_string::<i32>();
        let (customers, numbers, burns) = (text("customer"), text("number"), text("burns"));
        for row in (0..rows.num_rows()).filter(|row| burns.is_valid(*row)) {
            let burns = burns_in(burns.value(row)).ok_or(Error::Contradiction {
                what: "an issued invoice says what it burnt as it was written",
            })?;
            documents.push(Burning {
                customer: customers.value(row).to_owned(),
                number: numbers.value(row).to_owned(),
                burns,
            });
        }
    }
    Ok(documents)
}

/// Burns as a document keeps them; `None` without any.
pub(super) fn text_of(burns: &[Burn]) -> Option<String> {
    let texts = burns
        .iter()
        .map(|burn| json!([burn.grant, burn.at_us, burn.amount.to_string()]));
    let texts: Vec<Value> = texts.collect();
    (!texts.is_empty()).then(|| Value::from(texts).to_string())
}

fn burns_in(text: &str) -> Option<Vec<Burn>> {
    let rows: Vec<(String, i64, String)> = serde_json::from_str(text).ok()?;
    let burns = rows.into_iter().map(|(grant, at_us, amount)| {
        Some(Burn {
            grant,
            at_us,
            amount: Exact::parse(&amount).ok()?,
        })
    });
    burns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burns_are_read_as_they_are_written() {
        let burns = vec![
            Burn {
                grant: "g \"1\"".into(),
                at_us: -1,
                amount: Exact::parse("0.0100").unwrap(),
            },
            Burn {
                grant: "g2".into(),
                at_us: 1_769_903_999_999_999,
                amount: Exact::parse("-12345678901234567890.5").unwrap(),
            },
        ];
        assert_eq!(burns_in(&text_of(&burns).unwrap()), Some(burns));
        assert_eq!(text_of(&[]), None);
        assert_eq!(burns_in("[[1]]"), None);
    }
}
