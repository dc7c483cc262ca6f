//! What connections add up to: by process, and by originator. Over the rows that are kept.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::cells;
use super::table::{Row, RowId};
use crate::hash::Map;
use crate::model::{Payload, ProcessKey};
use crate::origin::{Confidence, Side};
use crate::process::Process;
use crate::tracker::{Endpoint, EventKind};
use crate::where_it_runs;

/// What connections have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// The process of their endpoint; `None`: not known.
    Process(Option<ProcessKey>),
    /// Their originator.
    Originator(Originator),
}

/// Who originated connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Originator {
    /// Another host.
    Remote(IpAddr),
    /// A container on this host.
    Container(String),
    /// A login on this host, by user id.
    Login(u32),
    /// A unit of systemd.
    Service(String),
    /// A process that is none of these, by name.
    Program(Arc<str>),
    /// This host, by a process that is not known.
    Host,
    /// Not known.
    Unknown,
}

impl Originator {
    /// The originator of a connection, as far as the connection itself tells: `t` walks further back.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint.side() {
            None | Some(Side::Unknown) => Self::Unknown,
            Some(Side::Remote) => match (&endpoint.originator, endpoint.remote) {
                (Some(actor), _) => Self::of_process(&actor.process),
                (None, Some(remote)) => Self::Remote(remote.ip),
                (None, None) => Self::Unknown,
            },
            Some(Side::Local | Side::Both) => {
                let actor = endpoint.originator.as_ref().or(endpoint.process.as_ref());
                actor.map_or(Self::Host, |actor| Self::of_process(&actor.process))
            }
        }
    }

    fn of_process(process: &Process) -> Self {
        let place = where_it_runs::of_cgroup(&process.cgroup);
        if let Some(container) = place.container {
            return Self::Container(container.into_owned());
        }
        if let Some(user) = process.auid {
            return Self::Login(user);
        }
        match place.unit.filter(|unit| !unit.ends_with(".scope")) {
            Some(unit) => Self::Service(unit.to_owned()),
            None => Self::Program(process.comm.clone()),
        }
    }

    /// What kind it is, in one word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Remote(_) => "remote",
            Self::Container(_) => "container",
            Self::Login(_) => "login",
            Self::Service(_) => "service",
            Self::Program(_) => "program",
            Self::Host => "this host",
            Self::Unknown => "unknown",
        }
    }

    /// Its name.
    pub(super) fn name(&self, user: impl FnOnce(u32) -> String) -> String {
        match self {
            Self::Remote(ip) => ip.to_string(),
            Self::Container(name) => cells::clean(name).into_owned(),
            Self::Login(uid) => user(*uid),
            Self::Service(unit) => cells::clean(unit).into_owned(),
            Self::Program(comm) => cells::clean(comm).into_owned(),
            Self::Host => "process not known".into(),
            Self::Unknown => "unknown".into(),
        }
    }
}

impl Group {
    /// Whether a connection is one of the group's.
    pub(super) fn has(&self, row: &Row) -> bool {
        match self {
            Self::Process(key) => key_of(row) == *key,
            Self::Originator(originator) => {
                !row.is_listener() && Originator::of(row.endpoint()) == *originator
            }
        }
    }
}

fn key_of(row: &Row) -> Option<ProcessKey> {
    row.endpoint().process.as_ref().map(|actor| actor.process.key)
}

/// A group with its sums.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    pub(super) group: Group,
    /// The newest version of the process.
    pub(super) process: Option<Arc<Process>>,
    /// Open connections.
    pub(super) open: u64,
    /// All that are kept, whoever originated them.
    pub(super) total: u64,
    /// Originated on this side.
    pub(super) out: u64,
    /// Originated by the other side.
    pub(super) inbound: u64,
    pub(super) failed: u64,
    /// Sockets that listen.
    pub(super) listening: u64,
    pub(super) bytes: Payload,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// The least confidence of a verdict.
    pub(super) least: Confidence,
    /// A process has a sign.
    pub(super) is_suspicious: bool,
}

impl Sums {
    fn new(group: Group) -> Self {
        Self {
            group,
            process: None,
            open: 0,
            total: 0,
            out: 0,
            inbound: 0,
            failed: 0,
            listening: 0,
            bytes: Payload { sent: 0, received: 0 },
            first: None,
            last: None,
            least: Confidence::Observed,
            is_suspicious: false,
        }
    }

    fn add(&mut self, row: &Row) {
        let endpoint = row.endpoint();
        if let Some(actor) = &endpoint.process {
            self.process = Some(actor.process.clone());
        }
        self.is_suspicious |= row.signs().next().is_some();
        let (began, last) = (row.began(), row.last_seen());
        self.first = [self.first, began].into_iter().flatten().min();
        self.last = self.last.max(last);
        if row.is_listener() {
            self.listening += u64::from(row.gone.is_none());
            return;
        }
        self.total += 1;
        self.open += u64::from(row.gone.is_none());
        self.failed += u64::from(row.last.kind == EventKind::Fail);
        match endpoint.verdict.side {
            Side::Local | Side::Both => self.out += 1,
            Side::Remote => self.inbound += 1,
            Side::Unknown => {}
        }
        self.least = self.least.max(endpoint.verdict.confidence);
        if let Some(bytes) = row.bytes {
            self.bytes.sent = self.bytes.sent.saturating_add(bytes.sent);
            self.bytes.received = self.bytes.received.saturating_add(bytes.received);
        }
    }
}

/// By process.
pub(super) fn by_process<'a>(rows: impl Iterator<Item = (&'a RowId, &'a Row)>) -> Vec<Sums> {
    sum(rows.map(|(_, row)| (Group::Process(key_of(row)), row)))
}

/// By originator; without listeners.
pub(super) fn by_originator<'a>(rows: impl Iterator<Item = (&'a RowId, &'a Row)>) -> Vec<Sums> {
    let connections = rows.filter(|(_, row)| !row.is_listener());
    sum(connections.map(|(_, row)| (Group::Originator(Originator::of(row.endpoint())), row)))
}

fn sum<'a>(rows: impl Iterator<Item = (Group, &'a Row)>) -> Vec<Sums> {
    let mut sums: Map<Group, Sums> = Map::default();
    for (group, row) in rows {
        sums.entry(group.clone()).or_insert_with(|| Sums::new(group)).add(row);
    }
    sums.into_values().collect()
}
