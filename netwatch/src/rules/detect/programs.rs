//! Programs without a file that use the network.

use std::sync::Arc;

use crate::alert::{Alert, Rule};
use crate::model::ExeState;
use crate::origin::Side;
use crate::tracker::{ConnectionEvent, EventKind};

/// The executable was deleted.
pub(super) fn deleted(rule: &Arc<Rule>, event: &ConnectionEvent) -> Option<Alert> {
    find(rule, event, ExeState::Deleted, "the file of its executable was deleted")
}

/// The executable never had a file.
pub(super) fn memfd(rule: &Arc<Rule>, event: &ConnectionEvent) -> Option<Alert> {
    find(rule, event, ExeState::Memfd, "its executable is an anonymous file in memory")
}

fn find(rule: &Arc<Rule>, event: &ConnectionEvent, state: ExeState, why: &str) -> Option<Alert> {
    let status = event.facts.exe.process?;
    if status.state != state {
        return None;
    }
    let endpoint = &event.endpoint;
    let what = match (event.kind, endpoint.side()) {
        (EventKind::Open, Some(Side::Local | Side::Both)) => "connects",
        (EventKind::Accept, _) => "accepts a connection",
        (EventKind::Listen, _) => "listens",
        (EventKind::Fail, _) => "tries to connect",
        (EventKind::Seed, None) => "listens",
        (EventKind::Seed, Some(_)) => "has a connection",
        _ => return None,
    };
    Some(Alert::of_event(rule, event, format!("it {what}, and {why}")))
}
