//! Server addresses as they are written, and the credentials in them.

use super::credentials::Auth;
use crate::event::percent_decode;
use async_nats::ServerAddr;
use std::borrow::Cow;
use url::Url;

/// The servers, and the credentials in their URLs. The client gets the first without the second: it ignores
/// them, and shows them in its log.
///
/// # Errors
/// Which address is none, and why, without its credentials.
pub(super) fn servers(urls: &str) -> Result<(Vec<ServerAddr>, Auth), String> {
    let mut servers = Vec::new();
    let mut auth = Auth::default();
    for text in split(urls) {
        let refused =
            |why: String| format!("`{}` is not a server address: {why}", hide_user(&text));
        let (server, own) = address(&text).map_err(refused)?;
        if own != Auth::default() && auth != Auth::default() && own != auth {
            return Err(refused("it names another user than the one before".into()));
        }
        if own != Auth::default() {
            auth = own;
        }
        servers.push(server);
    }
    Ok((servers, auth))
}

/// The servers as they may be shown: without user and password.
pub(super) fn shown(urls: &str) -> String {
    let shown: Vec<String> = split(urls).iter().map(|url| hide_user(url)).collect();
    shown.join(",")
}

/// One address and its credentials: user and password, or a token where there is only one.
fn address(text: &str) -> Result<(ServerAddr, Auth), String> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("nats://{text}"),
    };
    let mut url: Url = full
        .parse()
        .map_err(|error: url::ParseError| error.to_string())?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("something follows the port".into());
    }
    let decode = |text: &str| {
        let decoded = percent_decode(text).map(Cow::into_owned);
        decoded.ok_or_else(|| "user or password is not valid percent-encoded UTF-8".to_owned())
    };
    let user = decode(url.username())?;
    // A URL has no empty password: it counts as none there, and a user without one would be a token.
    let is_pair = full
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    let password = match url.password() {
        Some(password) => Some(decode(password)?),
        None => is_pair.then(String::new),
    };
    if user.is_empty() && password.is_some() {
        return Err("there is a password and no user".into());
    }
    let auth = match password {
        Some(password) => Auth {
            user_and_password: Some((user, password)),
            ..Auth::default()
        },
        None => Auth {
            token: Some(user).filter(|token| !token.is_empty()),
            ..Auth::default()
        },
    };
    // Neither can fail for a URL with a host.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    let server = ServerAddr::from_url(url).map_err(|error| error.to_string())?;
    Ok((server, auth))
}

/// The servers of a list. A comma that a password holds as it is does not end an address: what follows it has
/// an `@` and no scheme.
fn split(urls: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match all.last_mut() {
            Some(last) if part.contains('@') && !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => all.push(part.to_owned()),
        }
    }
    all.iter().map(|url| url.trim().to_owned()).collect()
}

/// `nats://user:password@host` as `nats://host`.
fn hide_user(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_shows_the_password() {
        assert_eq!(hide_user("nats://u:p@ss@host:4222"), "nats://host:4222");
        assert_eq!(hide_user("token@host"), "host");
        assert_eq!(hide_user("nats://host"), "nats://host");
        assert_eq!(shown("nats://a:b@one, tls://two"), "nats://one,tls://two");
        // A comma in a password, as it is.
        let urls = "nats://u:S3cret,x@one:1,tls://u:S3cret@two";
        assert_eq!(shown(urls), "nats://one:1,tls://two");
    }

    #[test]
    fn a_url_gives_the_address_and_apart_from_it_the_credentials() {
        let pair = |user: &str, password: &str| Auth {
            user_and_password: Some((user.into(), password.into())),
            ..Auth::default()
        };
        let token = |token: &str| Auth {
            token: Some(token.into()),
            ..Auth::default()
        };
        for (url, host, port, auth) in [
            ("nats://h:1", "h", 1, Auth::default()),
            ("h", "h", 4222, Auth::default()),
            ("tls://u:p@h:1", "h", 1, pair("u", "p")),
            ("u:@h", "h", 4222, pair("u", "")),
            ("nats://a%40b:p%2C%2f%25@h:1", "h", 1, pair("a@b", "p,/%")),
            ("nats://u:p@ss,w@h:1", "h", 1, pair("u", "p@ss,w")),
            ("nats://t%20k@h:1", "h", 1, token("t k")),
        ] {
            let (server, found) = address(url).unwrap();
            assert_eq!((server.host(), server.port()), (host, port), "{url}");
            assert!(found == auth, "{url}");
            assert!(!server.has_user_pass(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secrets() {
        for url in [
            "nats://u:S3cret/x@h:1",
            "nats://u:12/S3cret@h:1",
            "nats://u:S3cret#x@h",
            "nats://u:12?S3cret@h",
            "nats://u:S3cret%zz@h",
            "http://u:S3cret@h",
            "nats://:S3cret@h",
            "nats://u:S3cret@one,nats://u:S3cret2@two",
        ] {
            let error = servers(url).err().unwrap();
            assert!(!error.contains("S3cret"), "{error}");
        }
    }
}
