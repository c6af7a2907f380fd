//! The parameters in a URL, each read once: one that is not known is an error, so that a typo filters nothing away unseen.

use super::problem::Problem;
use jiff::Timestamp;
use url::form_urlencoded;

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct Parameters {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Parameters {
    /// # Errors
    /// It is not UTF-8.
    pub(super) fn read(query: Option<&str>) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let left: Vec<(String, String)> = pairs.into_owned().collect();
        let is_replaced = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
        match left
            .iter()
            .find(|(name, value)| is_replaced(name) || is_replaced(value))
        {
            Some((name, _)) => Err(Problem::parameter(format!("`{name}` is not valid UTF-8"))),
            None => Ok(Parameters {
                left,
                known: Vec::new(),
            }),
        }
    }

    /// Every value of a parameter, in order.
    pub(super) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let taken = self.left.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may be given once.
    ///
    /// # Errors
    /// It is given twice.
    pub(super) fn one(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name).into_iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Problem::parameter(format!("`{name}` is given twice"))),
            (value, None) => Ok(value),
        }
    }

    /// A parameter that is `true` or `false`; without it, false.
    ///
    /// # Errors
    /// It is given twice, or is neither.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.one(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(Problem::parameter(format!(
                "`{name}` is `{other}`; write true or false"
            ))),
        }
    }

    /// A parameter that is a whole number above zero.
    ///
    /// # Errors
    /// It is given twice, or is none.
    pub(super) fn number(&mut self, name: &'static str, usual: usize) -> Result<usize, Problem> {
        let Some(text) = self.one(name)? else {
            return Ok(usual);
        };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            Problem::parameter(format!("`{name}` is `{text}`; write a whole number from 1"))
        })
    }

    /// The text of a time. A plus that was not escaped is the sign before an offset.
    ///
    /// # Errors
    /// It is given twice.
    pub(super) fn time(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let text = self.one(name)?;
        Ok(text.map(|text| text.replace(' ', "+")))
    }

    /// A time, in microseconds.
    ///
    /// # Errors
    /// It is given twice, or is none.
    pub(super) fn instant(&mut self, name: &'static str) -> Result<Option<i64>, Problem> {
        let text = self.time(name)?;
        instant_in(name, text.as_deref())
    }

    /// The members of an object that is written `name[key]=value`, in order.
    pub(super) fn members(&mut self, name: &'static str) -> Vec<(String, String)> {
        let key_of = |known: &str| {
            let key = known.strip_prefix(name)?.strip_prefix('[')?;
            Some(key.strip_suffix(']')?.to_owned())
        };
        let taken = self
            .left
            .extract_if(.., |(known, _)| key_of(known).is_some());
        let members = taken.map(|(known, value)| (key_of(&known).unwrap_or_default(), value));
        members.collect()
    }

    /// # Errors
    /// There is a parameter that was not read.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => {
                let known: Vec<String> = self
                    .known
                    .iter()
                    .map(|known| format!("`{known}`"))
                    .collect();
                Err(Problem::parameter(format!(
                    "there is no parameter `{name}` here; there are {}",
                    known.join(", ")
                )))
            }
        }
    }
}

/// The time in a text, in microseconds.
///
/// # Errors
/// It is none.
pub(super) fn instant_in(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let read = |text: &str| match text.parse::<Timestamp>() {
        Ok(at) => Ok(at.as_microsecond()),
        Err(_) => Err(Problem::parameter(format!(
            "`{name}` is `{text}`; write a time such as 2026-10-01T00:00:00Z"
        ))),
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_repeated_and_all_known() {
        let query =
            "subject=a%20b&validate=true&subject=c+d&filter%5Bmodel%5D=x&filter[m]=y&clientId=1";
        let mut parameters = Parameters::read(Some(query)).unwrap();
        assert_eq!(parameters.all("subject"), ["a b", "c d"]);
        assert!(parameters.flag("validate").unwrap());
        assert!(!parameters.flag("other").unwrap());
        let members = [("model", "x"), ("m", "y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(parameters.members("filter"), members);
        let unknown = parameters.finish().unwrap_err().to_string();
        assert!(unknown.contains("no parameter `clientId`"), "{unknown}");
        assert!(unknown.contains("`subject`, `validate`"), "{unknown}");
    }

    #[test]
    fn a_parameter_twice_a_flag_that_is_none_and_bytes_that_are_no_text_are_refused() {
        let read = |query| Parameters::read(Some(query));
        assert!(read("from=1&from=2").unwrap().one("from").is_err());
        assert!(read("validate=yes").unwrap().flag("validate").is_err());
        assert!(read("subject=%ff").is_err());
        assert!(Parameters::read(None).unwrap().finish().is_ok());
    }
}
