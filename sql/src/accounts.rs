//! Who pays, for whom, on which plan, since when: rows that each say what holds from a time on, and are never changed.
//!
//! Of two rows with one key and time, the one that was written later stands: rows of each list are in the order in which they
//! were written. A grant, a one-off and a discount have no time in their key: the last row of each stands.
//!
//! [`Accounts::indexed`] makes the [`Index`] that says what the newest row says at an instant: [`Index::customer_at`],
//! [`Index::payer_at`] and [`Index::payers_of`], [`Index::subscription`] and [`Index::subscriptions_of`],
//! [`Index::grants_of`], [`Index::one_offs_of`], [`Index::discounts_of`].

mod check;
pub(crate) mod files;
mod import;
mod index;
mod problem;
mod stored;
pub(crate) mod table;

pub use check::problems;
pub use files::{AccountsFile, TABLES, csv_of, instant_in};
pub use import::{Import, import};
pub use index::{Index, Payer};
pub use problem::{Problem, Problems};
pub use stored::{rows_of, stored_rows_of};

/// Does something with the type `$R` of a table's rows, by the table's name; `None` when there is no such table.
macro_rules! with_table {
    ($name:expr, $R:ident => $body:expr) => {{
        macro_rules! of {
            ($row:ident) => {{
                type $R = $crate::accounts::$row;
                Some($body)
            }};
        }
        match $name {
            "customers" => of!(Customer),
            "subjects" => of!(Subject),
            "subscriptions" => of!(Subscription),
            "grants" => of!(Grant),
            "one_offs" => of!(OneOff),
            "discounts" => of!(Discount),
            _ => None,
        }
    }};
}
pub(crate) use with_table;

use crate::money::Exact;

/// All account rows, each list in the order in which its rows were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Who pays.
    pub customers: Vec<Customer>,
    /// Who pays for whom.
    pub subjects: Vec<Subject>,
    /// On which plan, with which terms.
    pub subscriptions: Vec<Subscription>,
    /// Credits.
    pub grants: Vec<Grant>,
    /// What is billed once.
    pub one_offs: Vec<OneOff>,
    /// What is taken off.
    pub discounts: Vec<Discount>,
    /// The number of the last import whose rows these are; 0 without any.
    pub serial: i64,
}

/// A row of `customers`: what holds of one customer from `valid_from_us` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// Who it is: the key.
    pub customer: String,
    /// The name on documents.
    pub name: Option<String>,
    /// Where documents go.
    pub email: Option<String>,
    /// ISO 4217 code; `None` is that of the plan.
    pub currency: Option<String>,
    /// IANA name; `None` is `billing.time_zone`.
    pub time_zone: Option<String>,
    /// The region whose tax rates apply; `None` is without tax.
    pub tax_region: Option<String>,
    /// Whether no tax is charged whatever the region.
    pub tax_exempt: bool,
    /// From when on, in microseconds since the Unix epoch; `None` is since ever.
    pub valid_from_us: Option<i64>,
}

/// A row of `subjects`: the customer who pays for a subject's usage from `valid_from_us` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Who uses: the key.
    pub subject: String,
    /// Who pays.
    pub customer: String,
    /// From when on, in microseconds since the Unix epoch; `None` is since ever.
    pub valid_from_us: Option<i64>,
}

/// A row of `subscriptions`: the plan and terms of a subscription from `starts_at_us` on, until its next row or `ends_at_us`.
/// A row stands by itself: nothing of the row before is kept but the running anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The key.
    pub subscription: String,
    /// Who pays.
    pub customer: String,
    /// The plan's name.
    pub plan: String,
    /// How many seats; 1 unless said otherwise.
    pub seats: i64,
    /// From when on, in microseconds since the Unix epoch.
    pub starts_at_us: i64,
    /// The first instant after it, in microseconds; `None` until further notice.
    pub ends_at_us: Option<i64>,
    /// The first instant that is not in the trial, in microseconds; `None` without one.
    pub trial_ends_at_us: Option<i64>,
    /// What billing periods of a plan with `anchor = 'subscription'` are counted from, in microseconds; `None` is the anchor that runs, or the start.
    pub anchor_us: Option<i64>,
    /// Instead of the plan's minimum.
    pub minimum: Option<Exact>,
    /// Instead of the plan's maximum.
    pub maximum: Option<Exact>,
}

/// What a grant is paid with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GrantKind {
    /// The customer paid for it: it pays what is due after taxes.
    #[default]
    Prepaid,
    /// It was given: it lowers what is taxed.
    Promotional,
}

/// A row of `grants`: credit of one customer. A later row with the same grant replaces it, such as one that is voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The key.
    pub grant: String,
    /// Whose.
    pub customer: String,
    /// How much, above zero.
    pub amount: Exact,
    /// ISO 4217 code.
    pub currency: String,
    /// Lower burns first; 0 unless said otherwise.
    pub priority: i64,
    /// From when on, in microseconds since the Unix epoch.
    pub effective_at_us: i64,
    /// The first instant at which it is gone, in microseconds; `None` never.
    pub expires_at_us: Option<i64>,
    /// Names of the prices that it pays; empty for all.
    pub applies_to: Vec<String>,
    /// What it was paid with.
    pub kind: GrantKind,
    /// How often it is granted anew, such as `month` or `2 weeks`; `None` is once.
    pub recurs_every: Option<String>,
    /// The least that a recurrence carries over, even when less is left; 0 unless said otherwise.
    pub rollover_min: Exact,
    /// The most that a recurrence carries over; 0 unless said otherwise.
    pub rollover_max: Exact,
    /// From when on nothing of it may be used, in microseconds; `None` never.
    pub voided_at_us: Option<i64>,
}

/// A row of `one_offs`: an amount that is billed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOff {
    /// The key.
    pub one_off: String,
    /// Who pays.
    pub customer: String,
    /// How much; a negative amount is given back.
    pub amount: Exact,
    /// ISO 4217 code.
    pub currency: String,
    /// What the line says.
    pub text: String,
    /// When, in microseconds since the Unix epoch: it is on the document of the billing period that this instant lies in.
    pub date_us: i64,
}

/// How much a discount takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountKind {
    /// Per cent of what is left, 0 to 100.
    Percent,
    /// An amount, down to zero.
    Fixed,
}

/// A row of `discounts`. A later row with the same discount replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discount {
    /// The key.
    pub discount: String,
    /// Whose.
    pub customer: String,
    /// Per cent or an amount.
    pub kind: DiscountKind,
    /// How much of it.
    pub value: Exact,
    /// ISO 4217 code of a fixed one; `None` of one in per cent.
    pub currency: Option<String>,
    /// From when on, in microseconds since the Unix epoch; `None` is since ever.
    pub starts_at_us: Option<i64>,
    /// The first instant after it; `None` until further notice.
    pub ends_at_us: Option<i64>,
    /// Names of the prices whose lines it lowers; empty for all.
    pub applies_to: Vec<String>,
    /// Lower is taken off first; of two with one position, the one whose name sorts first.
    pub position: i64,
}
