//! Rows of some batches of a store, ready to be inserted.

use rusqlite::Row;

use super::binary::{put, put_list, put_number, put_text};
use super::column::Kind;
use super::cursor::Cursor;
use super::identity::Identity;
use super::tables::{HOST, TABLES, Table, table};
use super::tuple::tuple;
use crate::limits;
use crate::model::SockAddr;
use crate::store::{Link, Reader, Span, StoreError};

/// Rows of a table.
#[derive(Debug)]
pub(super) struct Part {
    /// The table.
    pub table: &'static Table,
    /// The rows.
    pub bytes: Vec<u8>,
    /// Their number.
    pub rows: u64,
}

/// What is inserted next.
#[derive(Debug)]
pub(super) struct Shipment {
    /// In the order of insertion.
    pub parts: Vec<Part>,
    /// The last batch and its link.
    pub last: (i64, Link),
    /// Batches after the cursor that retention has deleted.
    pub missing: u64,
    /// The store has more.
    pub is_full: bool,
    /// It has nothing but connections of netwatch itself, of which shipping makes more.
    pub is_own: bool,
}

/// What `hosts` has of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign<'a> {
    /// Boot id.
    pub boot: &'a str,
    /// Now, by the clock of this host, in nanoseconds since the epoch.
    pub now: i64,
    /// Time of the newest batch of the store.
    pub recorded: i64,
    /// Batches that are not shipped.
    pub waiting: u64,
}

impl Shipment {
    /// What comes after the cursor; `None`: nothing.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn next(
        cursor: &Cursor,
        host: &Identity,
        reader: &Reader,
    ) -> Result<Option<Self>, StoreError> {
        reader.at_once(|| {
            let spans = reader.spans(cursor.batch, limits::SHIP_ROWS)?;
            let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Ok(None) };
            let missing = first.id.saturating_sub(cursor.batch).saturating_sub(1).max(0).cast_unsigned();
            let rows: i64 = spans.iter().map(Span::rows).sum();
            let mut head = Vec::new();
            put_host(host, cursor.store, &mut head);
            let (mut parts, mut is_own) = (Vec::new(), true);
            let own = i64::from(std::process::id());
            for table in TABLES.iter().filter(|table| !table.store.is_empty()) {
                let mut part = Part { table, bytes: Vec::new(), rows: 0 };
                let range = match table.store {
                    "batch" => (first.id, last.id),
                    store => covered(&spans, store),
                };
                let tuple = table
                    .columns
                    .iter()
                    .position(|column| column.kind == Kind::Tuple)
                    .map(|_| Ends::of(table));
                let pid = table.columns.iter().position(|column| column.name == "pid");
                let pid = pid.filter(|_| table.name == "ends");
                is_own &= pid.is_some() || range.0 > range.1 || OF_ANY.contains(&table.name);
                if range.0 <= range.1 {
                    reader.each_row(&table.select(), range, &mut |row| {
                        part.bytes.extend_from_slice(&head);
                        put_row(table, tuple.as_ref(), row, &mut part.bytes)?;
                        part.rows += 1;
                        if let Some(pid) = pid {
                            is_own &= row.get::<_, Option<i64>>(pid)? == Some(own);
                        }
                        Ok(())
                    })?;
                }
                if part.rows > 0 {
                    parts.push(part);
                }
            }
            Ok(Some(Self {
                parts,
                last: (last.id, last.link),
                missing,
                is_full: rows >= limits::SHIP_ROWS,
                is_own,
            }))
        })
    }
}

/// Tables that have rows for connections of any process.
const OF_ANY: [&str; 4] = ["segments", "processes", "names", "batches"];

/// The rows of all spans, which are consecutive.
fn covered(spans: &[Span], store: &str) -> (i64, i64) {
    let ranges = spans.iter().map(|span| span.range(store)).filter(|(from, to)| from <= to);
    ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or((1, 0))
}

fn put_host(host: &Identity, store: u64, out: &mut Vec<u8>) {
    put_text(host.id.as_bytes(), out);
    put_text(host.name.as_bytes(), out);
    put_number(HOST[2].1, store.cast_signed(), out);
}

fn put_row(table: &Table, ends: Option<&Ends>, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), StoreError> {
    for (place, column) in table.columns.iter().enumerate() {
        match (column.kind, ends) {
            (Kind::Tuple, Some(ends)) => {
                let hash = ends.tuple(row)?.unwrap_or(0);
                put_number(Kind::Tuple, hash.cast_signed(), out);
            }
            _ => put(column, row.get_ref(place)?, out),
        }
    }
    Ok(())
}

/// Where the columns are that a tuple is made of.
struct Ends {
    proto: usize,
    nat: usize,
    plain: [usize; 4],
    translated: [usize; 4],
}

impl Ends {
    fn of(table: &Table) -> Self {
        let place = |name: &str| table.columns.iter().position(|column| column.name == name).unwrap_or(0);
        Self {
            proto: place("proto"),
            nat: place("nat"),
            plain: ["local_ip", "local_port", "remote_ip", "remote_port"].map(place),
            translated: ["nat_local_ip", "nat_local_port", "nat_remote_ip", "nat_remote_port"].map(place),
        }
    }

    fn tuple(&self, row: &Row<'_>) -> Result<Option<u64>, StoreError> {
        let is_translated = row.get::<_, Option<i64>>(self.nat)? == Some(1);
        let places = if is_translated { self.translated } else { self.plain };
        let address = |ip: usize, port: usize| -> Result<Option<SockAddr>, StoreError> {
            let text = row.get_ref(ip)?.as_str_or_null().unwrap_or_default().unwrap_or_default();
            let port: Option<u16> = row.get(port)?;
            let ip = text.parse().ok();
            Ok(ip.zip(port).map(|(ip, port)| SockAddr { ip, port }))
        };
        let [local_ip, local_port, remote_ip, remote_port] = places;
        let (Some(local), Some(remote)) = (address(local_ip, local_port)?, address(remote_ip, remote_port)?)
        else {
            return Ok(None);
        };
        // Sockets without ports have numbers of their own, and are not joined.
        let proto = u8::try_from(row.get::<_, i64>(self.proto)?);
        Ok(proto.ok().and_then(|proto| tuple(proto, local, remote)))
    }
}

/// The row of `hosts`.
#[must_use]
pub(super) fn sign(host: &Identity, cursor: &Cursor, sign: Sign<'_>) -> Part {
    let table = table("hosts");
    let mut bytes = Vec::new();
    put_host(host, cursor.store, &mut bytes);
    for column in table.columns {
        let out = &mut bytes;
        match column.name {
            "ts" => put_number(column.kind, sign.now, out),
            "boot" => put_text(sign.boot.as_bytes(), out),
            "version" => put_text(env!("CARGO_PKG_VERSION").as_bytes(), out),
            "kernel" => put_text(host.kernel.as_bytes(), out),
            "labels" => put_list(&host.labels, out),
            "recorded" => put_number(column.kind, sign.recorded, out),
            "batch" => put_number(column.kind, cursor.batch, out),
            "waiting" => put_number(column.kind, sign.waiting.cast_signed(), out),
            _ => put_number(column.kind, cursor.dropped.cast_signed(), out),
        }
    }
    Part { table, bytes, rows: 1 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::BootClock;
    use crate::fleet::binary::Bytes;
    use crate::store::{Retention, Settings, generate};

    #[test]
    fn rows_of_a_shipment_are_limited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netwatch.db");
        let retention = Retention { age: Duration::from_secs(u64::from(u32::MAX)), size: 1 << 40 };
        let settings = Settings {
            retention,
            boot: "b".into(),
            filter: None,
            clock: BootClock::of_boot(1 << 60),
            seal: false,
        };
        generate(&path, settings, 15_000).unwrap();
        let reader = Reader::open(&path).unwrap();
        let host = Identity { id: "i".into(), name: "n".into(), labels: Vec::new(), kernel: "k".into() };
        let mut cursor = Cursor::begin(&path, "server", &reader).unwrap();
        let (mut ends, mut rounds) = (0, 0);
        while let Some(shipment) = Shipment::next(&cursor, &host, &reader).unwrap() {
            let of = |name: &str| shipment.parts.iter().find(|part| part.table.name == name);
            let part = of("ends").unwrap();
            // A batch has 8192 rows of connections at most, and few others.
            let most = limits::SHIP_ROWS.cast_unsigned() + 9000;
            assert!(part.rows <= most, "{}", part.rows);
            ends += part.rows;
            rounds += 1;
            let names: Vec<_> = shipment.parts.iter().map(|part| part.table.name).collect();
            assert_eq!((names.last(), shipment.missing, shipment.is_own), (Some(&"batches"), 0, false));
            // What is sent can be read by the columns.
            let (mut bytes, mut rows) = (Bytes(&part.bytes), 0);
            while !bytes.is_empty() {
                assert_eq!((bytes.text().as_deref(), bytes.text().as_deref()), (Some("i"), Some("n")));
                assert_eq!(bytes.number(HOST[2].1), Some(cursor.store.cast_signed()));
                assert!(part.table.columns.iter().all(|column| bytes.value(column).is_some()));
                rows += 1;
            }
            assert_eq!(rows, part.rows);
            cursor.advance(shipment.last.0, shipment.last.1);
            cursor.write(&path).unwrap();
        }
        assert_eq!(ends, 30_000);
        assert!(rounds > 1);
        // The state is found again; another server gets everything.
        assert_eq!(Cursor::begin(&path, "server", &reader).unwrap(), cursor);
        let other = Cursor::begin(&path, "other", &reader).unwrap();
        assert_eq!((other.batch, other.store), (0, cursor.store));
        // Another store at this path is told apart.
        cursor.link = "0".repeat(64);
        cursor.write(&path).unwrap();
        let other = Cursor::begin(&path, "server", &reader).unwrap();
        assert!(other.batch == 0 && other.store != cursor.store);
        // A file that is too long is not one of netwatch.
        std::fs::write(crate::fleet::cursor::path(&path), " ".repeat(limits::SHIP_FILE + 1)).unwrap();
        assert_eq!(Cursor::begin(&path, "server", &reader).unwrap().batch, 0);
        // What retention deleted before is counted.
        let behind = Cursor { batch: -3, ..other };
        assert_eq!(Shipment::next(&behind, &host, &reader).unwrap().unwrap().missing, 3);
    }
}
