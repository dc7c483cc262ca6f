//! What was never seen before, by the baseline.

use std::net::IpAddr;
use std::sync::Arc;

use crate::alert::{Alert, Rule};
use crate::origin::Side;
use crate::process::Process;
use crate::signs;
use crate::tracker::{ConnectionEvent, EventKind};
use crate::where_it_runs;

use super::super::baseline::{Baseline, Kind};

/// A program connects.
pub(super) fn connect(rule: &Arc<Rule>, event: &ConnectionEvent, baseline: &mut Baseline) -> Option<Alert> {
    let process = connector(event)?;
    let program = program(process);
    let to = event.endpoint.remote?;
    let is_first = baseline.is_first(Kind::Connect, &program);
    is_first.then(|| Alert::of_event(rule, event, format!("{program} connects for the first time, to {to}")))
}

/// A program listens.
pub(super) fn listen(rule: &Arc<Rule>, event: &ConnectionEvent, baseline: &mut Baseline) -> Option<Alert> {
    let is_listener =
        event.endpoint.remote.is_none() && matches!(event.kind, EventKind::Listen | EventKind::Seed);
    let process = &event.endpoint.process.as_ref().filter(|_| is_listener)?.process;
    let (program, local) = (program(process), event.endpoint.local);
    let is_first = baseline.is_first(Kind::Listen, &program);
    is_first
        .then(|| Alert::of_event(rule, event, format!("{program} listens for the first time, on {local}")))
}

/// A process of a unit connects to a network and port.
pub(super) fn destination(
    rule: &Arc<Rule>,
    event: &ConnectionEvent,
    baseline: &mut Baseline,
) -> Option<Alert> {
    let process = connector(event)?;
    let unit = where_it_runs::of_cgroup(&process.cgroup).unit?;
    let to = event.endpoint.remote?;
    let network = network(to.ip);
    let is_first = baseline.is_first(Kind::Destination, &format!("{unit} {network} {}", to.port));
    let detail =
        || format!("{unit} connects to {to}, and no process of it did to port {} in {network}", to.port);
    is_first.then(|| Alert::of_event(rule, event, detail()))
}

/// Who connected, or has an outgoing connection since before the start.
fn connector(event: &ConnectionEvent) -> Option<&Arc<Process>> {
    let endpoint = &event.endpoint;
    let is_one =
        endpoint.side() == Some(Side::Local) && matches!(event.kind, EventKind::Open | EventKind::Seed);
    Some(&endpoint.process.as_ref().filter(|_| is_one)?.process)
}

/// The path of a program; of an interpreter with its script, since otherwise one script would speak for all.
fn program(process: &Process) -> String {
    let exe = process.image.exe.as_deref().unwrap_or(&process.comm);
    let script = process.image.args.iter().nth(1).filter(|argument| !argument.starts_with('-'));
    match script {
        Some(script) if signs::runs_shell(process) => format!("{exe} {script}"),
        _ => exe.to_owned(),
    }
}

/// The network of an address: what operators of services move their servers within.
fn network(ip: IpAddr) -> String {
    let length = if ip.is_ipv4() { 24 } else { 48 };
    ipnet::IpNet::new(ip, length).map_or_else(|_| ip.to_string(), |network| network.trunc().to_string())
}
