//! Rows as the values that they were made of.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::chain::{Format, Table};
use super::predict::{find_later, predicted};
use super::rows::{COLUMNS, Cell, Cells, FIRST_COLUMNS, NameRows};
use super::{StoreError, words};
use crate::clock::BootClock;
use crate::hash::Map;
use crate::model::{Arguments, BootTime, CgroupId, Cookie, DeviceName, ExeState, Image, ProcessKey, Way};
use crate::names::{HostName, NameBasis, Names};
use crate::process::{Actor, Birth, Cause, ExeStatus, Message, Process};
use crate::signs::Sign;
use crate::tracker::{ConnectionEvent, EndpointId, EventKind};

/// Processes that were read, so that each is read once, and all rows that name it share it.
#[derive(Default)]
pub(super) struct Processes {
    actors: RefCell<Map<i64, Actor>>,
    images: RefCell<Map<i64, Arc<Image>>>,
    names: RefCell<Map<i64, Arc<HostName>>>,
}

/// More are not held.
const MOST_HELD: usize = 65_536;

/// Number of columns before those of [`COLUMNS`], and of those after the first version's.
pub(super) const HEAD: usize = 6;
pub(super) const TAIL: usize = 2;

/// A row of `connection` as it lies there.
#[derive(Clone, Debug)]
pub(super) struct StoredRow {
    pub(super) id: i64,
    pub(super) segment: i64,
    pub(super) endpoint: EndpointId,
    pub(super) ts: i64,
    events: String,
    cells: Cells,
    odd: Option<String>,
}

fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged(what.into())
}

impl StoredRow {
    /// From the columns of the table in their order.
    pub(super) fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let mut cells = [Cell::Null; COLUMNS.len()];
        for (column, (cell, name)) in cells.iter_mut().zip(COLUMNS).enumerate() {
            // Columns of later versions come last, if the store has them.
            let place = if column < FIRST_COLUMNS { HEAD + column } else { HEAD + column + TAIL };
            if place < row.as_ref().column_count() {
                *cell = cell_of(name, row.get_ref(place)?)?;
            }
        }
        let cookie: i64 = row.get(2)?;
        let began: i64 = row.get(3)?;
        Ok(Self {
            id: row.get(0)?,
            segment: row.get(1)?,
            endpoint: EndpointId {
                cookie: cookie.cast_unsigned(),
                began: BootTime::from_nanos(began.cast_unsigned()),
            },
            ts: row.get(4)?,
            events: row.get(5)?,
            cells: Cells(cells),
            odd: row.get(HEAD + FIRST_COLUMNS + 1)?,
        })
    }

    /// The kinds of its events with their times of day, nanoseconds since the epoch.
    pub(super) fn reported(&self) -> Result<Vec<(EventKind, i64)>, StoreError> {
        let reported = self.events.split(' ').map(|event| {
            let (kind, since) = event.split_once('+')?;
            let kind = EventKind::ALL.into_iter().find(|known| known.name() == kind)?;
            Some((kind, self.ts.checked_add(since.parse().ok()?)?))
        });
        reported
            .collect::<Option<_>>()
            .ok_or_else(|| damaged(format!("connection {}: no events: {}", self.id, self.events)))
    }

    /// The events, by the clock of their segment.
    pub(super) fn events(
        &self,
        clock: BootClock,
        processes: &Processes,
        db: &Connection,
    ) -> Result<Vec<ConnectionEvent>, StoreError> {
        let reported = self.reported()?;
        let kinds: Vec<_> = reported.iter().map(|(kind, _)| *kind).collect();
        let odd: serde_json::Map<String, serde_json::Value> = match &self.odd {
            Some(odd) => serde_json::from_str(odd)
                .map_err(|error| damaged(format!("connection {}: odd: {error}", self.id)))?,
            None => serde_json::Map::new(),
        };
        let boot = i128::from(clock.boot().unwrap_or(0));
        let mut events = Vec::with_capacity(reported.len());
        let mut later = Vec::with_capacity(kinds.len());
        find_later(&kinds, &mut later);
        for (place, (kind, ts)) in reported.iter().enumerate() {
            let later = later.get(place).copied().unwrap_or_default();
            let mut cells = if later.is_empty() { self.cells } else { predicted(*kind, later, &self.cells) };
            if let Some(odd) = odd.get(&place.to_string()) {
                amend(&mut cells, odd).ok_or_else(|| damaged(format!("connection {}: odd", self.id)))?;
            }
            let actors = cells.rows().try_map(|row| processes.actor(row, db))?;
            let at = BootTime::from_nanos((i128::from(*ts) - boot).try_into().unwrap_or(0));
            let NameRows { remote, local } = cells.names();
            let name = |row: Option<i64>| row.map(|row| processes.name(row, db)).transpose();
            let names = Names::new(name(remote)?, name(local)?);
            let event = cells.event(self.endpoint, at, *kind, actors, names);
            let mut event = event.ok_or_else(|| damaged(format!("connection {} makes no sense", self.id)))?;
            if let Some(cause) = cells.cause().filter(|cause| *cause < 0) {
                event.endpoint.cause = processes.messages(-cause, i64::MAX, db)?;
            }
            events.push(event);
        }
        Ok(events)
    }
}

fn cell_of(column: &str, value: ValueRef<'_>) -> Result<Cell, StoreError> {
    let text = match value {
        ValueRef::Null => return Ok(Cell::Null),
        ValueRef::Integer(number) => return Ok(Cell::Int(number)),
        ValueRef::Text(text) => std::str::from_utf8(text).unwrap_or_default(),
        ValueRef::Real(_) | ValueRef::Blob(_) => "",
    };
    cell_of_text(column, text).ok_or_else(|| damaged(format!("{column}: {text}")))
}

fn cell_of_text(column: &str, text: &str) -> Option<Cell> {
    if column == "device" {
        return Some(Cell::Device(DeviceName::new(text)));
    }
    if column == "errno" {
        return crate::errno::number(text).map(Cell::Errno);
    }
    text.parse::<IpAddr>().ok().map(Cell::Ip)
}

fn amend(cells: &mut Cells, odd: &serde_json::Value) -> Option<()> {
    use serde_json::Value;
    for (column, value) in odd.as_object()? {
        let place = COLUMNS.iter().position(|name| name == column)?;
        *cells.0.get_mut(place)? = match value {
            Value::Null => Cell::Null,
            Value::Number(number) => Cell::Int(number.as_i64()?),
            Value::String(text) => cell_of_text(column, text)?,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
    }
    Some(())
}

impl Processes {
    /// The process of a row, with its parents.
    pub(super) fn actor(&self, row: i64, db: &Connection) -> Result<Actor, StoreError> {
        if let Some(known) = self.actors.borrow().get(&row) {
            return Ok(known.clone());
        }
        // Up to one that is known, then down again.
        let mut line = Vec::new();
        let mut next = Some(row);
        let mut above = None;
        while let Some(row) = next {
            if let Some(known) = self.actors.borrow().get(&row) {
                above = Some(known.process.clone());
                break;
            }
            let read = self.read(row, db)?;
            next = read.parent;
            if next.is_some_and(|parent| parent >= row) {
                return Err(damaged(format!("process {row} is older than its parent")));
            }
            line.push((row, read));
        }
        let mut actors = self.actors.borrow_mut();
        if actors.len() >= MOST_HELD {
            actors.clear();
        }
        let mut last = None;
        for (row, ReadProcess { process, tid, thread, .. }) in line.into_iter().rev() {
            let process = Arc::new(process.child_of(above.as_ref()));
            above = Some(process.clone());
            let actor = Actor::new(process, tid, thread);
            actors.insert(row, actor.clone());
            last = Some(actor);
        }
        last.ok_or_else(|| damaged(format!("there is no process {row}")))
    }

    fn read(&self, row: i64, db: &Connection) -> Result<ReadProcess, StoreError> {
        let mut select = db.prepare_cached(&format!("{} WHERE id = ?", Table::Process.select()))?;
        let read = select.query_row([row], |row| {
            let number = |column| row.get::<_, i64>(column);
            let maybe = |column| row.get::<_, Option<i64>>(column);
            let text = |column| row.get::<_, String>(column).map(Arc::<str>::from);
            let pid = row.get(3)?;
            let cookie = |number: Option<i64>| number.map(i64::cast_unsigned);
            let birth = cookie(maybe(16)?);
            let cause = maybe(17)?;
            let mut standard = [(None, None); 3];
            for (column, (socket, stream)) in (18..).zip(&mut standard) {
                match maybe(column)? {
                    Some(number) if number < 0 => *stream = words::stream(number),
                    number => *socket = cookie(number).and_then(Cookie::new),
                }
            }
            let exe_state: Option<String> = row.get(21)?;
            let signs: Option<String> = row.get(22)?;
            let key = ProcessKey::recorded(pid, BootTime::from_nanos(number(4)?.cast_unsigned()));
            let mut process = Process::bare(key, text(7)?);
            process.uid = row.get(8)?;
            process.auid = row.get(9)?;
            process.ppid = row.get(10)?;
            process.cgroup_id = CgroupId::new(number(11)?.cast_unsigned());
            process.cgroup = text(12)?;
            process.kernel = number(13)? != 0;
            let socket =
                cause.filter(|cause| *cause > 0).and_then(|cause| Cookie::new(cause.cast_unsigned()));
            let at = birth.map(BootTime::from_nanos);
            process.birth = at.map(|at| Birth { at, cause: Cause::of_socket(socket) });
            process.stdio = standard.map(|(socket, _)| socket);
            process.streams = standard.map(|(_, stream)| stream);
            process.exe_status = exe_state.map(|state| exe_status(&state, signs.as_deref()));
            let tid: Option<u32> = row.get(5)?;
            let thread: Option<String> = row.get(6)?;
            let (tid, thread) = (tid.unwrap_or(pid), thread.map(Into::into));
            Ok((ReadProcess { process, tid, thread, parent: maybe(15)? }, number(14)?, cause))
        });
        let (mut read, image, cause) =
            read.optional()?.ok_or_else(|| damaged(format!("there is no process {row}")))?;
        read.process.image = self.image(image, db)?;
        if let Some(message) = cause.and_then(i64::checked_neg).filter(|message| *message > 0)
            && let Some(birth) = &mut read.process.birth
        {
            birth.cause = self.messages(message, row, db)?;
        }
        Ok(read)
    }

    /// The cause that came by this message and those before it. `below`: the row that refers to it; the writers are in rows
    /// before that.
    fn messages(&self, row: i64, below: i64, db: &Connection) -> Result<Cause, StoreError> {
        let mut select = db.prepare_cached(&format!("{} WHERE id = ?", Table::Message.select()))?;
        let (mut messages, mut socket, mut next) = (Vec::new(), None, Some(row));
        while let Some(row) = next {
            let read = select.query_row([row], |row| {
                let (before, cause): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
                let (written, way): (i64, String) = (row.get(4)?, row.get(5)?);
                let (inode, path, writer): (i64, Option<String>, i64) =
                    (row.get(6)?, row.get(7)?, row.get(8)?);
                Ok((before, cause, written, way, inode, path, writer))
            });
            let (before, cause, written, way, inode, path, writer) =
                read.optional()?.ok_or_else(|| damaged(format!("there is no message {row}")))?;
            if before.is_some_and(|before| before >= row) || writer >= below {
                return Err(damaged(format!("message {row} is older than what caused it")));
            }
            messages.push(Message {
                writer: self.actor(writer, db)?.process,
                at: BootTime::from_nanos(written.cast_unsigned()),
                way: Way::from_name(&way).ok_or_else(|| damaged(format!("message {row}: {way}")))?,
                inode: inode.cast_unsigned(),
                path: path.map(Into::into),
            });
            socket = cause.and_then(|cause| Cookie::new(cause.cast_unsigned()));
            next = before;
        }
        messages.reverse();
        Ok(Cause::new(socket, messages))
    }

    /// The name that a number stands for: see [`super::intern::Interner::names`].
    fn name(&self, number: i64, db: &Connection) -> Result<Arc<HostName>, StoreError> {
        let row = number.checked_abs().ok_or_else(|| damaged("a name has no number"))?;
        if let Some(known) = self.names.borrow().get(&row) {
            return Ok(known.clone());
        }
        let mut select =
            db.prepare_cached(&format!("{} WHERE id = ?", Table::HostName.select_in(Format::Two)))?;
        let read = select.query_row([row], |row| {
            let (name, basis): (String, String) = (row.get(2)?, row.get(3)?);
            let (said, candidates, asker): (i64, u32, Option<i64>) = (row.get(4)?, row.get(5)?, row.get(6)?);
            Ok((name, basis, said, candidates, asker))
        });
        let (name, basis, said, candidates, asker) =
            read.optional()?.ok_or_else(|| damaged(format!("there is no name {row}")))?;
        let asked_by = asker.map(|asker| self.actor(asker, db)).transpose()?;
        let basis = NameBasis::ALL.into_iter().find(|known| known.name() == basis);
        let name = Arc::new(HostName {
            name: name.into(),
            basis: basis.ok_or_else(|| damaged(format!("name {row} has no basis")))?,
            at: BootTime::from_nanos(said.cast_unsigned()),
            asked_by: asked_by.map(|actor| actor.process),
            candidates,
        });
        let mut names = self.names.borrow_mut();
        if names.len() >= MOST_HELD {
            names.clear();
        }
        names.insert(row, name.clone());
        Ok(name)
    }

    fn image(&self, row: i64, db: &Connection) -> Result<Arc<Image>, StoreError> {
        if let Some(known) = self.images.borrow().get(&row) {
            return Ok(known.clone());
        }
        let mut select = db.prepare_cached(&format!("{} WHERE id = ?", Table::Image.select()))?;
        let read = select.query_row([row], |row| {
            let bits = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let exe: Option<String> = row.get(2)?;
            let state: String = row.get(3)?;
            let args: String = row.get(7)?;
            let image = Image {
                exe: exe.map(Into::into),
                exe_state: words::exe_state(&state).unwrap_or(ExeState::Unknown),
                file: (bits(4)?, bits(5)?),
                mntns: row.get(6)?,
                args: Arguments::default(),
            };
            Ok((image, args))
        });
        let (image, args) = read.optional()?.ok_or_else(|| damaged(format!("there is no image {row}")))?;
        let args: Vec<String> =
            serde_json::from_str(&args).map_err(|error| damaged(format!("image {row}: args: {error}")))?;
        let image = Arc::new(Image { args: args.iter().collect(), ..image });
        let mut images = self.images.borrow_mut();
        if images.len() >= MOST_HELD {
            images.clear();
        }
        images.insert(row, image.clone());
        Ok(image)
    }
}

struct ReadProcess {
    process: Process,
    tid: u32,
    thread: Option<Arc<str>>,
    parent: Option<i64>,
}

fn exe_status(exe_state: &str, signs: Option<&str>) -> ExeStatus {
    let mut signs = signs.unwrap_or_default().split(',');
    ExeStatus {
        state: words::exe_state(exe_state).unwrap_or(ExeState::Unknown),
        world_writable: signs.any(|sign| sign == Sign::ExeWorldWritable.name()),
    }
}
