//! `round_money(amount, currency)`: the amount as people see it.
//!
//! Rounds half away from zero to the minor unit of the ISO 4217 currency, which is written in the query:
//! `round_money(amount, 'JPY')` has no fraction digits. In a price it rounds to the digits of a currency of one's own too, as
//! `CREATE CURRENCY` gives them. A line item is rounded anyway, once, so a price needs this only where its own rule says that a
//! part is rounded by itself.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
};
use crate::{
    definitions::CurrencyDefinition,
    money::{Currency, Exact, MoneyError, round},
};
use std::collections::BTreeMap;

/// The place of the argument that names the currency.
const CURRENCY: usize = 1;

#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RoundMoney {
    /// Digits after the point of currencies of one's own.
    own: BTreeMap<String, u8>,
}

impl RoundMoney {
    /// The same with currencies of one's own.
    pub(super) fn with(currencies: &[CurrencyDefinition]) -> Self {
        let digits = |currency: &CurrencyDefinition| (currency.name.clone(), currency.digits);
        RoundMoney {
            own: currencies.iter().map(digits).collect(),
        }
    }
}

impl Model for RoundMoney {
    const NAME: &'static str = "round_money";
    const ARGUMENTS: &'static [(&'static str, Kind)] =
        &[("amount", Kind::Number), ("currency", Kind::Text)];
    const REQUIRED: usize = 2;
    /// Digits after the point.
    type Terms = u8;

    fn terms(&self, constants: &Constants<'_>) -> Result<u8, FunctionError> {
        let name = constants
            .required(CURRENCY)?
            .and_then(|value| value.try_as_str());
        let name = name.flatten().unwrap_or_default();
        match (self.own.get(name), Currency::parse(name)) {
            (Some(digits), _) => Ok(*digits),
            (None, Ok(currency)) => Ok(currency.minor_digits()),
            (None, Err(MoneyError::Currency(name))) if !self.own.is_empty() => {
                let wanted = "a code of ISO 4217 such as USD, or a name of CREATE CURRENCY";
                Err(constants.refused(CURRENCY, name, wanted))
            }
            (None, Err(error)) => Err(fail(error)),
        }
    }

    fn scale(digits: &u8, _: &[u8]) -> u8 {
        *digits
    }

    fn amount(digits: &u8, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        round(numbers[0], *digits).map_err(fail)
    }
}

fn fail(source: MoneyError) -> FunctionError {
    FunctionError::Amount {
        function: RoundMoney::NAME,
        source,
    }
}
