//! Facts about a new listener from its event, since it may be gone before the next pass.

use std::sync::Arc;

use super::programs::Programs;
use crate::audit::facts::{Facts, Server};
use crate::enrich::Devices;
use crate::hash::Map;
use crate::model::NetnsId;
use crate::services::Services;
use crate::tracker::Endpoint;

/// Facts about a listener and its program. The portmapper is not queried.
pub(crate) fn of_listener(
    endpoint: &Endpoint,
    programs: &mut Programs,
    port_ranges: &Map<NetnsId, (u16, u16)>,
) -> Facts {
    let holders = programs.of(endpoint.process.iter().map(|actor| actor.process.clone()));
    let range = port_ranges.get(&endpoint.netns);
    let server = Server {
        proto: endpoint.proto,
        local: endpoint.local,
        v6only: false,
        netns: endpoint.netns,
        inode: endpoint.inode,
        uid: endpoint.process.as_ref().map_or(0, |actor| actor.process.uid),
        service: Services::host().name(endpoint.proto, endpoint.local.port).map(Into::into),
        rpc: Vec::new(),
        is_ephemeral: range.is_some_and(|(low, high)| (*low..=*high).contains(&endpoint.local.port)),
        history: None,
        holders_seen: false,
        device: endpoint.bound_device(),
        device_name: Devices::default().name(endpoint).filter(|_| endpoint.bound_device() != 0),
        on_loopback: Devices::default().is_loopback(endpoint.netns, endpoint.bound_device()),
        kernel: None,
        reuseport: None,
        owner: None,
        client: None,
        holders: holders.clone(),
    };
    Facts { servers: vec![Arc::new(server)], programs: holders, ..Facts::default() }
}
