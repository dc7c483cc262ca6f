//! Names the hosts of connections that begin, by what programs on this host were told or said before.

use crate::decode::{NameEvent, NameSource};
use crate::model::{BootTime, NetnsId};
use crate::names::{AnswerTable, HostName, server_name};
use crate::origin::Side;
use crate::tracker::{ConnectionEvent, EventKind, Tracker};

/// Names hosts.
#[derive(Debug, Default)]
pub(super) struct Namer {
    answers: AnswerTable,
}

impl Namer {
    /// Notes what a packet says.
    pub(super) fn note(&mut self, at: BootTime, event: &NameEvent, tracker: &mut Tracker) {
        let sent = match event.source {
            NameSource::DnsAnswer => {
                let asker = event.cookie.and_then(|cookie| tracker.udp_owner(cookie));
                self.answers.note(at, event.netns, &event.bytes, asker.map(|actor| &actor.process));
                return;
            }
            NameSource::HelloSent => true,
            NameSource::HelloReceived => false,
        };
        if let (Some(cookie), Some(name)) = (event.cookie, server_name(&event.bytes)) {
            tracker.said_name(cookie, sent, HostName::said(&name, at));
        }
    }

    /// Forgets what was said in the network namespace that had this number before.
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.answers.forget(netns);
    }

    /// Completes events after the first `from`, of connections that this host begins.
    pub(super) fn complete(&mut self, events: &mut [ConnectionEvent], from: usize, tracker: &mut Tracker) {
        for event in events.iter_mut().skip(from).filter(|event| begins_here(event)) {
            let endpoint = &event.endpoint;
            let process = endpoint.process.as_ref().map(|actor| actor.process.key);
            if let Some(remote) = endpoint.remote
                && let Some(name) =
                    self.answers.name_of(endpoint.netns, remote.ip, process, endpoint.id.began)
            {
                tracker.name(event, name);
            }
        }
    }
}

/// Whether an event is the first of a connection that this host originates.
fn begins_here(event: &ConnectionEvent) -> bool {
    matches!(event.kind, EventKind::Attempt | EventKind::Open | EventKind::Fail)
        && matches!(event.endpoint.side(), Some(Side::Local | Side::Both))
        && event.endpoint.names.remote().is_none()
}
