//! What statements mean together: names, versions, and everything one definition says of another.

use super::{CurrencyDefinition, Definitions, EventType, MeterDefinition, RateTable, replace};
use crate::{
    error::{Error, Location, Result},
    parser::{Defines, Name, ParsedMeter, ParsedPlan, ParsedPrice, Statement, did_you_mean, list},
    schema,
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Relations that are there without being defined.
const BUILT_IN_RELATIONS: &[&str] = &[
    "accounts",
    "conflicts",
    "credit_ledger",
    "customers",
    "discounts",
    "events",
    "grants",
    "information_schema",
    "invoices",
    "line_items",
    "meters",
    "one_offs",
    SUBSCRIPTION,
    "subjects",
    "subscriptions",
    "unbilled",
    "unissued",
];

/// The folder of a Delta table's log: tools would take the folder around a meter of this name for a table.
const LOG: &str = "_delta_log";

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

/// All statements, sorted by what they define, replaced ones left out. Every version of a meter and of a
/// price stays.
#[derive(Default)]
struct Whole {
    event_types: Vec<EventType>,
    meters: Vec<ParsedMeter>,
    rate_tables: Vec<RateTable>,
    prices: Vec<ParsedPrice>,
    plans: Vec<ParsedPlan>,
    currencies: Vec<CurrencyDefinition>,
}

impl Whole {
    fn add(&mut self, statement: Statement) -> Result<()> {
        let or_replace = statement.or_replace;
        match statement.defines {
            Defines::EventType(new) => self.define_event_type(new, or_replace),
            Defines::Meter(new) => self.define_meter(new, or_replace),
            Defines::RateTable(new) => define(&mut self.rate_tables, new, or_replace),
            Defines::Plan(new) => define(&mut self.plans, new, or_replace),
            Defines::Currency(new) => define(&mut self.currencies, new, or_replace),
            Defines::Price(new) => self.define_price(new, or_replace),
        }
    }

    /// Stored events are read by the last definition, so that must fit them.
    fn define_event_type(&mut self, new: EventType, or_replace: bool) -> Result<()> {
        let before = self.event_types.iter().find(|known| known.name == new.name);
        if let Some(before) = before.filter(|_| or_replace) {
            replace::check(before, &new)?;
        }
        define(&mut self.event_types, new, or_replace)
    }

    /// A later version of a meter takes the earlier ones with it, because old windows keep theirs.
    fn define_meter(&mut self, mut new: ParsedMeter, or_replace: bool) -> Result<()> {
        let same_name = |known: &&mut ParsedMeter| known.name() == new.name();
        let Some(known) = self.meters.iter_mut().find(same_name) else {
            self.meters.push(new);
            return Ok(());
        };
        let before = &known.definition;
        if !or_replace {
            return Err(defined_twice(known, &new));
        }
        // `None` means always, and sorts before every instant.
        if new.definition.effective_from_us <= before.effective_from_us {
            let since = [&new.definition, before].map(|version| {
                let from = version.effective_from_us.map(Timestamp::from_microsecond);
                from.map(|from| from.unwrap_or_default().to_string())
            });
            let effective_at = new.definition.option_at("effective_from");
            return Err(not_later(&new, effective_at, known.at(), since));
        }
        check_same_windows(before, &new)?;
        new.definition.version = before.version + 1;
        let mut before = std::mem::replace(known, new).definition;
        let mut earlier = std::mem::take(&mut before.earlier);
        earlier.push(before);
        known.definition.earlier = earlier;
        Ok(())
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
                let since = [&new, before].map(|version| {
                    let from = version.definition.effective_from;
                    from.map(|date| date.to_string())
                });
                return Err(not_later(&new, &new.effective_at, before.at(), since));
            }
            new.definition.version = before.definition.version + 1;
        }
        self.prices.push(new);
        Ok(())
    }

    /// Event types, meters, their windows and panes, and rate tables share one name space with what is
    /// built in.
    fn check_relation_names(&self) -> Result<()> {
        let mut taken: BTreeMap<String, (String, &Location)> = BTreeMap::new();
        for (name, title, at) in self.relations() {
            if name == LOG {
                let problem = format!("{title}: it is the name of a Delta table's log");
                let hint = "choose another name: tools would take the folder around it for a table";
                return Err(error(at, problem, hint.to_owned()));
            }
            if BUILT_IN_RELATIONS.contains(&name.as_str()) {
                let hint = format!(
                    "choose another name; built in are {}",
                    list(BUILT_IN_RELATIONS)
                );
                return Err(error(at, format!("{title}: the name is built in"), hint));
            }
            if let Some((other, other_at)) = taken.get(&name) {
                let problem = format!("{title}: the name is taken by {other} at {other_at}");
                let hint = "event types, meters, `<meter>_windows`, `<meter>_panes` and rate tables need names of their own";
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
        let parts = self.meters.iter().flat_map(|meter| {
            ["windows", "panes"].map(|part| {
                let name = format!("{}_{part}", meter.name());
                (name, format!("the {part} of {}", title(meter)), meter.at())
            })
        });
        types
            .chain(meters)
            .chain(rate_tables)
            .chain(parts)
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
        known.extend(self.event_types.iter().map(|table| table.name.clone()));
        known.push(SUBSCRIPTION.to_owned());
        for price in &self.prices {
            self.check_customer_of_events(price)?;
            self.check_currency(title(price), &price.definition.currency, &price.currency_at)?;
            let mut read = price.relations.iter();
            if let Some(unknown) = read.find(|name| !known.contains(&name.text)) {
                let problem = format!("{}: there is no relation `{}`", title(price), unknown.text);
                let hint = did_you_mean(&unknown.text, "in a price", &known);
                return Err(error(&unknown.at, problem, hint));
            }
        }
        Ok(())
    }

    /// A price sees who pays for an event in a column that the event type may not have itself.
    fn check_customer_of_events(&self, price: &ParsedPrice) -> Result<()> {
        for read in &price.relations {
            let of_name = self
                .event_types
                .iter()
                .find(|known| known.name == read.text);
            let has_customer = |event_type: &&EventType| {
                let mut columns = event_type.columns.iter();
                columns.any(|column| column.name == schema::CUSTOMER)
            };
            if let Some(event_type) = of_name.filter(has_customer) {
                let problem = format!(
                    "{}: {} has a column `customer`, which in a price says who pays",
                    title(price),
                    title(event_type)
                );
                let hint = "declare the column under another name: payer VARCHAR OPTIONS (path = '$.customer')";
                return Err(error(&read.at, problem, hint.to_owned()));
            }
        }
        Ok(())
    }

    fn check_plans(&self) -> Result<()> {
        for plan in &self.plans {
            for worth in &plan.definition.worth {
                self.check_currency(title(plan), &worth.currency, &worth.at)?;
            }
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
        let has_no_worth = |price: &&ParsedPrice| {
            plan.definition
                .worth_of(&price.definition.currency)
                .is_none()
        };
        match versions().find(has_no_worth) {
            None => Ok(()),
            Some(price) if self.is_own(&price.definition.currency) => {
                let own = &price.definition.currency;
                let problem = format!(
                    "{}: {} is in {own}, and the plan does not say what one is worth",
                    title(plan),
                    title(price)
                );
                let hint = format!(
                    "add it to the plan: WITH (currency = '{currency}', worth = '1 {own} = 0.01 {currency}')"
                );
                Err(error(&name.at, problem, hint))
            }
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

    fn is_own(&self, currency: &str) -> bool {
        self.currencies.iter().any(|known| known.name == currency)
    }

    /// Refuses a currency that is neither of ISO 4217, which the parser has seen to, nor defined.
    fn check_currency(&self, of: String, currency: &str, at: &Location) -> Result<()> {
        if self.is_own(currency) || iso_currency::Currency::from_code(currency).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.currencies.iter().map(Named::name).collect();
        let hint = format!(
            "{}; write one of ISO 4217 as 'USD', or CREATE CURRENCY {currency} WITH (digits = 2)",
            did_you_mean(currency, "currencies", &known)
        );
        Err(error(
            at,
            format!("{of}: there is no currency `{currency}`"),
            hint,
        ))
    }

    fn finish(self) -> Definitions {
        Definitions {
            currencies: self.currencies,
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

/// Adds a definition, or puts it in the place of the one it replaces.
fn define<T: Named>(known: &mut Vec<T>, new: T, or_replace: bool) -> Result<()> {
    match known.iter_mut().find(|known| known.name() == new.name()) {
        None => known.push(new),
        Some(before) if or_replace => {
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

/// `since` says from when the new version and the one before it are effective.
fn not_later<T: Named>(
    new: &T,
    effective_at: &Location,
    before_at: &Location,
    since: [Option<String>; 2],
) -> Error {
    let [ours, theirs] = since.map(|from| match from {
        Some(from) => format!("'{from}'"),
        None => "always".to_owned(),
    });
    let problem = format!(
        "{}: effective from {ours}, but the version before it, at {before_at}, from {theirs}",
        title(new),
    );
    let hint = "give the later version a later effective_from: old periods keep their version";
    error(effective_at, problem, hint.to_owned())
}

/// Refuses a version whose windows could not stand beside those of the one before.
fn check_same_windows(before: &MeterDefinition, new: &ParsedMeter) -> Result<()> {
    let after = &new.definition;
    let (changed, at) = if before.event_type != after.event_type {
        ("another event type", &new.from_at)
    } else if before.window_us != after.window_us || before.frame != after.frame {
        ("other windows", &after.at)
    } else if before.lateness_us != after.lateness_us {
        ("another lateness", &after.at)
    } else if before.late != after.late {
        ("another `late`", &after.at)
    } else if before.carry_over != after.carry_over {
        ("another carry_over", &after.at)
    } else {
        return Ok(());
    };
    let problem = format!(
        "{}: it has {changed} than the version before it, at {}",
        title(new),
        before.at
    );
    let hint = "a version may change what is filtered and aggregated; for anything else create a \
                meter under another name";
    Err(error(at, problem, hint.to_owned()))
}

/// What every definition has.
trait Named {
    const NOUN: &'static str;
    fn name(&self) -> &str;
    fn at(&self) -> &Location;
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

impl Named for CurrencyDefinition {
    const NOUN: &'static str = "currency";
    fn name(&self) -> &str {
        &self.name
    }
    fn at(&self) -> &Location {
        &self.at
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
