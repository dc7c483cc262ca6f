//! Shells that another process with a connection steers over pipes, a terminal or UNIX sockets.
//!
//! A shell that reads its commands from such a stream is looked at until it is found to be steered, or for
//! [`LOOKED_AT`]: the process that steers it may connect later. A look reads the descriptors of all processes, so there
//! is at most one a second, and only if something has changed.

use std::sync::Arc;

use crate::alert::{About, Alert, Rule};
use crate::limits;
use crate::model::{BootTime, StreamKind};
use crate::process::{Actor, Process};
use crate::relays;
use crate::signs;
use crate::tracker::{ConnectionEvent, EventKind};

use super::super::{Host, Memory};
use super::shells;

/// In nanoseconds.
const LOOKED_AT: u64 = 60_000_000_000;
const BETWEEN_LOOKS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Relayed {
    shells: Vec<(Arc<Process>, BootTime)>,
    looked: Option<BootTime>,
    has_news: bool,
}

impl Relayed {
    #[cfg(test)]
    pub(super) fn shells(&self) -> usize {
        self.shells.len()
    }

    pub(super) fn exec(&mut self, process: &Arc<Process>, at: BootTime) {
        let [stdin, ..] = process.streams;
        // The same process may execute a second program.
        self.shells.retain(|(shell, _)| shell.key != process.key);
        if stdin.is_none() || !signs::reads_commands(process) || shells::is_login(process) {
            return;
        }
        if self.shells.len() >= limits::RULE_SHELLS {
            self.shells.remove(0);
        }
        self.shells.push((process.clone(), at));
        self.has_news = true;
    }

    pub(super) fn event(&mut self, event: &ConnectionEvent) {
        let begins = matches!(event.kind, EventKind::Open | EventKind::Accept | EventKind::Handover);
        self.has_news |= begins && !self.shells.is_empty();
    }

    pub(super) fn tick(
        &mut self,
        rule: &Arc<Rule>,
        now: BootTime,
        memory: &Memory,
        host: &mut dyn Host,
    ) -> Vec<Alert> {
        self.shells.retain(|(_, since)| now.saturating_sub(*since) < LOOKED_AT);
        let is_due = self.looked.is_none_or(|looked| now.saturating_sub(looked) >= BETWEEN_LOOKS);
        if !self.has_news || !is_due || self.shells.is_empty() {
            return Vec::new();
        }
        (self.looked, self.has_news) = (Some(now), false);
        let pids: Vec<_> = self.shells.iter().map(|(shell, _)| shell.key.pid).collect();
        let found = host.relayed(&pids, &|pid| memory.holds(pid));
        let mut alerts = Vec::new();
        for relayed in found {
            let Some(place) = self.shells.iter().position(|(shell, _)| shell.key.pid == relayed.shell) else {
                continue;
            };
            let (shell, at) = self.shells.remove(place);
            alerts.extend(alert(rule, &shell, at, &relayed, memory));
        }
        alerts
    }
}

/// `None` if the process that steers it is a server for logins.
fn alert(
    rule: &Arc<Rule>,
    shell: &Arc<Process>,
    at: BootTime,
    relayed: &relays::Relayed,
    memory: &Memory,
) -> Option<Alert> {
    let connections = memory.all().filter_map(|events| events.last());
    let of_holder = connections.filter(|event| {
        let is_open = !matches!(event.kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten);
        let actor = event.endpoint.process.as_ref();
        is_open
            && event.endpoint.remote.is_some()
            && actor.is_some_and(|actor| actor.process.key.pid == relayed.holder)
    });
    let event = of_holder.max_by_key(|event| event.endpoint.id.began)?;
    let endpoint = &event.endpoint;
    let holder = &endpoint.process.as_ref()?.process;
    if shells::is_login_server(holder) {
        return None;
    }
    let over = match relayed.kind {
        StreamKind::Pipe => "pipes",
        StreamKind::Terminal => "a terminal",
        StreamKind::Unix => "UNIX sockets",
    };
    let (name, pid) = (&holder.comm, holder.key.pid);
    let remote =
        endpoint.remote.map(|remote| format!(", which is connected to {remote}")).unwrap_or_default();
    let detail = format!("it reads its commands over {over} from {name}[{pid}]{remote}");
    let actor = Actor::leader(shell.clone());
    let mut alert = Alert::of_process(rule, at, Some((actor, shell.exe_status())), detail);
    alert.about = Some(About { id: endpoint.id, socket: endpoint.socket, verdict: endpoint.verdict });
    Some(alert)
}
