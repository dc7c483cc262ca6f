//! Events of all hosts in order of time, page by page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use globset::GlobMatcher;
use jiff::Timestamp;

use super::binary::Bytes;
use super::mirror::{Key, MirrorError, Mirrors};
use super::narrow;
use super::server::{Server, ServerError};
use crate::filter::{Condition, Filter};
use crate::limits;
use crate::store::Narrow;
use crate::stream::{Context, Item};

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Which events; the server decides what it can, and the caller applies the filter.
    pub filter: Filter,
    /// Which hosts; `None`: all.
    pub host: Option<GlobMatcher>,
    /// At or after this time, in nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
    /// Pages are the newest first; items in a page are always in order.
    pub newest_first: bool,
}

/// An item of a host.
#[derive(Debug)]
pub struct HostItem {
    /// When.
    pub time: Timestamp,
    /// The name of the host.
    pub host: String,
    /// The boot and the clocks of its times.
    pub context: Context,
    /// The item.
    pub item: Item,
}

/// The state of a search.
pub struct Log<'s> {
    server: &'s Server,
    question: Question,
    /// Rows that were read: up to this time, and at it these.
    at: Option<i64>,
    seen: Vec<(Key, i64)>,
    /// Items after the last row of a page.
    held: Vec<HostItem>,
    is_over: bool,
}

/// A row of `ends`.
struct Found {
    ts: i64,
    key: Key,
    row: i64,
}

impl<'s> Log<'s> {
    /// Begins a search.
    #[must_use]
    pub fn new(server: &'s Server, question: Question) -> Self {
        Self { server, question, at: None, seen: Vec::new(), held: Vec::new(), is_over: false }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// If the server does not give it.
    pub fn next_page(&mut self) -> Result<Option<Vec<HostItem>>, MirrorError> {
        if self.is_over {
            return Ok(None);
        }
        let found = self.rows()?;
        self.is_over = found.len() < PAGE;
        // The part of time that this page covers, which losses and alerts are read of.
        let (first, last) = (found.iter().map(|row| row.ts).min(), found.iter().map(|row| row.ts).max());
        let before = self.at;
        let (from, to) = match (self.question.newest_first, self.is_over) {
            (false, false) => (before, last),
            (false, true) => (before, None),
            (true, false) => (first, before),
            (true, true) => (None, before),
        };
        let mirrors = Mirrors::new(self.server);
        let between = |from: Option<i64>, to: Option<i64>| {
            let mut all = vec!["1".to_owned()];
            all.extend(from.map(|from| format!("ts > {}", self.time(from))));
            all.extend(to.map(|to| format!("ts <= {}", self.time(to))));
            all.extend(self.outer());
            all.join(" AND ")
        };
        mirrors.bring("losses", &between(from, to))?;
        mirrors.bring("alerts", &between(from, to))?;
        for condition in self.chosen(&found) {
            mirrors.bring("ends", &condition)?;
        }
        mirrors.complete()?;
        let mut items = std::mem::take(&mut self.held);
        for key in mirrors.keys() {
            self.items_of(&mirrors, &key, &mut items)?;
        }
        items.sort_by_key(|item| item.time);
        if !self.question.newest_first
            && !self.is_over
            && let Some(last) = last
        {
            let beyond = items.partition_point(|item| item.time.as_nanosecond() <= last.into());
            self.held = items.split_off(beyond);
        }
        let edge = if self.question.newest_first { first } else { last };
        self.seen.retain(|_| edge.is_some() && edge == self.at);
        self.seen.extend(found.into_iter().filter(|row| Some(row.ts) == edge).map(|row| (row.key, row.row)));
        self.at = edge.or(self.at);
        Ok(Some(items))
    }

    fn items_of(
        &self,
        mirrors: &Mirrors<'_>,
        key: &Key,
        items: &mut Vec<HostItem>,
    ) -> Result<(), MirrorError> {
        let Some(reader) = mirrors.reader(key) else { return Ok(()) };
        let host = mirrors.host(key);
        let damaged = |source| MirrorError::Damaged { url: self.server.url().to_string(), source };
        let mut events = reader.events(Narrow::All, None, None, false).map_err(damaged)?;
        while let Some(batch) = events.next_batch().map_err(damaged)? {
            for item in batch.items {
                let time = match &item {
                    Item::Event(event) => batch.context.clock.time(event.at),
                    Item::Alert(alert) => batch.context.clock.time(alert.at),
                    Item::Loss(time, _) => Some(*time),
                    _ => None,
                };
                let time = time.unwrap_or_default();
                let nanos = time.as_nanosecond();
                if self.question.since.is_some_and(|since| nanos < since.into())
                    || self.question.until.is_some_and(|until| nanos > until.into())
                {
                    continue;
                }
                items.push(HostItem { time, host: host.clone(), context: batch.context.clone(), item });
            }
        }
        Ok(())
    }

    /// A time in a condition.
    fn time(&self, nanos: i64) -> String {
        self.server.time(nanos)
    }

    /// Conditions on hosts and times.
    fn outer(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.question.host.as_ref().map(|host| format!("match(host, {})", narrow::pattern(host))));
        // An event is at most this much after the first one of its row.
        let slack = limits::FLEET_ROW.as_nanos().try_into().unwrap_or(0);
        all.extend(
            self.question.since.map(|since| format!("ts >= {}", self.time(since.saturating_sub(slack)))),
        );
        all.extend(self.question.until.map(|until| format!("ts <= {}", self.time(until))));
        all
    }

    /// The next rows of ends.
    fn rows(&self) -> Result<Vec<Found>, ServerError> {
        let event = |one: &Condition| {
            matches!(one, Condition::Alert | Condition::Event(_)).then_some(matches!(one, Condition::Alert))
        };
        if self.question.filter.one_of(event).is_some_and(|kinds| kinds.iter().all(|is_alert| *is_alert)) {
            return Ok(Vec::new());
        }
        let dialect = self.server.dialect()?;
        let database = &self.server.url().database;
        let mut conditions = self.outer();
        conditions.extend(narrow::on_ends(&self.question.filter, dialect));
        let (order, beyond, day) = match self.question.newest_first {
            false => ("", ">=", "min"),
            true => (" DESC", "<=", "max"),
        };
        if let Some(at) = self.at {
            conditions.push(format!("ts {beyond} {}", self.time(at)));
        }
        let ts = self.server.nanos("ts");
        if conditions.is_empty() {
            conditions.push("1".into());
        }
        let conditions = conditions.join(" AND ");
        // The server reads a day at a time, which is a part of the table: otherwise each page would sort all of it.
        let mut rows: Vec<Found> = Vec::new();
        let mut edge: Option<i64> = None;
        loop {
            let bound =
                edge.map(|edge| format!(" AND ts {} {}", &beyond[..1], self.time(edge))).unwrap_or_default();
            let first = format!("SELECT count(), {day}({ts}) FROM {database}.ends WHERE {conditions}{bound}");
            let bytes = self.server.fetch(&first)?;
            let Some((_, from)) = Bytes(&bytes).pair().filter(|(count, _)| *count > 0) else {
                return Ok(rows);
            };
            let end = if self.question.newest_first { from - DAY } else { from + DAY };
            let (low, high) = (from.min(end), from.max(end));
            let limit = PAGE + self.seen.len() - rows.len();
            let query = format!(
                "SELECT {ts}, host_id, store, row FROM {database}.ends WHERE {conditions} AND ts >= {} AND ts <= {} \
                 ORDER BY ts{order}, host_id{order}, store{order}, row{order} LIMIT 1 BY host_id, store, row LIMIT {limit}",
                self.time(low),
                self.time(high)
            );
            let bytes = self.server.fetch(&query)?;
            let mut bytes = Bytes(&bytes);
            while let (Some(ts), Some(host_id), Some((store, row))) =
                (bytes.number(super::column::Kind::Int64), bytes.text(), bytes.pair())
            {
                let key = Key { host_id, store: store.cast_unsigned() };
                let is_known = |(of, number): &(Key, i64)| *of == key && *number == row;
                if Some(ts) != self.at || !self.seen.iter().any(is_known) {
                    rows.push(Found { ts, key, row });
                }
            }
            if rows.len() >= PAGE {
                rows.truncate(PAGE);
                return Ok(rows);
            }
            edge = Some(end);
        }
    }

    /// Conditions that choose these rows.
    fn chosen(&self, found: &[Found]) -> Vec<String> {
        let mut by_store: BTreeMap<&Key, Vec<&Found>> = BTreeMap::new();
        for row in found {
            by_store.entry(&row.key).or_default().push(row);
        }
        let mut conditions: Vec<String> = Vec::new();
        for (key, rows) in by_store {
            let (from, to) = (rows.iter().map(|row| row.ts).min(), rows.iter().map(|row| row.ts).max());
            let numbers: Vec<_> = rows.iter().map(|row| row.row.to_string()).collect();
            let condition = format!(
                "({} AND ts >= {} AND ts <= {} AND row IN ({}))",
                key.condition(),
                self.time(from.unwrap_or(0)),
                self.time(to.unwrap_or(0)),
                numbers.join(",")
            );
            match conditions.last_mut().filter(|last| last.len() + condition.len() < STATEMENT) {
                Some(last) => _ = write!(last, " OR {condition}"),
                None => conditions.push(condition),
            }
        }
        conditions
    }
}

const DAY: i64 = 86_400_000_000_000;

/// Rows of ends in a page.
const PAGE: usize = 2048;

/// As in [`super::mirror`].
const STATEMENT: usize = 200 << 10;
