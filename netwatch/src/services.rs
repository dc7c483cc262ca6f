//! Names of well-known ports, from `/etc/services`. A name is a hint for a reader: it says what the port
//! is registered for, not what answers there.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::escape;
use crate::model::Proto;

/// Port names.
#[derive(Clone, Debug, Default)]
pub struct Services {
    names: HashMap<(Proto, u16), String>,
}

impl Services {
    /// The host's own, read once. Where there is no such file there are no names.
    #[must_use]
    pub fn host() -> &'static Self {
        static HOST: OnceLock<Services> = OnceLock::new();
        HOST.get_or_init(|| Self::parse(&std::fs::read("/etc/services").unwrap_or_default()))
    }

    /// Of several names for a port the first holds, as for getservbyport(3). Lines as in services(5); one
    /// that makes no sense is skipped.
    #[must_use]
    pub fn parse(file: &[u8]) -> Self {
        let mut names = HashMap::new();
        for line in file.split(|b| *b == b'\n') {
            let text = line.split(|b| *b == b'#').next().unwrap_or_default();
            if let Some((key, name)) = entry(&escape::utf8(text)) {
                names.entry(key).or_insert(name);
            }
        }
        Self { names }
    }

    /// `None` where the file has no name for it.
    #[must_use]
    pub fn name(&self, proto: Proto, port: u16) -> Option<&str> {
        self.names.get(&(proto, port)).map(String::as_str)
    }
}

fn entry(line: &str) -> Option<((Proto, u16), String)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let (port, proto) = words.next()?.split_once('/')?;
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return None,
    };
    Some(((proto, port.parse().ok()?), name.to_owned()))
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
    }

    proptest! {
        #[test]
        fn nothing_panics(file in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Services::parse(&file);
        }
    }
}
