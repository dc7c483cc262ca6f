//! Address translation of connections, from the kernel's connection tracking tables.
//!
//! Why a question for each connection: the table also tells of changes by itself, but then the kernel makes a message for
//! each connection of the host, also of those that are only forwarded. A namespace whose table is empty, as on a host
//! without rules that need it, is asked for the number of its entries only.
//!
//! A socket for questions keeps its network namespace alive, so those of other namespaces are closed again soon.

mod follow;
mod netlink;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::hash::{Map, Set};
use crate::limits;
use crate::model::{Nat, NetnsId, Socket, SocketRow, Tuple};
use crate::snapshot::netns::{self, Netns};
use netlink::{Entry, Table};

/// Exists if the kernel has connection tracking, as a module or built in: net/netfilter/nf_conntrack_standalone.c,
/// nf_ct_sysctl_table, v6.12. A question would load the module of ctnetlink.
const SYSCTL: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// For how long it is used that there is a table, and its number of entries.
const FRESH: Duration = Duration::from_millis(5);

/// A socket of another namespace is closed if it was not used for this time.
const IDLE: Duration = Duration::from_millis(200);

/// Minimum time between two lists of the namespaces of the host.
const LISTS: Duration = Duration::from_millis(250);

/// A list is used for this time, unless a connection is in a namespace that it lacks.
const LIST_AGE: Duration = Duration::from_secs(10);

/// How long a connection waits for a new list.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whether the kernel tracks connections at all.
#[must_use]
pub fn is_there() -> bool {
    Path::new(SYSCTL).exists()
}

/// What this kernel and these rights allow: `Err` says why nothing is known of translations.
///
/// # Errors
/// If the table of the own namespace cannot be asked.
pub fn check() -> io::Result<()> {
    if is_there() { Table::open()?.count().map(drop) } else { Ok(()) }
}

/// Asks about connections one by one.
pub struct Asker {
    own: NetnsId,
    /// Whether the kernel tracks connections, and when that was looked up.
    there: Option<(Instant, bool)>,
    tables: Map<NetnsId, Source>,
    others: Others,
    /// A list that is being made.
    list: Option<Receiver<Others>>,
    /// When the last one was.
    listed: Option<Instant>,
}

/// Namespaces of the host.
#[derive(Default)]
struct Others {
    /// Those other than the own one that are asked, first those in which connections were tracked already.
    asked: Vec<NetnsId>,
    known: Map<NetnsId, Netns>,
}

struct Source {
    /// `None`: it cannot be asked.
    table: Option<Table>,
    count: u32,
    counted: Option<Instant>,
    used: Instant,
}

impl Source {
    fn new(table: io::Result<Table>) -> Self {
        Self { table: table.ok(), count: 0, counted: None, used: Instant::now() }
    }

    /// The entry with this direction.
    fn find(&mut self, tuple: &Tuple) -> io::Result<Option<Entry>> {
        let now = Instant::now();
        let table = self.table.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        self.used = now;
        if self.counted.is_none_or(|at| now.duration_since(at) > FRESH) {
            self.count = table.count()?;
            self.counted = Some(now);
        }
        if self.count == 0 { Ok(None) } else { table.get(tuple) }
    }
}

impl Asker {
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            own: netns::own()?,
            there: None,
            tables: Map::default(),
            others: Others::default(),
            list: None,
            listed: None,
        })
    }

    /// What the tables have about a connection. `None` if the namespaces of the host are being listed: ask again later.
    pub fn ask(&mut self, socket: &Socket) -> Option<Nat> {
        let Some(own) = socket.tuple() else { return Some(Nat::Unknown) };
        if !self.is_there() {
            return Some(Nat::None);
        }
        if socket.netns != self.own || !own.is_loopback() {
            let is_new = socket.netns != self.own && !self.others.known.contains_key(&socket.netns);
            if !self.list_namespaces(is_new) {
                return None;
            }
        }
        // Packets to loopback stay in their namespace.
        let asked = if own.is_loopback() { None } else { Some(self.others.asked.iter().chain([&self.own])) };
        let others: Vec<_> =
            asked.into_iter().flatten().copied().filter(|inum| *inum != socket.netns).collect();
        self.open_for(socket.netns, &others);
        let mut is_asked = false;
        let seen = follow::follow(socket.netns, own, &others, |netns, tuple| {
            let found = self.tables.get_mut(&netns)?.find(tuple);
            if let Err(error) = &found {
                log::debug!("cannot ask for translations in network namespace {netns}: {error}");
            }
            let found = found.ok()?;
            is_asked |= netns == socket.netns;
            found.and_then(|entry| entry.translate(tuple))
        });
        Some(if is_asked || seen != own { Nat::of(own, seen) } else { Nat::Unknown })
    }

    /// See [`is_there`], which takes a system call.
    fn is_there(&mut self) -> bool {
        match self.there {
            Some((at, there)) if at.elapsed() <= FRESH => there,
            _ => {
                let there = is_there();
                self.there = Some((Instant::now(), there));
                there
            }
        }
    }

    /// Closes what was not used for a while.
    pub fn tick(&mut self) {
        let own = self.own;
        self.tables.retain(|netns, source| *netns == own || source.used.elapsed() < IDLE);
    }

    /// Opens the tables that are not open.
    fn open_for(&mut self, netns: NetnsId, others: &[NetnsId]) {
        let missing: Vec<_> = others
            .iter()
            .chain([&netns])
            .filter(|inum| !self.tables.contains_key(inum))
            .take(limits::MOST_TRACKING)
            .filter_map(|inum| {
                if *inum == self.own {
                    Some(Netns::of_thread(self.own))
                } else {
                    self.others.known.get(inum).cloned()
                }
            })
            .collect();
        if missing.is_empty() {
            return;
        }
        let opened = netns::inside_each(&missing, |netns, entered| {
            (netns.inum, Source::new(entered.and_then(|()| Table::open())))
        });
        self.tables.extend(opened.unwrap_or_default());
    }

    /// Lists the namespaces again if that is due. Returns whether the list can be used: not while one is made, nor if the
    /// next one may have a namespace that is missing.
    fn list_namespaces(&mut self, is_missing: bool) -> bool {
        let age = self.listed.map(|at| at.elapsed());
        let mut waits = Duration::ZERO;
        if self.list.is_none() && age.is_none_or(|age| age > if is_missing { LISTS } else { LIST_AGE }) {
            let (send, receive) = sync_channel(1);
            // The receiver may be gone, at the end of a run.
            let work = move || _ = send.send(Others::find());
            if std::thread::Builder::new().name("netwatch-netns".into()).spawn(work).is_ok() {
                self.list = Some(receive);
                waits = PATIENCE;
            }
        }
        match self.list.as_ref().map(|list| list.recv_timeout(waits)) {
            None => return !is_missing,
            Some(Err(RecvTimeoutError::Timeout)) => return false,
            Some(Ok(others)) => self.others = others,
            Some(Err(RecvTimeoutError::Disconnected)) => {}
        }
        self.list = None;
        self.listed = Some(Instant::now());
        true
    }
}

impl Others {
    /// Enters each namespace and counts its entries.
    fn find() -> Self {
        let all = netns::all().unwrap_or_default();
        let counted = netns::inside_each(all.get(1..).unwrap_or_default(), |netns, entered| {
            (netns.inum, entered.and_then(|()| Table::open()?.count()).unwrap_or(0))
        });
        Self::of(all, &counted.unwrap_or_default())
    }

    /// `counted`: the number of entries in each.
    fn of(all: Vec<Netns>, counted: &[(NetnsId, u32)]) -> Self {
        let mut tracking: Vec<_> = counted.iter().map(|(inum, count)| (*count == 0, *inum)).collect();
        tracking.sort_unstable();
        Self {
            asked: tracking.into_iter().map(|(_, inum)| inum).take(limits::MOST_TRACKING).collect(),
            known: all.into_iter().map(|netns| (netns.inum, netns)).collect(),
        }
    }
}

/// All translations at one time, for snapshots.
#[derive(Default)]
pub struct Translations {
    entries: Map<(NetnsId, Tuple), Tuple>,
    tracking: Vec<NetnsId>,
    /// Namespaces whose table could be read.
    read: Set<NetnsId>,
}

impl Translations {
    /// Reads the tables of all namespaces.
    #[must_use]
    pub fn read() -> Self {
        let mut all = Self::default();
        if !is_there() {
            return all;
        }
        let namespaces = netns::all().unwrap_or_default();
        let read = netns::inside_each(&namespaces, |netns, entered| {
            let entries = entered.and_then(|()| {
                let mut table = Table::open()?;
                if table.count()? == 0 { Ok(Vec::new()) } else { table.translated(limits::MOST_TRANSLATED) }
            });
            (netns.inum, entries)
        });
        for (netns, entries) in read.unwrap_or_default() {
            if let Ok(entries) = entries {
                all.add(netns, &entries);
            }
        }
        all
    }

    fn add(&mut self, netns: NetnsId, entries: &[Entry]) {
        self.read.insert(netns);
        if !entries.is_empty() {
            self.tracking.push(netns);
        }
        for entry in entries {
            for direction in [entry.original, entry.reply] {
                self.entries.extend(entry.translate(&direction).map(|to| ((netns, direction), to)));
            }
        }
    }

    /// Sets what is known of the translation of each socket.
    pub fn complete(&self, rows: &mut [SocketRow]) {
        self.complete_if(is_there(), rows);
    }

    fn complete_if(&self, is_there: bool, rows: &mut [SocketRow]) {
        for row in rows {
            let Some(own) = row.tuple() else { continue };
            let seen = follow::follow(row.netns, own, &self.tracking, |netns, tuple| {
                self.entries.get(&(netns, *tuple)).copied()
            });
            row.nat = match Nat::of(own, seen) {
                Nat::None if is_there && !self.read.contains(&row.netns) => Nat::Unknown,
                nat => nat,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;
    use crate::model::tests::{at, example};

    fn entry(original: (&str, &str), reply: (&str, &str)) -> Entry {
        let tuple = |(source, destination)| Tuple {
            proto: Proto::Tcp,
            source: at(source),
            destination: at(destination),
        };
        Entry { original: tuple(original), reply: tuple(reply) }
    }

    fn row(local: &str, remote: &str) -> SocketRow {
        let mut row = example();
        (row.local, row.remote) = (at(local), Some(at(remote)));
        row
    }

    #[test]
    fn both_ends_of_a_translated_connection_are_completed() {
        let mut all = Translations::default();
        let netns = NetnsId::new(1);
        all.add(netns, &[entry(("127.0.0.1:9", "127.0.0.1:80"), ("127.0.0.1:8080", "127.0.0.1:9"))]);
        let mut rows = [
            ("127.0.0.1:9", "127.0.0.1:80"),
            ("127.0.0.1:8080", "127.0.0.1:9"),
            ("127.0.0.1:1", "127.0.0.1:2"),
        ]
        .map(|(local, remote)| row(local, remote));
        all.complete_if(true, &mut rows);
        let seen = |row: &SocketRow| row.nat.translation().map(|seen| (seen.local, seen.remote));
        assert_eq!(seen(&rows[0]), Some((at("127.0.0.1:9"), at("127.0.0.1:8080"))));
        assert_eq!(seen(&rows[1]), Some((at("127.0.0.1:80"), at("127.0.0.1:9"))));
        assert_eq!(rows[2].nat, Nat::None);
        // A table that could not be read says nothing; without connection tracking nothing is translated.
        let mut other = [row("127.0.0.1:1", "127.0.0.1:2")];
        other[0].netns = NetnsId::new(2);
        all.complete_if(true, &mut other);
        assert_eq!(other[0].nat, Nat::Unknown);
        all.complete_if(false, &mut other);
        assert_eq!(other[0].nat, Nat::None);
    }

    #[test]
    fn number_of_namespaces_is_bounded() {
        let counted: Vec<_> = (0..100).map(|inum| (NetnsId::new(inum), inum % 2)).collect();
        let others = Others::of(Vec::new(), &counted);
        assert_eq!(others.asked.len(), limits::MOST_TRACKING);
        assert!(others.asked.iter().all(|netns| netns.number() % 2 == 1));
    }
}
