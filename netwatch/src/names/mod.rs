//! Names of hosts, as programs on this host learned them from DNS answers or said them in TLS. Pure. Nothing is asked:
//! an address has the name by which a program on this host came to it, not one that its owner chose.

mod answer;
mod hello;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;
use lru::LruCache;
use serde::{Serialize, Serializer};

use crate::hash::Map;
use crate::limits;
use crate::model::{BootTime, NetnsId, ProcessKey};
use crate::process::Process;

/// How the name of a host is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameBasis {
    /// A DNS answer had the address.
    DnsAnswer,
    /// The client said it in its ClientHello.
    TlsSni,
}

impl NameBasis {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::DnsAnswer, Self::TlsSni];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DnsAnswer => "dns-answer",
            Self::TlsSni => "tls-sni",
        }
    }
}

impl Serialize for NameBasis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The name of the host at one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// In lower case, without a dot at the end. What is not a letter, a digit, `-` or `_` in a label is written `\DDD`
    /// (RFC 4343, section 2.1).
    pub name: Arc<str>,
    /// How it is known.
    pub basis: NameBasis,
    /// When that was said.
    pub at: BootTime,
    /// The process that asked DNS, if known.
    pub asked_by: Option<Arc<Process>>,
    /// Number of names that answers gave the address, this one included.
    pub candidates: u32,
}

impl HostName {
    /// As a client says it in TLS.
    #[must_use]
    pub fn said(name: &str, at: BootTime) -> Self {
        Self { name: name.into(), basis: NameBasis::TlsSni, at, asked_by: None, candidates: 1 }
    }

    /// Whether a process asked for the name itself.
    #[must_use]
    pub fn was_asked_by(&self, process: Option<ProcessKey>) -> bool {
        asked(self.asked_by.as_ref(), process)
    }
}

/// Whether who asked is this process; not if one of them is not known.
fn asked(asker: Option<&Arc<Process>>, process: Option<ProcessKey>) -> bool {
    asker.zip(process).is_some_and(|(asker, process)| asker.key.may_be(process))
}

/// The names of both ends of a connection. One pointer: most connections have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Option<Arc<Ends>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ends {
    remote: Option<Arc<HostName>>,
    local: Option<Arc<HostName>>,
}

impl Names {
    /// Of both ends.
    #[must_use]
    pub fn new(remote: Option<Arc<HostName>>, local: Option<Arc<HostName>>) -> Self {
        let is_empty = remote.is_none() && local.is_none();
        Self((!is_empty).then(|| Arc::new(Ends { remote, local })))
    }

    /// Of the other end.
    #[must_use]
    pub fn remote(&self) -> Option<&Arc<HostName>> {
        self.0.as_ref()?.remote.as_ref()
    }

    /// Of this one, as the client calls it.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<HostName>> {
        self.0.as_ref()?.local.as_ref()
    }

    /// Both.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<HostName>> {
        self.remote().into_iter().chain(self.local())
    }

    pub(crate) fn set_remote(&mut self, name: Arc<HostName>) {
        *self = Self::new(Some(name), self.local().cloned());
    }

    pub(crate) fn set_local(&mut self, name: Arc<HostName>) {
        *self = Self::new(self.remote().cloned(), Some(name));
    }

    /// Adopts what the client at the other end of the connection calls this host.
    pub(crate) fn learn_from(&mut self, peer: &Self) {
        if let (None, Some(name)) = (self.local(), peer.remote()) {
            self.set_local(name.clone());
        }
    }
}

/// The addresses that DNS answers had.
#[derive(Debug)]
pub struct AnswerTable {
    by_address: LruCache<(NetnsId, u32, IpAddr), Vec<Known>, RandomState>,
    /// How many network namespaces had a number before: part of the key, so that nothing has to be removed.
    before: Map<NetnsId, u32>,
}

/// A name of an address.
#[derive(Clone, Debug)]
struct Known {
    name: Arc<str>,
    at: BootTime,
    /// It is not used for connections that begin later.
    until: BootTime,
    asked_by: Option<Arc<Process>>,
}

impl Default for AnswerTable {
    fn default() -> Self {
        let most = NonZeroUsize::new(limits::MOST_NAMED_ADDRESSES).unwrap_or(NonZeroUsize::MIN);
        Self { by_address: LruCache::with_hasher(most, RandomState::default()), before: Map::default() }
    }
}

impl AnswerTable {
    /// Forgets what was noted for the network namespace that had this number before.
    pub fn forget(&mut self, netns: NetnsId) {
        if self.before.len() >= limits::MOST_NAMED_NAMESPACES && !self.before.contains_key(&netns) {
            self.before.clear();
            self.by_address.clear();
        }
        *self.before.entry(netns).or_default() += 1;
    }

    fn key(&self, netns: NetnsId, address: IpAddr) -> (NetnsId, u32, IpAddr) {
        (netns, self.before.get(&netns).copied().unwrap_or_default(), address)
    }

    /// Notes an answer that a socket of `netns` received.
    pub fn note(&mut self, at: BootTime, netns: NetnsId, bytes: &[u8], asked_by: Option<&Arc<Process>>) {
        let Some(answer) = answer::parse(bytes) else { return };
        let name: Arc<str> = answer.name.into();
        for (address, ttl) in answer.addresses.into_iter().take(limits::MOST_ADDRESSES_OF_ANSWER) {
            let ttl = ttl.clamp(limits::NAME_KEPT_AT_LEAST, limits::NAME_KEPT_AT_MOST);
            let until = at.saturating_add(ttl.as_nanos().try_into().unwrap_or(u64::MAX));
            let known = Known { name: name.clone(), at, until, asked_by: asked_by.cloned() };
            let key = self.key(netns, address);
            let names = self.by_address.get_or_insert_mut(key, Vec::new);
            let asker = |known: &Known| known.asked_by.as_ref().map(|process| process.key);
            names.retain(|other| {
                other.until > at && (other.name != known.name || asker(other) != asker(&known))
            });
            if names.len() >= limits::MOST_NAMES_OF_ADDRESS {
                // The oldest.
                names.remove(0);
            }
            names.push(known);
        }
    }

    /// The name of an address for a connection that a process begins: by the newest answer to the same process, else by
    /// the newest.
    pub fn name_of(
        &mut self,
        netns: NetnsId,
        address: IpAddr,
        process: Option<ProcessKey>,
        began: BootTime,
    ) -> Option<HostName> {
        let key = self.key(netns, address);
        let names = self.by_address.get(&key)?;
        let valid = || names.iter().filter(|known| known.at <= began && began < known.until);
        let own = |known: &&Known| asked(known.asked_by.as_ref(), process);
        let newest = valid().filter(own).max_by_key(|known| known.at);
        let known = newest.or_else(|| valid().max_by_key(|known| known.at))?;
        let mut all: Vec<_> = valid().map(|known| &known.name).collect();
        all.sort_unstable();
        all.dedup();
        Some(HostName {
            name: known.name.clone(),
            basis: NameBasis::DnsAnswer,
            at: known.at,
            asked_by: known.asked_by.clone(),
            candidates: all.len().try_into().unwrap_or(u32::MAX),
        })
    }
}

/// The name of the server in a TLS ClientHello.
#[must_use]
pub fn server_name(bytes: &[u8]) -> Option<String> {
    hello::server_name(bytes)
}

/// A name from its labels, as in [`HostName::name`]; `None` if it is not one of a host: the root, or with an empty label.
fn spelled<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    /// RFC 1035, section 2.3.4.
    const LONGEST: usize = 255;
    let (mut out, mut len) = (String::new(), 0);
    for label in labels {
        if len > 0 {
            out.push('.');
        }
        len += label.len() + 1;
        if label.is_empty() || len > LONGEST {
            return None;
        }
        for byte in label {
            if byte.is_ascii_alphanumeric() || b"-_".contains(byte) {
                out.push(byte.to_ascii_lowercase().into());
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    (len > 0).then_some(out)
}

#[cfg(test)]
mod tests;
