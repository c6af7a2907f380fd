//! What statements mean together: names, versions, and everything one definition says of another.

use super::{
    CurrencyDefinition, Definitions, EventType, MeterDefinition, RateTable,
    checked::{BrokenNames, Checked},
    replace,
};
use crate::{
    error::{Error, Location, Result},
    parser::{
        Broken, Defines, Name, ParsedMeter, ParsedPlan, ParsedPrice, Statement, did_you_mean, list,
        nearest,
    },
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
pub(super) fn assemble(statements: Vec<Result<Statement, Broken>>) -> Checked {
    let mut whole = Whole::default();
    for statement in statements {
        match statement {
            Ok(statement) => whole.add(statement),
            Err(Broken { name, error }) => whole.faults.of(name, error),
        }
    }
    whole.check_relation_names();
    whole.check_event_types();
    whole.check_meters();
    whole.check_prices();
    whole.check_plans();
    whole.finish()
}

/// What is wrong, and with which names, so that what needs one of them is not said to be wrong too.
#[derive(Debug, Default)]
struct Faults {
    errors: Vec<Error>,
    names: BrokenNames,
}

impl Faults {
    fn of(&mut self, name: Option<String>, error: Error) {
        self.names.add(name);
        self.errors.push(error);
    }

    /// Notes what a check of a definition has found.
    fn note(&mut self, name: &str, checked: Result<(), Fault>) {
        match checked {
            Ok(()) => {}
            Err(Fault::Own(error)) => self.of(Some(name.to_owned()), error),
            Err(Fault::Needs) => self.names.add(Some(name.to_owned())),
        }
    }
}

/// Why a definition cannot be used.
enum Fault {
    /// It is wrong itself.
    Own(Error),
    /// It needs another one that is wrong.
    Needs,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Own(error)
    }
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
    faults: Faults,
}

impl Whole {
    fn add(&mut self, statement: Statement) {
        let or_replace = statement.or_replace;
        let (name, added) = match statement.defines {
            Defines::EventType(new) => (new.name.clone(), self.define_event_type(new, or_replace)),
            Defines::Meter(new) => (new.name().to_owned(), self.define_meter(new, or_replace)),
            Defines::RateTable(new) => (
                new.name.clone(),
                define(&mut self.rate_tables, new, or_replace),
            ),
            Defines::Plan(new) => (
                new.name().to_owned(),
                define(&mut self.plans, new, or_replace),
            ),
            Defines::Currency(new) => (
                new.name.clone(),
                define(&mut self.currencies, new, or_replace),
            ),
            Defines::Price(new) => (new.name().to_owned(), self.define_price(new, or_replace)),
        };
        if let Err(error) = added {
            self.faults.of(Some(name), error);
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
    fn check_relation_names(&mut self) {
        let mut taken: BTreeMap<String, (String, Location)> = BTreeMap::new();
        for Relation {
            name,
            of,
            title,
            at,
        } in self.relations()
        {
            let problem_and_hint = if name == LOG {
                Some((
                    format!("{title}: it is the name of a Delta table's log"),
                    "choose another name: tools would take the folder around it for a table"
                        .to_owned(),
                ))
            } else if BUILT_IN_RELATIONS.contains(&name.as_str()) {
                let built_in = list(BUILT_IN_RELATIONS);
                Some((
                    format!("{title}: the name is built in"),
                    format!("choose another name; built in are {built_in}"),
                ))
            } else {
                taken.get(&name).map(|(other, other_at)| {
                    (
                        format!("{title}: the name is taken by {other} at {other_at}"),
                        "event types, meters, `<meter>_windows`, `<meter>_panes` and rate tables need names of their own".to_owned(),
                    )
                })
            };
            match problem_and_hint {
                Some((problem, hint)) => self.faults.of(Some(of), error(&at, problem, hint)),
                None => {
                    taken.insert(name, (title, at));
                }
            }
        }
    }

    /// Every relation that is defined.
    fn relations(&self) -> Vec<Relation> {
        let types = self.event_types.iter().map(own_relation);
        let meters = self.meters.iter().map(own_relation);
        let rate_tables = self.rate_tables.iter().map(own_relation);
        let parts = self.meters.iter().flat_map(|meter| {
            ["windows", "panes"].map(|part| Relation {
                name: format!("{}_{part}", meter.name()),
                of: meter.name().to_owned(),
                title: format!("the {part} of {}", title(meter)),
                at: meter.at().clone(),
            })
        });
        types
            .chain(meters)
            .chain(rate_tables)
            .chain(parts)
            .collect()
    }

    fn check_event_types(&mut self) {
        let head = schema::usage_events(&[]);
        let mut by_type: BTreeMap<&str, &EventType> = BTreeMap::new();
        for new in &self.event_types {
            if head.column_with_name(&new.name).is_some() {
                let problem = format!("{}: `events` has a column of that name", title(new));
                let hint = "choose another name: each event type becomes a column of `events`";
                let error = error(&new.at, problem, hint.to_owned());
                self.faults.of(Some(new.name.clone()), error);
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
                let error = error(&new.at, problem, hint);
                self.faults.of(Some(new.name.clone()), error);
            }
        }
    }

    fn check_meters(&mut self) {
        let known: Vec<(&str, &str)> = self
            .event_types
            .iter()
            .map(|known| (known.name.as_str(), known.cloud_event_type.as_str()))
            .collect();
        for meter in &self.meters {
            let wanted = meter.definition.event_type.as_str();
            let is_known = known.iter().any(|(name, _)| *name == wanted);
            let checked = match self.faults.names.is_good(wanted, is_known) {
                Some(true) => Ok(()),
                None => Err(Fault::Needs),
                Some(false) => {
                    let problem = format!("{}: `{wanted}` is not an event type", title(meter));
                    let hint = event_type_meant(wanted, &known);
                    Err(error(&meter.from_at, problem, hint).into())
                }
            };
            self.faults.note(meter.name(), checked);
        }
    }

    fn check_prices(&mut self) {
        let mut known: Vec<String> = self.meters.iter().map(|m| m.name().to_owned()).collect();
        known.extend(self.meters.iter().map(windows_of));
        known.extend(self.rate_tables.iter().map(|table| table.name.clone()));
        known.extend(self.event_types.iter().map(|table| table.name.clone()));
        known.push(SUBSCRIPTION.to_owned());
        for price in &self.prices {
            let checked = self.check_price(price, &known);
            self.faults.note(price.name(), checked);
        }
    }

    fn check_price(&self, price: &ParsedPrice, known: &[String]) -> Result<(), Fault> {
        self.check_customer_of_events(price)?;
        self.check_currency(title(price), &price.definition.currency, &price.currency_at)?;
        let mut needs_broken = false;
        for read in &price.relations {
            let is_known = known.contains(&read.text);
            let meter = read.text.strip_suffix("_windows").unwrap_or_default();
            match self.faults.names.is_good(&read.text, is_known) {
                Some(true) => needs_broken |= self.faults.names.has(meter),
                Some(false) if self.faults.names.has(meter) => needs_broken = true,
                None => needs_broken = true,
                Some(false) => {
                    let problem = format!("{}: there is no relation `{}`", title(price), read.text);
                    let hint = did_you_mean(&read.text, "in a price", known);
                    return Err(error(&read.at, problem, hint).into());
                }
            }
        }
        match needs_broken {
            true => Err(Fault::Needs),
            false => Ok(()),
        }
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

    fn check_plans(&mut self) {
        for plan in &self.plans {
            let checked = self.check_plan(plan);
            self.faults.note(plan.name(), checked);
        }
    }

    fn check_plan(&self, plan: &ParsedPlan) -> Result<(), Fault> {
        for worth in &plan.definition.worth {
            self.check_currency(title(plan), &worth.currency, &worth.at)?;
        }
        let mut needs_broken = false;
        for price in &plan.prices {
            let is_known = self.prices.iter().any(|known| known.name() == price.text);
            match self.faults.names.is_good(&price.text, is_known) {
                None => needs_broken = true,
                Some(_) => self.check_price_of(plan, price)?,
            }
        }
        match needs_broken {
            true => Err(Fault::Needs),
            false => Ok(()),
        }
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
    fn check_currency(&self, of: String, currency: &str, at: &Location) -> Result<(), Fault> {
        if iso_currency::Currency::from_code(currency).is_some() {
            return Ok(());
        }
        match self.faults.names.is_good(currency, self.is_own(currency)) {
            Some(true) => return Ok(()),
            None => return Err(Fault::Needs),
            Some(false) => {}
        }
        let known: Vec<&str> = self.currencies.iter().map(Named::name).collect();
        let hint = format!(
            "{}; write one of ISO 4217 as 'USD', or CREATE CURRENCY {currency} WITH (digits = 2)",
            did_you_mean(currency, "currencies", &known)
        );
        let problem = format!("{of}: there is no currency `{currency}`");
        Err(error(at, problem, hint).into())
    }

    fn finish(self) -> Checked {
        let definitions = Definitions {
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
        };
        let Faults { mut errors, names } = self.faults;
        errors.sort_by_key(|error| error.place().cloned());
        let mut checked = Checked {
            definitions,
            errors,
            broken: names,
        };
        checked.leave_out_broken();
        checked
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

/// A relation that is defined.
struct Relation {
    name: String,
    /// The definition that it belongs to.
    of: String,
    /// How to speak of it.
    title: String,
    at: Location,
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

fn own_relation<T: Named>(definition: &T) -> Relation {
    Relation {
        name: definition.name().to_owned(),
        of: definition.name().to_owned(),
        title: title(definition),
        at: definition.at().clone(),
    }
}

/// The event type that could have been meant: by its name, or by the `type` of its events.
fn event_type_meant(wanted: &str, known: &[(&str, &str)]) -> String {
    let (names, types): (Vec<&str>, Vec<String>) = known
        .iter()
        .map(|(name, of)| (*name, of.replace('.', "_")))
        .unzip();
    let by_name = nearest(wanted, &names);
    let by_type = nearest(wanted, &types).filter(|_| by_name.is_none());
    let by_type = by_type.and_then(|near| known.get(types.iter().position(|of| of == near)?));
    match by_type {
        Some((name, of)) => format!(
            "did you mean `{name}`, whose events have the type `{of}`? known event types: {}",
            list(&names)
        ),
        None => did_you_mean(wanted, "event types", &names),
    }
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
