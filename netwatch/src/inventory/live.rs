//! What an event alone tells of a socket that begins to listen: it may be gone before the host is gathered again.

use std::sync::Arc;

use super::programs::Programs;
use crate::audit::facts::{Facts, Server};
use crate::hash::Map;
use crate::services::Services;
use crate::tracker::End;

/// Facts of a listener and its program, nothing else. The portmapper is not asked.
pub(crate) fn of_listener(end: &End, programs: &mut Programs, port_ranges: &Map<u32, (u16, u16)>) -> Facts {
    let holders = programs.of(end.process.iter().map(|actor| actor.process.clone()));
    let range = port_ranges.get(&end.netns);
    let server = Server {
        proto: end.proto,
        local: end.local,
        v6only: false,
        netns: end.netns,
        inode: end.inode,
        uid: end.process.as_ref().map_or(0, |actor| actor.process.uid),
        service: Services::host().name(end.proto, end.local.port).map(Into::into),
        rpc: Vec::new(),
        is_ephemeral: range.is_some_and(|(low, high)| (*low..=*high).contains(&end.local.port)),
        history: None,
        holders_seen: false,
        device: 0,
        holders: holders.clone(),
    };
    Facts { servers: vec![Arc::new(server)], programs: holders, ..Facts::default() }
}
