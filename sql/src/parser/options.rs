//! `WITH (key = 'value', …)`, and what the values mean.

use super::{
    cursor::{Cursor, Name, fold},
    suggest::{did_you_mean, nearest},
};
use crate::{
    definitions::{
        model::{CURRENCY_DIGITS_MAX, Frame, LatePolicy, OnChange, Worth},
        time::{parse_date, parse_instant},
    },
    error::{Error, Location, Result},
    money::Exact,
    window::DAY_US,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use iso_currency::Currency;
use jiff::civil::Date;
use std::collections::BTreeMap;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;

/// Longest lateness: a year of open windows is a mistake, and no arithmetic on it can overflow.
const LATENESS_US_MAX: i64 = 366 * DAY_US;

/// How many windows of one meter an instant may lie in.
const HOPS_MAX: i64 = 1_440;

const OPTIONS_SHAPE: &str = "options are `(name = 'value', …)`, the value in single quotes";

/// The options of one statement or column, each at most once.
#[derive(Debug, Default)]
pub(super) struct Options {
    given: Vec<(String, Name)>,
}

impl Options {
    /// Reads `WITH (…)`; without `WITH` there are none.
    ///
    /// # Errors
    /// Options that are not known, given twice, or not strings.
    pub(super) fn parse(cursor: &mut Cursor<'_>, known: &[&str]) -> Result<Self> {
        match cursor.accept_keyword("WITH") {
            true => Self::in_parentheses(cursor, known),
            false => Ok(Self::default()),
        }
    }

    /// Reads `(…)`, as after `WITH` or `OPTIONS`.
    pub(super) fn in_parentheses(cursor: &mut Cursor<'_>, known: &[&str]) -> Result<Self> {
        cursor.expect(&Token::LParen, OPTIONS_SHAPE)?;
        let mut options = Self::default();
        loop {
            let option = options.option(cursor, known)?;
            options.given.push(option);
            if !cursor.another(&Token::RParen, OPTIONS_SHAPE)? {
                return Ok(options);
            }
        }
    }

    fn option(&self, cursor: &mut Cursor<'_>, known: &[&str]) -> Result<(String, Name)> {
        let expected = cursor.expected("the name of an option", OPTIONS_SHAPE);
        let (word, at) = cursor.accept_word().ok_or(expected)?;
        let key = fold(&word.value, word.quote_style);
        if !known.contains(&key.as_str()) {
            let hint = did_you_mean(&key, "options", known);
            return Err(cursor.error(at, format!("unknown option `{key}`"), &hint));
        }
        if self.get(&key).is_some() {
            let problem = format!("option `{key}` is given twice");
            return Err(cursor.error(at, problem, "keep one of them"));
        }
        cursor.expect(&Token::Eq, OPTIONS_SHAPE)?;
        let expected = cursor.expected(&format!("the value of `{key}`"), OPTIONS_SHAPE);
        // A number is one with and without quotes.
        let number = match key.as_str() {
            "digits" | "minimum" | "maximum" => cursor.accept_number(),
            _ => None,
        };
        let value = number.or_else(|| cursor.accept_string());
        let value = value.ok_or(expected)?;
        if value.text.trim().is_empty() {
            let problem = format!("option `{key}` is empty");
            return Err(cursor.error(value.at, problem, "give it a value or leave it out"));
        }
        Ok((key, value))
    }

    /// The value of an option and where it is.
    pub(super) fn get(&self, key: &str) -> Option<&Name> {
        let found = self.given.iter().find(|(given, _)| given == key);
        found.map(|(_, value)| value)
    }

    /// Where the value of each option is.
    pub(super) fn places(&self) -> BTreeMap<String, Location> {
        let given = self.given.iter();
        given
            .map(|(key, value)| (key.clone(), value.at.clone()))
            .collect()
    }

    /// The value of an option that must be given, with an example of how.
    pub(super) fn required(&self, cursor: &Cursor<'_>, key: &str, example: &str) -> Result<&Name> {
        self.get(key).ok_or_else(|| {
            let problem = format!("option `{key}` is missing");
            cursor.error(cursor.here(), problem, &format!("add WITH ({example})"))
        })
    }

    /// A meter's base window, from 1 minute to 1 day, which it divides, and what is made of it.
    pub(super) fn window(&self, cursor: &Cursor<'_>) -> Result<(i64, Frame)> {
        let window = self.required(cursor, "window", "window = '1 hour'")?;
        let text = window.text.trim();
        if let Some(gap) = text.strip_prefix("session ") {
            let gap_us = duration_us(cursor, "window", &window.with_text(gap))?;
            return match session_base_us(gap_us) {
                Some(base_us) => Ok((base_us, Frame::Session { gap_us })),
                None => {
                    let problem = format!("the gap of `{text}` is not from 1 minute to 1 day");
                    let hint = "write how long a pause ends a session: 'session 30 minutes'";
                    Err(cursor.error(window.at.clone(), problem, hint))
                }
            };
        }
        let Some((size, every)) = text.split_once(" every ") else {
            return Ok((width_us(cursor, window)?, Frame::Tumbling));
        };
        let every_us = width_us(cursor, &window.with_text(every))?;
        let size_us = duration_us(cursor, "window", &window.with_text(size))?;
        if size_us <= every_us || size_us % every_us != 0 || size_us / every_us > HOPS_MAX {
            let problem = format!("window `{text}` does not hop");
            let hint = format!(
                "write a multiple of the step, up to {HOPS_MAX} of them: '1 hour every 15 minutes'"
            );
            return Err(cursor.error(window.at.clone(), problem, &hint));
        }
        Ok((every_us, Frame::Hopping { size_us }))
    }

    /// How long a window waits after its end; `'0 seconds'` unless given, since events that come
    /// later are counted all the same, in a later pane.
    pub(super) fn lateness_us(&self, cursor: &Cursor<'_>) -> Result<i64> {
        let Some(lateness) = self.get("lateness") else {
            return Ok(0);
        };
        let lateness_us = duration_us(cursor, "lateness", lateness)?;
        if lateness_us > LATENESS_US_MAX {
            let problem = format!("lateness `{}` is more than 366 days", lateness.text);
            let hint =
                "later events are counted too, in a later pane: wait only as long as most take";
            return Err(cursor.error(lateness.at.clone(), problem, hint));
        }
        Ok(lateness_us)
    }

    /// What becomes of events whose window is closed; `'correct'` unless given.
    pub(super) fn late(&self, cursor: &Cursor<'_>) -> Result<LatePolicy> {
        let Some(value) = self.get("late") else {
            return Ok(LatePolicy::default());
        };
        let mut all = LatePolicy::ALL.into_iter();
        all.find(|policy| policy.as_str() == value.text)
            .ok_or_else(|| {
                let known = LatePolicy::ALL.map(LatePolicy::as_str);
                let problem = format!("option `late`: `{}` is no policy", value.text);
                let hint = did_you_mean(&value.text, "policies", &known);
                cursor.error(value.at.clone(), problem, &hint)
            })
    }

    /// What becomes of a billing period in which a version begins to apply; `'next_period'` unless given.
    pub(super) fn on_change(&self, cursor: &Cursor<'_>) -> Result<OnChange> {
        let Some(value) = self.get("on_change") else {
            return Ok(OnChange::default());
        };
        let found = self.choice(cursor, "on_change", &OnChange::ALL)?;
        if found == Some(OnChange::Split) && self.get("effective_from").is_none() {
            let problem =
                "option `on_change`: there is no day at which a period is split".to_owned();
            let hint = "add effective_from = '2026-10-15', the first day of this version";
            return Err(cursor.error(value.at.clone(), problem, hint));
        }
        Ok(found.unwrap_or_default())
    }

    /// One of a few words, if given.
    pub(super) fn choice<T: Copy>(
        &self,
        cursor: &Cursor<'_>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let found = choices.iter().find(|(word, _)| *word == value.text);
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let known: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let problem = format!("option `{key}`: `{}` is not known", value.text);
            let hint = did_you_mean(&value.text, "values", &known);
            cursor.error(value.at.clone(), problem, &hint)
        })
    }

    /// `'true'` or `'false'`; false unless given.
    pub(super) fn boolean(&self, cursor: &Cursor<'_>, key: &str) -> Result<bool> {
        match self.get(key).map(|value| (value.text.as_str(), value)) {
            None | Some(("false", _)) => Ok(false),
            Some(("true", _)) => Ok(true),
            Some((text, value)) => {
                let problem = format!("option `{key}`: `{text}` is neither true nor false");
                let hint = format!("write {key} = 'true' or leave it out");
                Err(cursor.error(value.at.clone(), problem, &hint))
            }
        }
    }

    /// An ISO 4217 code that has a minor unit, since amounts are rounded to it.
    pub(super) fn currency(&self, cursor: &Cursor<'_>) -> Result<String> {
        let code = self.required(cursor, "currency", "currency = 'USD'")?;
        let upper = code.text.to_ascii_uppercase();
        let Some(currency) = Currency::from_code(&upper) else {
            return Err(not_a_currency(cursor, code, "write one such as 'USD'"));
        };
        if upper != code.text {
            return Err(not_a_currency(cursor, code, &format!("write '{upper}'")));
        }
        if currency.exponent().is_none() {
            let problem = format!("currency `{upper}` has no minor unit");
            let hint = "amounts are rounded to the minor unit: use a currency that is paid in";
            return Err(cursor.error(code.at.clone(), problem, hint));
        }
        Ok(upper)
    }

    /// An ISO 4217 code as for [`Self::currency`], or the name of a currency of one's own, in lower case as SQL folds it.
    pub(super) fn currency_or_own(&self, cursor: &Cursor<'_>) -> Result<String> {
        let written = self.required(cursor, "currency", "currency = 'USD'")?;
        let is_iso = Currency::from_code(&written.text.to_ascii_uppercase()).is_some();
        match is_own_currency(&written.text) && !is_iso {
            true => Ok(written.text.clone()),
            false => self.currency(cursor),
        }
    }

    /// The digits of a currency of one's own.
    pub(super) fn digits(&self, cursor: &Cursor<'_>) -> Result<u8> {
        let digits = self.required(cursor, "digits", "digits = 2")?;
        let read: Option<u8> = digits.text.parse().ok();
        read.filter(|read| *read <= CURRENCY_DIGITS_MAX)
            .ok_or_else(|| {
                let problem = format!(
                    "option `digits`: `{}` is not a whole number from 0 to {CURRENCY_DIGITS_MAX}",
                    digits.text
                );
                cursor.error(
                    digits.at.clone(),
                    problem,
                    "write how many digits after the point people see of an amount: digits = 2",
                )
            })
    }

    /// What currencies of one's own are worth in a plan's: `1 credits = 0.01 USD`, several with commas.
    pub(super) fn worth(&self, cursor: &Cursor<'_>, plan: &str) -> Result<Vec<Worth>> {
        let Some(written) = self.get("worth") else {
            return Ok(Vec::new());
        };
        let mut all: Vec<Worth> = Vec::new();
        for part in written.text.split(',') {
            let refused = |problem: String| {
                let hint = format!("write '1 credits = 0.01 {plan}', several with commas");
                cursor.error(
                    written.at.clone(),
                    format!("option `worth`: {problem}"),
                    &hint,
                )
            };
            let words: Vec<&str> = part.split_whitespace().collect();
            let ["1", currency, "=", amount, unit] = words.as_slice() else {
                return Err(refused(format!(
                    "`{}` does not say what one is worth",
                    part.trim()
                )));
            };
            if *unit != plan {
                return Err(refused(format!(
                    "`{unit}` is not the plan's currency, {plan}"
                )));
            }
            let amount = Exact::parse(amount).map_err(|error| refused(error.to_string()))?;
            if amount <= Exact::ZERO {
                return Err(refused(format!("{amount} is not above zero")));
            }
            if all.iter().any(|known| known.currency == *currency) {
                return Err(refused(format!("`{currency}` is in it twice")));
            }
            all.push(Worth {
                currency: (*currency).to_owned(),
                amount,
                at: written.at.clone(),
            });
        }
        Ok(all)
    }

    /// A calendar date, `YYYY-MM-DD` and nothing else.
    pub(super) fn date(&self, cursor: &Cursor<'_>, key: &str) -> Result<Option<Date>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match parse_date(&value.text) {
            Some(date) => Ok(Some(date)),
            None => {
                let problem = format!("option `{key}`: `{}` is not a date", value.text);
                Err(cursor.error(value.at.clone(), problem, "write '2026-10-01'"))
            }
        }
    }

    /// The start of a window: a date, which is its midnight in UTC, or an instant with its offset; in
    /// microseconds since the Unix epoch.
    pub(super) fn window_start_us(
        &self,
        cursor: &Cursor<'_>,
        key: &str,
        width_us: i64,
    ) -> Result<Option<i64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Some(start) = parse_instant(&value.text) else {
            let problem = format!(
                "option `{key}`: `{}` is neither a date nor an instant",
                value.text
            );
            let hint = "write '2026-10-01', which is midnight UTC, or '2026-10-01T00:00:00+02:00'";
            return Err(cursor.error(value.at.clone(), problem, hint));
        };
        let start_us = start.as_microsecond();
        if start_us.rem_euclid(width_us) != 0 || start.subsec_nanosecond() % 1_000 != 0 {
            let problem = format!("option `{key}`: no window begins at `{}`", value.text);
            let hint = "a version measures whole windows: write the instant at which one begins";
            return Err(cursor.error(value.at.clone(), problem, hint));
        }
        Ok(Some(start_us))
    }
}

fn not_a_currency(cursor: &Cursor<'_>, code: &Name, hint: &str) -> Error {
    let problem = format!("currency `{}` is not an ISO 4217 code", code.text);
    cursor.error(code.at.clone(), problem, hint)
}

fn width_us(cursor: &Cursor<'_>, window: &Name) -> Result<i64> {
    let width_us = duration_us(cursor, "window", window)?;
    if !(MINUTE_US..=DAY_US).contains(&width_us) || DAY_US % width_us != 0 {
        let problem = format!("window `{}` does not divide a day", window.text);
        let hint = "windows are from 1 minute to 1 day and start at midnight UTC: '1 minute', '15 minutes', '1 hour', '6 hours', '1 day'";
        return Err(cursor.error(window.at.clone(), problem, hint));
    }
    Ok(width_us)
}

/// The longest base window that is no longer than the gap: sessions are final soon after they end.
fn session_base_us(gap_us: i64) -> Option<i64> {
    let minutes = (MINUTE_US..=DAY_US)
        .contains(&gap_us)
        .then_some(gap_us / MINUTE_US)?;
    let mut divisors = (1..=minutes).rev().map(|minutes| minutes * MINUTE_US);
    divisors.find(|base_us| DAY_US % base_us == 0)
}

pub(super) fn duration_us(cursor: &Cursor<'_>, key: &str, value: &Name) -> Result<i64> {
    parse_duration_us(&value.text).ok_or_else(|| {
        let problem = format!("option `{key}`: `{}` is not a duration", value.text);
        let hint = "write a whole number and a unit: '30 seconds', '10 minutes', '1 hour', '1 day'";
        let meant = meant_duration(&value.text);
        let meant = meant.map_or(String::new(), |meant| format!("did you mean '{meant}'? "));
        cursor.error(value.at.clone(), problem, &(meant + hint))
    })
}

/// What a text that is no duration seems to say: `1h`, `10min`, `hourly`, `1 weeek`.
fn meant_duration(text: &str) -> Option<String> {
    const UNITS: [(&str, &[&str]); 4] = [
        ("second", &["s", "sec", "secs", "seconds", "second"]),
        ("minute", &["m", "min", "mins", "minutes", "minute"]),
        ("hour", &["h", "hr", "hrs", "hours", "hour", "hourly"]),
        ("day", &["d", "days", "day", "daily"]),
    ];
    let text = text.trim().to_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(split);
    let unit = unit.trim();
    let exact = UNITS.iter().find(|(_, words)| words.contains(&unit));
    let near = || {
        UNITS
            .iter()
            .find(|(_, words)| nearest(unit, &words[3..]).is_some())
    };
    let (unit, _) = exact.or_else(near)?;
    match count {
        "" | "1" => Some(format!("1 {unit}")),
        count => Some(format!("{count} {unit}s")),
    }
}

/// `<n> second(s) | minute(s) | hour(s) | day(s)` in microseconds.
fn parse_duration_us(text: &str) -> Option<i64> {
    let mut words = text.split_ascii_whitespace();
    let (count, unit) = (words.next()?, words.next()?);
    if words.next().is_some() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unit = unit.to_ascii_lowercase();
    let unit_us = match unit.strip_suffix('s').unwrap_or(&unit) {
        "second" => SECOND_US,
        "minute" => MINUTE_US,
        "hour" => HOUR_US,
        "day" => DAY_US,
        _ => return None,
    };
    count.parse::<i64>().ok()?.checked_mul(unit_us)
}

/// Whether a text can be the name of a currency of one's own.
fn is_own_currency(text: &str) -> bool {
    let starts = text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    starts && text.chars().all(is_part)
}

/// Refuses a currency of one's own that could be taken for one of ISO 4217.
pub(super) fn check_own_currency(cursor: &Cursor<'_>, name: &Name) -> Result<()> {
    let upper = name.text.to_ascii_uppercase();
    let problem = if Currency::from_code(&upper).is_some() {
        format!("`{upper}` is a currency of ISO 4217")
    } else if !is_own_currency(&name.text) {
        "its name has capitals".to_owned()
    } else {
        return Ok(());
    };
    let hint = "name it in lower case and unlike the currencies of ISO 4217: credits";
    Err(cursor.error(name.at.clone(), problem, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, us) in [
            ("0 seconds", 0),
            ("1 second", 1_000_000),
            ("10 minutes", 600_000_000),
            ("1 HOUR", 3_600_000_000),
            (" 2  days ", 172_800_000_000),
            ("106751991 days", 9_223_372_022_400_000_000),
        ] {
            assert_eq!(parse_duration_us(text), Some(us), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_duration() {
        for text in [
            "",
            "1",
            "hour",
            "1.5 hours",
            "-1 hour",
            "+1 hour",
            "1 week",
            "1hour",
            "1 hour 5 minutes",
            "1 hourss",
            "106751992 days",
            "99999999999999999999 seconds",
        ] {
            assert_eq!(parse_duration_us(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_nearly_a_duration_is_understood() {
        for (text, meant) in [
            ("1h", Some("1 hour")),
            ("10min", Some("10 minutes")),
            ("hourly", Some("1 hour")),
            ("30 secnds", Some("30 seconds")),
            ("1 month", None),
            ("", None),
            ("5", None),
        ] {
            assert_eq!(meant_duration(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn the_base_of_a_session_is_the_longest_window_within_its_gap() {
        let minutes = |gap: i64| session_base_us(gap * MINUTE_US).map(|us| us / MINUTE_US);
        assert_eq!(
            [1, 7, 30, 45, 100, 1_440].map(minutes),
            [1, 6, 30, 45, 96, 1_440].map(Some)
        );
        assert_eq!([0, 1_441].map(minutes), [None, None]);
        assert_eq!(session_base_us(90 * SECOND_US), Some(MINUTE_US));
    }
}
