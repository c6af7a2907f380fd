//! Who issues documents, and whether: on a terminal a person is told what it will be, and asked.

use super::output;
use crate::{
    billing::Before,
    error::{Error, Result, printable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead, IsTerminal},
};
use tollgate_sql::{
    invoice::Invoice,
    money::{Exact, Money},
};

/// How many of the changes against the period before are told for a currency.
const CHANGES_MAX: usize = 5;

/// Whether to ask before anything is issued: on a terminal, unless yes was said before.
pub(super) fn asks(has_said_yes: bool) -> bool {
    !has_said_yes && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Prints a text and a question; whether the answer is yes.
///
/// # Errors
/// The terminal cannot be written or read.
pub(super) fn confirmed(text: &str, question: &str) -> Result<bool> {
    output::print(&format!("{text}{question} [y/N]\n"))?;
    let said = is_yes(&mut io::stdin().lock()).map_err(|source| Error::File {
        file: "stdin".into(),
        doing: "reading the answer",
        source,
    })?;
    if !said {
        output::print("nothing was issued\n")?;
    }
    Ok(said)
}

fn is_yes(input: &mut impl BufRead) -> io::Result<bool> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let answer = line.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// What will be issued: how many documents and customers, the total of each currency, and its largest changes against the period
/// before.
#[derive(Default)]
pub(super) struct Announcement {
    documents: usize,
    customers: usize,
    by_currency: BTreeMap<String, OfCurrency>,
}

/// Of one currency, the total and the largest changes.
struct OfCurrency {
    total: Money,
    largest: Vec<Change>,
}

impl Announcement {
    /// Adds drafts, and what their customers were billed before: all that there is of these customers.
    ///
    /// # Errors
    /// A sum has more than 38 digits.
    pub(super) fn add(&mut self, drafts: &[&Invoice], before: &Before) -> Result<()> {
        let customers = drafts.iter().map(|draft| draft.customer.as_str());
        self.documents += drafts.len();
        self.customers += customers.collect::<BTreeSet<_>>().len();
        let mut by_currency: BTreeMap<&str, Vec<&Invoice>> = BTreeMap::new();
        for draft in drafts {
            let of_currency = by_currency.entry(draft.total.currency().code());
            of_currency.or_default().push(draft);
        }
        for (code, drafts) in by_currency {
            let total = sum(drafts.iter().map(|draft| draft.total))?;
            let zero = Money::zero(total.currency());
            let known = self.by_currency.entry(code.to_owned());
            let known = known.or_insert_with(|| OfCurrency {
                total: zero,
                largest: Vec::new(),
            });
            known.total = sum([known.total, total].into_iter())?;
            known.largest.extend(changes(&drafts, before)?);
            known.largest.sort_by(|one, other| {
                (other.difference, &one.customer).cmp(&(one.difference, &other.customer))
            });
            known.largest.truncate(CHANGES_MAX);
        }
        Ok(())
    }

    /// Whether nothing will be issued.
    pub(super) fn is_empty(&self) -> bool {
        self.documents == 0
    }

    /// All of it, for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "will be issued: {} of {}\n",
            count(self.documents, "document"),
            count(self.customers, "customer"),
        );
        for (code, of_currency) in &self.by_currency {
            let _ = writeln!(text, "  {} {code} in all", of_currency.total.amount_text());
            for change in &of_currency.largest {
                let _ = writeln!(
                    text,
                    "  {:<32} {:>14} after {:>14} in the period before",
                    printable(&change.customer),
                    change.now.amount_text(),
                    change.before.amount_text(),
                );
            }
        }
        text
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What one customer pays, and paid for the period before.
struct Change {
    customer: String,
    now: Money,
    before: Money,
    /// How far it is from the period before, in either direction.
    difference: Exact,
}

/// What customers pay of one currency who paid another amount for the period before.
fn changes(drafts: &[&Invoice], before: &Before) -> Result<Vec<Change>> {
    let mut of_period: BTreeMap<(&str, i64), Vec<Money>> = BTreeMap::new();
    for draft in drafts {
        let key = (draft.customer.as_str(), draft.period.start_us);
        of_period.entry(key).or_default().push(draft.total);
    }
    let mut changes = Vec::new();
    for ((customer, start_us), totals) in of_period {
        let now = sum(totals.into_iter())?;
        let code = now.currency().code().to_owned();
        let key = (customer.to_owned(), start_us, code);
        let before = before.get(&key).copied();
        let before = before.unwrap_or(Money::zero(now.currency()));
        let difference = distance(now, before)?;
        if !difference.is_zero() {
            changes.push(Change {
                customer: customer.to_owned(),
                now,
                before,
                difference,
            });
        }
    }
    Ok(changes)
}

/// How far two amounts are from one another.
fn distance(one: Money, other: Money) -> Result<Exact> {
    let difference = one.checked_sub(other);
    let difference = difference.map_err(tollgate_sql::Error::from)?.to_exact();
    let negated = Exact::ZERO.checked_sub(difference);
    Ok(difference.max(negated.map_err(tollgate_sql::Error::from)?))
}

/// The sum of amounts of one currency, at least one.
fn sum(mut amounts: impl Iterator<Item = Money>) -> Result<Money> {
    let first = amounts.next().ok_or(Error::Contradiction {
        what: "amounts that are added up are some",
    })?;
    let sum = amounts.try_fold(first, |sum, amount| sum.checked_add(amount));
    Ok(sum.map_err(tollgate_sql::Error::from)?)
}

/// Who issues: a name that was given, else the user of the process; `None` when the system does not say.
pub(super) fn issuer(given: Option<&str>) -> Option<String> {
    given.map(str::to_owned).or_else(user)
}

/// The user of the process, by the system rather than by variables where it says so.
fn user() -> Option<String> {
    let named = |name: &str| env::var(name).ok().filter(|name| !name.is_empty());
    of_process()
        .or_else(|| named("USER"))
        .or_else(|| named("USERNAME"))
}

#[cfg(target_os = "linux")]
fn of_process() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let id = fs::metadata("/proc/self").ok()?.uid();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    Some(name_of(&users, id).unwrap_or_else(|| format!("uid {id}")))
}

#[cfg(not(target_os = "linux"))]
fn of_process() -> Option<String> {
    None
}

/// The name of a user in the lines of `/etc/passwd`.
fn name_of(users: &str, id: u32) -> Option<String> {
    let users = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut named =
        users.filter(|fields| fields.get(2).is_some_and(|found| found.parse() == Ok(id)));
    let name = named.next()?.first()?.to_string();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_by_the_id() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:\nbroken\n:x:7:7::/:\n";
        let names = [0, 1000, 7, 5].map(|id| name_of(users, id));
        let expected = [Some("root".to_owned()), Some("ann".to_owned()), None, None];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_name_that_is_given_is_who_issues() {
        assert_eq!(issuer(Some("billing-job")), Some("billing-job".to_owned()));
    }

    #[test]
    fn yes_is_said_in_a_word_and_silence_is_no() {
        for (text, expected) in [
            ("y\n", true),
            (" Yes \n", true),
            ("\n", false),
            ("", false),
            ("yesterday\n", false),
            ("n\ny\n", false),
        ] {
            assert_eq!(is_yes(&mut text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }

    /// A document of a customer for the time from 10 on.
    fn draft(customer: &str, minor: i128, code: &str) -> Invoice {
        let currency = tollgate_sql::money::Currency::parse(code).unwrap();
        let period = tollgate_sql::invoice::Period {
            start_us: 10,
            end_us: 20,
        };
        let total = Money::of_minor(minor, currency);
        let zero = Money::zero(currency);
        Invoice {
            id: tollgate_sql::invoice::InvoiceId::of_document(customer, 20),
            number: None,
            customer: customer.into(),
            plan: "p".into(),
            period,
            status: tollgate_sql::invoice::Status::Draft,
            issued_at_us: None,
            issued_by: None,
            voids: None,
            cut: "{}".into(),
            lines: Vec::new(),
            discount: zero,
            promotional: zero,
            tax: zero,
            total,
            credits: zero,
            amount_due: total,
            burns: Vec::new(),
        }
    }

    #[test]
    fn what_will_be_issued_is_told_by_currency_with_its_largest_changes() {
        let drafts = [
            draft("acme", 34_000, "USD"),
            draft("bolt", 5_000, "USD"),
            draft("cove", 1_000, "USD"),
            draft("dune", 700, "EUR"),
        ];
        let drafts: Vec<&Invoice> = drafts.iter().collect();
        let before = [
            ("acme", 10_000, 10),
            ("bolt", 80_000, 10),
            ("cove", 1_000, 10),
            ("dune", 700, 9),
        ];
        let before = before.map(|(customer, minor, end_us)| {
            let code = if customer == "dune" { "EUR" } else { "USD" };
            let currency = tollgate_sql::money::Currency::parse(code).unwrap();
            (
                (customer.to_owned(), end_us, code.to_owned()),
                Money::of_minor(minor, currency),
            )
        });
        let before = Before::from(before);
        let text = |parts: &[&[&Invoice]]| {
            let mut announcement = Announcement::default();
            for part in parts {
                announcement.add(part, &before).unwrap();
            }
            announcement.text()
        };
        // The document of `dune` that ended earlier is not of the period before; `cove` pays what it paid.
        let expected = "will be issued: 4 documents of 4 customers\n  \
            7.00 EUR in all\n  \
            dune                                       7.00 after           0.00 in the period before\n  \
            400.00 USD in all\n  \
            bolt                                      50.00 after         800.00 in the period before\n  \
            acme                                     340.00 after         100.00 in the period before\n";
        assert_eq!(text(&[&drafts]), expected);
        assert_eq!(text(&[&drafts[..1], &drafts[1..3], &drafts[3..]]), expected);
        assert!(Announcement::default().is_empty());
    }
}
