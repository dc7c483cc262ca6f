//! Names of RPC programs, from `/etc/rpc`.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::{bounded, escape, limits};

/// Program names.
#[derive(Clone, Debug, Default)]
pub(in crate::inventory) struct RpcNames {
    names: HashMap<u32, String>,
}

impl RpcNames {
    /// The host's own, read once. Where there is no such file there are no names.
    #[must_use]
    pub(in crate::inventory) fn host() -> &'static Self {
        static HOST: OnceLock<RpcNames> = OnceLock::new();
        HOST.get_or_init(|| {
            bounded::read("/etc/rpc", limits::NAMES_FILE)
                .map(|file| Self::parse(&file.bytes))
                .unwrap_or_default()
        })
    }

    /// Of several names for a number the first holds, as for getrpcbynumber(3). Lines as in rpc(5): name, number,
    /// aliases; one that makes no sense is skipped.
    #[must_use]
    pub(in crate::inventory) fn parse(file: &[u8]) -> Self {
        let mut names = HashMap::new();
        for line in file.split(|b| *b == b'\n') {
            let text = line.split(|b| *b == b'#').next().unwrap_or_default();
            let text = escape::utf8(text);
            let mut words = text.split_ascii_whitespace();
            if let (Some(name), Some(number)) = (words.next(), words.next())
                && let Ok(number) = number.parse()
            {
                names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
        Self { names }
    }

    /// `None` where the file has no name for it.
    #[must_use]
    pub(in crate::inventory) fn name(&self, program: u32) -> Option<&str> {
        self.names.get(&program).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_name_holds_and_bad_lines_are_skipped() {
        let file =
            b"# x\n\nportmapper\t100000\tportmap sunrpc # rpcbind\nother 100000\nnfs 100003\nbad\nbad x\n\
            bad -1\nbad 4294967296\n\xff 7\n# nfs 8";
        let programs = RpcNames::parse(file);
        assert_eq!(programs.name(100_000), Some("portmapper"));
        assert_eq!(programs.name(100_003), Some("nfs"));
        assert_eq!(programs.name(7), Some("\\xff"));
        assert_eq!(programs.name(8), None);
        assert_eq!(programs.names.len(), 3);
    }

    proptest! {
        #[test]
        fn nothing_panics(file in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = RpcNames::parse(&file);
        }
    }
}
