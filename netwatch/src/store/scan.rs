//! Reading without the indexes of the store, which may have been altered: endpoints by cookie are found by an index in
//! memory, made in one pass over the table.

use std::cell::OnceCell;
use std::ops::ControlFlow;

use rusqlite::Connection;

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
