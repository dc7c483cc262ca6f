//! Names of ports, from `/etc/services`: the registered service, which need not be the one that listens.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::model::Proto;
use crate::{bounded, escape, limits};

/// Port names.
#[derive(Clone, Debug, Default)]
pub struct Services {
    names: HashMap<(Proto, u16), String>,
    notes: Vec<String>,
}

impl Services {
    /// The names of this host, read once; empty if the file does not exist.
    #[must_use]
    pub fn host() -> &'static Self {
        static HOST: OnceLock<Services> = OnceLock::new();
        HOST.get_or_init(|| match bounded::read("/etc/services", limits::NAMES_FILE) {
            Ok(file) => Self::parse_beginning(&file),
            Err(error) => {
                Self { notes: vec![format!("cannot read /etc/services: {error}")], ..Self::default() }
            }
        })
    }

    /// Errors in the file, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Parses a file that may have been read in part: then the last line, which may be cut, is left out.
    fn parse_beginning(file: &bounded::Beginning) -> Self {
        if !file.more {
            return Self::parse(&file.bytes);
        }
        let whole = file.bytes.iter().rposition(|b| *b == b'\n').unwrap_or(0);
        let mut services = Self::parse(file.bytes.get(..whole).unwrap_or_default());
        let most = limits::NAMES_FILE >> 20;
        services.notes.push(format!("/etc/services is larger than {most} MiB, and the rest was not read"));
        services
    }

    /// The first of several names is used, as by getservbyport(3). Lines are as in services(5); invalid ones are
    /// skipped.
    #[must_use]
    pub fn parse(file: &[u8]) -> Self {
        let mut names = HashMap::new();
        let mut wrong = Vec::new();
        for (number, line) in (1..).zip(file.split(|b| *b == b'\n')) {
            let text = line.split(|b| *b == b'#').next().unwrap_or_default();
            match entry(&escape::utf8(text)) {
                Entry::Name(key, name) => _ = names.entry(key).or_insert(name),
                Entry::Nothing => {}
                Entry::Wrong => wrong.push(number),
            }
        }
        let notes = match wrong[..] {
            [] => Vec::new(),
            [line] => vec![format!("line {line} of /etc/services is invalid")],
            [line, ref others @ ..] => {
                vec![format!("line {line} of /etc/services and {} others are invalid", others.len())]
            }
        };
        Self { names, notes }
    }

    /// The name of a port; `None` if the file has none.
    #[must_use]
    pub fn name(&self, proto: Proto, port: u16) -> Option<&str> {
        self.names.get(&(proto, port)).map(String::as_str)
    }
}

/// A parsed line.
enum Entry {
    Name((Proto, u16), String),
    /// A comment, or a port of another protocol.
    Nothing,
    Wrong,
}

fn entry(line: &str) -> Entry {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Entry::Nothing };
    let Some((port, proto)) = words.next().and_then(|word| word.split_once('/')) else { return Entry::Wrong };
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return Entry::Nothing,
    };
    match port.parse() {
        Ok(port) => Entry::Name((proto, port), name.to_owned()),
        Err(_) => Entry::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_name_holds_and_bad_lines_are_skipped() {
        let file = b"# comment\n\nssh\t22/tcp\t# Secure Shell\nother 22/tcp\ndomain 53/udp dns\n\
            bad\nbad 99999/tcp\nbad x/tcp\nbad 80\nbad /tcp\nsctp 80/sctp\n\xff\xfe 81/tcp\nlast 82/tcp";
        let services = Services::parse(file);
        assert_eq!(services.name(Proto::Tcp, 22), Some("ssh"));
        assert_eq!(services.name(Proto::Udp, 22), None);
        assert_eq!(services.name(Proto::Udp, 53), Some("domain"));
        assert_eq!(services.name(Proto::Tcp, 80), None);
        assert_eq!(services.name(Proto::Tcp, 81), Some("\\xff\\xfe"));
        assert_eq!(services.name(Proto::Tcp, 82), Some("last"));
        assert_eq!(services.names.len(), 4);
        assert_eq!(services.notes(), ["line 6 of /etc/services and 4 others are invalid"]);
    }

    #[test]
    fn a_file_over_the_limit_is_read_in_part() {
        let bytes = b"ssh 22/tcp\nfirst 80/tcp".to_vec();
        let services = Services::parse_beginning(&bounded::Beginning { bytes: bytes.clone(), more: true });
        assert_eq!((services.name(Proto::Tcp, 22), services.name(Proto::Tcp, 80)), (Some("ssh"), None));
        assert_eq!(services.notes(), ["/etc/services is larger than 4 MiB, and the rest was not read"]);
        let services = Services::parse_beginning(&bounded::Beginning { bytes, more: false });
        assert_eq!(services.name(Proto::Tcp, 80), Some("first"));
        assert!(services.notes().is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(file in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Services::parse(&file);
        }
    }
}
