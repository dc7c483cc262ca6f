//! An audit as JSON, one object per line: ports, then findings by severity.

use std::io::{self, Write};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::baseline::Listed;
use crate::audit::facts::{Program, Reach};
use crate::audit::{By, Code, Finding, Port, Report, Severity};
use crate::clock::BootClock;
use crate::model::{DeviceName, NetnsId, Proto, SockAddr};
use crate::output::ProcessView;

/// A port: the keys of the specification in its order, then further ones.
#[derive(Serialize)]
struct PortLine<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<String>,
    proto: Proto,
    local: SockAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceName>,
    netns: NetnsId,
    process: Option<ProcessView<'a>>,
    service: Option<&'a str>,
    explained: bool,
    by: &'a [By],
    reasons: &'a [String],
    inode: u64,
    reach: Reach,
    rpc: Vec<Rpc<'a>>,
    package: Option<PackageView<'a>>,
    /// Pids of further processes that have the socket open.
    holders: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Listed>,
    /// When listen() was called, if that was recorded.
    since: Option<String>,
    started_by: Option<ProcessView<'a>>,
    /// `null` if the store has nothing about the port.
    connections: Option<Connections<'a>>,
}

#[derive(Serialize)]
struct Rpc<'a> {
    program: u32,
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct PackageView<'a> {
    name: &'a str,
    version: Option<&'a str>,
    manager: &'a str,
}

#[derive(Serialize)]
struct Connections<'a> {
    count: u64,
    /// There were more than were counted.
    more: bool,
    from: Vec<From<'a>>,
}

#[derive(Serialize)]
struct From<'a> {
    ip: &'a IpAddr,
    count: u64,
}

/// Of a finding: likewise.
#[derive(Serialize)]
struct FindingLine<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<String>,
    code: Code,
    severity: Severity,
    process: Option<ProcessView<'a>>,
    local: Option<SockAddr>,
    evidence: &'a str,
    next: &'a str,
    proto: Option<Proto>,
    netns: Option<NetnsId>,
    /// The baseline lists it.
    baseline: bool,
}

#[derive(Serialize)]
struct NoteLine<'a> {
    kind: &'static str,
    text: &'a str,
}

/// Writes objects.
pub(super) struct Json {
    /// By which starts of processes become times of day.
    pub(super) clock: BootClock,
}

impl Json {
    pub(super) fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        report.ports.iter().try_for_each(|port| self.port(port, None, out))?;
        report.findings.iter().try_for_each(|finding| self.finding(finding, None, out))?;
        report.notes.iter().try_for_each(|note| line(&NoteLine { kind: "note", text: note }, out))
    }

    pub(super) fn port(
        &mut self,
        port: &Port,
        time: Option<Timestamp>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let server = &port.server;
        let program = server.program();
        let history = server.history.as_ref();
        let by = history.and_then(|history| history.by.as_ref());
        line(
            &PortLine {
                kind: "port",
                ts: time.map(rfc3339),
                proto: server.proto,
                local: server.local,
                device: server.device_name,
                netns: server.netns,
                process: program.map(|program| self.process(program)),
                service: server.service.as_deref(),
                explained: port.is_explained(),
                by: &port.by,
                reasons: &port.reasons,
                inode: server.inode,
                reach: server.reach(),
                rpc: server
                    .rpc
                    .iter()
                    .map(|(program, name)| Rpc { program: *program, name: name.as_deref() })
                    .collect(),
                package: program.and_then(|program| package(program)),
                holders: server.holders.iter().map(|program| program.actor.process.key.pid).collect(),
                baseline: port.listed,
                since: history.and_then(|history| history.since).map(rfc3339),
                started_by: by.map(|(actor, user)| {
                    ProcessView::new(actor, actor.process.exe_status(), user.clone(), self.clock)
                }),
                connections: history.map(|history| Connections {
                    count: history.connections,
                    more: history.more,
                    from: history.from.iter().map(|(ip, count)| From { ip, count: *count }).collect(),
                }),
            },
            out,
        )
    }

    pub(super) fn finding(
        &mut self,
        finding: &Finding,
        time: Option<Timestamp>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let place = &finding.place;
        line(
            &FindingLine {
                kind: "finding",
                ts: time.map(rfc3339),
                code: finding.code,
                severity: finding.severity,
                process: place.program.as_ref().map(|program| self.process(program)),
                local: place.local,
                evidence: &finding.evidence,
                next: &finding.next,
                proto: place.proto,
                netns: place.netns,
                baseline: finding.is_listed,
            },
            out,
        )
    }
}

impl Json {
    fn process<'a>(&self, program: &'a Program) -> ProcessView<'a> {
        ProcessView::new(&program.actor, program.exe_status, program.user.clone(), self.clock)
    }
}

fn package(program: &Program) -> Option<PackageView<'_>> {
    let owner = program.package()?;
    Some(PackageView { name: &owner.name, version: owner.version.as_deref(), manager: owner.manager })
}

fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

fn line(object: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}
