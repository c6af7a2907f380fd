//! What has changed since an invoice was issued, and why. Pure.
//!
//! An invoice stands as it was issued. What it would be now is compared with it line by line, in both directions: a
//! customer whose charges are gone is as changed as one who has more.

use super::{
    Invoice,
    basis::{Basis, Named},
};
use crate::money::{Exact, MoneyError};
use std::fmt;

/// An invoice as it was issued, as far as it is compared.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Its number.
    pub number: String,
    /// Who pays.
    pub customer: String,
    /// Its lines.
    pub lines: Vec<IssuedLine>,
    /// What it was made from; `None` for one that was issued before documents kept that.
    pub basis: Option<Basis>,
    /// Its total.
    pub total: Exact,
    /// ISO 4217 code.
    pub currency: String,
}

/// One of its lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedLine {
    /// The price.
    pub price: String,
    /// Its dimensions, as `line_items` have them.
    pub dimensions: String,
    /// How much was used, if the price says so.
    pub quantity: Option<Exact>,
    /// The amount before rounding.
    pub amount_exact: Exact,
}

/// Why an invoice would be another now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Other usage is counted for the period.
    Usage,
    /// A plan says something else.
    Plan(String),
    /// A price has another version or text.
    Price(String),
    /// A rate table has other rows.
    RateTable(String),
    /// The invoice does not say what it was rated by: a price or a rate table.
    Rating,
    /// A row of accounts, or another document.
    Accounts,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Usage => write!(f, "usage"),
            Cause::Plan(name) => write!(f, "plan `{name}`"),
            Cause::Price(name) => write!(f, "price `{name}`"),
            Cause::RateTable(name) => write!(f, "rate table `{name}`"),
            Cause::Rating => write!(f, "a price or rate table"),
            Cause::Accounts => write!(f, "an account"),
        }
    }
}

/// An invoice that would be another now. It stands, and the difference is on no invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The invoice.
    pub number: String,
    /// Who pays.
    pub customer: String,
    /// Its total as issued.
    pub issued: Exact,
    /// Its total now; zero without charges.
    pub now: Exact,
    /// What is missing, or was billed too much when it is negative.
    pub difference: Exact,
    /// ISO 4217 code.
    pub currency: String,
    /// Why, at least one.
    pub causes: Vec<Cause>,
}

/// Compares an invoice with what it would be now, from the customer's usage, prices and rate tables of today;
/// `None` when all lines are the same.
///
/// # Errors
/// [`MoneyError`] when the difference does not fit 38 digits.
pub fn change(
    issued: &Issued,
    now: Option<&Invoice>,
    basis: &Basis,
) -> Result<Option<Change>, MoneyError> {
    let lines = now.map_or_else(Vec::new, |now| lines_of(&now.lines));
    let mut before = issued.lines.clone();
    before.sort();
    let total = now.map_or(Exact::from(0_i64), |now| now.total.to_exact());
    // A discount or a credit may be another over the same lines.
    if before == lines && total == issued.total {
        return Ok(None);
    }
    let causes = match &issued.basis {
        Some(issued) => causes(issued, basis),
        None => vec![unnamed_cause(&before, &lines)],
    };
    Ok(Some(Change {
        number: issued.number.clone(),
        customer: issued.customer.clone(),
        issued: issued.total,
        now: total,
        difference: total.checked_sub(issued.total)?,
        currency: issued.currency.clone(),
        causes,
    }))
}

fn lines_of(lines: &[super::LineItem]) -> Vec<IssuedLine> {
    let lines = lines.iter().map(|line| IssuedLine {
        price: line.price.as_deref().unwrap_or_default().to_owned(),
        dimensions: super::tables::dimensions_json(&line.dimensions),
        quantity: line.quantity,
        amount_exact: line.amount_exact,
    });
    let mut lines: Vec<IssuedLine> = lines.collect();
    lines.sort();
    lines
}

/// Why a document would be another now, by what it was made from and what it would be made from now; at least one.
pub fn causes(issued: &Basis, now: &Basis) -> Vec<Cause> {
    let mut causes = Vec::new();
    if usage_of(issued) != usage_of(now) {
        causes.push(Cause::Usage);
    }
    let (before, after) = (&issued.rated_by, &now.rated_by);
    // Documents from before plans were kept name none, nor does a document that would not be made any more.
    if !before.plans.is_empty() && !after.plans.is_empty() {
        causes.extend(differing(&before.plans, &after.plans).map(Cause::Plan));
    }
    causes.extend(differing(&before.prices, &after.prices).map(Cause::Price));
    causes.extend(differing(&before.rate_tables, &after.rate_tables).map(Cause::RateTable));
    if causes.is_empty() {
        causes.push(match now.accounts {
            Some(_) => Cause::Accounts,
            None => Cause::Rating,
        });
    }
    causes
}

/// Meter, subject and hash of what was used. A subject has several of one meter where a document has several plans or subscriptions.
fn usage_of(basis: &Basis) -> Vec<(&str, &str, &str)> {
    let usage = basis.usage.iter();
    let mut usage: Vec<_> = usage
        .map(|of| (of.meter.as_str(), of.subject.as_str(), of.hash.as_str()))
        .collect();
    usage.sort_unstable();
    usage
}

/// The names whose hash is another, or that only one of the two has.
fn differing(before: &Named, after: &Named) -> impl Iterator<Item = String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name));
    differing.cloned().collect::<Vec<_>>().into_iter()
}

/// The cause as lines alone tell it: other quantities are other usage.
fn unnamed_cause(before: &[IssuedLine], now: &[IssuedLine]) -> Cause {
    let quantities = |lines: &[IssuedLine]| -> Vec<(String, String, Option<Exact>)> {
        let lines = lines.iter();
        lines
            .map(|line| (line.price.clone(), line.dimensions.clone(), line.quantity))
            .collect()
    };
    match quantities(before) == quantities(now) {
        true => Cause::Rating,
        false => Cause::Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        definitions::{PlanDefinition, PlanTerms},
        error::Location,
        invoice::{
            Period, Terms, assemble,
            basis::{RatedBy, Usage},
            instalments::Instalment,
        },
        rating::Charge,
    };
    use std::{collections::BTreeMap, sync::Arc};

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn now(quantity: &str, amount: &str) -> Invoice {
        let plan = PlanDefinition {
            name: "pro".into(),
            currency: "USD".into(),
            worth: Vec::new(),
            terms: PlanTerms::default(),
            prices: vec!["p".into()],
            at: Location::default(),
        };
        let terms = Terms {
            customer: "acme",
            plan: &plan,
            period: Period {
                start_us: 0,
                end_us: 1,
            },
            cut: "{}",
        };
        let charge = Charge {
            price: "p".into(),
            price_version: 1,
            customer: "acme".into(),
            dimensions: [("model".into(), Some("m".into()))].into(),
            quantity: Some(exact(quantity)),
            amount: exact(amount),
            currency: "USD".into(),
            service: None,
            subscription: None,
            is_fixed: false,
            is_unused: false,
        };
        assemble(&terms, &[charge]).unwrap()
    }

    fn named(names: &[(&str, &str)]) -> Named {
        let names = names.iter();
        names
            .map(|(name, hash)| ((*name).to_owned(), [(*hash).to_owned()].into()))
            .collect()
    }

    fn basis(usage: &str, price: &str, rates: &[(&str, &str)]) -> Basis {
        Basis {
            usage: vec![Usage {
                meter: "m".into(),
                subject: "acme".into(),
                quantities: BTreeMap::from([("n".to_owned(), usage.to_owned())]),
                hash: usage.into(),
            }],
            rated_by: Arc::new(RatedBy {
                plans: Named::new(),
                prices: named(&[("p", price)]),
                rate_tables: named(rates),
                reads: BTreeMap::from([("p".to_owned(), named(rates).into_keys().collect())]),
            }),
            zone: Some("Europe/Berlin".into()),
            accounts: None,
            due_us: None,
            one_offs: Vec::new(),
            closed: Vec::new(),
            corrected: BTreeMap::new(),
            instalment: None,
            begun: Vec::new(),
        }
    }

    fn issued(basis: Option<Basis>) -> Issued {
        Issued {
            number: "INV-000001".into(),
            customer: "acme".into(),
            lines: vec![IssuedLine {
                price: "p".into(),
                dimensions: r#"{"model":"m"}"#.into(),
                quantity: Some(exact("10")),
                amount_exact: exact("5.00"),
            }],
            basis,
            total: exact("5"),
            currency: "USD".into(),
        }
    }

    #[test]
    fn each_cause_is_told_from_what_the_document_keeps() {
        let rates = [("rates", "r1")];
        let before = basis("10", "p1", &rates);
        let cases: &[(Option<Invoice>, Basis, &str, &str)] = &[
            (
                Some(now("12", "6.00")),
                basis("12", "p1", &rates),
                "1",
                "usage",
            ),
            // All usage was taken back, and the price leaves zeros out.
            (None, basis("0", "p1", &rates), "-5", "usage"),
            (
                Some(now("10", "6.00")),
                basis("10", "p2", &rates),
                "1",
                "price `p`",
            ),
            (
                Some(now("10", "4.00")),
                basis("10", "p1", &[("rates", "r2")]),
                "-1",
                "rate table `rates`",
            ),
            (
                Some(now("10", "4.00")),
                basis("10", "p1", &[]),
                "-1",
                "rate table `rates`",
            ),
            (
                Some(now("11", "4.00")),
                basis("11", "p2", &[("others", "r1")]),
                "-1",
                "usage, price `p`, rate table `others`, rate table `rates`",
            ),
        ];
        for (now, basis, difference, causes) in cases {
            let change = change(&issued(Some(before.clone())), now.as_ref(), basis);
            let change = change.unwrap().unwrap();
            assert_eq!(change.difference, exact(difference), "{causes}");
            let found: Vec<String> = change.causes.iter().map(Cause::to_string).collect();
            assert_eq!(found.join(", "), *causes);
        }
    }

    #[test]
    fn a_plan_is_a_cause_where_both_documents_know_theirs() {
        let on = |plan: &str| {
            let mut basis = basis("10", "p1", &[]);
            Arc::make_mut(&mut basis.rated_by).plans = named(&[("pro", plan)]);
            basis
        };
        let unknown = basis("10", "p1", &[]);
        for (before, after, causes) in [
            (on("t1"), on("t2"), vec![Cause::Plan("pro".into())]),
            (on("t1"), on("t1"), vec![Cause::Rating]),
            (unknown.clone(), on("t1"), vec![Cause::Rating]),
            (on("t1"), unknown, vec![Cause::Rating]),
        ] {
            let change = change(&issued(Some(before)), Some(&now("10", "6")), &after);
            assert_eq!(change.unwrap().unwrap().causes, causes);
        }
        assert_eq!(Cause::Plan("pro".into()).to_string(), "plan `pro`");
    }

    #[test]
    fn usage_of_one_plan_among_several_is_a_cause() {
        let on_two_plans = |first: &str, second: &str| {
            let mut both = basis(first, "p1", &[]);
            both.usage.extend(basis(second, "p1", &[]).usage);
            both
        };
        let before = on_two_plans("10", "4");
        for (now, expected) in [
            (on_two_plans("12", "4"), Cause::Usage),
            (on_two_plans("10", "5"), Cause::Usage),
            (on_two_plans("10", "4"), Cause::Rating),
        ] {
            assert_eq!(causes(&before, &now), [expected]);
        }
    }

    #[test]
    fn the_same_lines_are_no_change_whatever_else_moved() {
        let moved = basis("other", "other", &[]);
        let same = now("10.0", "5");
        assert_eq!(change(&issued(None), Some(&same), &moved).unwrap(), None);
        let issued = issued(Some(basis("10", "p1", &[])));
        assert_eq!(change(&issued, Some(&same), &moved).unwrap(), None);
    }

    #[test]
    fn an_older_document_tells_usage_from_rating_by_its_quantities() {
        let cause = |now: Invoice| {
            let change = change(&issued(None), Some(&now), &Basis::default());
            change.unwrap().unwrap().causes
        };
        assert_eq!(cause(now("11", "5.50")), [Cause::Usage]);
        assert_eq!(cause(now("10", "5.50")), [Cause::Rating]);
    }

    #[test]
    fn a_basis_reads_back_as_it_was_written() {
        let mut basis = basis("10", "p1", &[("rates", "r1")]);
        let text = basis.to_json();
        let usage = r#"[{"hash":"10","meter":"m","quantities":{"n":"10"},"subject":"acme"}]"#;
        let rated_by = r#""plans":{},"prices":{"p":"p1"},"rate_tables":{"rates":"r1"},"reads":{"p":["rates"]}"#;
        let written = format!(
            r#"{{"accounts":null,"begun":[],"closed":[],"corrected":{{}},"due":null,"instalment":null,"one_offs":[],{rated_by},"usage":{usage},"zone":"Europe/Berlin"}}"#
        );
        assert_eq!(text, written);
        assert_eq!(Basis::from_json(&text), Some(basis.clone()));
        // One that was written before the zone was kept.
        let older = text.replace(r#","zone":"Europe/Berlin""#, "");
        let older = older.replace(r#""plans":{},"#, "");
        assert_ne!(older, text);
        basis.zone = None;
        assert_eq!(Basis::from_json(&older), Some(basis.clone()));
        assert_eq!(Basis::from_json(&basis.to_json()), Some(basis.clone()));
        // One that was written before plans were kept.
        let older = text.replace(r#""plans":{},"#, "");
        assert_ne!(older, text);
        assert!(Basis::from_json(&older).is_some());
        // A price that was two things is a list, one that was one a text.
        let mut other = RatedBy::clone(&basis.rated_by);
        other.prices = named(&[("p", "p2")]);
        Arc::make_mut(&mut basis.rated_by).extend(&other);
        let text = basis.to_json();
        assert!(text.contains(r#""prices":{"p":["p1","p2"]}"#), "{text}");
        assert!(text.contains(r#""rate_tables":{"rates":"r1"}"#), "{text}");
        assert_eq!(Basis::from_json(&text), Some(basis.clone()));
        let corrected = basis.clone();
        basis.accounts = Some(7);
        basis.one_offs = vec!["setup".to_owned()];
        basis.due_us = Some(1_769_904_000_000_000);
        basis.closed = vec![(
            "s".to_owned(),
            Period {
                start_us: -1,
                end_us: 1_767_225_600_000_000,
            },
        )];
        basis.corrected = BTreeMap::from([("INV-000001".to_owned(), corrected)]);
        basis.instalment = Some(Instalment {
            subscription: "s \"1\"".to_owned(),
            start_us: -1,
            place: 2,
        });
        basis.begun = vec!["INV-000002".to_owned(), "INV-000003".to_owned()];
        assert_eq!(Basis::from_json(&basis.to_json()), Some(basis));
        assert_eq!(Basis::from_json("{}"), None);
        assert_eq!(Basis::from_json("not JSON"), None);
    }
}
