//! Histories made up at random: usage that comes late, seats, subjects and prices that change for time that was billed, documents that are
//! taken back, and runs of the job in ranges of any size. In the end the documents of each month add up to one rating of what is true in
//! the end, which is worked out here in integers, and nothing is unissued.

use crate::books::Books;
use proptest::{prelude::*, test_runner::TestRunner};
use std::{collections::BTreeMap, fmt::Write, fs};
use tollgate::{billing, view::View};
use tollgate_sql::{accounts::AccountsFile, money::Exact};

/// Months from January 2026 on, each billed on the fifth of the next one.
const MONTHS: usize = 3;
const CUSTOMERS: [&str; 3] = ["acme", "bolt", "cove"];
/// Who pays for whom in the beginning; the last one may move.
const SUBJECTS: [(&str, &str); 4] = [
    ("a", "acme"),
    ("b", "bolt"),
    ("c", "cove"),
    ("moving", "acme"),
];

/// Something that happens before a run.
#[derive(Debug, Clone)]
enum Event {
    /// A subject uses something in a month: in time, or late.
    Use {
        subject: usize,
        month: usize,
        n: u64,
    },
    /// A customer has so many seats from a month on: known in time, or later.
    Seats {
        customer: usize,
        month: usize,
        seats: u64,
    },
    /// Who pays for the moving subject from a month on.
    Moves { month: usize, customer: usize },
    /// The first ten units cost so many tenths of a cent each, for all time.
    Price { mils: u64 },
    /// The last document of a customer is taken back, unless a later one stands upon it.
    Void { customer: usize },
    /// The job runs once more, and corrects everything.
    Correct,
}

/// What happens before each run, and how many bytes ranges take in it.
type History = Vec<(Vec<Event>, usize)>;

fn event(run: usize) -> impl Strategy<Value = Event> {
    // The month that is billed next runs when the job does.
    let month = 0..=(run + 1).min(MONTHS - 1);
    let customer = 0..CUSTOMERS.len();
    prop_oneof![
        6 => (0..SUBJECTS.len(), month.clone(), 1..40_u64)
            .prop_map(|(subject, month, n)| Event::Use { subject, month, n }),
        2 => (customer.clone(), month.clone(), 0..4_u64)
            .prop_map(|(customer, month, seats)| Event::Seats { customer, month, seats }),
        1 => (month, customer.clone()).prop_map(|(month, customer)| Event::Moves { month, customer }),
        1 => prop::sample::select(vec![500, 333, 45]).prop_map(|mils| Event::Price { mils }),
        1 => customer.prop_map(|customer| Event::Void { customer }),
        1 => Just(Event::Correct),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let runs: Vec<_> = (0..MONTHS)
        .map(|run| {
            let bytes_max = prop::sample::select(vec![1, 300_000, usize::MAX]);
            (prop::collection::vec(event(run), 1..7), bytes_max)
        })
        .collect();
    runs
}

/// What is true in the end.
#[derive(Debug, Clone)]
struct Truth {
    /// By subject and month.
    used: BTreeMap<(usize, usize), u64>,
    /// Of each customer, by month.
    seats: [BTreeMap<usize, u64>; 3],
    moves: BTreeMap<usize, usize>,
    mils: u64,
}

/// Half of a cent and more is a cent.
fn rounded(amount: u64, of: u64) -> u64 {
    (2 * amount + of) / (2 * of)
}

impl Truth {
    fn new() -> Self {
        Truth {
            used: BTreeMap::new(),
            seats: [const { BTreeMap::new() }; 3].map(|mut seats: BTreeMap<usize, u64>| {
                seats.insert(0, 1);
                seats
            }),
            moves: BTreeMap::new(),
            mils: 500,
        }
    }

    fn payer(&self, subject: usize, month: usize) -> usize {
        let moved = self.moves.range(..=month).next_back();
        match (subject, moved) {
            (3, Some((_, customer))) => *customer,
            (3, None) => 0,
            (own, _) => own,
        }
    }

    /// The usage and the base fee of a customer for a month, in cents.
    fn charges(&self, customer: usize, month: usize) -> (u64, u64) {
        let used = self.used.iter();
        let used = used
            .filter(|((subject, of), _)| *of == month && self.payer(*subject, month) == customer);
        let used: u64 = used.map(|(_, n)| n).sum();
        let usage = rounded(used.min(10) * self.mils + used.saturating_sub(10) * 125, 10);
        let (_, seats) = self.seats[customer].range(..=month).next_back().unwrap();
        (usage, if month < MONTHS { 999 * seats } else { 0 })
    }

    /// What a customer owes for a month, in cents.
    fn cents(&self, customer: usize, month: usize) -> u64 {
        let (usage, base) = self.charges(customer, month);
        match customer {
            // A tenth off, and 30.00 at least.
            0 => {
                let sum = usage + base;
                (sum - rounded(sum, 10)).max(3_000)
            }
            // The base fee is billed in advance: a document has the usage of a month and the fee of the next one, the first document a fee
            // alone. 7.5 % of each document is tax.
            1 => {
                let tax = |sum: u64| rounded(sum * 75, 1_000);
                let (_, next) = self.charges(customer, month + 1);
                let first = if month == 0 { tax(base) } else { 0 };
                base + usage + tax(usage + next) + first
            }
            // In instalments; not more than 25.00.
            _ => (usage + base).min(2_500),
        }
    }
}

fn definitions(mils: u64) -> String {
    format!(
        "CREATE EVENT TYPE used (n BIGINT NOT NULL) WITH (type = 'used');
         CREATE METER uses WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM used GROUP BY subject;
         CREATE RATE TABLE tax_rates (region VARCHAR PRIMARY KEY, rate_percent DECIMAL(9, 3) NOT NULL) WITH (location = 'tax_rates.csv');
         CREATE PRICE api WITH (currency = 'USD') AS
         SELECT customer, SUM(n) AS quantity, graduated(SUM(n), [{{up_to: 10, unit_amount: 0.{mils:03}}}, {{unit_amount: 0.125}}]) AS amount
         FROM uses GROUP BY customer;
         CREATE PRICE base WITH (currency = 'USD') AS
         SELECT customer, prorate(9.99 * seats, active_days, period_days) AS amount FROM subscription;
         CREATE PLAN acme WITH (currency = 'USD', billing_period = 'month', minimum = '30.00') AS (base, api);
         CREATE PLAN bolt WITH (currency = 'USD', billing_period = 'month', in_advance = 'base') AS (base, api);
         CREATE PLAN cove WITH (currency = 'USD', billing_period = 'month', progressive_billing = '3.00', maximum = '25.00') AS (base, api);"
    )
}

fn file(name: &str, text: String) -> AccountsFile {
    AccountsFile {
        name: format!("{name}.csv"),
        bytes: text.into_bytes(),
    }
}

/// The accounts that all histories begin with: subscriptions end with the last month.
fn accounts() -> Vec<AccountsFile> {
    let mut customers = "customer,currency,tax_region\n".to_owned();
    let mut subjects = "subject,customer\n".to_owned();
    let mut subscriptions = SUBSCRIPTIONS.to_owned();
    for (place, name) in CUSTOMERS.into_iter().enumerate() {
        let region = if name == "bolt" { "X" } else { "" };
        writeln!(customers, "{name},USD,{region}").unwrap();
        subscriptions += &subscribed(place, 0, 1);
    }
    for (subject, customer) in SUBJECTS {
        writeln!(subjects, "{subject},{customer}").unwrap();
    }
    let discounts = "discount,customer,kind,value\nd,acme,percent,10\n".to_owned();
    vec![
        file("customers", customers),
        file("subjects", subjects),
        file("subscriptions", subscriptions),
        file("discounts", discounts),
    ]
}

const SUBSCRIPTIONS: &str = "subscription,customer,plan,seats,starts_at,ends_at\n";

fn first_of(month: usize) -> String {
    format!("2026-{:02}-01", month + 1)
}

fn subscribed(customer: usize, month: usize, seats: u64) -> String {
    let (name, from, until) = (CUSTOMERS[customer], first_of(month), first_of(MONTHS));
    format!("s-{name},{name},{name},{seats},{from},{until}\n")
}

/// The fifth of the month after one, at noon.
fn run_at_us(month: usize) -> i64 {
    let at = format!("2026-{:02}-05T12:00:00Z", month + 2);
    at.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// A history on its way.
struct Going {
    books: Books,
    truth: Truth,
    events: u64,
}

impl Going {
    async fn new() -> Self {
        let books = Books::new();
        fs::write(books.path("definitions/all.sql"), definitions(500)).unwrap();
        let rates = "region,rate_percent\nX,7.5\n";
        fs::write(books.path("definitions/tax_rates.csv"), rates).unwrap();
        books
            .import(&accounts(), run_at_us(0) - 40 * 86_400_000_000)
            .await;
        Going {
            books,
            truth: Truth::new(),
            events: 0,
        }
    }

    async fn run(&mut self, run: usize, events: &[Event], bytes_max: usize) {
        let at_us = run_at_us(run);
        let mut arrived = Vec::new();
        for (place, event) in events.iter().enumerate() {
            // Later for each, so that they are in this order.
            let before_us = at_us - 1_000_000 * i64::try_from(events.len() - place).unwrap();
            match event {
                Event::Use { subject, month, n } => {
                    self.events += 1;
                    *self.truth.used.entry((*subject, *month)).or_default() += n;
                    arrived.push(format!(
                        r#"{{"specversion":"1.0","id":"{}","source":"test","type":"used","subject":"{}","time":"{}T10:00:00Z","data":{{"n":{n}}}}}"#,
                        self.events, SUBJECTS[*subject].0, first_of(*month)
                    ));
                }
                Event::Seats {
                    customer,
                    month,
                    seats,
                } => {
                    self.truth.seats[*customer].insert(*month, *seats);
                    let rows = SUBSCRIPTIONS.to_owned() + &subscribed(*customer, *month, *seats);
                    let file = file("subscriptions", rows);
                    self.books.import(&[file], before_us).await;
                }
                Event::Moves { month, customer } => {
                    self.truth.moves.insert(*month, *customer);
                    let (to, from) = (CUSTOMERS[*customer], first_of(*month));
                    let rows = format!("subject,customer,valid_from\nmoving,{to},{from}\n");
                    self.books
                        .import(&[file("subjects", rows)], before_us)
                        .await;
                }
                Event::Price { mils } => {
                    self.truth.mils = *mils;
                    let path = self.books.path("definitions/all.sql");
                    fs::write(path, definitions(*mils)).unwrap();
                }
                Event::Void { customer } => self.void(CUSTOMERS[*customer], before_us).await,
                Event::Correct => {}
            }
        }
        let arrived: Vec<&str> = arrived.iter().map(String::as_str).collect();
        let stored_us = at_us - 3_600_000_000;
        self.books.meter(&arrived, |_| stored_us, at_us).await;
        self.books.issue(at_us, false, bytes_max).await;
        if events.iter().any(|event| matches!(event, Event::Correct)) {
            self.books.issue(at_us, true, bytes_max).await;
        }
        // Whatever there was, a job finds nothing more to do at once.
        assert_eq!(self.books.issue(at_us, false, usize::MAX).await, []);
    }

    async fn void(&self, customer: &str, at_us: i64) {
        let last = format!(
            "SELECT number FROM invoices WHERE customer = '{customer}' AND voids IS NULL \
             AND number NOT IN (SELECT voids FROM invoices WHERE voids IS NOT NULL) ORDER BY serial DESC LIMIT 1"
        );
        if let Some(last) = self.books.rows(&last).await.first() {
            self.books.void(customer, &last[0], at_us).await;
        }
    }

    /// The sum of all documents by customer and month, in cents.
    async fn billed(&self) -> BTreeMap<(String, String), i64> {
        let sums = "SELECT customer, CAST(date_trunc('month', period_start) AS VARCHAR) AS month, \
                    CAST(SUM(amount - COALESCE(discount, 0) - COALESCE(promotional, 0)) AS VARCHAR) AS sum \
                    FROM line_items GROUP BY customer, date_trunc('month', period_start)";
        let rows = self.books.rows(sums).await.into_iter();
        rows.map(|row| {
            let cents = Exact::parse(&row[2]).unwrap().digits_at(2).unwrap();
            let month = row[1][..7].to_owned();
            ((row[0].clone(), month), i64::try_from(cents).unwrap())
        })
        .filter(|(_, cents)| *cents != 0)
        .collect()
    }

    /// Nothing is left when everything is corrected, and each month is one rating of what is true.
    async fn check(&self) {
        let at_us = run_at_us(MONTHS - 1);
        let corrected = self.books.issue(at_us, true, 300_000).await;
        assert_eq!(self.books.issue(at_us, true, usize::MAX).await, []);
        let mut expected = BTreeMap::new();
        for (customer, name) in CUSTOMERS.into_iter().enumerate() {
            for month in 0..MONTHS {
                let cents = i64::try_from(self.truth.cents(customer, month)).unwrap();
                if cents != 0 {
                    let month = first_of(month)[..7].to_owned();
                    expected.insert((name.to_owned(), month), cents);
                }
            }
        }
        let billed = self.billed().await;
        assert_eq!(billed, expected, "corrected last: {corrected:#?}");
        let lake = self.books.lake().await;
        let view = View::open(self.books.catalog().await, &lake).await.unwrap();
        let settings = &self.books.settings.billing;
        let unissued = billing::unissued(&view, &lake, settings, at_us).await;
        assert_eq!(unissued.unwrap().num_rows(), 0);
        self.check_numbers().await;
    }

    async fn check_numbers(&self) {
        let numbers = "SELECT number FROM invoices ORDER BY serial";
        let (mut invoices, mut credit_notes) = (0, 0);
        for row in self.books.rows(numbers).await {
            let expected = match row[0].starts_with("CN-") {
                true => {
                    credit_notes += 1;
                    format!("CN-{credit_notes:06}")
                }
                false => {
                    invoices += 1;
                    format!("INV-{invoices:06}")
                }
            };
            assert_eq!(row[0], expected);
        }
    }
}

async fn hold(history: History) {
    let mut going = Going::new().await;
    for (run, (events, bytes_max)) in history.iter().enumerate() {
        going.run(run, events, *bytes_max).await;
    }
    going.check().await;
}

/// `TOLLGATE_HISTORIES` says how many there are.
#[test]
fn over_any_history_documents_add_up_to_one_rating_of_what_is_true_in_the_end() {
    let cases = std::env::var("TOLLGATE_HISTORIES").map_or(6, |cases| cases.parse().unwrap());
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&history(), |history| {
        runtime.block_on(Box::pin(hold(history)));
        Ok(())
    });
    ran.unwrap();
}
