//! Which endpoints a reader looks for, and what it finds.

use std::net::IpAddr;
use std::sync::Arc;

use super::search::Narrow;
use crate::clock::BootClock;
use crate::model::{BootTime, Cookie, ProcessKey, SockAddr};
use crate::process::Actor;
use crate::tracker::ConnectionEvent;

/// Selects endpoints by conditions that at least one event of the endpoint has to meet, combined with AND. The default
/// selects all.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Boot id.
    pub boot: Option<String>,
    /// Cookie of the socket.
    pub cookie: Option<u64>,
    /// Start time.
    pub began: Option<BootTime>,
    /// On either side.
    pub port: Option<u16>,
    /// On either side.
    pub ip: Option<IpAddr>,
    /// A process that had or originated it.
    pub process: Option<ProcessKey>,
    /// The pid of such a process.
    pub pid: Option<u32>,
    /// The executable of such a process.
    pub exe: Option<String>,
    /// The name of such a process.
    pub comm: Option<String>,
    /// The name of a host on either side.
    pub name: Option<String>,
    /// Events at or after this time, in nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Events before this time.
    pub until: Option<i64>,
    /// Return the newest first.
    pub newest_first: bool,
    /// Maximum number.
    pub limit: Option<usize>,
}

/// An endpoint with all its recorded events; at least one.
#[derive(Clone, Debug)]
pub struct StoredConnection {
    /// Boot of its times and ids.
    pub boot: Arc<str>,
    /// Converts its times to times of day.
    pub clock: BootClock,
    /// The segment of its first row.
    pub segment: i64,
    /// Events of all rows, oldest first.
    pub events: Vec<ConnectionEvent>,
}

impl Query {
    /// The index that is likely to select the fewest rows.
    pub(super) fn narrow(&self) -> Narrow {
        if let Some(key) = self.process {
            return Narrow::Process(key);
        }
        if let Some(pid) = self.pid {
            return Narrow::Pid(pid);
        }
        if let Some(exe) = &self.exe {
            return Narrow::Exe(exe.clone());
        }
        if let Some(comm) = &self.comm {
            return Narrow::Comm(comm.clone());
        }
        if let Some(name) = &self.name
            && let Ok(glob) = globset::Glob::new(&globset::escape(name))
        {
            return Narrow::Host(glob.compile_matcher());
        }
        if let Some(port) = self.port {
            return Narrow::Ports(vec![port]);
        }
        self.ip.map_or(Narrow::All, Narrow::Ip)
    }

    pub(super) fn means(&self, recorded: &StoredConnection) -> bool {
        self.boot.as_ref().is_none_or(|boot| **boot == *recorded.boot)
            && recorded.events.iter().any(|event| self.fits(recorded, event))
    }

    fn fits(&self, recorded: &StoredConnection, event: &ConnectionEvent) -> bool {
        let end = &event.endpoint;
        let either = |is: &dyn Fn(SockAddr) -> bool| is(end.local) || end.remote.is_some_and(is);
        let actors = [end.process.as_ref(), end.originator.as_ref()];
        let anybody = |is: &dyn Fn(&Actor) -> bool| actors.iter().flatten().any(|actor| is(actor));
        let time = recorded.clock.time(event.at).map(|time| time.as_nanosecond());
        self.began.is_none_or(|began| began == end.id.began)
            && self.cookie.is_none_or(|cookie| cookie == end.id.cookie || Cookie::new(cookie) == end.cookie)
            && self.port.is_none_or(|port| either(&|at| at.port == port))
            && self.ip.is_none_or(|ip| either(&|at| at.ip == ip))
            && self.process.is_none_or(|key| anybody(&|actor| actor.process.key.may_be(key)))
            && self.pid.is_none_or(|pid| anybody(&|actor| actor.process.key.pid == pid))
            && self
                .exe
                .as_deref()
                .is_none_or(|exe| anybody(&|actor| actor.process.image.exe.as_deref() == Some(exe)))
            && self.comm.as_deref().is_none_or(|comm| anybody(&|actor| *actor.process.comm == *comm))
            && self.name.as_deref().is_none_or(|name| end.names.iter().any(|known| *known.name == *name))
            && self.since.is_none_or(|since| time.is_some_and(|time| time >= since.into()))
            && self.until.is_none_or(|until| time.is_some_and(|time| time <= until.into()))
    }
}
