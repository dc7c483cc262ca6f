//! Where a server is.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// Where a server is: `http://HOST[:PORT][/DATABASE]`, or `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    host: String,
    /// The port of its HTTP interface.
    pub port: u16,
    /// The database.
    pub database: String,
}

/// The database, if the URL names none.
pub const DATABASE: &str = "netwatch";

impl FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected http://HOST[:PORT][/DATABASE] or https://HOST[:PORT][/DATABASE]";
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(FORM),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("a URL has no user and no password here: there are options for them");
        }
        let database = uri.path().trim_matches('/');
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if uri.query().is_some()
            || !(database.is_empty() || is_name(database))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(FORM);
        }
        Ok(Self {
            is_tls,
            host: authority.host().to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 8443 } else { 8123 }),
            database: if database.is_empty() { DATABASE } else { database }.to_owned(),
        })
    }
}

impl ServerUrl {
    pub(super) fn base(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        for (text, shown) in [
            ("http://db1", "http://db1:8123/netwatch"),
            ("http://127.0.0.1:18123/x_1/", "http://127.0.0.1:18123/x_1"),
            ("https://[::1]/", "https://[::1]:8443/netwatch"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "db1",
            "ftp://db1",
            "http://",
            "http://u:p@db1",
            "http://db1/a;b",
            "http://db1/?x=1",
            "http://db1/1x",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }
}
