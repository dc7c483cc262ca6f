//! The audit: which listening ports can be explained, and by what, and findings about the programs that listen. Pure:
//! `inventory` gathers `facts`, `judge` draws conclusions from them.

pub mod baseline;
mod explain;
pub mod facts;
mod findings;
mod forwards;
mod known;
mod program;
#[cfg(test)]
mod tests;
pub mod views;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::model::{NetnsId, Proto, SockAddr};
use baseline::{Baseline, Listed};
use facts::{Facts, Program, Server};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Info,
    /// Often harmless.
    Low,
    /// Should be checked.
    Medium,
    /// Rarely harmless.
    High,
    /// Typical of an intrusion.
    Critical,
}

impl Severity {
    /// In ascending order.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// One view shows a socket or a process that another does not.
    ViewsDisagree,
    /// A network socket is the stdin, stdout or stderr of a process.
    StdioOnSocket,
    /// A shell or an interpreter listens.
    ShellListens,
    /// The executable is an anonymous file in memory (memfd_create(2)).
    ExeMemfd,
    /// The file of the executable was deleted.
    ExeDeleted,
    /// Another file has the path of the executable.
    ExeReplaced,
    /// The directory of the executable is world-writable.
    ExeWorldWritable,
    /// The program is not known to offer the service of the port.
    WrongProgram,
    /// Two programs listen on one port.
    SharedPort,
    /// A listener in the ephemeral port range.
    EphemeralListener,
    /// A listener on all addresses whose peers were all on this host.
    OnlyLocalPeers,
    /// A raw socket.
    RawSocket,
    /// A packet socket.
    PacketSocket,
    /// A socket of the kernel that no device and no subsystem is known to have.
    KernelSocket,
    /// The originator of a connection is unknown.
    UnknownOriginator,
}

impl Code {
    /// In the order of the output among findings of equal severity.
    pub const ALL: [Self; 15] = [
        Self::ViewsDisagree,
        Self::StdioOnSocket,
        Self::ShellListens,
        Self::ExeMemfd,
        Self::ExeDeleted,
        Self::ExeReplaced,
        Self::ExeWorldWritable,
        Self::WrongProgram,
        Self::SharedPort,
        Self::EphemeralListener,
        Self::OnlyLocalPeers,
        Self::RawSocket,
        Self::PacketSocket,
        Self::KernelSocket,
        Self::UnknownOriginator,
    ];

    /// Name in the JSON and in a baseline.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ViewsDisagree => "views-disagree",
            Self::StdioOnSocket => "stdio-on-socket",
            Self::ShellListens => "shell-listens",
            Self::ExeMemfd => "exe-memfd",
            Self::ExeDeleted => "exe-deleted",
            Self::ExeReplaced => "exe-replaced",
            Self::ExeWorldWritable => "exe-world-writable",
            Self::WrongProgram => "wrong-program",
            Self::SharedPort => "shared-port",
            Self::EphemeralListener => "ephemeral-listener",
            Self::OnlyLocalPeers => "only-local-peers",
            Self::RawSocket => "raw-socket",
            Self::PacketSocket => "packet-socket",
            Self::KernelSocket => "kernel-socket",
            Self::UnknownOriginator => "unknown-originator",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What explains a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A package owns the program; always together with `Unit` or `Container`.
    Package,
    /// An installed unit of the service manager runs it.
    Unit,
    /// A container runs it.
    Container,
    /// The program is from a package and known to offer the service of the port.
    Service,
    /// The port is registered with the portmapper.
    Portmapper,
    /// The kernel has it, for this device or subsystem.
    Kernel(String),
    /// A known forwarder that a login or a unit started, and what it forwards.
    Forward(String),
    /// The baseline lists it.
    Baseline,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package => f.write_str("package"),
            Self::Unit => f.write_str("unit"),
            Self::Container => f.write_str("container"),
            Self::Service => f.write_str("service"),
            Self::Portmapper => f.write_str("portmapper"),
            Self::Kernel(owner) => write!(f, "kernel ({owner})"),
            Self::Forward(what) => write!(f, "forward ({what})"),
            Self::Baseline => f.write_str("baseline"),
        }
    }
}

impl Serialize for By {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A listening port with the verdict.
#[derive(Clone, Debug)]
pub struct Port {
    /// The facts about the socket.
    pub server: Arc<Server>,
    /// What explains the port; empty if nothing does.
    pub by: Vec<By>,
    /// Why the port is explained, or why not.
    pub reasons: Vec<String>,
    /// Whether the baseline has it; `None` without a baseline.
    pub listed: Option<Listed>,
}

impl Port {
    /// Whether anything explains it.
    #[must_use]
    pub fn is_explained(&self) -> bool {
        !self.by.is_empty()
    }
}

/// The socket and the program of a finding.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Transport.
    pub proto: Option<Proto>,
    /// Local address.
    pub local: Option<SockAddr>,
    /// Network namespace inode number.
    pub netns: Option<NetnsId>,
    /// The program.
    pub program: Option<Arc<Program>>,
}

/// A finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Kind of finding.
    pub code: Code,
    /// Severity.
    pub severity: Severity,
    /// Socket and program.
    pub place: Place,
    /// What was observed, one sentence.
    pub evidence: String,
    /// What to do next.
    pub next: String,
    /// The baseline lists it.
    pub is_listed: bool,
}

/// The result of an audit.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Sorted by network namespace, transport, port and address.
    pub ports: Vec<Port>,
    /// Sorted by severity, the most severe first.
    pub findings: Vec<Finding>,
    /// What could not be read, and baseline entries that match nothing.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether a port is unexplained, or a finding that the baseline does not list has at least severity `fail_on`.
    #[must_use]
    pub fn is_bad(&self, fail_on: Severity) -> bool {
        let bad = |finding: &Finding| !finding.is_listed && finding.severity >= fail_on;
        self.ports.iter().any(|port| !port.is_explained()) || self.findings.iter().any(bad)
    }
}

/// Judges the facts.
#[must_use]
pub fn judge(facts: &Facts, baseline: Option<&Baseline>) -> Report {
    let mut findings = findings::all(facts);
    let mut ports: Vec<Port> = facts.servers.iter().map(explain::port).collect();
    let mut notes = facts.notes.clone();
    if let Some(baseline) = baseline {
        notes.extend(baseline.apply(&mut ports, &mut findings));
    }
    ports.sort_by_key(|port| {
        let server = &port.server;
        (server.netns != facts.own_netns, server.netns, server.proto, server.local.port, server.local.ip)
    });
    findings.sort_by_key(|finding| {
        let place = &finding.place;
        let local = place.local.map(|local| (local.port, local.ip));
        (finding.is_listed, std::cmp::Reverse(finding.severity), finding.code, place.proto, local)
    });
    Report { ports, findings, notes }
}
