//! What is asked of a meter: the parameters of OpenMeter's query, from a URL or a body (pure).

use super::super::{
    parameters::{Parameters, instant_in},
    problem::Problem,
};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A query of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Only from this time on, in microseconds.
    pub(super) from_us: Option<i64>,
    /// Only before this time, in microseconds.
    pub(super) to_us: Option<i64>,
    /// A row for each of these; without it one row for all of the time.
    pub(super) window: Option<WindowSize>,
    /// Where days and months begin.
    pub(super) zone: TimeZone,
    /// Only these; empty stands for all.
    pub(super) subjects: Vec<String>,
    /// Whose usage the caller may see; `None` stands for everyone's. It is no parameter.
    pub(super) visible: Option<Vec<String>>,
    /// Only these who pay; empty stands for all.
    pub(super) customers: Vec<String>,
    /// A row for each value of these: `subject`, `customer_id` and dimensions.
    pub(super) group_by: Vec<String>,
    /// Only where a dimension has one of these values.
    pub(super) filters: BTreeMap<String, Vec<String>>,
}

/// How long the time of one row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowSize {
    Minute,
    Hour,
    Day,
    Month,
}

impl WindowSize {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "MINUTE" => WindowSize::Minute,
            "HOUR" => WindowSize::Hour,
            "DAY" => WindowSize::Day,
            "MONTH" => WindowSize::Month,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            WindowSize::Minute => "MINUTE",
            WindowSize::Hour => "HOUR",
            WindowSize::Day => "DAY",
            WindowSize::Month => "MONTH",
        }
    }

    /// The time around an instant, `[start, end)` in microseconds; `None` beyond the calendar.
    pub(super) fn around(self, us: i64, zone: &TimeZone) -> Option<(i64, i64)> {
        const MINUTE_US: i64 = 60_000_000;
        if self == WindowSize::Minute {
            let start = us.div_euclid(MINUTE_US) * MINUTE_US;
            return Some((start, start.checked_add(MINUTE_US)?));
        }
        let at = Timestamp::from_microsecond(us)
            .ok()?
            .to_zoned_datetime(zone.clone());
        let (start, end) = match self {
            WindowSize::Minute | WindowSize::Hour => {
                // An hour by the clock of the zone, each of the two that a change of clocks makes alike.
                let past = at
                    .time()
                    .duration_since(jiff::civil::time(at.hour(), 0, 0, 0));
                let start = at.timestamp().checked_sub(past).ok()?;
                (start, start.checked_add(1.hour()).ok()?)
            }
            WindowSize::Day => {
                let start = at.start_of_day().ok()?;
                let end = start.date().tomorrow().ok()?;
                (start.timestamp(), begin(end, zone)?)
            }
            WindowSize::Month => {
                let first = at.date().first_of_month();
                let next = first.checked_add(1.month()).ok()?;
                (begin(first, zone)?, begin(next, zone)?)
            }
        };
        Some((start.as_microsecond(), end.as_microsecond()))
    }
}

/// The first instant of a day.
fn begin(day: jiff::civil::Date, zone: &TimeZone) -> Option<Timestamp> {
    let start = day.to_zoned_datetime(zone.clone()).ok()?;
    Some(start.timestamp())
}

/// The body of `POST …/query`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Asked {
    from: Option<String>,
    to: Option<String>,
    window_size: Option<String>,
    window_time_zone: Option<String>,
    subject: Option<Vec<String>>,
    filter_customer_id: Option<Vec<String>>,
    group_by: Option<Vec<String>>,
    filter_group_by: Option<BTreeMap<String, OneOrMany>>,
    advanced_meter_group_by_filters: Option<BTreeMap<String, Advanced>>,
    /// Names the query for its progress, of which there is none.
    #[serde(rename = "clientId")]
    _client_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What is read of OpenMeter's newer filters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advanced {
    #[serde(rename = "$eq")]
    eq: Option<String>,
    #[serde(rename = "$in")]
    is_in: Option<Vec<String>>,
}

impl Question {
    /// From the parameters of a URL.
    ///
    /// # Errors
    /// One cannot be read, is not known, or contradicts another.
    pub(super) fn from_url(query: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = Parameters::read(query)?;
        let optional = |values: Vec<String>| (!values.is_empty()).then_some(values);
        let mut filters: BTreeMap<String, OneOrMany> = BTreeMap::new();
        if let Some(text) = parameters.one("filterGroupBy")? {
            let members = object(&text).ok_or_else(|| {
                Problem::parameter(format!(
                    "`filterGroupBy` is `{text}`; write filterGroupBy[model]=gpt-4"
                ))
            })?;
            filters.extend(members);
        }
        for (key, value) in parameters.members("filterGroupBy") {
            match filters
                .entry(key)
                .or_insert_with(|| OneOrMany::Many(Vec::new()))
            {
                OneOrMany::Many(values) => values.push(value),
                OneOrMany::One(first) => {
                    let first = std::mem::take(first);
                    return Err(Problem::parameter(format!(
                        "`filterGroupBy` is given as an object with `{first}` and by its members; write one of them"
                    )));
                }
            }
        }
        let advanced = match parameters.one("advancedMeterGroupByFilters")? {
            None => None,
            Some(text) => Some(serde_json::from_str(&text).map_err(|error| {
                Problem::parameter(format!("`advancedMeterGroupByFilters`: {error}"))
            })?),
        };
        let asked = Asked {
            from: parameters.time("from")?,
            to: parameters.time("to")?,
            window_size: parameters.one("windowSize")?,
            window_time_zone: parameters.one("windowTimeZone")?,
            subject: optional(parameters.all("subject")),
            filter_customer_id: optional(parameters.all("filterCustomerId")),
            group_by: optional(parameters.all("groupBy")),
            filter_group_by: Some(filters),
            advanced_meter_group_by_filters: advanced,
            _client_id: parameters.one("clientId")?,
        };
        parameters.finish()?;
        Question::of(asked)
    }

    /// Of the time in a URL, a row for each subject.
    ///
    /// # Errors
    /// As [`Question::from_url`].
    pub(super) fn by_subject(query: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = Parameters::read(query)?;
        let asked = Asked {
            from: parameters.time("from")?,
            to: parameters.time("to")?,
            group_by: Some(vec!["subject".to_owned()]),
            ..Asked::default()
        };
        parameters.finish()?;
        Question::of(asked)
    }

    /// From a JSON body.
    ///
    /// # Errors
    /// As [`Question::from_url`].
    pub(super) fn from_body(body: &[u8]) -> Result<Self, Problem> {
        let asked = serde_json::from_slice(body)
            .map_err(|error| Problem::parameter(format!("the body: {error}")))?;
        Question::of(asked)
    }

    /// The same of the subjects that the caller may see.
    pub(super) fn only(mut self, visible: Option<Vec<String>>) -> Self {
        self.visible = visible;
        self
    }

    fn of(asked: Asked) -> Result<Self, Problem> {
        let from_us = instant_in("from", asked.from.as_deref())?;
        let to_us = instant_in("to", asked.to.as_deref())?;
        if let (Some(from_us), Some(to_us)) = (from_us, to_us)
            && from_us >= to_us
        {
            return Err(Problem::parameter("`to` must be after `from`"));
        }
        let window = match asked.window_size.as_deref() {
            None => None,
            Some(text) => Some(WindowSize::parse(text).ok_or_else(|| {
                Problem::parameter(format!(
                    "`windowSize` is `{text}`; write MINUTE, HOUR, DAY or MONTH"
                ))
            })?),
        };
        let zone = asked.window_time_zone.unwrap_or_else(|| "UTC".to_owned());
        let zone = TimeZone::get(&zone).map_err(|_| {
            Problem::parameter(format!(
                "`windowTimeZone` is `{zone}`, which is no IANA time zone such as Europe/Berlin"
            ))
        })?;
        let subjects = asked.subject.unwrap_or_default();
        let customers = asked.filter_customer_id.unwrap_or_default();
        let mut group_by = asked.group_by.unwrap_or_default();
        // A filter by subject or customer says whose each row is.
        for (name, filtered) in [
            ("subject", !subjects.is_empty()),
            ("customer_id", !customers.is_empty()),
        ] {
            if filtered && !group_by.iter().any(|key| key == name) {
                group_by.push(name.to_owned());
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        group_by.retain(|key| seen.insert(key.clone()));
        Ok(Question {
            from_us,
            to_us,
            window,
            zone,
            subjects,
            visible: None,
            customers,
            group_by,
            filters: filters(asked.filter_group_by, asked.advanced_meter_group_by_filters)?,
        })
    }
}

fn filters(
    simple: Option<BTreeMap<String, OneOrMany>>,
    advanced: Option<BTreeMap<String, Advanced>>,
) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let mut filters = BTreeMap::new();
    for (key, values) in simple.unwrap_or_default() {
        let values = match values {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        };
        filters.insert(key, values);
    }
    for (key, advanced) in advanced.unwrap_or_default() {
        let values = match (advanced.eq, advanced.is_in) {
            (Some(value), None) => vec![value],
            (None, Some(values)) => values,
            _ => {
                return Err(Problem::parameter(format!(
                    "the filter of `{key}` must be one of {{\"$eq\": …}} and {{\"$in\": […]}}"
                )));
            }
        };
        if filters.insert(key.clone(), values).is_some() {
            return Err(Problem::parameter(format!("`{key}` is filtered twice")));
        }
    }
    Ok(filters)
}

/// An object of texts as JSON or as Python prints it, which OpenMeter's Python client sends: `{'model': 'gpt-4'}`.
fn object(text: &str) -> Option<BTreeMap<String, OneOrMany>> {
    let json = serde_json::from_str::<BTreeMap<String, OneOrMany>>(text).ok();
    json.or_else(|| {
        let members = python_object(text)?.into_iter();
        Some(
            members
                .map(|(key, value)| (key, OneOrMany::One(value)))
                .collect(),
        )
    })
}

/// `{'a': 'x', 'b': "it's"}`.
fn python_object(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    let mut members = Vec::new();
    if let Some(rest) = rest.strip_prefix('}') {
        return rest.is_empty().then_some(members);
    }
    loop {
        let (key, after) = python_text(rest)?;
        let (value, after) = python_text(after.trim_start().strip_prefix(':')?.trim_start())?;
        members.push((key, value));
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return (after == "}").then_some(members),
        }
    }
}

/// A text in quotes of either kind, and what follows it.
fn python_text(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                let (_, escaped) = characters.next()?;
                value.push(match escaped {
                    '\\' | '\'' | '"' => escaped,
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    _ => return None,
                });
            }
            _ if character == quote => return Some((value, &text[at + 1..])),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(query: &str) -> Question {
        Question::from_url(Some(query)).unwrap()
    }

    fn refused(query: &str) -> String {
        Question::from_url(Some(query)).unwrap_err().to_string()
    }

    #[test]
    fn a_url_and_a_body_ask_the_same() {
        let asked = url(
            "from=2026-10-01T00%3A00%3A00Z&to=2026-10-02T02:00:00+02:00&windowSize=DAY&windowTimeZone=Europe/Berlin\
             &subject=a&subject=b&groupBy=model&groupBy=model&filterGroupBy[region]=eu&filterGroupBy[region]=us&clientId=x",
        );
        assert_eq!(
            asked.to_us.unwrap() - asked.from_us.unwrap(),
            86_400_000_000
        );
        assert_eq!(asked.group_by, ["model", "subject"]);
        assert_eq!(asked.filters["region"], ["eu", "us"]);
        let body =
            br#"{"from":"2026-10-01T00:00:00Z","to":"2026-10-02T00:00:00Z","windowSize":"DAY",
            "windowTimeZone":"Europe/Berlin","subject":["a","b"],"groupBy":["model"],
            "filterGroupBy":{"region":["eu","us"]}}"#;
        assert_eq!(Question::from_body(body).unwrap(), asked);
        let advanced =
            br#"{"from":"2026-10-01T00:00:00Z","to":"2026-10-02T00:00:00Z","windowSize":"DAY",
            "windowTimeZone":"Europe/Berlin","subject":["a","b"],"groupBy":["model"],
            "advancedMeterGroupByFilters":{"region":{"$in":["eu","us"]}}}"#;
        assert_eq!(Question::from_body(advanced).unwrap(), asked);
    }

    #[test]
    fn the_python_clients_filter_is_read_as_it_is_sent() {
        for (sent, model) in [
            ("{'model': 'gpt-4o'}", "gpt-4o"),
            (r#"{'model': "it's"}"#, "it's"),
            (r"{'model': 'a\\b\'c'}", r"a\b'c"),
            (r#"{"model": "json"}"#, "json"),
        ] {
            let query: String = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("filterGroupBy", sent)
                .finish();
            assert_eq!(url(&query).filters["model"], [model], "{sent}");
        }
        for broken in [
            "{'model'}",
            "{'a': 1}",
            "model",
            "{'a': 'b'",
            "{'a': 'b'} x",
        ] {
            assert!(refused(&format!("filterGroupBy={broken}")).contains("filterGroupBy"));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (query, names) in [
            ("from=yesterday", "`from`"),
            ("from=2026-10-01T00:00:00Z&to=2026-10-01T00:00:00Z", "`to`"),
            ("windowSize=WEEK", "`windowSize`"),
            ("windowTimeZone=Mars/Olympus", "`windowTimeZone`"),
            ("window=DAY", "`window`"),
        ] {
            assert!(refused(query).contains(names), "{query}");
        }
    }

    #[test]
    fn days_and_months_follow_the_clocks_of_the_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        let around = |size: WindowSize, text: &str, zone: &TimeZone| size.around(at(text), zone);
        let span = |from: &str, to: &str| Some((at(from), at(to)));
        // 25 October 2026 has 25 hours there.
        assert_eq!(
            around(WindowSize::Day, "2026-10-25T12:00:00Z", &berlin),
            span("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")
        );
        assert_eq!(
            around(WindowSize::Month, "2026-10-31T23:30:00Z", &berlin),
            span("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
        );
        // The second of the two hours that begin at 02:00.
        assert_eq!(
            around(WindowSize::Hour, "2026-10-25T01:20:00Z", &berlin),
            span("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z")
        );
        let kathmandu = TimeZone::get("Asia/Kathmandu").unwrap();
        assert_eq!(
            around(WindowSize::Hour, "2026-10-25T01:20:00Z", &kathmandu),
            span("2026-10-25T01:15:00Z", "2026-10-25T02:15:00Z")
        );
        assert_eq!(
            around(WindowSize::Minute, "1969-12-31T23:59:59.5Z", &berlin),
            span("1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z")
        );
    }
}
