//! Shells on sockets, and shells that are executed because of a connection.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::alert::{About, Alert, Rule};
use crate::hash::Set;
use crate::limits;
use crate::model::{BootTime, ProcessKey, SockAddr};
use crate::origin::Side;
use crate::process::{Actor, ExeStatus, Process};
use crate::signs::{self, Sign};
use crate::tracker::ConnectionEvent;

use super::super::Memory;

/// The shells that were told of, so that each is told of once.
#[derive(Debug, Default)]
pub(super) struct Shells {
    told: Set<ProcessKey>,
    order: VecDeque<ProcessKey>,
}

impl Shells {
    #[cfg(test)]
    pub(super) fn told(&self) -> usize {
        self.told.len()
    }

    fn is_new(&mut self, key: ProcessKey) -> bool {
        if !self.told.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > limits::RULE_PROCESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        true
    }

    /// By an event of the shell.
    pub(super) fn of_event(&mut self, rule: &Arc<Rule>, event: &ConnectionEvent) -> Option<Alert> {
        let actor = event.endpoint.process.as_ref()?;
        let process = &actor.process;
        // Most processes have none.
        if process.stdio == [None; 3] {
            return None;
        }
        let status = event.facts.exe.process.unwrap_or_else(|| process.exe_status());
        let is_one = signs::of_process(process, status).any(|sign| sign == Sign::ShellOnSocket);
        (is_one && self.is_new(process.key)).then(|| Alert::of_event(rule, event, sentence(process)))
    }

    /// By its start.
    pub(super) fn of_process(
        &mut self,
        rule: &Arc<Rule>,
        process: &Arc<Process>,
        status: ExeStatus,
        at: BootTime,
        memory: &Memory,
    ) -> Option<Alert> {
        let is_one = signs::of_process(process, status).any(|sign| sign == Sign::ShellOnSocket);
        if !is_one || !self.is_new(process.key) {
            return None;
        }
        let actor = Actor::leader(process.clone());
        let mut alert = Alert::of_process(rule, at, Some((actor, status)), sentence(process));
        let [stdin, stdout, _] = process.stdio;
        let event = [stdin, stdout].into_iter().flatten().find_map(|cookie| memory.of_socket(cookie));
        alert.about = event.map(about);
        Some(alert)
    }
}

fn sentence(process: &Process) -> String {
    let [stdin, stdout, _] = process.stdio;
    let which = match (stdin.is_some(), stdout.is_some()) {
        (true, true) => "stdin and stdout are",
        (true, false) => "stdin is",
        _ => "stdout is",
    };
    format!("its {which} a network socket")
}

fn about(event: &ConnectionEvent) -> About {
    let endpoint = &event.endpoint;
    About { id: endpoint.id, socket: endpoint.socket, verdict: endpoint.verdict }
}

/// How far up from a shell a server for logins explains it: sshd forks for the connection and for the user.
const LOGIN_LEVELS: usize = 4;

/// A shell whose fork was caused by a connection that this host accepted, or that is executed by the process that
/// accepted one.
pub(super) fn accepted(
    rule: &Arc<Rule>,
    process: &Arc<Process>,
    at: BootTime,
    memory: &Memory,
) -> Option<Alert> {
    if !signs::runs_shell(process) || is_login(process) {
        return None;
    }
    let cause = process.birth.as_ref().and_then(|birth| birth.cause.socket);
    let event =
        cause.and_then(|cookie| memory.of_socket(cookie)).or_else(|| memory.connection_of(process.key));
    let event = event.filter(|event| event.endpoint.side() == Some(Side::Remote))?;
    let remote: SockAddr = event.endpoint.remote?;
    let actor = Actor::leader(process.clone());
    let forked = process
        .parent
        .as_ref()
        .map_or_else(String::new, |parent| format!(" by {}[{}]", parent.comm, parent.key.pid));
    let detail = format!("executed{forked} after it read from the connection of {remote}");
    let mut alert = Alert::of_process(rule, at, Some((actor, process.exe_status())), detail);
    alert.about = Some(about(event));
    Some(alert)
}

/// Whether a server for logins started it.
pub(super) fn is_login(process: &Process) -> bool {
    process.ancestors().take(LOGIN_LEVELS).any(|ancestor| is_login_server(ancestor))
}

/// By its name, in a directory that only root writes to.
pub(super) fn is_login_server(process: &Process) -> bool {
    const DIRECTORIES: [&str; 4] = ["/usr/", "/bin/", "/sbin/", "/lib"];
    let Some(exe) = process.image.exe.as_deref() else { return false };
    let is_installed = DIRECTORIES.iter().any(|folder| exe.starts_with(folder));
    is_installed && signs::is_login_server(exe.rsplit('/').next().unwrap_or(exe))
}
