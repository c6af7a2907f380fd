//! What statements mean together: names, versions, and everything one definition says of another.

use super::{Definitions, EventType, PriceDefinition, RateTable};
use crate::{
    error::{Error, Location, Result},
    parser::{Defines, Name, ParsedMeter, ParsedPlan, ParsedPrice, Statement, did_you_mean, list},
    schema,
};
use std::collections::BTreeMap;

/// Relations that are there without being defined.
const BUILT_IN_RELATIONS: &[&str] = &[
    "accounts",
    "customers",
    "discounts",
    "events",
    "grants",
    "information_schema",
    "invoices",
    "line_items",
    "meters",
    SUBSCRIPTION,
    "subjects",
    "subscriptions",
];

/// The built-in relation that prices read.
const SUBSCRIPTION: &str = "subscription";

/// Puts statements together, in order, and checks the whole.
///
/// # Errors
/// The first problem, with its place and a hint.
pub(super) fn assemble(statements: Vec<Statement>) -> Result<Definitions> {
    let mut whole = Whole::default();
    for statement in statements {
        whole.add(statement)?;
    }
    whole.check_relation_names()?;
    whole.check_event_types()?;
    whole.check_meters()?;
    whole.check_prices()?;
    whole.check_plans()?;
    Ok(whole.finish())
}

/// All statements, sorted by what they define, replaced ones left out. Every version of a price stays.
#[derive(Default)]
struct Whole {
    event_types: Vec<EventType>,
    meters: Vec<ParsedMeter>,
    rate_tables: Vec<RateTable>,
    prices: Vec<ParsedPrice>,
    plans: Vec<ParsedPlan>,
}

impl Whole {
    fn add(&mut self, statement: Statement) -> Result<()> {
        let or_replace = statement.or_replace;
        match statement.defines {
            Defines::EventType(new) => define(&mut self.event_types, new, or_replace),
            Defines::Meter(new) => define(&mut self.meters, new, or_replace),
            Defines::RateTable(new) => define(&mut self.rate_tables, new, or_replace),
            Defines::Plan(new) => define(&mut self.plans, new, or_replace),
            Defines::Price(new) => self.define_price(new, or_replace),
        }
    }

    /// A later version of a price stands beside the earlier ones, because old periods keep theirs.
    fn define_price(&mut self, mut new: ParsedPrice, or_replace: bool) -> Result<()> {
        let same_name = |known: &&ParsedPrice| known.name() == new.name();
        if let Some(before) = self.prices.iter().rfind(same_name) {
            if !or_replace {
                return Err(defined_twice(before, &new));
            }
            // `None` means always, and sorts before every date.
            if new.definition.effective_from <= before.definition.effective_from {
                return Err(not_later(&before.definition, &new));
            }
            new.definition.version = before.definition.version + 1;
        }
        self.prices.push(new);
        Ok(())
    }

    /// Event types, meters, the windows of meters, and rate tables share one name space with what is
    /// built in.
    fn check_relation_names(&self) -> Result<()> {
        let mut taken: BTreeMap<String, (String, &Location)> = BTreeMap::new();
        for (name, title, at) in self.relations() {
            if BUILT_IN_RELATIONS.contains(&name.as_str()) {
                let hint = format!(
                    "choose another name; built in are {}",
                    list(BUILT_IN_RELATIONS)
                );
                return Err(error(at, format!("{title}: the name is built in"), hint));
            }
            if let Some((other, other_at)) = taken.get(&name) {
                let problem = format!("{title}: the name is taken by {other} at {other_at}");
                let hint = "event types, meters, `<meter>_windows` and rate tables need names of their own";
                return Err(error(at, problem, hint.to_owned()));
            }
            taken.insert(name, (title, at));
        }
        Ok(())
    }

    /// Every relation that is defined: its name, how to speak of it, and where it is.
    fn relations(&self) -> Vec<(String, String, &Location)> {
        let types = self.event_types.iter().map(own_relation);
        let meters = self.meters.iter().map(own_relation);
        let rate_tables = self.rate_tables.iter().map(own_relation);
        let windows = self.meters.iter().map(|meter| {
            let title = format!("the windows of {}", title(meter));
            (windows_of(meter), title, meter.at())
        });
        types
            .chain(meters)
            .chain(rate_tables)
            .chain(windows)
            .collect()
    }

    fn check_event_types(&self) -> Result<()> {
        let head = schema::usage_events(&[]);
        let mut by_type: BTreeMap<&str, &EventType> = BTreeMap::new();
        for new in &self.event_types {
            if head.column_with_name(&new.name).is_some() {
                let problem = format!("{}: `events` has a column of that name", title(new));
                let hint = "choose another name: each event type becomes a column of `events`";
                return Err(error(&new.at, problem, hint.to_owned()));
            }
            if let Some(other) = by_type.insert(&new.cloud_event_type, new) {
                let problem = format!(
                    "{}: type '{}' is already {} at {}",
                    title(new),
                    new.cloud_event_type,
                    title(other),
                    other.at
                );
                let hint = "declare all columns of a type in one place".to_owned();
                return Err(error(&new.at, problem, hint));
            }
        }
        Ok(())
    }

    fn check_meters(&self) -> Result<()> {
        let known: Vec<_> = self.event_types.iter().map(Named::name).collect();
        for meter in &self.meters {
            let wanted = meter.definition.event_type.as_str();
            if !known.contains(&wanted) {
                let problem = format!("{}: `{wanted}` is not an event type", title(meter));
                let hint = did_you_mean(wanted, "event types", &known);
                return Err(error(&meter.from_at, problem, hint));
            }
        }
        Ok(())
    }

    fn check_prices(&self) -> Result<()> {
        let mut known: Vec<String> = self.meters.iter().map(|m| m.name().to_owned()).collect();
        known.extend(self.meters.iter().map(windows_of));
        known.extend(self.rate_tables.iter().map(|table| table.name.clone()));
        known.push(SUBSCRIPTION.to_owned());
        for price in &self.prices {
            let mut read = price.relations.iter();
            if let Some(unknown) = read.find(|name| !known.contains(&name.text)) {
                let problem = format!("{}: there is no relation `{}`", title(price), unknown.text);
                let hint = did_you_mean(&unknown.text, "in a price", &known);
                return Err(error(&unknown.at, problem, hint));
            }
        }
        Ok(())
    }

    fn check_plans(&self) -> Result<()> {
        for plan in &self.plans {
            for price in &plan.prices {
                self.check_price_of(plan, price)?;
            }
        }
        Ok(())
    }

    /// A plan's price exists, and every version of it is in the plan's currency.
    fn check_price_of(&self, plan: &ParsedPlan, name: &Name) -> Result<()> {
        let versions = || self.prices.iter().filter(|price| price.name() == name.text);
        if versions().next().is_none() {
            let known: Vec<_> = self
                .prices
                .iter()
                .filter(|p| p.definition.version == 1)
                .map(Named::name)
                .collect();
            let problem = format!("{}: there is no price `{}`", title(plan), name.text);
            return Err(error(
                &name.at,
                problem,
                did_you_mean(&name.text, "prices", &known),
            ));
        }
        let currency = &plan.definition.currency;
        match versions().find(|price| price.definition.currency != *currency) {
            None => Ok(()),
            Some(price) => {
                let problem = format!(
                    "{}: {} is in {}, the plan in {currency}",
                    title(plan),
                    title(price),
                    price.definition.currency
                );
                let hint = format!("give both one currency; the price is at {}", price.at());
                Err(error(&name.at, problem, hint))
            }
        }
    }

    fn finish(self) -> Definitions {
        Definitions {
            event_types: self.event_types,
            meters: self
                .meters
                .into_iter()
                .map(|meter| meter.definition)
                .collect(),
            rate_tables: self.rate_tables,
            prices: self
                .prices
                .into_iter()
                .map(|price| price.definition)
                .collect(),
            plans: self.plans.into_iter().map(|plan| plan.definition).collect(),
        }
    }
}

/// Adds a definition, or puts it in the place of the one it replaces, as its next version.
fn define<T: Named>(known: &mut Vec<T>, mut new: T, or_replace: bool) -> Result<()> {
    match known.iter_mut().find(|known| known.name() == new.name()) {
        None => known.push(new),
        Some(before) if or_replace => {
            new.follow(before);
            *before = new;
        }
        Some(before) => return Err(defined_twice(before, &new)),
    }
    Ok(())
}

fn defined_twice<T: Named>(before: &T, new: &T) -> Error {
    let problem = format!("{} is already defined at {}", title(new), before.at());
    let create = T::NOUN.to_uppercase();
    let hint =
        format!("rename one of them, or write CREATE OR REPLACE {create} for a later version");
    error(new.at(), problem, hint)
}

fn not_later(before: &PriceDefinition, new: &ParsedPrice) -> Error {
    let since = |from: Option<jiff::civil::Date>| match from {
        Some(date) => format!("'{date}'"),
        None => "always".to_owned(),
    };
    let problem = format!(
        "{}: effective from {}, but the version before it, at {}, from {}",
        title(new),
        since(new.definition.effective_from),
        before.at,
        since(before.effective_from),
    );
    let hint = "give the later version a later effective_from: old periods keep their version";
    error(&new.effective_at, problem, hint.to_owned())
}

/// What every definition has.
trait Named {
    const NOUN: &'static str;
    fn name(&self) -> &str;
    fn at(&self) -> &Location;
    /// Takes the version after `before`'s, where versions are counted.
    fn follow(&mut self, before: &Self) {
        let _ = before;
    }
}

impl Named for EventType {
    const NOUN: &'static str = "event type";
    fn name(&self) -> &str {
        &self.name
    }
    fn at(&self) -> &Location {
        &self.at
    }
}

impl Named for ParsedMeter {
    const NOUN: &'static str = "meter";
    fn name(&self) -> &str {
        &self.definition.name
    }
    fn at(&self) -> &Location {
        &self.definition.at
    }
    fn follow(&mut self, before: &Self) {
        self.definition.version = before.definition.version + 1;
    }
}

impl Named for RateTable {
    const NOUN: &'static str = "rate table";
    fn name(&self) -> &str {
        &self.name
    }
    fn at(&self) -> &Location {
        &self.at
    }
}

impl Named for ParsedPrice {
    const NOUN: &'static str = "price";
    fn name(&self) -> &str {
        &self.definition.name
    }
    fn at(&self) -> &Location {
        &self.definition.at
    }
}

impl Named for ParsedPlan {
    const NOUN: &'static str = "plan";
    fn name(&self) -> &str {
        &self.definition.name
    }
    fn at(&self) -> &Location {
        &self.definition.at
    }
}

/// ``meter `tokens` ``.
fn title<T: Named>(definition: &T) -> String {
    format!("{} `{}`", T::NOUN, definition.name())
}

fn own_relation<T: Named>(definition: &T) -> (String, String, &Location) {
    let name = definition.name().to_owned();
    (name, title(definition), definition.at())
}

fn windows_of(meter: &ParsedMeter) -> String {
    format!("{}_windows", meter.name())
}

fn error(at: &Location, problem: String, hint: String) -> Error {
    Error::Definition {
        at: at.clone(),
        problem,
        hint,
    }
}
