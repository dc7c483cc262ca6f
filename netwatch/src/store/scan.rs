//! Reading without the indexes of the store, which may have been altered: endpoints by cookie are found by an index in
//! memory, made in one pass over the table.

use std::cell::OnceCell;
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::chain::Table;
use super::{Progress, StoreError};

/// How the caller follows a search.
type Watch = Box<dyn Fn(Progress) -> ControlFlow<()>>;

/// Rows between two calls of [`Watch`] in the pass.
const OFTEN: u64 = 1 << 16;

pub(super) struct Scan {
    watch: Watch,
    /// Cookies of endpoints and of other sockets, each with the row, in order: 16 bytes each.
    cookies: OnceCell<Cookies>,
}

#[derive(Default)]
struct Cookies {
    endpoints: Vec<(u64, i64)>,
    sockets: Vec<(u64, i64)>,
}

impl Scan {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, cookies: OnceCell::new() }
    }

    pub(super) fn tell(&self, progress: Progress) -> Result<(), StoreError> {
        match (self.watch)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StoreError::Interrupted),
        }
    }

    /// Rows of endpoints with this cookie in their id, in order.
    pub(super) fn by_cookie(&self, cookie: u64, db: &Connection) -> Result<Vec<i64>, StoreError> {
        Ok(of(&self.cookies(db)?.endpoints, cookie))
    }

    /// The same, and rows of sockets with this cookie.
    pub(super) fn by_socket(&self, cookie: u64, db: &Connection) -> Result<Vec<i64>, StoreError> {
        let cookies = self.cookies(db)?;
        let mut rows = [of(&cookies.endpoints, cookie), of(&cookies.sockets, cookie)].concat();
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    fn cookies(&self, db: &Connection) -> Result<&Cookies, StoreError> {
        if let Some(cookies) = self.cookies.get() {
            return Ok(cookies);
        }
        let ends = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM connection NOT INDEXED";
        let (first, last): (i64, i64) = db.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let total = last.saturating_sub(first).max(0).cast_unsigned();
        let mut cookies = Cookies::default();
        let mut select = db.prepare("SELECT cookie, socket, id FROM connection NOT INDEXED ORDER BY id")?;
        let mut rows = select.query([])?;
        let mut done = 0;
        while let Some(row) = rows.next()? {
            let (cookie, socket, id): (i64, Option<i64>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            cookies.endpoints.push((cookie.cast_unsigned(), id));
            cookies.sockets.extend(socket.map(|socket| (socket.cast_unsigned(), id)));
            done += 1;
            if done % OFTEN == 0 {
                self.tell(Progress { done, total })?;
            }
        }
        cookies.endpoints.sort_unstable();
        cookies.sockets.sort_unstable();
        Ok(self.cookies.get_or_init(|| cookies))
    }
}

fn of(rows: &[(u64, i64)], cookie: u64) -> Vec<i64> {
    let from = rows.partition_point(|(known, _)| *known < cookie);
    let rows = rows.get(from..).unwrap_or_default();
    rows.iter().take_while(|(known, _)| *known == cookie).map(|(_, row)| *row).collect()
}

/// How rows of a segment are found.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// By the indexes of the store.
    Index,
    /// By reading the tables: the first and last row of each that the segment has.
    Scan { connection: (i64, i64), process: (i64, i64), image: (i64, i64) },
}

impl By {
    pub(super) fn of(segment: i64, is_scan: bool, db: &Connection) -> Result<Self, StoreError> {
        if !is_scan {
            return Ok(Self::Index);
        }
        let (mut connection, mut process, mut image) = ((1, 0), (1, 0), (1, 0));
        let columns = "connection_from, connection_to, process_from, process_to, image_from, image_to";
        each_batch(columns, segment, db, |row| {
            for (place, range) in [&mut connection, &mut process, &mut image].into_iter().enumerate() {
                let (from, to): (i64, i64) = (row.get(2 * place)?, row.get(2 * place + 1)?);
                if from <= to {
                    *range = (if range.0 <= range.1 { range.0 } else { from }, to);
                }
            }
            Ok(())
        })?;
        Ok(Self::Scan { connection, process, image })
    }

    /// What follows `FROM connection` and the like, up to the condition.
    pub(super) fn within(&self, table: Table) -> String {
        let (from, to) = match (self, table) {
            (Self::Index, _) => return "WHERE".into(),
            (Self::Scan { process, .. }, Table::Process) => process,
            (Self::Scan { image, .. }, Table::Image) => image,
            (Self::Scan { connection, .. }, _) => connection,
        };
        let id = if table == Table::Process { "p.id" } else { "id" };
        format!("NOT INDEXED WHERE {id} BETWEEN {from} AND {to} AND")
    }
}

/// The batches of a segment in order, without their index: the segments of batches never go back.
pub(super) fn each_batch(
    columns: &str,
    segment: i64,
    db: &Connection,
    mut with: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    let ends = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM batch NOT INDEXED";
    let (mut from, mut to): (i64, i64) =
        db.prepare_cached(ends)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let at = "SELECT segment FROM batch NOT INDEXED WHERE id >= ? ORDER BY id LIMIT 1";
    let mut at = db.prepare_cached(at)?;
    while from < to {
        let middle = from + (to - from) / 2;
        let of: Option<i64> = at.query_row([middle], |row| row.get(0)).optional()?;
        if of.is_some_and(|of| of < segment) { from = middle + 1 } else { to = middle }
    }
    let select = format!("SELECT {columns}, segment FROM batch NOT INDEXED WHERE id >= ? ORDER BY id");
    let mut select = db.prepare_cached(&select)?;
    let mut rows = select.query([from])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>("segment")? != segment {
            break;
        }
        with(row)?;
    }
    Ok(())
}

/// Time of the last batch of a segment, in nanoseconds since the epoch.
pub(super) fn last_batch(segment: i64, is_scan: bool, db: &Connection) -> Result<Option<i64>, StoreError> {
    if !is_scan {
        let mut select = db.prepare_cached("SELECT max(ts) FROM batch WHERE segment = ?")?;
        return Ok(select.query_row([segment], |row| row.get(0))?);
    }
    let mut last: Option<i64> = None;
    each_batch("ts", segment, db, |row| {
        last = last.max(Some(row.get(0)?));
        Ok(())
    })?;
    Ok(last)
}
