//! Connections that a program makes for a client on another host: a pivot, or a proxy.

use std::sync::Arc;

use crate::alert::{Alert, Rule};
use crate::origin::Side;
use crate::tracker::{ConnectionEvent, EventKind};

use super::super::Memory;

/// A connection to another host whose cause is one from another host.
pub(super) fn event(rule: &Arc<Rule>, event: &ConnectionEvent, memory: &Memory) -> Option<Alert> {
    let endpoint = &event.endpoint;
    if event.kind != EventKind::Open || endpoint.side() != Some(Side::Local) {
        return None;
    }
    let to = endpoint.remote?;
    let client = memory.of_socket(endpoint.cause.socket?)?;
    let from = client.endpoint.remote.filter(|_| client.endpoint.side() == Some(Side::Remote))?;
    let is_outside = |event: &ConnectionEvent| {
        let local = event.endpoint.local.ip;
        event.endpoint.peer.is_none()
            && event.endpoint.remote.is_some_and(|remote| !remote.ip.is_loopback() && remote.ip != local)
    };
    if !is_outside(event) || !is_outside(client) {
        return None;
    }
    Some(Alert::of_event(rule, event, format!("it connects to {to} after it read from its client {from}")))
}
