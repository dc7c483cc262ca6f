//! Match lists: addresses, networks and names, one a line. Looking one up costs a hash for each length of a network that
//! the lists have, however many lines there are.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use crate::alert::{Alert, Level, Rule};
use crate::hash::Map;
use crate::tracker::{ConnectionEvent, EventKind};
use crate::{blocking, escape, limits};

/// Why a list cannot be used.
#[derive(Debug, Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read the list {}: {error}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is neither an address nor a network nor a name.
    #[error("{}:{line}: `{}` is neither an address nor a network nor a name", .file.display(), escape::terminal(.text))]
    Line {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
        /// What it has.
        text: String,
    },
    /// It has too many lines.
    #[error("{} has more than {most} entries", .file.display())]
    TooMany {
        /// The file.
        file: PathBuf,
        /// The limit.
        most: usize,
    },
}

/// Where an entry is: the number of its list, and its line.
type Place = (u32, u32);

/// All lists.
#[derive(Debug, Default)]
pub struct Lists {
    rules: Vec<(Arc<Rule>, PathBuf)>,
    addresses: Map<IpAddr, Place>,
    /// By length, the longest first.
    networks: Vec<(u8, Map<IpNet, Place>)>,
    names: Map<Box<str>, Place>,
}

impl Lists {
    /// Reads lists.
    ///
    /// # Errors
    /// The first file or line that cannot be used.
    pub fn read(files: &[PathBuf]) -> Result<Self, ListError> {
        let mut lists = Self::default();
        for file in files {
            let text = blocking::text(file, limits::LIST_FILE, limits::READ_WAIT)
                .map_err(|error| ListError::Read { file: file.clone(), error })?;
            lists.add(file, &text)?;
        }
        lists.networks.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Ok(lists)
    }

    fn add(&mut self, file: &Path, text: &str) -> Result<(), ListError> {
        let list = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        let name = escape::terminal(&name).into_owned();
        let rule = Rule {
            id: format!("match-list:{name}").into(),
            title: format!("Listed in {name}").into(),
            level: Level::High,
            tags: Vec::new(),
            code: None,
        };
        self.rules.push((Arc::new(rule), file.to_owned()));
        for (number, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let place = (list, u32::try_from(number + 1).unwrap_or(u32::MAX));
            if !self.insert(entry, place) {
                let (file, text) = (file.to_owned(), entry.chars().take(100).collect());
                return Err(ListError::Line { file, line: number + 1, text });
            }
            if self.len() > limits::LIST_ENTRIES {
                return Err(ListError::TooMany { file: file.to_owned(), most: limits::LIST_ENTRIES });
            }
        }
        Ok(())
    }

    /// Returns whether it is an entry. Of two that are the same the first counts.
    fn insert(&mut self, entry: &str, place: Place) -> bool {
        if let Ok(ip) = entry.parse::<IpAddr>() {
            self.addresses.entry(ip.to_canonical()).or_insert(place);
        } else if let Ok(network) = entry.parse::<IpNet>() {
            let length = network.prefix_len();
            let known = self.networks.iter_mut().find(|(known, _)| *known == length);
            match known {
                Some((_, of_length)) => _ = of_length.entry(network.trunc()).or_insert(place),
                None => {
                    let of_length = [(network.trunc(), place)].into_iter().collect();
                    self.networks.push((length, of_length));
                }
            }
        } else if is_name(entry) {
            self.names.entry(canonical(entry).into()).or_insert(place);
        } else {
            return false;
        }
        true
    }

    fn len(&self) -> usize {
        self.addresses.len()
            + self.names.len()
            + self.networks.iter().map(|(_, map)| map.len()).sum::<usize>()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The alert about a connection whose remote address or name is listed.
    pub(super) fn event(&self, event: &ConnectionEvent) -> Option<Alert> {
        let endpoint = &event.endpoint;
        let is_one = matches!(event.kind, EventKind::Open | EventKind::Fail | EventKind::Seed);
        let remote = endpoint.remote.filter(|_| is_one)?;
        let (place, what) = match self.of_address(remote.ip) {
            Some(place) => (place, remote.ip.to_string()),
            None => names(event).find_map(|name| Some((self.of_name(name)?, name.to_owned())))?,
        };
        let (rule, file) = self.rules.get(place.0 as usize)?;
        let detail = format!("{what} is in {}:{}", file.display(), place.1);
        Some(Alert::of_event(rule, event, detail))
    }

    fn of_address(&self, ip: IpAddr) -> Option<Place> {
        let own = self.addresses.get(&ip).copied();
        let within = |(length, of_length): &(u8, Map<IpNet, Place>)| {
            let network = IpNet::new(ip, *length).ok()?.trunc();
            of_length.get(&network).copied()
        };
        own.or_else(|| self.networks.iter().find_map(within))
    }

    /// A name, or one that it is below: `.example.com`.
    fn of_name(&self, name: &str) -> Option<Place> {
        if self.names.is_empty() {
            return None;
        }
        let name = canonical(name);
        let own = self.names.get(name.as_str()).copied();
        let above = name.match_indices('.').map(|(dot, _)| name.get(dot..).unwrap_or_default());
        own.or_else(|| above.into_iter().find_map(|part| self.names.get(part).copied()))
    }
}

/// Names by which the remote end is known.
fn names(event: &ConnectionEvent) -> impl Iterator<Item = &str> {
    event.endpoint.names.remote().into_iter().map(|name| &*name.name)
}

/// A name in lower case, without a dot at its end; `*.` before it becomes a dot.
fn canonical(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase()
}

fn is_name(text: &str) -> bool {
    let name = text.strip_prefix('*').unwrap_or(text);
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    name.contains('.')
        && name.len() <= 254
        && name.chars().all(is_letter)
        && name.chars().any(|c| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::tests::event;

    fn lists(text: &str) -> Result<Lists, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.txt");
        std::fs::write(&file, text).unwrap();
        Lists::read(std::slice::from_ref(&file))
            .map_err(|error| error.to_string().replace(file.to_str().unwrap(), "FILE"))
    }

    fn found(lists: &Lists, remote: &str) -> Option<String> {
        let alert = lists.event(&event(EventKind::Open, "10.0.0.1:40000", Some(remote)))?;
        assert_eq!(&*alert.rule.id, "match-list:bad.txt");
        Some(alert.detail.rsplit('/').next().unwrap().to_owned())
    }

    #[test]
    fn addresses_networks_and_names() {
        let lists = lists(
            "# a comment\n192.0.2.7\n198.51.100.0/24 # a network\n198.51.100.128/25\n2001:db8::/32\n\n*.Example.com\nevil.org.\n::ffff:192.0.2.9\n",
        )
        .unwrap();
        assert_eq!(found(&lists, "192.0.2.7:443").as_deref(), Some("bad.txt:2"));
        assert_eq!(found(&lists, "192.0.2.8:443"), None);
        assert_eq!(found(&lists, "192.0.2.9:443").as_deref(), Some("bad.txt:9"), "as IPv4");
        assert_eq!(found(&lists, "198.51.100.9:443").as_deref(), Some("bad.txt:3"));
        assert_eq!(found(&lists, "198.51.100.129:443").as_deref(), Some("bad.txt:4"), "the longest");
        assert_eq!(found(&lists, "[2001:db8::1]:443").as_deref(), Some("bad.txt:5"));
        let line = |name: &str| lists.of_name(name).map(|(_, line)| line);
        assert_eq!((line("www.example.COM"), line("a.b.example.com")), (Some(7), Some(7)));
        assert_eq!((line("example.com"), line("notexample.com")), (None, None), "only what is below");
        assert_eq!((line("evil.org"), line("www.evil.org")), (Some(8), None));
        let mut named = event(EventKind::Open, "10.0.0.1:40000", Some("192.0.2.8:443"));
        let said = crate::names::HostName::said("www.example.com", crate::model::tests::ns(1));
        named.endpoint.names = crate::names::Names::new(Some(said.into()), None);
        let alert = lists.event(&named).unwrap();
        assert!(
            alert.detail.starts_with("www.example.com is in ") && alert.detail.ends_with(":7"),
            "{}",
            alert.detail
        );
        let close = event(EventKind::Close, "10.0.0.1:40000", Some("192.0.2.7:443"));
        assert!(lists.event(&close).is_none(), "told of when it began");
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, line) in
            [("x\n", 1), ("192.0.2.1\n10.0.0.0/33", 2), ("\n\na b.c", 3), ("::1/129", 1), ("1.2.3", 1)]
        {
            let error = lists(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with(&format!("FILE:{line}: `")), "{text}: {error}");
        }
    }

    #[test]
    fn lists_are_limited() {
        let text: String = (0..=limits::LIST_ENTRIES as u32)
            .map(|n| format!("{}\n", std::net::Ipv4Addr::from_bits(0x0a00_0000 + n)))
            .collect();
        assert!(lists(&text).map(|_| ()).unwrap_err().contains("entries"));
        assert!(lists(text.rsplit_once("\n1").unwrap().0).is_ok());
    }
}
