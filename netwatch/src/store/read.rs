//! Reads recorded endpoints, processes and losses, also while a recorder writes.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;

use super::chain::Table;
use super::rebuild::{Processes, StoredRow};
use super::search::{Narrow, Search, Segment, segment, segments};
use super::{DEFAULT_PATH, StoreError, open};
use crate::clock::BootClock;
use crate::loss::{Loss, LossReason};
use crate::model::{BootTime, Cookie, ProcessKey, SockAddr};
use crate::process::Actor;
use crate::tracker::{ConnectionEvent, EndpointId, EventKind};

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

/// A loss.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Boot id.
    pub boot: Arc<str>,
    /// When it was noticed.
    pub at: BootTime,
    /// The same as a time of day.
    pub time: Timestamp,
    /// The loss.
    pub loss: Loss,
}

/// A run: a period in which everything was recorded except losses.
#[derive(Clone, Debug)]
pub struct Run {
    /// Boot id.
    pub boot: Arc<str>,
    /// Converts times since boot to times of day.
    pub clock: BootClock,
    /// Start, in nanoseconds since the epoch.
    pub began: i64,
    /// Time of the last write, in nanoseconds since the epoch.
    pub last: i64,
    /// It ended in order; otherwise it may be running, or was interrupted.
    pub stopped: bool,
}

/// A store that is open for reading.
pub struct Reader {
    db: Connection,
    processes: Processes,
}

impl Reader {
    /// Opens a store.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: open::for_reading(path)?, processes: Processes::default() })
    }

    /// Opens the given store, which must exist, or else the standard one if it exists.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn named_or_usual(named: Option<&Path>) -> Result<Option<Self>, StoreError> {
        let usual = Path::new(DEFAULT_PATH);
        named.or_else(|| usual.exists().then_some(usual)).map(Self::open).transpose()
    }

    /// Makes all following reads use the current state of the store. Not for long reads, since the log of the recorder
    /// grows meanwhile.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stand_still(&self) -> Result<(), StoreError> {
        Ok(self.db.execute_batch("BEGIN")?)
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// The selected endpoints, in the order of their last event.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn connections(&self, query: &Query) -> Result<Vec<StoredConnection>, StoreError> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut found: Vec<StoredConnection> = Vec::new();
        let mut seen = HashSet::new();
        let mut collect = |row: &StoredRow, segment: &Segment, found: &mut Vec<StoredConnection>| {
            if seen.insert((segment.boot.clone(), row.endpoint)) {
                let recorded = self.end(&segment.boot, row.endpoint)?;
                found.extend(recorded.filter(|recorded| query.means(recorded)));
            }
            Ok::<_, StoreError>(())
        };
        if let Some(cookie) = query.cookie {
            let mut rows = self.by_cookie(cookie)?;
            if query.newest_first {
                rows.reverse();
            }
            for (row, segment) in rows {
                collect(&row, &segment, &mut found)?;
            }
            found.truncate(limit);
            return Ok(found);
        }
        let boot = query.boot.as_deref();
        let mut search =
            Search::new(query.narrow(), boot, query.since, query.until, query.newest_first, &self.db)?;
        while let Some(page) = search.page(&self.db)? {
            let mut rows = page.rows;
            if query.newest_first {
                rows.reverse();
            }
            for row in rows {
                collect(&row, &page.segment, &mut found)?;
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// One endpoint.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn end(&self, boot: &str, id: EndpointId) -> Result<Option<StoredConnection>, StoreError> {
        let mut recorded: Option<StoredConnection> = None;
        for (row, segment) in self.by_id(id.cookie)? {
            if row.endpoint != id || *segment.boot != *boot {
                continue;
            }
            let events = row.events(segment.clock, &self.processes, &self.db)?;
            match &mut recorded {
                Some(recorded) => recorded.events.extend(events),
                None => {
                    let (boot, clock) = (segment.boot.clone(), segment.clock);
                    recorded = Some(StoredConnection { boot, clock, segment: segment.id, events });
                }
            }
        }
        Ok(recorded)
    }

    /// Rows of endpoints with this cookie in their id, in order.
    fn by_id(&self, cookie: u64) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        self.rows("cookie = ?", cookie)
    }

    /// The same, and rows of sockets with this cookie whose id has another key.
    fn by_cookie(&self, cookie: u64) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        let mut rows = self.by_id(cookie)?;
        rows.extend(self.rows("socket IS NOT NULL AND socket = ?", cookie)?);
        rows.sort_by_key(|(row, _)| row.id);
        Ok(rows)
    }

    fn rows(&self, condition: &str, cookie: u64) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        let select = format!("{} WHERE {condition} ORDER BY id", Table::Connection.select());
        let mut select = self.db.prepare_cached(&select)?;
        let mut rows = select.query([cookie.cast_signed()])?;
        let mut found: Vec<(StoredRow, Arc<Segment>)> = Vec::new();
        while let Some(row) = rows.next()? {
            let row = StoredRow::read(row)?;
            let known = found.last().map(|(_, segment)| segment).filter(|segment| segment.id == row.segment);
            let segment = match known {
                Some(known) => Some(known.clone()),
                None => segment(row.segment, &self.db)?,
            };
            // A segment that retention deleted is gone, although some of its rows may still exist.
            found.extend(segment.map(|segment| (row, segment)));
        }
        Ok(found)
    }

    /// Recorded values of a process within a boot, newest first: those in network events, and that with which it was
    /// started on a socket.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn processes(&self, boot: &str, key: ProcessKey) -> Result<Vec<Actor>, StoreError> {
        let mut states = Vec::new();
        for segment in segments(&self.db)?.iter().rev().filter(|segment| *segment.boot == *boot) {
            let mut rows = Narrow::Process(key).processes(segment, &self.db)?;
            rows.reverse();
            for row in rows {
                if let rusqlite::types::Value::Integer(row) = row {
                    states.push(self.processes.actor(row, &self.db)?);
                }
            }
        }
        Ok(states)
    }

    /// Losses between two times, in nanoseconds since the epoch, in the order in which they were noticed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn losses(&self, from: i64, to: i64) -> Result<Vec<Missing>, StoreError> {
        let mut losses = Vec::new();
        for segment in segments(&self.db)? {
            let missing =
                self.losses_of(&segment, "segment = ?1 AND ts BETWEEN ?2 AND ?3", [segment.id, from, to])?;
            losses.extend(missing);
        }
        Ok(losses)
    }

    pub(super) fn losses_of(
        &self,
        segment: &Segment,
        condition: &str,
        values: [i64; 3],
    ) -> Result<Vec<Missing>, StoreError> {
        let select = format!("{} WHERE {condition} ORDER BY id", Table::Loss.select());
        let mut select = self.db.prepare_cached(&select)?;
        let mut rows = select.query(values)?;
        let mut losses: Vec<(i64, Missing)> = Vec::new();
        while let Some(row) = rows.next()? {
            let ts: i64 = row.get(2)?;
            let reason: String = row.get(3)?;
            let kind: String = row.get(4)?;
            let count: i64 = row.get(5)?;
            let reason = LossReason::ALL.into_iter().find(|known| known.name() == reason);
            let reason = reason.unwrap_or(LossReason::Undecodable);
            let kind = kind_of(&kind);
            // The kinds of one loss are rows with the same time.
            let same = losses.last_mut().filter(|(of, missing)| {
                *of == ts && missing.loss.reason == reason && !missing.loss.kinds.contains_key(kind)
            });
            match same {
                Some((_, missing)) => _ = missing.loss.kinds.insert(kind, count.cast_unsigned()),
                None => {
                    let kinds = [(kind, count.cast_unsigned())].into();
                    let boot = i128::from(segment.clock.boot().unwrap_or(0));
                    let at = BootTime::from_nanos((i128::from(ts) - boot).try_into().unwrap_or(0));
                    let time = Timestamp::from_nanosecond(ts.into()).unwrap_or_default();
                    let loss = Loss::new(reason, kinds);
                    losses.push((ts, Missing { boot: segment.boot.clone(), at, time, loss }));
                }
            }
        }
        Ok(losses.into_iter().map(|(_, missing)| missing).collect())
    }

    /// All runs, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let mut runs: Vec<(i64, Run)> = Vec::new();
        let mut written = self.db.prepare_cached("SELECT max(ts) FROM batch WHERE segment = ?")?;
        let mut stopped = self.db.prepare_cached("SELECT max(ts) FROM stopped WHERE segment = ?")?;
        for segment in segments(&self.db)? {
            let last: Option<i64> = written.query_row([segment.id], |row| row.get(0))?;
            let end: Option<i64> = stopped.query_row([segment.id], |row| row.get(0))?;
            let last = last.unwrap_or(segment.started);
            match runs.last_mut().filter(|(run, _)| *run == segment.run) {
                Some((_, run)) => (run.last, run.stopped) = (last, end.is_some()),
                None => runs.push((
                    segment.run,
                    Run {
                        boot: segment.boot.clone(),
                        clock: segment.clock,
                        began: segment.started,
                        last,
                        stopped: end.is_some(),
                    },
                )),
            }
        }
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }

    pub(super) fn events_of(
        &self,
        row: &StoredRow,
        segment: &Segment,
    ) -> Result<Vec<ConnectionEvent>, StoreError> {
        row.events(segment.clock, &self.processes, &self.db)
    }
}

/// Kinds in a `loss`: of records or of events.
fn kind_of(name: &str) -> &'static str {
    let records = (0..u16::MAX).map_while(|kind| {
        (u32::from(kind) < netwatch_common::kind::COUNT).then(|| netwatch_common::kind::name(kind))
    });
    let events = EventKind::ALL.iter().map(|kind| kind.name());
    let known = records.flatten().chain(events).chain(["process", "loss", "record", "flow"]);
    known.into_iter().find(|known| *known == name).unwrap_or("other")
}

impl Query {
    /// The index that is likely to select the fewest rows.
    fn narrow(&self) -> Narrow {
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
        if let Some(port) = self.port {
            return Narrow::Ports(vec![port]);
        }
        self.ip.map_or(Narrow::All, Narrow::Ip)
    }

    fn means(&self, recorded: &StoredConnection) -> bool {
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
            && self.process.is_none_or(|key| anybody(&|actor| actor.process.key == key))
            && self.pid.is_none_or(|pid| anybody(&|actor| actor.process.key.pid == pid))
            && self
                .exe
                .as_deref()
                .is_none_or(|exe| anybody(&|actor| actor.process.image.exe.as_deref() == Some(exe)))
            && self.comm.as_deref().is_none_or(|comm| anybody(&|actor| *actor.process.comm == *comm))
            && self.since.is_none_or(|since| time.is_some_and(|time| time >= since.into()))
            && self.until.is_none_or(|until| time.is_some_and(|time| time <= until.into()))
    }
}
