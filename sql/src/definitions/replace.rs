//! Whether an event type may be replaced: what is stored under the old definition must read as the new.

use super::{Column, EventType};
use crate::{
    error::{Error, Location, Result},
    schema::type_name,
};

/// # Errors
/// The first thing that stored events could not follow, at the new definition, with a way out.
pub(super) fn check(before: &EventType, new: &EventType) -> Result<()> {
    let refuse = |(problem, hint): (String, String)| Error::Definition {
        at: new.at.clone(),
        problem: format!("event type `{}`: {problem}", new.name),
        hint,
    };
    if before.cloud_event_type != new.cloud_event_type {
        return Err(refuse(other_type(before, new)));
    }
    for old in &before.columns {
        check_kept(old, new, &before.at).map_err(refuse)?;
    }
    let is_new = |column: &&Column| !before.columns.iter().any(|old| old.name == column.name);
    let mut added = new.columns.iter().filter(is_new);
    match added.find(|column| !column.nullable && column.default.is_none()) {
        None => Ok(()),
        Some(column) => Err(refuse(unfilled(column))),
    }
}

type Refusal = (String, String);

fn other_type(before: &EventType, new: &EventType) -> Refusal {
    let problem = format!(
        "type '{}' was '{}' at {}",
        new.cloud_event_type, before.cloud_event_type, before.at
    );
    let hint = "define another event type for it: stored events keep the type they came with";
    (problem, hint.to_owned())
}

fn check_kept(old: &Column, new: &EventType, at: &Location) -> Result<(), Refusal> {
    let name = &old.name;
    let Some(now) = new.columns.iter().find(|column| column.name == *name) else {
        let problem = format!("column `{name}`, declared at {at}, is gone");
        let hint = "keep it: stored events have it. It may become nullable, and is NULL where it is not sent";
        return Err((problem, hint.to_owned()));
    };
    if now.data_type != old.data_type {
        let (was, is) = (type_name(&old.data_type), type_name(&now.data_type));
        let problem = format!("column `{name}` is {is}, but {was} at {at}");
        let hint = format!(
            "keep {was} and add a column of another name that reads the same field: {name}_2 {is} OPTIONS (path = '{}')",
            path_of(old)
        );
        return Err((problem, hint));
    }
    if old.nullable && !now.nullable {
        let problem = format!("column `{name}` is NOT NULL, but may be NULL at {at}");
        let hint = format!(
            "write CHECK ({name} IS NOT NULL): it concerns events from now on, and stored ones may be NULL"
        );
        return Err((problem, hint));
    }
    if !now.nullable && old.default.is_some() && now.default.is_none() {
        let problem = format!("column `{name}` is NOT NULL without the DEFAULT it has at {at}");
        let hint = "keep the DEFAULT, or leave NOT NULL out: events stored before the column was added have NULL there";
        return Err((problem, hint.to_owned()));
    }
    Ok(())
}

fn unfilled(column: &Column) -> Refusal {
    let problem = format!("the new column `{}` is NOT NULL", column.name);
    let hint = "leave NOT NULL out or give it a DEFAULT: publishers that do not send it yet would be refused, and stored events have NULL there";
    (problem, hint.to_owned())
}

/// A column's path as a text of SQL has it.
fn path_of(column: &Column) -> String {
    column.path_text().replace('\'', "''")
}
