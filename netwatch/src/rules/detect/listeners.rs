//! Listeners that `netwatch audit` cannot explain.

use std::sync::Arc;

use crate::alert::{Alert, Rule};
use crate::model::Proto;
use crate::tracker::{ConnectionEvent, EventKind};

use super::super::{Host, Memory};

/// Has new listeners judged.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    has_complained: bool,
}

impl Listeners {
    pub(super) fn event(&mut self, event: &ConnectionEvent, host: &mut dyn Host) {
        let endpoint = &event.endpoint;
        let is_new =
            event.kind == EventKind::Listen && endpoint.proto == Proto::Tcp && endpoint.local.port != 0;
        if is_new && !host.judge(endpoint) && !std::mem::replace(&mut self.has_complained, true) {
            crate::stderr::print("netwatch: too many listeners start at once: some are not judged");
        }
    }
}

/// Alerts about those that were judged.
pub(super) fn judged(rule: &Arc<Rule>, memory: &Memory, host: &mut dyn Host) -> Vec<Alert> {
    let found = host.unexplained().into_iter();
    let alert = |(id, reasons): (_, Vec<String>)| {
        let event = memory.events(id)?.last()?;
        Some(Alert::of_event(rule, event, reasons.join("; ")))
    };
    found.filter_map(alert).collect()
}
