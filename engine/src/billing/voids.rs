//! Voids: documents that take issued ones back, after which their time is unissued.
//!
//! An issued document never changes, so a void is a document of its own, and both stay. A job leaves out the pair: what it bills, corrects
//! and compares is what stands. Burns are no pair: what goes back to a grant depends on when.

use super::{
    burnt::Burnt,
    credits::check_burns,
    documents::{lines_in, of_customers, rows_where},
    issued::is_correction_of,
    kept::Inputs,
    numbering::Numbering,
    standing::{standing, voids},
};
use crate::{
    clock::Clock,
    customers::Customers,
    error::{Error, Result, printable},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion::prelude::{col, lit};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{Grant, Index},
    invoice::{
        self, Invoice,
        basis::Basis,
        tables::line_items_of,
        void::{Voided, void},
    },
};

/// Issues the document that takes an issued one back whole, and returns it. `accounts` are those of all customers, or of the document's.
///
/// # Errors
/// There is no such document, it is a void, it was voided before, or a later document says what it lacks or bills its rest; another
/// job issued at the same time; the lake cannot be written. Running it again is safe after any of them.
pub async fn issue_void(
    lake: &Lake,
    accounts: &Index,
    number: &str,
    (clock, by): (&dyn Clock, Option<&str>),
) -> Result<Invoice> {
    let now_us = clock.now_us();
    let mut numbering = Numbering::begin(lake, now_us).await?;
    let named = rows_where(numbering.issued(), col("number").eq(lit(number))).await?;
    let named = named.iter().find(|rows| rows.num_rows() > 0);
    let named = named.ok_or_else(|| Error::Billing {
        problem: format!("there is no document `{}`", printable(number)),
        hint: "`tollgate query \"SELECT number, customer, total FROM invoices\"` lists them".into(),
    })?;
    let customer = named["customer"].as_string::<i32>().value(0).to_owned();
    let rows = rows_where(
        numbering.issued(),
        of_customers(&Customers::One(customer.clone())),
    )
    .await?;
    check_may_be_void(&rows, named, number)?;
    let own = std::slice::from_ref(named);
    let lines = line_items_of(&lines_in(own)?)?;
    let (own, burnt) = (Burnt::in_rows(own)?, Burnt::in_rows(&rows)?);
    let text = |name: &str| named[name].as_string::<i32>().value(0);
    let instant = |name: &str| {
        let instants = named[name].as_primitive::<TimestampMicrosecondType>();
        instants.value(0)
    };
    let voided = Voided {
        number,
        customer: &customer,
        plan: text("plan"),
        currency: text("currency"),
        period: invoice::Period {
            start_us: instant("period_start"),
            end_us: instant("period_end"),
        },
        lines: &lines,
        burns: own.of_customer(&customer),
    };
    let grants: Vec<&Grant> = accounts.grants_of(&customer).collect();
    let burnt = burnt.of_customer(&customer);
    let mut made = void(&voided, (&grants, burnt), (now_us, text("cut")))?;
    check_burns(&grants, burnt, &made.burns)?;
    made.issued_by = by.map(str::to_owned);
    let mut made = [made];
    let basis = Basis {
        accounts: Some(accounts.serial()),
        ..Basis::default()
    };
    numbering.add(&mut made, vec![basis.to_json()]).await?;
    numbering.commit(lake, &Inputs::default()).await?;
    let [made] = made;
    Ok(made)
}

/// Whether a document may be taken back: what later ones say of it would be said of nothing.
fn check_may_be_void(rows: &[RecordBatch], named: &RecordBatch, number: &str) -> Result<()> {
    let refused = |problem: String, hint: String| Err(Error::Billing { problem, hint });
    if let Some(of) = voids(named, 0) {
        return refused(
            format!("{number} is itself a void, of {of}"),
            "issue its period again with `tollgate invoice --due --finalize`".into(),
        );
    }
    for rows in rows {
        if let Some(row) = (0..rows.num_rows()).find(|row| voids(rows, *row) == Some(number)) {
            let by = rows["number"].as_string::<i32>().value(row);
            return refused(
                format!("{number} was voided before, by {by}"),
                "issue its period again with `tollgate invoice --due --finalize`".into(),
            );
        }
    }
    let serial = |rows: &RecordBatch, row: usize| {
        let serials = rows["serial"].as_primitive::<Int64Type>();
        serials.value(row)
    };
    let mut later = Vec::new();
    for rows in &standing(rows.to_vec())? {
        for row in (0..rows.num_rows()).filter(|row| serial(rows, *row) > serial(named, 0)) {
            if is_upon(&rows.slice(row, 1), number)? {
                later.push(rows["number"].as_string::<i32>().value(row).to_owned());
            }
        }
    }
    match later.last() {
        None => Ok(()),
        Some(last) => refused(
            format!(
                "{number} cannot be void: {} bills what it lacked, or its rest",
                later.join(", ")
            ),
            format!("void {last} first, then what is before it"),
        ),
    }
}

/// Whether a document corrects another, or bills the rest of its period.
fn is_upon(row: &RecordBatch, number: &str) -> Result<bool> {
    let bases = row["basis"].as_string::<i32>();
    let basis = bases.is_valid(0).then(|| Basis::from_json(bases.value(0)));
    let basis = basis.flatten();
    if basis.is_some_and(|basis| basis.begun.iter().any(|begun| begun == number)) {
        return Ok(true);
    }
    let lines = line_items_of(&lines_in(std::slice::from_ref(row))?)?;
    Ok(lines.iter().any(|line| is_correction_of(line, number)))
}
