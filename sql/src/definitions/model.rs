//! What the statements of a definitions folder say, as plain structs: what the parser makes and everything else reads.

use super::json_path;
use crate::{definitions::json_path::Step, error::Location, money::Exact};
use arrow::datatypes::DataType;
use std::collections::BTreeMap;

/// One file of a definitions folder, read by the caller.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The name to show in errors.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// All definitions of one folder. Order within each list is the order of definition.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// What arrives.
    pub event_types: Vec<EventType>,
    /// What is measured.
    pub meters: Vec<MeterDefinition>,
    /// Reference data that prices join with.
    pub rate_tables: Vec<RateTable>,
    /// What it costs.
    pub prices: Vec<PriceDefinition>,
    /// Which prices a customer has.
    pub plans: Vec<PlanDefinition>,
    /// What prices may be in beside the currencies of ISO 4217.
    pub currencies: Vec<CurrencyDefinition>,
}

/// `CREATE CURRENCY`: a currency of one's own, such as credits. Prices may be in it; a plan says what one is worth.
#[derive(Debug, Clone)]
pub struct CurrencyDefinition {
    /// The SQL name, in lower case, so that it is none of ISO 4217.
    pub name: String,
    /// How many digits after the point people see of an amount in it: 0 to [`CURRENCY_DIGITS_MAX`]. Nothing is rounded to them on
    /// an invoice.
    pub digits: u8,
    /// Where it is defined.
    pub at: Location,
}

/// The most digits after the point that a currency of one's own has.
pub const CURRENCY_DIGITS_MAX: u8 = 18;

/// What one unit of a currency of one's own is worth in a plan's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worth {
    /// The currency.
    pub currency: String,
    /// How much of the plan's currency one is; above zero.
    pub amount: Exact,
    /// Where it is written.
    pub at: Location,
}

/// One CloudEvents `type` and the typed columns read from its `data`.
#[derive(Debug, Clone)]
pub struct EventType {
    /// The SQL name, which is also the struct column's name in `events`.
    pub name: String,
    /// The CloudEvents `type` attribute.
    pub cloud_event_type: String,
    /// Columns in order of declaration.
    pub columns: Vec<Column>,
    /// What must not be false for an event to count, in order of declaration.
    pub checks: Vec<Check>,
    /// Columns of which it is not clear what they read.
    pub unclear: Vec<UnclearPath>,
    /// Where it is defined.
    pub at: Location,
}

/// A column that is written with capitals and has no path. SQL folds its name, JSON does not: it reads the
/// key in lower case, while its author may have meant the key as it is written.
#[derive(Debug, Clone)]
pub struct UnclearPath {
    /// The column's name.
    pub column: String,
    /// The name as it is written.
    pub written: String,
    /// Where it is written.
    pub at: Location,
}

/// `[CONSTRAINT name] CHECK (expression)`, parsed; [`crate::event_checks::EventChecks`] is the same,
/// planned.
#[derive(Debug, Clone)]
pub struct Check {
    /// The name, if it has one.
    pub name: Option<String>,
    /// The expression, as SQL.
    pub expression: String,
    /// Where the expression starts.
    pub at: Location,
}

/// One declared column of an event type or rate table.
#[derive(Debug, Clone)]
pub struct Column {
    /// The SQL name.
    pub name: String,
    /// Utf8, Boolean, Int64, Decimal128, Timestamp(Microsecond, UTC), Date32, or a List of one of them.
    pub data_type: DataType,
    /// False for `NOT NULL`.
    pub nullable: bool,
    /// Steps from the top of `data` to the value: `$.billing.cost` is the keys `billing` and `cost`. The
    /// default is the column's own name.
    pub path: Vec<Step>,
    /// JSON text of the value that stands for one that is missing.
    pub default: Option<String>,
    /// Whether a number may come in quotes.
    pub strings: bool,
}

impl Column {
    /// Where the value is, as a definition writes it: `$.billing.cost`.
    pub fn path_text(&self) -> String {
        json_path::text(&self.path)
    }
}

/// What a row of a meter is, made of its base windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Frame {
    /// One base window.
    #[default]
    Tumbling,
    /// A window that begins with each base window and is longer than it.
    Hopping {
        /// How long it is in microseconds; a multiple of the base window.
        size_us: i64,
    },
    /// The events of one subject and dimensions that follow one another closely: from the first of them to
    /// the gap's length after the last.
    Session {
        /// The next session begins with an event that comes so much later, in microseconds.
        gap_us: i64,
    },
}

/// What becomes of an event that comes when its window is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LatePolicy {
    /// It counts in its own window, as a correction.
    #[default]
    Correct,
    /// It counts when it was stored: in the billing period that was on then.
    NextPeriod,
    /// It is measured and kept, but counts nowhere.
    Quarantine,
}

impl LatePolicy {
    /// Every policy, in the order of their numbers.
    pub const ALL: [LatePolicy; 3] = [
        LatePolicy::Correct,
        LatePolicy::NextPeriod,
        LatePolicy::Quarantine,
    ];

    /// As it is written in a definition and on a pane.
    pub fn as_str(self) -> &'static str {
        match self {
            LatePolicy::Correct => "correct",
            LatePolicy::NextPeriod => "next_period",
            LatePolicy::Quarantine => "quarantine",
        }
    }

    /// The number that stands for it in a mark, which is stored: 0, 1 or 2.
    pub fn number(self) -> i64 {
        match self {
            LatePolicy::Correct => 0,
            LatePolicy::NextPeriod => 1,
            LatePolicy::Quarantine => 2,
        }
    }
}

/// `CREATE METER`, parsed; [`crate::meter::Meter`] is the same, planned.
///
/// This is the newest version. A version measures the windows that start from its `effective_from_us` on,
/// until the next one does.
#[derive(Debug, Clone)]
pub struct MeterDefinition {
    /// The SQL name, which is also the table's: `meters/<name>`.
    pub name: String,
    /// Width of the base window in microseconds; divides a day.
    pub window_us: i64,
    /// What is made of base windows.
    pub frame: Frame,
    /// How long after its end a window waits, in microseconds.
    pub lateness_us: i64,
    /// What becomes of later events.
    pub late: LatePolicy,
    /// Whether a period's totals are over all usage up to its end, not only over its own.
    pub carry_over: bool,
    /// What one unit is called, for documents.
    pub unit: Option<String>,
    /// The event type in FROM.
    pub event_type: String,
    /// The aggregate query, as SQL.
    pub query: String,
    /// Where the query starts.
    pub query_at: Location,
    /// Where the value of each option is that is given.
    pub options_at: BTreeMap<String, Location>,
    /// 1 for the first `CREATE`.
    pub version: u32,
    /// The start of the first window that this version measures, in microseconds; `None` means always.
    pub effective_from_us: Option<i64>,
    /// The versions before it, oldest first, each without versions of its own.
    pub earlier: Vec<MeterDefinition>,
    /// Where it is defined.
    pub at: Location,
}

impl MeterDefinition {
    /// Where the value of an option is, or else where the meter is.
    pub(crate) fn option_at(&self, option: &str) -> &Location {
        self.options_at.get(option).unwrap_or(&self.at)
    }
}

/// `CREATE RATE TABLE`.
#[derive(Debug, Clone)]
pub struct RateTable {
    /// The SQL name.
    pub name: String,
    /// Columns in order of declaration; the file may have more, which are not read.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in order; none without one. No two rows have the same values in them, at one time
    /// where there is a period.
    pub key: Vec<String>,
    /// The columns that say when a row applies, if the key has a period.
    pub period: Option<Validity>,
    /// The file: a path relative to the definitions folder, or a URL in object storage.
    pub location: String,
    /// Where the location is written.
    pub location_at: Location,
    /// Where it is defined.
    pub at: Location,
}

/// The columns of a rate table that say when a row applies: from the first on, and no more at the second. Both are DATE or
/// both TIMESTAMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Has the first day or instant; never NULL.
    pub from: String,
    /// Has the first day or instant after it; NULL until further notice.
    pub to: String,
}

/// What becomes of a billing period in which a version of a price begins to apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It is rated by the version of its first day; the new one applies from the next period on.
    #[default]
    NextPeriod,
    /// Each side of the change is rated by its own version.
    Split,
}

impl OnChange {
    /// Both, as they are written.
    pub const ALL: [(&'static str, OnChange); 2] = [
        ("next_period", OnChange::NextPeriod),
        ("split", OnChange::Split),
    ];
}

/// `CREATE PRICE`.
#[derive(Debug, Clone)]
pub struct PriceDefinition {
    /// The SQL name.
    pub name: String,
    /// ISO 4217 code, upper case, or the name of a currency of one's own.
    pub currency: String,
    /// First day it applies, in the billing time zone; `None` means always.
    pub effective_from: Option<jiff::civil::Date>,
    /// What becomes of a billing period in which it begins to apply.
    pub on_change: OnChange,
    /// The query, as SQL.
    pub query: String,
    /// Where the query begins.
    pub query_at: Location,
    /// 1 for the first `CREATE`.
    pub version: u32,
    /// Where it is defined.
    pub at: Location,
}

/// How long a billing period is, by the calendar of the customer's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BillingPeriod {
    /// So many days, at least one: a week is 7.
    Days(i32),
    /// So many months, at least one: a quarter is 3, a year 12.
    Months(i32),
}

impl Default for BillingPeriod {
    fn default() -> Self {
        BillingPeriod::Months(1)
    }
}

/// What billing periods are counted from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anchor {
    /// The calendar: months begin on their 1st, weeks on Monday.
    #[default]
    Calendar,
    /// The anchor of the subscription, which is its start unless said otherwise.
    Subscription,
}

impl Anchor {
    /// Both, as they are written.
    pub const ALL: [(&'static str, Anchor); 2] = [
        ("calendar", Anchor::Calendar),
        ("subscription", Anchor::Subscription),
    ];
}

/// In which order discounts are taken off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiscountOrder {
    /// By their position.
    #[default]
    Listed,
    /// Those in per cent before the fixed ones, each by position.
    PercentFirst,
}

impl DiscountOrder {
    /// Both, as they are written.
    pub const ALL: [(&'static str, DiscountOrder); 2] = [
        ("listed", DiscountOrder::Listed),
        ("percent_first", DiscountOrder::PercentFirst),
    ];
}

/// What a minimum is prorated on when a subscription is not active all the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MinimumProration {
    /// The minimum itself.
    #[default]
    Minimum,
    /// The minimum less the whole fixed fee, against usage alone.
    MinimumLessFees,
}

impl MinimumProration {
    /// Both, as they are written.
    pub const ALL: [(&'static str, MinimumProration); 2] = [
        ("minimum", MinimumProration::Minimum),
        ("minimum_less_fees", MinimumProration::MinimumLessFees),
    ];
}

/// Whether prices have the tax in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaxMode {
    /// Tax comes on top.
    #[default]
    Excluded,
    /// Tax is a part of each amount.
    Included,
}

impl TaxMode {
    /// Both, as they are written.
    pub const ALL: [(&'static str, TaxMode); 2] = [
        ("excluded", TaxMode::Excluded),
        ("included", TaxMode::Included),
    ];
}

/// What usage in a trial costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrialUsage {
    /// Nothing: tiers begin at the end of the trial.
    #[default]
    Free,
    /// What it costs without a trial.
    Billed,
}

impl TrialUsage {
    /// Both, as they are written.
    pub const ALL: [(&'static str, TrialUsage); 2] =
        [("free", TrialUsage::Free), ("billed", TrialUsage::Billed)];
}

/// When and how what a plan's prices come to is billed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanTerms {
    /// How long a billing period is.
    pub billing_period: BillingPeriod,
    /// What it is counted from.
    pub anchor: Anchor,
    /// Names of the prices that are billed when the period that they are for begins.
    pub in_advance: Vec<String>,
    /// What a whole period costs at least, not below zero, in the plan's currency and its minor unit.
    pub minimum: Option<Exact>,
    /// What a whole period costs at most, not below zero nor the minimum, in the same.
    pub maximum: Option<Exact>,
    /// In which order discounts are taken off.
    pub discount_order: DiscountOrder,
    /// Whether the minimum tops up what lines come to before discounts.
    pub minimum_before_discounts: bool,
    /// What the minimum is prorated on.
    pub minimum_proration: MinimumProration,
    /// Whether prices have the tax in them.
    pub tax: TaxMode,
    /// What usage in a trial costs.
    pub trial_usage: TrialUsage,
    /// How long after the end of its period an invoice is issued, in microseconds.
    pub issue_after_us: i64,
    /// How much of a running period may be unbilled until an invoice of it is issued, each amount above zero: the first for the first
    /// invoice of a period, and so on; the last for all after it. Without any, a period is billed when it is over.
    pub progressive_billing: Vec<Exact>,
}

/// `CREATE PLAN`: prices that are billed together.
#[derive(Debug, Clone)]
pub struct PlanDefinition {
    /// The SQL name.
    pub name: String,
    /// ISO 4217 code, upper case; every price of the plan has the same, or one that has a worth in it.
    pub currency: String,
    /// What currencies of one's own are worth in it.
    pub worth: Vec<Worth>,
    /// Names of prices, in the order their lines are printed.
    pub prices: Vec<String>,
    /// When and how they are billed.
    pub terms: PlanTerms,
    /// Where it is defined.
    pub at: Location,
}

impl PlanDefinition {
    /// How much of the plan's currency one unit of a currency is: 1 of its own, `None` where the plan does not say.
    pub fn worth_of(&self, currency: &str) -> Option<Exact> {
        if currency == self.currency {
            return Some(Exact::from(1_i64));
        }
        let worth = self.worth.iter().find(|worth| worth.currency == currency);
        worth.map(|worth| worth.amount)
    }
}
