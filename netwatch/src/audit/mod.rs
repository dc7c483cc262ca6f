//! The audit: which listening ports can be explained, and by what; and what speaks against those that listen. Pure:
//! `facts` is what `inventory` gathered, `judge` says what follows from it.

pub mod baseline;
mod explain;
pub mod facts;
mod findings;
mod known;
mod program;
#[cfg(test)]
mod tests;
pub mod views;

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::model::{NetnsId, Proto, SockAddr};
use baseline::{Baseline, Listed};
use facts::{Facts, Program, Server};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Often harmless.
    Low,
    /// To be looked at.
    Medium,
    /// Seldom harmless.
    High,
    /// What an intruder leaves.
    Critical,
}

impl Severity {
    /// The mildest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// As it is spelled outside.
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
    /// Something shows a socket or a process that something else hides.
    ViewsDisagree,
    /// A network socket is the stdin, stdout or stderr of a process.
    StdioOnSocket,
    /// A shell or an interpreter listens.
    ShellListens,
    /// The executable never had a name.
    ExeMemfd,
    /// The file of the executable is gone.
    ExeDeleted,
    /// Another file has its name.
    ExeReplaced,
    /// Everybody may put files where the executable lies.
    ExeWorldWritable,
    /// The program is none of those that the port's service belongs to.
    WrongProgram,
    /// Two programs listen on one port.
    SharedPort,
    /// It listens on a port of those that the kernel gives to clients.
    EphemeralListener,
    /// It listens on all addresses, and only ever had peers on this host.
    OnlyLocalPeers,
    /// A raw socket.
    RawSocket,
    /// A packet socket.
    PacketSocket,
    /// Who originated a connection is not known.
    UnknownOriginator,
}

impl Code {
    /// All, in the order in which they are told where equally bad.
    pub const ALL: [Self; 14] = [
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
        Self::UnknownOriginator,
    ];

    /// As in the JSON, and in a baseline.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A package owns the program (always with one of the two that follow).
    Package,
    /// An installed unit of the service manager runs it.
    Unit,
    /// A container runs it.
    Container,
    /// The port's service is what such a program, from a package, offers.
    Service,
    /// The portmapper has the port registered.
    Portmapper,
    /// The baseline lists it.
    Baseline,
}

impl By {
    /// As it is spelled outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Service => "service",
            Self::Portmapper => "portmapper",
            Self::Baseline => "baseline",
        }
    }
}

/// A port that is listened on, judged.
#[derive(Clone, Debug)]
pub struct Port {
    /// What is known of it.
    pub server: Arc<Server>,
    /// Nothing: it is unexplained.
    pub by: Vec<By>,
    /// Why it is explained, or why not.
    pub reasons: Vec<String>,
    /// What the baseline says, where there is one.
    pub listed: Option<Listed>,
}

impl Port {
    /// Whether anything explains it.
    #[must_use]
    pub fn is_explained(&self) -> bool {
        !self.by.is_empty()
    }
}

/// What a finding is about: where, and which program.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Transport.
    pub proto: Option<Proto>,
    /// The socket's own address.
    pub local: Option<SockAddr>,
    /// Network namespace inode number.
    pub netns: Option<NetnsId>,
    /// Whose it is.
    pub program: Option<Arc<Program>>,
}

/// Something to look at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What about.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What was seen.
    pub evidence: String,
    /// What to look at next.
    pub next: String,
    /// The baseline lists it.
    pub is_listed: bool,
}

/// What an audit comes to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By namespace, transport, address and port.
    pub ports: Vec<Port>,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What could not be seen or asked, and what the baseline lists in vain.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether a port is unexplained, or a finding that the baseline does not list is as bad as `fail_on`.
    #[must_use]
    pub fn is_bad(&self, fail_on: Severity) -> bool {
        let bad = |finding: &Finding| !finding.is_listed && finding.severity >= fail_on;
        self.ports.iter().any(|port| !port.is_explained()) || self.findings.iter().any(bad)
    }
}

/// Says what follows from the facts.
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
