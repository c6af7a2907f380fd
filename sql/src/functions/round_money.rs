//! `round_money(amount, currency)`: the amount as an invoice would print it.
//!
//! Rounds half away from zero to the minor unit of the ISO 4217 currency, which is written in the query:
//! `round_money(amount, 'JPY')` has no fraction digits. A line item is rounded anyway, once, so a price
//! needs this only where its own rule says that a part is rounded by itself.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
};
use crate::money::{Currency, Exact, Money, MoneyError};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RoundMoney;

impl Model for RoundMoney {
    const NAME: &'static str = "round_money";
    const ARGUMENTS: &'static [(&'static str, Kind)] =
        &[("amount", Kind::Number), ("currency", Kind::Text)];
    const REQUIRED: usize = 2;
    type Terms = Currency;

    fn terms(constants: &Constants<'_>) -> Result<Currency, FunctionError> {
        let code = constants.required(1)?.and_then(|value| value.try_as_str());
        Currency::parse(code.flatten().unwrap_or_default()).map_err(fail)
    }

    fn scale(currency: &Currency, _: &[u8]) -> u8 {
        currency.minor_digits()
    }

    fn amount(currency: &Currency, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        Money::round(numbers[0], *currency)
            .map(Money::to_exact)
            .map_err(fail)
    }
}

fn fail(source: MoneyError) -> FunctionError {
    FunctionError::Amount {
        function: RoundMoney::NAME,
        source,
    }
}
