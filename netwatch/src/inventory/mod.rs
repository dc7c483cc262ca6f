//! Gathers the facts that an audit judges: views of sockets and processes, portmappers, package databases, unit files,
//! and the store if there is one.

mod forwards;
mod held;
mod hidden;
mod kernel_owned;
mod live;
mod packages;
mod past;
mod portmap;
mod programs;
mod registered;
mod relayed;
mod units;
mod views;

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::audit::facts::{Facts, History, Program, Raw, Server, Unknown};
use crate::enrich::Devices;
use crate::hash::{Map, Set};
use crate::model::{Lister, NetnsId, Proto, SockAddr, SocketRow};
use crate::origin::Side;
use crate::process::ProcessTable;
use crate::seeding;
use crate::services::Services;
use crate::snapshot::{Note, holders, netns, processes};
use forwards::Clients;
use held::Held;
use kernel_owned::KernelOwned;
use past::Past;
use portmap::{Mapping, RpcNames};
use registered::registered;
use views::Views;

pub use hidden::Hidden;
pub(crate) use live::of_listener;
pub(crate) use programs::Programs;

/// What to gather.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Only this network namespace.
    pub(crate) netns: Option<NetnsId>,
    /// Entries that views are made to hide (test equipment).
    pub(crate) hidden: Vec<Hidden>,
    /// Path of the store from the command line, which must exist.
    pub(crate) store: Option<PathBuf>,
    /// Boot id as in the store.
    pub(crate) boot: String,
}

/// Gathers facts; caches what does not change between audits.
pub(crate) struct Inventory {
    scope: Scope,
    lister: Option<Arc<dyn Lister>>,
    no_lister: Option<String>,
    programs: Programs,
}

impl Inventory {
    /// `lister`: the BPF iterators, or why they are not available.
    ///
    /// # Errors
    /// If the store from the command line cannot be read.
    pub(crate) fn new(scope: Scope, lister: Result<Arc<dyn Lister>, String>) -> Result<Self> {
        let (lister, no_lister) = match lister {
            Ok(lister) => (Some(lister), None),
            Err(why) => (None, Some(why)),
        };
        // Report a missing store at once.
        Past::open(scope.store.as_deref(), &scope.boot)?;
        Ok(Self { scope, lister, no_lister, programs: Programs::default() })
    }

    /// Gathers the facts.
    ///
    /// # Errors
    /// If neither sockets nor processes can be listed.
    pub(crate) fn facts(&mut self) -> Result<Facts> {
        let only = self.scope.netns;
        let is_selected = |netns: NetnsId| only.is_none_or(|only| netns == only);
        let views = Views::take(self.lister.as_ref(), &self.scope.hidden, true)?;
        let mut disagreements = views::compare(&views, self.lister.as_ref(), &self.scope.hidden, only)?;
        let rows: Vec<&SocketRow> = views.rows.iter().filter(|row| is_selected(row.netns)).collect();
        let raw: Vec<_> = views.raw().iter().filter(|row| is_selected(row.netns)).copied().collect();
        let mut inodes: HashSet<u64> = rows.iter().map(|row| row.inode).collect();
        inodes.extend(raw.iter().map(|row| row.inode));
        if only.is_none() {
            // Network sockets that are not bound yet.
            inodes.extend(views.by_iter.iter().flat_map(|held| held.all()).map(|(inode, _)| inode));
        }
        let table = ProcessTable::of(&processes::with_exact_start(self.lister.as_deref())?);
        self.programs.forget();
        let held = Held::of(inodes, &views, &table, &mut self.programs);

        let mut notes = self.notes(&views);
        let mut past =
            Asked { past: Past::open(self.scope.store.as_deref(), &self.scope.boot)?, failure: None };
        let registered = by_port(registered(&rows, &mut notes));
        let is_below = subflow_listeners(&rows);
        let mut devices = Devices::default();
        let kernels = KernelOwned::of(&rows, &held, &mut notes);
        let clients = Clients::of(&rows, &held);
        let mut servers: Vec<Arc<Server>> = rows
            .iter()
            .filter(|row| row.is_server() && row.local.port != 0 && !is_below(row))
            .map(|row| {
                let (holders, history) = (held.holders(row.inode), past.history(row));
                let mut server = server(row, &views, holders, &registered, history);
                if server.device != 0 {
                    server.device_name = devices.name(row);
                    server.on_loopback = devices.is_loopback(row.netns, server.device);
                }
                if server.holders.is_empty() {
                    server.owner = kernels.owner(row);
                }
                server.client = clients.of_listener(row, &server.holders);
                Arc::new(server)
            })
            .collect();
        if servers.iter().any(|server| server.holders.is_empty()) {
            // The process may have ended between listing sockets and listing descriptors.
            let there = views::inodes_now(self.lister.as_ref())?;
            servers.retain(|server| !server.holders.is_empty() || there.contains(&server.inode));
        }
        for disagreement in &mut disagreements {
            disagreement.program = held.program(&disagreement.what);
        }
        let is_known = |row: &SocketRow| past.past.as_ref().is_some_and(|past| past.knows_originator(row));
        let mut stdio = held.stdio(&rows, &raw);
        stdio.extend(relayed::find(&table, &rows, &held, &mut self.programs));
        let facts = Facts {
            own_netns: netns::own()?,
            port_ranges: views.port_ranges().clone(),
            unknown: unknown(&views, &held, &|row| is_selected(row.netns) && !is_known(row)),
            raw: raw
                .iter()
                .map(|row| Raw {
                    kind: row.kind,
                    netns: row.netns,
                    inode: row.inode,
                    holders_seen: views.holders_seen(),
                    holders: held.holders(row.inode),
                })
                .collect(),
            stdio,
            servers,
            disagreements,
            whole: views.whole(),
            views: views.of_sockets(),
            programs: held.programs,
            notes: Vec::new(),
        };
        notes.extend(self.programs.notes());
        notes.extend(past.failure);
        notes.dedup();
        Ok(Facts { notes, ..facts })
    }

    /// Notes about what could not be read.
    fn notes(&self, views: &Views) -> Vec<String> {
        let only = self.scope.netns;
        let is_selected = |note: &&Note| only.is_none() || note.netns.is_none() || note.netns == only;
        let mut notes: Vec<String> = views.notes().filter(is_selected).map(ToString::to_string).collect();
        notes.extend(holders::note(&views.by_proc).map(|note| note.to_string()));
        let without = self.no_lister.iter();
        notes.extend(without.map(|why| format!("compared without the BPF iterators: {why}")));
        notes.extend(views.unlisted.clone());
        if views.hides_processes {
            notes.push("/proc is mounted with hidepid: hidden processes are not compared".into());
        }
        notes.extend(Services::host().notes().iter().cloned());
        notes
    }
}

/// The store, and the first error of a query.
struct Asked {
    past: Option<Past>,
    failure: Option<String>,
}

impl Asked {
    fn history(&mut self, row: &SocketRow) -> Option<History> {
        match self.past.as_ref()?.of(row) {
            Ok(history) => history,
            Err(error) => {
                self.failure.get_or_insert_with(|| format!("cannot query the store: {error:#}"));
                None
            }
        }
    }
}

/// Whether a socket is a subflow listener of an MPTCP listener that is listed as well.
fn subflow_listeners(rows: &[&SocketRow]) -> impl Fn(&SocketRow) -> bool + use<> {
    let above: Set<(NetnsId, SockAddr)> =
        rows.iter().filter(|row| row.is_mptcp()).map(|row| (row.netns, row.local)).collect();
    move |row| row.subflow && above.contains(&(row.netns, row.local))
}

/// Registered programs by the port that they are registered for.
type Registered = Map<(NetnsId, Proto, u16), Vec<u32>>;

fn by_port(registered: Map<NetnsId, Vec<Mapping>>) -> Registered {
    let mut by_port = Registered::default();
    for (netns, mappings) in registered {
        for mapping in mappings {
            by_port.entry((netns, mapping.proto, mapping.port)).or_default().push(mapping.program);
        }
    }
    by_port
}

fn server(
    row: &SocketRow,
    views: &Views,
    holders: Vec<Arc<Program>>,
    registered: &Registered,
    history: Option<History>,
) -> Server {
    let range = views.port_ranges().get(&row.netns);
    let names = RpcNames::host();
    let programs = registered.get(&(row.netns, row.proto, row.local.port)).into_iter().flatten();
    let mut rpc: Vec<_> = programs.map(|program| (*program, names.name(*program).map(Into::into))).collect();
    rpc.sort();
    rpc.dedup();
    Server {
        proto: row.proto,
        local: row.local,
        v6only: row.v6only.unwrap_or(false),
        netns: row.netns,
        inode: row.inode,
        uid: row.uid,
        holders,
        holders_seen: views.holders_seen(),
        device: row.bound_device(),
        device_name: None,
        on_loopback: false,
        kernel: row.kernel,
        reuseport: row.reuseport,
        owner: None,
        client: None,
        service: Services::host().name(row.proto, row.local.port).map(Into::into),
        rpc,
        is_ephemeral: range.is_some_and(|(low, high)| (*low..=*high).contains(&row.local.port)),
        history,
    }
}

/// Selected connections whose originator cannot be inferred from a snapshot, grouped by program.
fn unknown(views: &Views, held: &Held, is_selected: &dyn Fn(&SocketRow) -> bool) -> Vec<Unknown> {
    let all = views.rows.iter().zip(seeding::infer(&views.rows, views.port_ranges()));
    let selected = all.filter_map(|(row, origin)| {
        let (origin, remote) = (origin?, row.remote?);
        // Without a file it is closed, or not accepted yet.
        if origin.verdict.side != Side::Unknown || row.inode == 0 || !is_selected(row) {
            return None;
        }
        let program = held.owner(row.inode);
        let key = program.as_ref().map(|program| program.actor.process.key);
        let (proto, local, netns) = (row.proto, row.local, row.netns);
        Some(((key, proto), Unknown { program, count: 1, proto, local, remote, netns }))
    });
    counted(selected, |unknown| unknown.count += 1)
}

/// The first value of each key, in order; `again` is called on it for each further one.
fn counted<K: Eq + Hash, T>(all: impl Iterator<Item = (K, T)>, again: impl Fn(&mut T)) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    let mut places: Map<K, usize> = Map::default();
    for (key, value) in all {
        match places.entry(key) {
            Entry::Occupied(place) => found.get_mut(*place.get()).into_iter().for_each(&again),
            Entry::Vacant(place) => {
                place.insert(found.len());
                found.push(value);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that comparing each with each would take minutes.
    const MANY: u32 = 200_000;

    #[test]
    fn values_of_many_keys_are_counted() {
        let all = (0..MANY).chain(0..MANY).map(|n| (n, (n, 1)));
        let found = counted(all, |(_, count)| *count += 1);
        assert!(found.iter().copied().eq((0..MANY).map(|n| (n, 2))));
    }

    #[test]
    fn subflow_listeners_are_told_among_many() {
        let row = |n: u32, subflow: bool, is_mptcp: bool| {
            let mut row = crate::model::tests::example();
            row.local.ip = std::net::Ipv4Addr::from(n).into();
            (row.subflow, row.via) = (subflow, is_mptcp.then_some(crate::model::Via::Mptcp));
            row
        };
        let rows: Vec<SocketRow> =
            (0..MANY).flat_map(|n| [row(n, true, false), row(n + 1, false, true)]).collect();
        let rows: Vec<&SocketRow> = rows.iter().collect();
        let is_below = subflow_listeners(&rows);
        assert_eq!(rows.iter().filter(|row| is_below(row)).count(), MANY as usize - 1);
    }

    #[test]
    fn many_registrations_are_found_by_port() {
        let netns = NetnsId::new(1);
        let of_port =
            |port: u16| (0..100).map(move |program| Mapping { program, version: 1, proto: Proto::Tcp, port });
        let registered = by_port([(netns, (0..2000).flat_map(of_port).collect())].into_iter().collect());
        assert_eq!(registered.len(), 2000);
        assert_eq!(registered.get(&(netns, Proto::Tcp, 7)).map(Vec::len), Some(100));
    }
}
