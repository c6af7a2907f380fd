//! Reads the answer of a price's query, and says what is wrong with it.

use super::{Charge, Rated, refused, unplanned::inexact_column};
use crate::{
    definitions::PriceDefinition,
    error::Result,
    functions::is_exact,
    money::{Exact, MoneyError},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Schema},
    error::ArrowError,
    row::{RowConverter, Rows, SortField},
};
use std::{collections::HashSet, sync::Arc};

/// Where the columns are that a price returns.
pub(super) struct Columns {
    customer: usize,
    quantity: Option<usize>,
    amount: usize,
    /// Name and place of every other column, in the price's order.
    dimensions: Vec<(String, usize)>,
}

impl Columns {
    /// Finds the columns by name and checks their types.
    pub(super) fn find(price: &PriceDefinition, schema: &Schema) -> Result<Self> {
        check_names(price, schema)?;
        let place = |name: &str| schema.index_of(name).ok();
        let missing =
            |name: &str, hint: &str| refused(price, format!("it returns no `{name}`"), hint);
        let columns = Self {
            customer: place("customer")
                .ok_or_else(|| missing("customer", "select the customer who pays"))?,
            quantity: place("quantity"),
            amount: place("amount")
                .ok_or_else(|| missing("amount", "name the price's result: `... AS amount`"))?,
            dimensions: dimensions(schema),
        };
        columns.check_types(price, schema)?;
        Ok(columns)
    }

    fn check_types(&self, price: &PriceDefinition, schema: &Schema) -> Result<()> {
        let data_type = |index: usize| schema.field(index).data_type();
        if !is_text(data_type(self.customer)) {
            let problem = format!("`customer` is {}, not text", data_type(self.customer));
            return Err(refused(price, problem, "CAST(... AS VARCHAR) AS customer"));
        }
        for index in [Some(self.amount), self.quantity].into_iter().flatten() {
            check_exact(price, schema.field(index).name(), data_type(index))?;
        }
        for (name, index) in &self.dimensions {
            check_dimension(price, name, data_type(*index))?;
        }
        Ok(())
    }

    /// Reads every row into a charge, or notes why its customer has none; in order of customer and dimensions.
    pub(super) fn read(
        &self,
        price: &PriceDefinition,
        batches: &[RecordBatch],
        rated: &mut Rated,
    ) -> Result<()> {
        let texts = batches.iter().map(|batch| self.texts(price, batch));
        let texts: Vec<Texts<'_>> = texts.collect::<Result<_>>()?;
        let order = order(&texts).map_err(|error| failed(price, error))?;
        rated.charges.reserve(order.len());
        let shared: Arc<str> = price.name.as_str().into();
        let currency: Arc<str> = price.currency.as_str().into();
        let names = self.dimensions.iter().map(|(name, _)| name.as_str().into());
        let names: Vec<Arc<str>> = names.collect();
        for (place, row) in order {
            let (batch, texts) = (&batches[place], &texts[place]);
            let dimensions = &texts.dimensions;
            if texts.customers.is_null(row) {
                return Err(refused(price, "a row has a NULL `customer`", NO_CUSTOMER));
            }
            let customer = texts.customers.value(row);
            let numbers = self.numbers(batch, row);
            let (amount, quantity) = match numbers {
                Ok((Some(amount), quantity)) => (amount, quantity),
                Ok((None, quantity)) => {
                    let row = row_text(dimensions, quantity, row);
                    let problem = format!("the amount is NULL for customer `{customer}`{row}");
                    rated.note(price, customer, problem, NO_AMOUNT);
                    continue;
                }
                Err(error) => {
                    let row = row_text(dimensions, None, row);
                    let problem = format!("customer `{customer}`{row}: {error}");
                    rated.note(price, customer, problem, "keep numbers within 38 digits");
                    continue;
                }
            };
            let last = rated.charges.last().map(|last| &last.customer);
            let customer = match last.filter(|last| ***last == *customer) {
                Some(same) => Arc::clone(same),
                None => customer.into(),
            };
            let dimensions = names.iter().zip(dimensions);
            rated.charges.push(Charge {
                price: Arc::clone(&shared),
                price_version: price.version,
                dimensions: dimensions
                    .map(|(name, (_, column))| (Arc::clone(name), text_at(column, row)))
                    .collect(),
                quantity,
                amount,
                customer,
                currency: Arc::clone(&currency),
                service: None,
                subscription: None,
                is_fixed: false,
                is_unused: false,
            });
        }
        Ok(())
    }

    /// The columns of a batch that are shown as text.
    fn texts(&self, price: &PriceDefinition, batch: &RecordBatch) -> Result<Texts<'_>> {
        let dimensions = self.dimensions.iter().map(|(name, index)| {
            text_column(price, batch.column(*index)).map(|column| (name.as_str(), column))
        });
        Ok(Texts {
            customers: text_column(price, batch.column(self.customer))?,
            dimensions: dimensions.collect::<Result<_>>()?,
        })
    }

    /// The amount and the quantity of a row.
    fn numbers(
        &self,
        batch: &RecordBatch,
        row: usize,
    ) -> Result<(Option<Exact>, Option<Exact>), MoneyError> {
        let number = |index: usize| Exact::from_array(batch.column(index), row);
        let quantity = self.quantity.map(number).transpose()?.flatten();
        Ok((number(self.amount)?, quantity))
    }
}

/// The columns of a batch that are shown as text.
struct Texts<'a> {
    customers: StringArray,
    dimensions: Vec<(&'a str, StringArray)>,
}

/// The rows of all batches by customer and dimensions, NULL first, each as its batch and its place there. Charges are made in this
/// order: to sort rows of bytes moves less than to sort charges.
fn order(texts: &[Texts<'_>]) -> Result<Vec<(usize, usize)>, ArrowError> {
    let Some(first) = texts.first() else {
        return Ok(Vec::new());
    };
    if is_by_customer(texts) {
        return Ok(places(texts.iter().map(|texts| texts.customers.len())).collect());
    }
    let columns = 1 + first.dimensions.len();
    let fields = (0..columns).map(|_| SortField::new(DataType::Utf8));
    let converter = RowConverter::new(fields.collect())?;
    let keys = texts.iter().map(|texts| {
        let customers = Arc::new(texts.customers.clone()) as ArrayRef;
        let dimensions = texts.dimensions.iter();
        let dimensions = dimensions.map(|(_, column)| Arc::new(column.clone()) as ArrayRef);
        let columns: Vec<ArrayRef> = [customers].into_iter().chain(dimensions).collect();
        converter.convert_columns(&columns)
    });
    let keys: Vec<Rows> = keys.collect::<Result<_, _>>()?;
    let mut rows: Vec<(usize, usize)> = places(keys.iter().map(Rows::num_rows)).collect();
    rows.sort_unstable_by(|left, right| {
        let key = |(place, row): (usize, usize)| keys[place].row(row);
        (key(*left), left).cmp(&(key(*right), right))
    });
    Ok(rows)
}

/// The rows of batches with so many rows each, as they stand.
fn places(counts: impl Iterator<Item = usize>) -> impl Iterator<Item = (usize, usize)> {
    let counts = counts.enumerate();
    counts.flat_map(|(place, count)| (0..count).map(move |row| (place, row)))
}

/// Whether rows stand in the order of customers already, and each customer has one.
fn is_by_customer(texts: &[Texts<'_>]) -> bool {
    let customers = texts.iter().flat_map(|texts| texts.customers.iter());
    customers.is_sorted_by(|before, after| before < after)
}

/// What tells one row of a customer from another: its dimensions, and its quantity if there is one.
fn row_text(dimensions: &[(&str, StringArray)], quantity: Option<Exact>, row: usize) -> String {
    let dimensions = dimensions.iter().map(|(name, column)| {
        let value = text_at(column, row).map_or("NULL".to_owned(), |value| format!("`{value}`"));
        format!("{name} {value}")
    });
    let quantity = quantity.map(|quantity| format!("quantity {quantity}"));
    let parts: Vec<String> = dimensions.chain(quantity).collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" in the row of {}", parts.join(", ")),
    }
}

const NO_CUSTOMER: &str =
    "use an inner join with whatever names the customer, or filter such rows out";

const NO_AMOUNT: &str =
    "a rate or quantity is missing: add it, or write coalesce(..., 0) where nothing is due";

/// Refuses two columns of one name, which SQL allows when they come from different tables.
fn check_names(price: &PriceDefinition, schema: &Schema) -> Result<()> {
    let mut names = HashSet::new();
    let twice = schema
        .fields()
        .iter()
        .find(|field| !names.insert(field.name()));
    match twice {
        None => Ok(()),
        Some(field) => Err(refused(
            price,
            format!("it returns `{}` twice", field.name()),
            "give each column its own name with AS",
        )),
    }
}

fn dimensions(schema: &Schema) -> Vec<(String, usize)> {
    let names = schema.fields().iter().map(|field| field.name().clone());
    names
        .zip(0..)
        .filter(|(name, _)| !matches!(name.as_str(), "customer" | "quantity" | "amount"))
        .collect()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn check_exact(price: &PriceDefinition, name: &str, data_type: &DataType) -> Result<()> {
    // With a NULL, a row is refused when it is met, naming its customer.
    if is_exact(data_type) {
        return Ok(());
    }
    let hint = if data_type.is_floating() {
        "floats are not exact: CAST their sources to DECIMAL before calculating"
    } else {
        "return an integer or a DECIMAL of at most 38 digits"
    };
    Err(inexact_column(price, name, data_type, hint))
}

fn check_dimension(price: &PriceDefinition, name: &str, data_type: &DataType) -> Result<()> {
    let printable = data_type.is_temporal() || data_type == &DataType::Boolean;
    if printable || is_text(data_type) || is_exact(data_type) {
        return Ok(());
    }
    Err(refused(
        price,
        format!("the dimension `{name}` is {data_type}, which has no one text"),
        "CAST it to VARCHAR, or leave it out",
    ))
}

/// A column as text: numbers and decimals with all their digits, instants in RFC 3339.
fn text_column(price: &PriceDefinition, column: &ArrayRef) -> Result<StringArray> {
    let text = cast(column, &DataType::Utf8).map_err(|error| failed(price, error))?;
    Ok(text.as_string::<i32>().clone())
}

fn failed(price: &PriceDefinition, error: ArrowError) -> crate::Error {
    crate::Error::Price {
        price: price.name.clone(),
        at: price.at.clone(),
        source: Box::new(error.into()),
    }
}

fn text_at(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}
