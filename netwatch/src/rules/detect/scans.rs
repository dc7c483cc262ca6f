//! Port scans of this host.
//!
//! A probe of a port without a listener has no socket here and makes no event, unless it comes from this host. What is
//! seen of a scan from outside are its connections to listeners: they end without a byte of the client, or before they
//! are accepted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::alert::{Alert, Rule};
use crate::hash::{Map, Set};
use crate::limits;
use crate::model::{BootTime, Proto};
use crate::origin::Side;
use crate::tracker::{ConnectionEvent, EventKind, ProcessBasis};

/// So many ports of one address within [`WITHIN`] are a scan. A client that opens several connections at once and gives
/// some up, as browsers do, has one or two ports.
const PORTS: usize = 5;

/// So many connections to one listener that nobody accepted are one as well.
const UNACCEPTED: usize = 100;

/// In nanoseconds.
const WITHIN: u64 = 60_000_000_000;

/// What each remote address has tried.
#[derive(Debug, Default)]
pub(super) struct Scans {
    by_remote: Map<IpAddr, Tries>,
}

#[derive(Debug, Default)]
struct Tries {
    /// When, at which port, and whether nobody accepted it.
    recent: VecDeque<(BootTime, u16, bool)>,
}

impl Scans {
    #[cfg(test)]
    pub(super) fn remotes(&self) -> usize {
        self.by_remote.len()
    }

    pub(super) fn event(&mut self, rule: &Arc<Rule>, event: &ConnectionEvent) -> Option<Alert> {
        let (from, port, is_unaccepted) = tried(event)?;
        if self.by_remote.len() >= limits::RULE_REMOTES && !self.by_remote.contains_key(&from) {
            self.by_remote.retain(|_, tries| {
                tries.recent.back().is_some_and(|(at, ..)| event.at.saturating_sub(*at) < WITHIN)
            });
            if self.by_remote.len() >= limits::RULE_REMOTES {
                self.by_remote.clear();
            }
        }
        let recent = &mut self.by_remote.entry(from).or_default().recent;
        while recent.len() >= UNACCEPTED
            || recent.front().is_some_and(|(at, ..)| event.at.saturating_sub(*at) > WITHIN)
        {
            recent.pop_front();
        }
        recent.push_back((event.at, port, is_unaccepted));
        let ports: Set<u16> = recent.iter().map(|(_, port, _)| *port).collect();
        let unaccepted = recent.iter().filter(|(.., is_unaccepted)| *is_unaccepted).count();
        if ports.len() < PORTS && unaccepted < UNACCEPTED {
            return None;
        }
        let mut ports: Vec<_> = ports.into_iter().collect();
        ports.sort_unstable();
        let named: Vec<_> = ports.iter().take(10).map(u16::to_string).collect();
        let more = if ports.len() > named.len() { ", …" } else { "" };
        let detail = format!(
            "{from} made {} connections without a byte to {} ports within a minute: {}{more}",
            recent.len(),
            ports.len(),
            named.join(", ")
        );
        recent.clear();
        let mut alert = Alert::of_event(rule, event, detail);
        // The listener is not who did it.
        alert.process = None;
        Some(alert)
    }
}

/// Who tried which port, and whether nobody accepted it.
fn tried(event: &ConnectionEvent) -> Option<(IpAddr, u16, bool)> {
    let endpoint = &event.endpoint;
    let remote = endpoint.remote.filter(|_| endpoint.proto == Proto::Tcp)?;
    match (event.kind, endpoint.side()?) {
        (EventKind::Close, Side::Remote) => {
            let is_unaccepted = endpoint.process_basis == Some(ProcessBasis::Listener);
            let is_silent = event.outcome.bytes.is_some_and(|bytes| bytes.received == 0);
            (is_silent || is_unaccepted).then_some((remote.ip, endpoint.local.port, is_unaccepted))
        }
        // From this host to itself.
        (EventKind::Fail, Side::Local) if remote.ip.is_loopback() || remote.ip == endpoint.local.ip => {
            Some((endpoint.local.ip, remote.port, false))
        }
        _ => None,
    }
}
