//! Rows of the server as stores in memory, one for each store that a host shipped, so that they are read as a store is.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rusqlite::types::Value;

use super::binary::Bytes;
use super::dialect::quoted;
use super::server::{Server, ServerError};
use super::tables::{HOST, Table, table};
use crate::store::{History, Reader, StoreError};

/// A store of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The hash of its machine id.
    pub host_id: String,
    /// The store.
    pub store: u64,
}

impl Key {
    /// The condition on rows.
    #[must_use]
    pub fn condition(&self) -> String {
        format!("host_id = {} AND store = {}", quoted(&self.host_id), self.store)
    }
}

/// Why rows cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The server does not give them.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// They make no sense.
    #[error("what {url} has is damaged")]
    Damaged {
        /// The server.
        url: String,
        /// What is wrong.
        #[source]
        source: StoreError,
    },
    /// An answer ends too soon.
    #[error("the answer of {url} ends in the middle of a row")]
    Short {
        /// The server.
        url: String,
    },
}

/// A row that was brought.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brought {
    /// Where it is from.
    pub key: Key,
    /// Its number.
    pub row: i64,
}

/// Stores in memory.
pub struct Mirrors<'s> {
    server: &'s Server,
    all: RefCell<BTreeMap<Key, Mirror>>,
}

struct Mirror {
    /// The name of the host.
    host: String,
    reader: Reader,
    /// Rows that it has, by table.
    known: BTreeMap<&'static str, BTreeSet<i64>>,
    /// Rows that others refer to and that it does not have yet.
    wanted: BTreeMap<&'static str, BTreeSet<i64>>,
}

/// Columns that refer to rows of another table. A number may stand for something else if it is positive (a message), or
/// have its sign changed (a name).
const REFERENCES: [(&str, &str, &str); 15] = [
    ("ends", "segment", "segments"),
    ("ends", "originator", "processes"),
    ("ends", "process", "processes"),
    ("ends", "listener_process", "processes"),
    ("ends", "peer_process", "processes"),
    ("ends", "cause", "messages"),
    ("ends", "remote_name", "names"),
    ("ends", "local_name", "names"),
    ("alerts", "segment", "segments"),
    ("alerts", "process", "processes"),
    ("losses", "segment", "segments"),
    ("processes", "parent", "processes"),
    ("processes", "cause", "messages"),
    ("messages", "writer", "processes"),
    ("names", "asker", "processes"),
];

/// Bytes of a statement at most: `max_query_size` of the server is 256 KiB.
const STATEMENT: usize = 200 << 10;

impl<'s> Mirrors<'s> {
    /// None yet.
    #[must_use]
    pub fn new(server: &'s Server) -> Self {
        Self { server, all: RefCell::default() }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &'s Server {
        self.server
    }

    /// Stores, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.all.borrow().keys().cloned().collect()
    }

    /// The store in memory.
    #[must_use]
    pub fn reader(&self, key: &Key) -> Option<Ref<'_, Reader>> {
        Ref::filter_map(self.all.borrow(), |all| all.get(key).map(|mirror| &mirror.reader)).ok()
    }

    /// Asks the history of a store.
    ///
    /// # Errors
    /// If its rows make no sense.
    pub fn history<T>(
        &self,
        key: &Key,
        question: impl FnOnce(&History) -> Result<T, StoreError>,
    ) -> Result<T, MirrorError> {
        let none = || StoreError::Damaged(format!("there is no store {key:?}"));
        let mut all = self.all.borrow_mut();
        let mirror = all.get_mut(key).ok_or_else(|| self.damaged(none()))?;
        // The history owns its store.
        let empty = Reader::in_memory().map_err(|error| self.damaged(error))?;
        let reader = std::mem::replace(&mut mirror.reader, empty);
        let answer = History::borrowing(reader, question);
        let (reader, answer) = answer.map_err(|error| self.damaged(error))?;
        mirror.reader = reader;
        answer.map_err(|error| self.damaged(error))
    }

    /// The name of its host.
    #[must_use]
    pub fn host(&self, key: &Key) -> String {
        self.all.borrow().get(key).map(|mirror| mirror.host.clone()).unwrap_or_default()
    }

    /// Brings the rows of a table that meet a condition, without those that they refer to.
    ///
    /// # Errors
    /// If the server does not give them.
    pub fn bring(&self, name: &str, condition: &str) -> Result<Vec<Brought>, MirrorError> {
        let table = table(name);
        let own = table.columns.iter().filter(|column| column.back.is_some());
        let columns: Vec<_> =
            HOST.iter().map(|(name, _)| *name).chain(own.clone().map(|column| column.name)).collect();
        let database = &self.server.url().database;
        let bytes = self
            .server
            .fetch(&format!("SELECT {} FROM {database}.{name} WHERE {condition}", columns.join(", ")))?;
        let mut bytes = Bytes(&bytes);
        let mut brought = Vec::new();
        let short = || MirrorError::Short { url: self.server.url().to_string() };
        while !bytes.is_empty() {
            let head = bytes.text().zip(bytes.text()).zip(bytes.number(HOST[2].1));
            let ((host_id, host), store) = head.ok_or_else(short)?;
            let values = own.clone().map(|column| bytes.value(column)).collect::<Option<Vec<_>>>();
            let values = values.ok_or_else(short)?;
            let key = Key { host_id, store: store.cast_unsigned() };
            let row = match values.first() {
                Some(Value::Integer(row)) => *row,
                _ => 0,
            };
            self.put(&key, &host, table, row, &values).map_err(|error| self.damaged(error))?;
            brought.push(Brought { key, row });
        }
        Ok(brought)
    }

    fn damaged(&self, source: StoreError) -> MirrorError {
        MirrorError::Damaged { url: self.server.url().to_string(), source }
    }

    fn put(
        &self,
        key: &Key,
        host: &str,
        table: &'static Table,
        row: i64,
        values: &[Value],
    ) -> Result<(), StoreError> {
        let mut all = self.all.borrow_mut();
        if !all.contains_key(key) {
            let mirror = Mirror {
                host: host.to_owned(),
                reader: Reader::in_memory()?,
                known: BTreeMap::new(),
                wanted: BTreeMap::new(),
            };
            all.insert(key.clone(), mirror);
        }
        let Some(mirror) = all.get_mut(key) else { return Ok(()) };
        if !mirror.known.entry(table.name).or_default().insert(row) {
            return Ok(());
        }
        let own: Vec<_> = table.columns.iter().filter(|column| column.back.is_some()).collect();
        for (column, value) in own.iter().zip(values) {
            mirror.refer(table.name, column.name, value);
            if column.name == "odd"
                && let Value::Text(odd) = value
            {
                mirror.refer_in(odd);
            }
        }
        // A table of the server may have the columns of two tables of a store.
        let mut targets: Vec<&str> = own.iter().filter_map(|column| Some(column.back?.0)).collect();
        targets.dedup();
        for target in targets {
            let (mut columns, mut of) = (Vec::new(), Vec::new());
            for (column, value) in own.iter().zip(values) {
                let is_id = target != table.store && column.name == target;
                match column.back {
                    Some((to, name)) if to == target => {
                        columns.push(name);
                        of.push(value.clone());
                    }
                    _ if is_id || (target != table.store && column.name == "segment") => {
                        columns.push(if is_id { "id" } else { "segment" });
                        of.push(value.clone());
                    }
                    _ => {}
                }
            }
            if target == "segment" {
                columns.push("hostname");
                of.push(Value::Text(host.to_owned()));
            }
            mirror.reader.put(target, &columns, of)?;
        }
        Ok(())
    }

    /// Brings what the rows refer to, and what that refers to. Rows can be read after it.
    ///
    /// # Errors
    /// If the server does not give it.
    pub fn complete(&self) -> Result<(), MirrorError> {
        for name in ["processes", "messages", "names"].into_iter().cycle() {
            let conditions = self.wanted(name);
            for condition in &conditions {
                self.bring(name, condition)?;
            }
            let is_done =
                |mirror: &Mirror| mirror.wanted.iter().all(|(of, rows)| *of == "segments" || rows.is_empty());
            if self.all.borrow().values().all(is_done) {
                break;
            }
        }
        for condition in self.wanted("segments") {
            self.bring("segments", &condition)?;
        }
        self.bind()
    }

    /// Conditions for the rows of a table that are wanted, which are wanted no more: what the server does not have is
    /// not asked for again.
    fn wanted(&self, name: &'static str) -> Vec<String> {
        let mut conditions: Vec<String> = Vec::new();
        for (key, mirror) in self.all.borrow_mut().iter_mut() {
            let known = mirror.known.entry(name).or_default().clone();
            let wanted = mirror.wanted.remove(name).unwrap_or_default();
            let rows: Vec<_> = wanted.difference(&known).map(i64::to_string).collect();
            for rows in rows.chunks(STATEMENT / 20) {
                let condition = format!("({} AND row IN ({}))", key.condition(), rows.join(","));
                match conditions.last_mut().filter(|last| last.len() + condition.len() < STATEMENT) {
                    Some(last) => _ = write!(last, " OR {condition}"),
                    None => conditions.push(condition),
                }
            }
        }
        conditions
    }

    /// Makes batches of the rows, with the times when the last of a segment was written.
    fn bind(&self) -> Result<(), MirrorError> {
        for (key, mirror) in self.all.borrow().iter() {
            let Some(segments) = mirror.known.get("segments").filter(|segments| !segments.is_empty()) else {
                continue;
            };
            let numbers: Vec<_> = segments.iter().map(i64::to_string).collect();
            let ts = self.server.nanos("ts");
            let database = &self.server.url().database;
            let query = format!(
                "SELECT segment, max({ts}) FROM {database}.batches WHERE {} AND segment IN ({}) GROUP BY segment",
                key.condition(),
                numbers.join(",")
            );
            let bytes = self.server.fetch(&query)?;
            let (mut bytes, mut last) = (Bytes(&bytes), Vec::new());
            while let Some(pair) = bytes.pair() {
                last.push(pair);
            }
            mirror.reader.bind_together(&last).map_err(|error| self.damaged(error))?;
        }
        Ok(())
    }
}

impl Mirror {
    fn refer(&mut self, table: &str, column: &str, value: &Value) {
        let Value::Integer(number) = *value else { return };
        for (_, _, to) in REFERENCES.iter().filter(|(from, name, _)| *from == table && *name == column) {
            let row = match *to {
                // A positive cause is the cookie of a socket.
                "messages" if number >= 0 => continue,
                "messages" | "names" => number.saturating_abs(),
                _ => number,
            };
            self.wanted.entry(to).or_default().insert(row);
        }
        // A message names the one before it, by a positive number.
        if (table, column) == ("messages", "before") {
            self.wanted.entry("messages").or_default().insert(number);
        }
    }

    /// References of earlier events of an end.
    fn refer_in(&mut self, odd: &str) {
        let odd: serde_json::Value = serde_json::from_str(odd).unwrap_or_default();
        let events = odd.as_object().into_iter().flat_map(|events| events.values());
        for (column, value) in events.filter_map(serde_json::Value::as_object).flatten() {
            if let Some(number) = value.as_i64() {
                self.refer("ends", column, &Value::Integer(number));
            }
        }
    }
}
