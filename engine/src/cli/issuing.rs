//! Who issues documents.

use std::{env, fs};

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
}
