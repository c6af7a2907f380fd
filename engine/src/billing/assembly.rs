//! From what plans charge to a document: what is left to bill, the bounds of each plan, and what an account says of the customer.

use super::{
    billed::{Billed, sum_on},
    credits::check_burns,
    kept::Inputs,
    subscribed::{Charged, Rated},
};
use crate::{
    catalog::Catalog,
    config::BillingSettings,
    error::{Error, Result},
    view::View,
};
use std::sync::Arc;
use tollgate_sql::{
    accounts::{Discount, Grant, Index, OneOff},
    credits::Burn,
    definitions::{Definitions, MinimumProration, PlanDefinition},
    functions::prorate::{SHARE_DIGITS, sum_of_shares},
    invoice::{
        Invoice, LineItem,
        adjustments::{Correction, Taxed},
        basis::{Basis, RatedBy},
        bounds::{self, Bounds},
        document::{Document, OfPlan, Tax, document, priced},
        taxes::{self, TaxRate},
    },
    money::{Currency, Exact, Money, Rounding, share},
    rating::Charge,
    subscriptions::Cycle,
};

/// By what documents are made.
#[derive(Clone, Copy)]
pub(super) struct MadeBy<'a> {
    pub(super) view: &'a View,
    pub(super) accounts: &'a Index,
    pub(super) rates: &'a TaxRates,
    pub(super) cut: &'a str,
}

/// What a plan charges for a billing period of a subscription.
pub(super) struct OfCycle<'a> {
    pub(super) plan: &'a PlanDefinition,
    pub(super) charged: &'a Charged,
    pub(super) cycle: &'a Cycle,
    pub(super) charges: Vec<Charge>,
    /// What counts toward the plan's bounds beside them.
    pub(super) counted: Exact,
}

impl<'a> MadeBy<'a> {
    /// What is rated for a document, by plan and billing period; `charges_of` says what of it is to be billed.
    pub(super) fn cycles(
        &self,
        rated: &'a Rated,
        mut charges_of: impl FnMut(
            &'a PlanDefinition,
            &'a Charged,
            &'a Cycle,
        ) -> Result<(Vec<Charge>, Exact)>,
    ) -> Result<Vec<OfCycle<'a>>> {
        let mut all = Vec::with_capacity(rated.charged.len());
        for charged in &rated.charged {
            let plan = self.view.catalog().definitions.plan(&charged.plan);
            let plan = plan.ok_or(Error::Contradiction {
                what: "a plan with charges is defined",
            })?;
            let cycle = charged.cycle_of(&rated.due);
            let (charges, counted) = charges_of(plan, charged, cycle)?;
            all.push(OfCycle {
                plan,
                charged,
                cycle,
                charges,
                counted,
            });
        }
        Ok(all)
    }

    /// The document that bills what is left of charges, and corrects earlier ones; `None` when it has no lines.
    pub(super) fn invoice(
        &self,
        rated: &Rated,
        (billed, burnt): (&Billed, &[Burn]),
        corrections: &[Correction],
    ) -> Result<Option<Invoice>> {
        let discounts = self.discounts(&rated.due.customer);
        let cycles = self.cycles(rated, |plan, charged, cycle| {
            billed.left_of((self.definitions(), plan), charged, cycle, &discounts)
        })?;
        let corrected = corrections.iter().flat_map(|correction| &correction.issued);
        let begun = rated.begun.iter().flat_map(|begun| &begun.lines);
        let mut corrected = begun.chain(corrected);
        let corrected = corrected.next().map(|line| line.amount.currency().code());
        let grants: Vec<&Grant> = self.accounts.grants_of(&rated.due.customer).collect();
        let made = self.composed(rated, &cycles, corrected, |of, plans| {
            let of = Document {
                grants: &grants,
                burnt,
                corrections,
                ..of
            };
            document(of, plans)
        })?;
        if let Some(invoice) = &made {
            check_burns(&grants, burnt, &invoice.burns)?;
        }
        Ok(made.filter(|invoice| !invoice.lines.is_empty()))
    }

    /// The definitions by which it is made.
    pub(super) fn definitions(&self) -> &'a Definitions {
        &self.view.catalog().definitions
    }

    /// The currency of a document by what it bills; `None` when it bills nothing.
    pub(super) fn currency(&self, rated: &Rated) -> Option<String> {
        let definitions = &self.view.catalog().definitions;
        let plans = rated.charged.iter();
        let mut plans = plans.filter_map(|charged| definitions.plan(&charged.plan));
        let of_plan = plans.next().map(|plan| plan.currency.clone());
        let one_off = rated.due.one_offs.first();
        of_plan.or_else(|| one_off.map(|one_off| one_off.currency.clone()))
    }

    /// The lines of a document before credits and taxes.
    pub(super) fn lines(&self, rated: &Rated, cycles: &[OfCycle<'_>]) -> Result<Vec<Taxed>> {
        let made = self.composed(rated, cycles, None, |of, plans| priced(&of, plans))?;
        Ok(made.unwrap_or_default())
    }

    /// Composes what a document is made of, in the currency of what it corrects where it bills nothing; `None` when nothing says in
    /// which currency it is.
    fn composed<R>(
        &self,
        rated: &Rated,
        cycles: &[OfCycle<'_>],
        corrected: Option<&str>,
        make: impl FnOnce(Document<'_>, &[OfPlan<'_>]) -> tollgate_sql::Result<R>,
    ) -> Result<Option<R>> {
        let mut plans = Vec::with_capacity(cycles.len());
        for of in cycles {
            let mut bounds = match of.charged.is_opening {
                true => Bounds::default(),
                false => bounds_of(of.plan, of.cycle, of.charged)?,
            };
            if rated.instalment.is_some() {
                // More may come until the period is over.
                bounds.minimum = None;
            }
            plans.push(OfPlan {
                plan: of.plan,
                subscription: Some(&of.cycle.subscription),
                period: (&of.cycle.period).into(),
                charges: &of.charges,
                bounds,
                counted: of.counted,
            });
        }
        let due = &rated.due;
        let billed = self.currency(rated);
        let Some(currency) = billed.as_deref().or(corrected) else {
            return Ok(None);
        };
        let regions = self.regions(&due.customer);
        let one_offs: Vec<&OneOff> = due.one_offs.iter().collect();
        let discounts = self.discounts(&due.customer);
        let begun = rated.begun.iter();
        let begun: Vec<LineItem> = begun.flat_map(|issued| issued.lines.clone()).collect();
        let of = Document {
            id: rated.id(),
            customer: &due.customer,
            period: due.period(),
            cut: self.cut,
            currency,
            one_offs: &one_offs,
            discounts: &discounts,
            tax: Tax {
                regions: &regions,
                rates: &self.rates.rates,
            },
            grants: &[],
            burnt: &[],
            corrections: &[],
            begun: &begun,
        };
        Ok(Some(make(of, &plans)?))
    }

    /// The discounts of a customer.
    pub(super) fn discounts(&self, customer: &str) -> Vec<&'a Discount> {
        self.accounts.discounts_of(customer).collect()
    }

    /// From when on which region taxes a customer; none while it is exempt.
    fn regions(&self, customer: &str) -> Vec<(i64, Option<&'a str>)> {
        let rows = self.accounts.customer(customer).iter();
        rows.map(|row| {
            let region = row.tax_region.as_deref();
            let region = region.filter(|_| !row.tax_exempt);
            (row.valid_from_us.unwrap_or(i64::MIN), region)
        })
        .collect()
    }

    /// What a document was made from that would not be made any more by the accounts of now: it closes and bills nothing.
    pub(super) fn basis_of_none(&self, before: Option<&Basis>) -> Basis {
        Basis {
            accounts: Some(self.accounts.serial()),
            closed: Vec::new(),
            one_offs: Vec::new(),
            ..before.cloned().unwrap_or_default()
        }
    }

    /// What a document is made from.
    pub(super) fn basis(&self, rated: &Rated) -> Basis {
        let cycles = rated.due.closing.iter().chain(&rated.due.opening);
        let mut rated_by = Arc::clone(&rated.rated_by);
        let regions = self.regions(&rated.due.customer);
        if regions.iter().any(|(_, region)| region.is_some()) {
            Arc::make_mut(&mut rated_by).extend(&self.rates.rated_by);
        }
        // An instalment closes nothing.
        let closed = match rated.instalment {
            Some(_) => [].iter(),
            None => rated.due.closing.iter(),
        };
        let closed = closed.map(|cycle| (cycle.subscription.clone(), cycle.closed()));
        let one_offs = rated.due.one_offs.iter();
        let one_offs = one_offs.map(|one_off| one_off.one_off.clone());
        Basis {
            closed: closed.collect(),
            due_us: Some(rated.due.at_us),
            usage: rated.usage.clone(),
            rated_by,
            zone: cycles.map(|cycle| cycle.period.zone().to_owned()).next(),
            one_offs: one_offs.collect(),
            instalment: rated.instalment.clone(),
            begun: rated.begun.iter().map(|of| of.number.clone()).collect(),
            ..self.basis_of_none(None)
        }
    }
}

/// What a plan costs at most and at least for the days that a subscription is on it.
fn bounds_of(plan: &PlanDefinition, cycle: &Cycle, charged: &Charged) -> Result<Bounds> {
    let part = cycle.parts.iter().find(|part| part.plan == plan.name);
    let segments = part.map_or(&[][..], |part| part.segments.as_slice());
    let days = cycle.period.days_ended();
    let whole_fee = match plan.terms.minimum_proration {
        MinimumProration::Minimum => Exact::ZERO,
        MinimumProration::MinimumLessFees => whole_fee(plan, cycle, charged)?,
    };
    let mut bounds = Bounds::default();
    let add = |sum: &mut Option<Exact>, amount: Exact| -> Result<()> {
        let before = sum.unwrap_or(Exact::ZERO);
        let after = before
            .checked_add(amount)
            .map_err(tollgate_sql::Error::from)?;
        *sum = Some(after);
        Ok(())
    };
    for segment in segments {
        if let Some(minimum) = segment.minimum.or(plan.terms.minimum) {
            let minimum = bounds::less_fees(minimum, whole_fee, segment.active_days, days)?;
            add(&mut bounds.minimum, minimum)?;
        }
        if let Some(maximum) = segment.maximum.or(plan.terms.maximum) {
            let maximum = bounds::for_days(maximum, segment.active_days, days)?;
            add(&mut bounds.maximum, maximum)?;
        }
    }
    Ok(Bounds {
        minimum: bounds.minimum.map(sum_of_shares),
        maximum: bounds.maximum.map(sum_of_shares),
    })
}

/// What the fixed prices of a plan cost for a whole period, by what they cost in the last segment.
fn whole_fee(plan: &PlanDefinition, cycle: &Cycle, charged: &Charged) -> Result<Exact> {
    let segments = cycle.parts.iter().filter(|part| part.plan == plan.name);
    let Some(last) = segments.flat_map(|part| &part.segments).next_back() else {
        return Ok(Exact::ZERO);
    };
    let of_last = |charge: &&Charge| {
        charge.is_fixed
            && charge
                .service
                .is_some_and(|service| service.start_us == last.from_us)
    };
    let fixed = charged.charges.iter().chain(&charged.in_advance);
    let currency = Currency::parse(&plan.currency).map_err(tollgate_sql::Error::from)?;
    let sum = sum_on(plan, fixed.filter(of_last))?;
    let (days, active) = (
        Exact::from(cycle.period.days_ended()),
        Exact::from(last.active_days),
    );
    if active == Exact::ZERO {
        return Ok(Exact::ZERO);
    }
    let whole = share(sum, days, active, SHARE_DIGITS, Rounding::HalfAway);
    let whole = whole.and_then(|whole| Money::round(whole, currency));
    Ok(whole.map_err(tollgate_sql::Error::from)?.to_exact())
}

/// The rates of taxes, and what a document with taxes is rated by for them.
#[derive(Debug, Default)]
pub(super) struct TaxRates {
    rates: Vec<TaxRate>,
    rated_by: RatedBy,
}

impl TaxRates {
    /// The rows of the rate table of taxes; none without the table.
    ///
    /// # Errors
    /// It has no columns `region` and `rate_percent`.
    pub(super) fn of(
        catalog: &Catalog,
        settings: &BillingSettings,
        inputs: &mut Inputs,
    ) -> Result<Self> {
        let tables = catalog
            .definitions
            .rate_tables
            .iter()
            .zip(&catalog.rate_tables);
        let mut named = tables.filter(|(table, _)| table.name == settings.tax_rates);
        let Some((table, rows)) = named.next() else {
            return Ok(TaxRates::default());
        };
        let mut rated_by = RatedBy::default();
        let rates = taxes::rates_of(table, rows)?;
        inputs.note_rate_table((table, rows), &mut rated_by)?;
        Ok(TaxRates { rates, rated_by })
    }
}
