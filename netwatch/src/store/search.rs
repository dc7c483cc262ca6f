//! Finds rows: segment by segment, by the best index, in pages of whole batches.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::chain::{Format, Table};
use super::ranges::{self, Ranges};
use super::rebuild::StoredRow;
use super::scan::{By, last_batch};
use super::{Progress, StoreError};
use crate::clock::BootClock;
use crate::model::{BootTime, ProcessKey};

/// A segment of recording.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its number.
    pub id: i64,
    /// The boot, as in the ids of events.
    pub boot: Arc<str>,
    /// Converts times since boot to times of day.
    pub clock: BootClock,
    /// The same for start times of processes.
    pub run_clock: BootClock,
    /// The first segment of the run.
    pub run: i64,
    /// Start, in nanoseconds since the epoch.
    pub started: i64,
}

/// The condition that an index is used for.
#[derive(Clone, Debug, Default)]
pub enum Narrow {
    /// None: all rows are read.
    #[default]
    All,
    /// No row of a connection is read.
    Nothing,
    /// One of these ports, on either side.
    Ports(Vec<u16>),
    /// This local address.
    LocalIp(IpAddr),
    /// This remote address.
    RemoteIp(IpAddr),
    /// On either side.
    Ip(IpAddr),
    /// This pid of the process of the endpoint.
    Pid(u32),
    /// This process, or another one with its pid that started in the same clock tick.
    Process(ProcessKey),
    /// A process with this executable.
    Exe(String),
    /// A process with this name.
    Comm(String),
    /// Processes whose name or path of the executable matches.
    Named(globset::GlobMatcher),
    /// A host with a name that matches, on either side.
    Host(globset::GlobMatcher),
}

/// Rows of some batches of one segment, oldest first.
pub(super) struct Page {
    pub(super) segment: Arc<Segment>,
    pub(super) rows: Vec<StoredRow>,
    /// Rows of `loss` in these batches, first and last.
    pub(super) losses: (i64, i64),
    /// The same of `alert`.
    pub(super) alerts: (i64, i64),
}

/// Maximum number of rows per page.
const PAGE: i64 = 4096;

/// A paged search.
pub(super) struct Search {
    narrow: Narrow,
    is_scan: bool,
    all: usize,
    newest_first: bool,
    segments: VecDeque<Arc<Segment>>,
    within: Option<Within>,
}

/// The current segment.
struct Within {
    segment: Arc<Segment>,
    /// Rows of connections, losses and alerts of its batches.
    batches: VecDeque<Ranges>,
    /// Rows that the index selected; `None`: all.
    found: Option<VecDeque<i64>>,
}

/// All segments in order.
pub(super) fn segments(db: &Connection) -> Result<Vec<Arc<Segment>>, StoreError> {
    let mut select = db.prepare_cached(&format!("SELECT {SEGMENT} FROM segment ORDER BY id"))?;
    let segments = select.query_map([], Segment::read)?;
    Ok(segments.map(|segment| segment.map(Arc::new)).collect::<Result<_, _>>()?)
}

/// One segment, if it exists.
pub(super) fn segment(id: i64, db: &Connection) -> Result<Option<Arc<Segment>>, StoreError> {
    let mut select = db.prepare_cached(&format!("SELECT {SEGMENT} FROM segment WHERE id = ?"))?;
    Ok(select.query_row([id], Segment::read).optional()?.map(Arc::new))
}

/// Columns for [`Segment::read`].
const SEGMENT: &str = "id, boot, clock, run_clock, run, started";

impl Segment {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            boot: row.get::<_, String>(1)?.into(),
            clock: BootClock::of_boot(row.get(2)?),
            run_clock: BootClock::of_boot(row.get(3)?),
            run: row.get(4)?,
            started: row.get(5)?,
        })
    }
}

/// How much older than earlier written events an event may be, in nanoseconds, because some are held back.
const SLACK: i64 = 60_000_000_000;

/// Time of the first event of a segment, in nanoseconds since the epoch.
fn began(segment: &Segment, db: &Connection) -> Result<i64, StoreError> {
    let select = "SELECT c.ts FROM batch b JOIN connection c ON c.id = b.connection_from \
                  WHERE b.segment = ? AND b.connection_to >= b.connection_from ORDER BY b.id LIMIT 1";
    let first: Option<i64> =
        db.prepare_cached(select)?.query_row([segment.id], |row| row.get(0)).optional()?;
    Ok(first.map_or(segment.started, |first| first.min(segment.started)))
}

impl Search {
    /// Segments that overlap the time range, in nanoseconds since the epoch. `is_scan`: without indexes.
    pub(super) fn new(
        narrow: Narrow,
        is_scan: bool,
        boot: Option<&str>,
        since: Option<i64>,
        until: Option<i64>,
        newest_first: bool,
        db: &Connection,
    ) -> Result<Self, StoreError> {
        let mut kept = VecDeque::new();
        for segment in segments(db)? {
            let is_boot = boot.is_none_or(|boot| *segment.boot == *boot);
            let begins = match until {
                Some(until) if !is_scan => began(&segment, db)?.saturating_sub(SLACK) <= until,
                _ => true,
            };
            let ends = match since {
                Some(since) if !is_scan => {
                    last_batch(segment.id, false, db)?.is_none_or(|ended| ended >= since)
                }
                _ => true,
            };
            if is_boot && begins && ends {
                kept.push_back(segment);
            }
        }
        Ok(Self { narrow, is_scan, all: kept.len(), newest_first, segments: kept, within: None })
    }

    /// Segments that were read.
    pub(super) fn progress(&self) -> Progress {
        let left = self.segments.len() + usize::from(self.within.is_some());
        Progress { done: (self.all - left) as u64, total: self.all as u64 }
    }

    /// The next rows; `None` at the end. Rows that retention deleted meanwhile are skipped.
    pub(super) fn page(&mut self, db: &Connection) -> Result<Option<Page>, StoreError> {
        loop {
            if let Some(within) = &mut self.within {
                // Retention may have begun to delete its rows.
                let is_there = segment(within.segment.id, db)?.is_some();
                if is_there && let Some(page) = within.page(self.newest_first, db)? {
                    return Ok(Some(page));
                }
                self.within = None;
            }
            let segment =
                if self.newest_first { self.segments.pop_back() } else { self.segments.pop_front() };
            let Some(segment) = segment else { return Ok(None) };
            let by = By::of(segment.id, self.is_scan, db)?;
            self.within = Some(Within {
                batches: ranges::of_batches(segment.id, self.is_scan, db)?,
                found: self.narrow.rows(&segment, by, db)?.map(Into::into),
                segment,
            });
        }
    }
}

impl Within {
    fn page(&mut self, newest_first: bool, db: &Connection) -> Result<Option<Page>, StoreError> {
        let take = |batches: &mut VecDeque<Ranges>| {
            if newest_first { batches.pop_back() } else { batches.pop_front() }
        };
        let Some([mut from, mut to, loss_from, loss_to, alert_from, alert_to]) = take(&mut self.batches)
        else {
            return Ok(None);
        };
        let (mut losses, mut alerts) = ((loss_from, loss_to), (alert_from, alert_to));
        while to - from < PAGE
            && let Some([more_from, more_to, loss_from, loss_to, alert_from, alert_to]) =
                take(&mut self.batches)
        {
            (from, to) = (from.min(more_from), to.max(more_to));
            (losses, alerts) =
                (ranges::both(losses, (loss_from, loss_to)), ranges::both(alerts, (alert_from, alert_to)));
        }
        let format = Format::of(db.pragma_query_value(None, "user_version", |row| row.get(0))?);
        let mut rows = Vec::new();
        match &mut self.found {
            None => {
                let select =
                    format!("{} WHERE id BETWEEN ? AND ? ORDER BY id", Table::Connection.select_in(format));
                let mut select = db.prepare_cached(&select)?;
                let mut found = select.query([from, to])?;
                while let Some(row) = found.next()? {
                    rows.push(StoredRow::read(row)?);
                }
            }
            Some(found) => {
                let mut select =
                    db.prepare_cached(&format!("{} WHERE id = ?", Table::Connection.select_in(format)))?;
                while let Some(id) = if newest_first { found.back() } else { found.front() }.copied() {
                    if !(from..=to).contains(&id) {
                        break;
                    }
                    _ = if newest_first { found.pop_back() } else { found.pop_front() };
                    if let Some(row) = select.query([id])?.next()? {
                        rows.push(StoredRow::read(row)?);
                    }
                }
                if newest_first {
                    rows.reverse();
                }
            }
        }
        Ok(Some(Page { segment: self.segment.clone(), rows, losses, alerts }))
    }
}

impl Narrow {
    /// Ids of the rows of a segment that may match, in order; `None`: all. A row whose earlier events differ from the
    /// last one always may.
    fn rows(&self, segment: &Segment, by: By, db: &Connection) -> Result<Option<Vec<i64>>, StoreError> {
        let port = |port: &u16| Value::Integer((*port).into());
        let ip = |ip: &IpAddr| Value::Text(ip.to_string());
        let (columns, values): (&[&str], Vec<Value>) = match self {
            Self::All => return Ok(None),
            Self::Nothing => return Ok(Some(Vec::new())),
            Self::Ports(ports) => (&["local_port", "remote_port"], ports.iter().map(port).collect()),
            Self::LocalIp(local) => (&["local_ip"], vec![ip(local)]),
            Self::RemoteIp(remote) => (&["remote_ip"], vec![ip(remote)]),
            Self::Ip(either) => (&["local_ip", "remote_ip"], vec![ip(either)]),
            Self::Pid(_) | Self::Process(_) | Self::Exe(_) | Self::Comm(_) | Self::Named(_) => {
                (&["process", "listener_process"], self.processes_by(segment, by, db)?)
            }
            Self::Host(glob) => (&["remote_name", "local_name"], hosts(glob, segment, by, db)?),
        };
        let within = by.within(Table::Connection);
        let mut ids = Vec::new();
        for column in columns {
            // Conditions that the partial indexes require.
            let partial = match *column {
                "remote_port" | "remote_ip" | "process" | "remote_name" | "local_name" => {
                    format!("AND {column} IS NOT NULL")
                }
                "listener_process" => "AND listener_process <> process".to_owned(),
                _ => String::new(),
            };
            let select = format!("SELECT id FROM connection {within} segment = ? AND {column} = ? {partial}");
            let mut select = db.prepare_cached(&select)?;
            for value in &values {
                let found = select
                    .query_map(params_from_iter([&Value::Integer(segment.id), value]), |row| row.get(0))?;
                for id in found {
                    ids.push(id?);
                }
            }
        }
        let odd = format!("SELECT id FROM connection {within} segment = ? AND odd IS NOT NULL");
        let mut odd = db.prepare_cached(&odd)?;
        for id in odd.query_map([segment.id], |row| row.get(0))? {
            ids.push(id?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(ids))
    }

    /// Rows of the matching processes of a segment.
    pub(super) fn processes(
        &self,
        segment: &Segment,
        is_scan: bool,
        db: &Connection,
    ) -> Result<Vec<Value>, StoreError> {
        self.processes_by(segment, By::of(segment.id, is_scan, db)?, db)
    }

    fn processes_by(&self, segment: &Segment, by: By, db: &Connection) -> Result<Vec<Value>, StoreError> {
        let (within, within_images) = (by.within(Table::Process), by.within(Table::Image));
        let of_image =
            format!("p.image IN (SELECT id FROM image {within_images} segment = p.segment AND exe = ?)");
        let integer = Value::Integer;
        let (condition, values) = match self {
            Self::Pid(pid) => ("p.pid = ?", vec![integer((*pid).into())]),
            Self::Process(key) => {
                let (first, last) = key.starts();
                let start = |start: BootTime| integer(start.nanos().cast_signed());
                // Of one process, some rows may have the exact start and others the tick.
                let values = vec![integer(key.pid.into()), start(first), start(last)];
                ("p.pid = ? AND p.start BETWEEN ? AND ?", values)
            }
            Self::Comm(comm) => ("p.comm = ?", vec![Value::Text(comm.clone())]),
            Self::Exe(exe) => (&*of_image, vec![Value::Text(exe.clone())]),
            Self::Named(glob) => return named(glob, segment, &within, db),
            _ => return Ok(Vec::new()),
        };
        let select = format!("SELECT p.id FROM process p {within} p.segment = ? AND {condition}");
        let mut select = db.prepare_cached(&select)?;
        let values = std::iter::once(integer(segment.id)).chain(values);
        let found = select.query_map(params_from_iter(values), |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

/// The numbers that stand for matching names of hosts in a row.
fn hosts(
    glob: &globset::GlobMatcher,
    segment: &Segment,
    by: By,
    db: &Connection,
) -> Result<Vec<Value>, StoreError> {
    let within = by.within(Table::HostName);
    let mut select = db.prepare_cached(&format!("SELECT id, name FROM host_name {within} segment = ?"))?;
    let mut rows = select.query([segment.id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if glob.is_match(row.get_ref(1)?.as_str().unwrap_or_default()) {
            let row: i64 = row.get(0)?;
            found.extend([Value::Integer(row), Value::Integer(row.wrapping_neg())]);
        }
    }
    Ok(found)
}

fn named(
    glob: &globset::GlobMatcher,
    segment: &Segment,
    within: &str,
    db: &Connection,
) -> Result<Vec<Value>, StoreError> {
    let image = "(SELECT exe FROM image i WHERE i.id = p.image)";
    let select = format!("SELECT p.id, p.comm, {image} FROM process p {within} p.segment = ?");
    let mut select = db.prepare_cached(&select)?;
    let mut rows = select.query([segment.id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (comm, exe) = (row.get_ref(1)?.as_str_or_null(), row.get_ref(2)?.as_str_or_null());
        let is = |text: Result<Option<&str>, _>| {
            text.is_ok_and(|text| text.is_some_and(|text| glob.is_match(text)))
        };
        if is(comm) || is(exe) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}
