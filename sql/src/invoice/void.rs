//! Voids: a document that takes an issued one back whole. Pure.
//!
//! Its lines are those of the other, with amounts, discounts, promotional credits and taxes the other way, so its total is the other's below
//! zero. What grants had paid goes back to them as [`crate::credits::undo`] says; what cannot go back is owed to the customer.

use super::{
    Invoice, InvoiceId, LineItem, LineKind, Period, Status, adjustments::Corrects, document::check,
};
use crate::{
    accounts::{Grant, GrantKind},
    credits::{Burn, undo},
    error::Result,
    money::{Currency, Exact, Money},
};

/// An issued document that is to be void.
#[derive(Debug, Clone)]
pub struct Voided<'a> {
    /// Its number.
    pub number: &'a str,
    /// Who paid.
    pub customer: &'a str,
    /// The plan, as the document names it.
    pub plan: &'a str,
    /// ISO 4217 code.
    pub currency: &'a str,
    /// The time that it is for.
    pub period: Period,
    /// All of its lines.
    pub lines: &'a [LineItem],
    /// What it burnt.
    pub burns: &'a [Burn],
}

/// Makes the document that takes another back at an instant. `burnt` is what all documents of the customer burnt, that one's among them.
///
/// # Errors
/// [`crate::Error::Credits`] when a grant has spent what the other document gave back to it; [`crate::Error::Money`] past 38 digits.
pub fn void(
    voided: &Voided<'_>,
    (grants, burnt): (&[&Grant], &[Burn]),
    (at_us, cut): (i64, &str),
) -> Result<Invoice> {
    let currency = Currency::parse(voided.currency)?;
    let zero = Money::zero(currency);
    let lines: Result<Vec<LineItem>> = voided.lines.iter().map(|line| back(line, voided)).collect();
    let lines = lines?;
    let burns = undo(grants, burnt, voided.burns, at_us)?;
    let kind_of = |burn: &Burn| {
        let mut named = grants.iter().filter(|grant| grant.grant == burn.grant);
        named.next().map(|grant| grant.kind)
    };
    let (mut total, mut tax, mut discount, mut promotional) = (zero, zero, zero, zero);
    for line in &lines {
        if line.kind != LineKind::TaxIncluded {
            total = total.checked_add(line.amount)?;
        }
        if line.kind.is_tax() {
            tax = tax.checked_add(line.amount)?;
        }
        discount = discount.checked_add(line.discount)?;
        promotional = promotional.checked_add(line.promotional)?;
    }
    let total = total.checked_sub(discount)?.checked_sub(promotional)?;
    let mut credits = Exact::ZERO;
    for burn in burns
        .iter()
        .filter(|burn| kind_of(burn) != Some(GrantKind::Promotional))
    {
        credits = credits.checked_add(burn.amount)?;
    }
    let credits = Money::round(credits, currency)?;
    let invoice = Invoice {
        id: InvoiceId::of_void(voided.number),
        number: None,
        customer: voided.customer.to_owned(),
        plan: voided.plan.to_owned(),
        period: voided.period,
        status: Status::Draft,
        issued_at_us: None,
        issued_by: None,
        voids: Some(voided.number.to_owned()),
        cut: cut.to_owned(),
        discount,
        promotional,
        tax,
        total,
        credits,
        amount_due: total.checked_sub(credits)?,
        burns,
        lines,
    };
    check(&invoice)?;
    Ok(invoice)
}

/// A line the other way.
fn back(line: &LineItem, voided: &Voided<'_>) -> Result<LineItem> {
    let zero = Money::zero(line.amount.currency());
    let negated = |exact: Exact| Exact::ZERO.checked_sub(exact);
    Ok(LineItem {
        kind: match line.kind.is_tax() {
            true => line.kind,
            false => LineKind::Adjustment,
        },
        quantity: line.quantity.map(negated).transpose()?,
        amount_exact: negated(line.amount_exact)?,
        amount: zero.checked_sub(line.amount)?,
        discount: zero.checked_sub(line.discount)?,
        promotional: zero.checked_sub(line.promotional)?,
        corrects: Some(Corrects {
            number: voided.number.to_owned(),
            kind: line.billed_kind(),
        }),
        ..line.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JANUARY: Period = Period {
        start_us: 0,
        end_us: 1_000,
    };

    fn usd() -> Currency {
        Currency::parse("USD").unwrap()
    }

    fn cents(minor: i128) -> Money {
        Money::of_minor(minor, usd())
    }

    fn grant(name: &str, kind: GrantKind, expires_at_us: Option<i64>) -> Grant {
        Grant {
            grant: name.into(),
            customer: "acme".into(),
            amount: Exact::from(1_i64),
            currency: "USD".into(),
            priority: 0,
            effective_at_us: 0,
            expires_at_us,
            applies_to: Vec::new(),
            kind,
            recurs_every: None,
            rollover_min: Exact::ZERO,
            rollover_max: Exact::ZERO,
            voided_at_us: None,
        }
    }

    fn burn(grant: &str, minor: i128) -> Burn {
        Burn {
            grant: grant.into(),
            at_us: JANUARY.last_us(),
            amount: cents(minor).to_exact(),
        }
    }

    /// 10.00 of usage less 1.00, 0.40 of promotional credit, 10 % tax of 8.60; a grant of 1.00 paid 0.60.
    fn lines() -> Vec<LineItem> {
        vec![
            LineItem {
                price: Some("api".into()),
                quantity: Some(Exact::from(10_i64)),
                discount: cents(100),
                promotional: cents(40),
                ..LineItem::of(LineKind::Usage, cents(1_000), JANUARY)
            },
            LineItem::of(LineKind::Tax, cents(86), JANUARY),
        ]
    }

    /// The total, what goes back to prepaid grants, what is due, and what is burnt.
    fn voided(
        lines: &[LineItem],
        own: &[Burn],
        grants: &[&Grant],
        burnt: &[Burn],
    ) -> Result<(i128, i128, i128, Vec<Burn>)> {
        let of = Voided {
            number: "INV-000007",
            customer: "acme",
            plan: "p",
            currency: "USD",
            period: JANUARY,
            lines,
            burns: own,
        };
        let made = void(&of, (grants, burnt), (5_000, "{}"))?;
        assert_eq!(made.kind(), "void");
        assert_eq!(made.voids.as_deref(), Some("INV-000007"));
        let minor = |money: Money| money.minor();
        Ok((
            minor(made.total),
            minor(made.credits),
            minor(made.amount_due),
            made.burns,
        ))
    }

    #[test]
    fn everything_comes_back_and_grants_in_force_have_what_they_paid() {
        let promotional = grant("promo", GrantKind::Promotional, Some(2_000));
        let prepaid = grant("prepaid", GrantKind::Prepaid, None);
        let own = [burn("promo", 40), burn("prepaid", 60)];
        let grants = [&promotional, &prepaid];
        let made = voided(&lines(), &own, &grants, &own).unwrap();
        // 10.00 − 1.00 − 0.40 + 0.86 = 9.46 were owed, and 0.60 of it prepaid.
        let back = vec![burn("prepaid", -60), burn("promo", -40)];
        assert_eq!(made, (-946, -60, -886, back));
    }

    #[test]
    fn what_an_expired_grant_had_paid_is_owed() {
        let promotional = grant("promo", GrantKind::Promotional, Some(2_000));
        let prepaid = grant("prepaid", GrantKind::Prepaid, Some(3_000));
        let own = [burn("promo", 40), burn("prepaid", 60)];
        let grants = [&promotional, &prepaid];
        let made = voided(&lines(), &own, &grants, &own).unwrap();
        // The promotional credit is where it was, so that the period has it when it is issued again.
        assert_eq!(made, (-946, 0, -946, vec![burn("promo", -40)]));
    }

    #[test]
    fn what_a_document_gave_back_to_a_grant_is_paid_again_as_far_as_it_is_there() {
        let prepaid = grant("prepaid", GrantKind::Prepaid, None);
        let lines = [LineItem::of(LineKind::Adjustment, cents(-50), JANUARY)];
        let own = [burn("prepaid", -50)];
        let before = [burn("prepaid", 80), burn("prepaid", -50)];
        let made = voided(&lines, &own, &[&prepaid], &before).unwrap();
        assert_eq!(made, (50, 50, 0, vec![burn("prepaid", 50)]));
        // Of 1.00, 0.30 and 0.45 are spent: 0.25 are left.
        let spent = [
            burn("prepaid", 80),
            burn("prepaid", -50),
            burn("prepaid", 45),
        ];
        let made = voided(&lines, &own, &[&prepaid], &spent).unwrap();
        assert_eq!(made, (50, 25, 25, vec![burn("prepaid", 25)]));
        let promotional = grant("prepaid", GrantKind::Promotional, None);
        let lines = [LineItem {
            promotional: cents(-50),
            ..LineItem::of(LineKind::Adjustment, cents(-50), JANUARY)
        }];
        let error = voided(&lines, &own, &[&promotional], &spent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "grant `prepaid`: it had 0.5 back, and 0.25 of that is left"
        );
    }
}
