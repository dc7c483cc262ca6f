//! Finds out what the audit judges: asks every view, the portmapper, the databases of packages and the store.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::looks::{self, Hidden, Views};
use super::past::Past;
use super::programs::Programs;
use crate::agent;
use crate::audit::facts::{Facts, Program, Raw, Server, Stdio, Unknown};
use crate::audit::portmap::{self, Mapping};
use crate::hash::Map;
use crate::model::{Endpoint, Proto};
use crate::origin::Side;
use crate::process::{Process, ProcessTable};
use crate::seeding;
use crate::services::Services;
use crate::snapshot::netns::{self, Netns};
use crate::snapshot::{Lister, SocketRow, processes};

/// What to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Only this network namespace.
    pub(super) netns: Option<u32>,
    /// What views are made to hide.
    pub(super) hidden: Vec<Hidden>,
    /// The store that is named, which has to be there.
    pub(super) store: Option<PathBuf>,
}

/// Keeps what does not change from one audit to the next.
pub(super) struct Gatherer {
    scope: Scope,
    lister: Option<Arc<dyn Lister>>,
    no_lister: Option<String>,
    past: Option<Past>,
    programs: Programs,
}

/// So long a portmapper may take.
const PORTMAPPER: Duration = Duration::from_secs(2);

/// Where it listens (RFC 1833, section 3).
const PORTMAPPER_PORT: u16 = 111;

/// More namespaces are not asked for their portmapper: each takes a thread.
const MOST_PORTMAPPERS: usize = 64;

impl Gatherer {
    /// Prepares to look.
    ///
    /// # Errors
    /// Where the store that is named cannot be read.
    pub(super) fn new(scope: Scope) -> Result<Self> {
        let (lister, no_lister) = match agent::iterators() {
            Ok(lister) => (Some(lister), None),
            Err(error) => (None, Some(format!("{:#}", anyhow::Error::from(error)))),
        };
        let past = Past::open(scope.store.as_deref())?;
        Ok(Self { scope, lister, no_lister, past, programs: Programs::default() })
    }

    /// Looks.
    ///
    /// # Errors
    /// Where sockets or processes cannot be listed at all.
    pub(super) fn facts(&mut self) -> Result<Facts> {
        let only = self.scope.netns;
        let is_meant = |netns: u32| only.is_none_or(|only| netns == only);
        let views = Views::take(self.lister.as_ref(), &self.scope.hidden, true)?;
        let mut disagreements = looks::compare(&views, self.lister.as_ref(), &self.scope.hidden, only)?;
        let all_rows = views.rows();
        let rows: Vec<&SocketRow> = all_rows.iter().filter(|row| is_meant(row.netns)).collect();
        let table = ProcessTable::of(&processes::all()?);

        let raw: Vec<_> = views.raw().iter().filter(|row| is_meant(row.netns)).copied().collect();
        let mut inodes: HashSet<u64> =
            rows.iter().map(|row| row.inode).chain(raw.iter().map(|row| row.inode)).collect();
        if only.is_none() {
            // Network sockets that are bound to nothing yet.
            inodes.extend(views.by_iter.iter().flat_map(|held| held.all()).map(|(inode, _)| inode));
        }
        inodes.remove(&0);
        let held: BTreeMap<u64, Vec<_>> =
            inodes.into_iter().map(|inode| (inode, views.holders(inode))).collect();
        let pids: HashSet<u32> = held.values().flatten().map(|holder| holder.pid).collect();
        let mut holding: Vec<Arc<Process>> =
            pids.iter().filter_map(|pid| table.present(*pid).cloned()).collect();
        holding.sort_by_key(|process| process.key.pid);
        let programs = self.programs.of(holding);
        let by_pid: Map<u32, &Arc<Program>> =
            programs.iter().map(|program| (program.actor.process.key.pid, program)).collect();
        let holders = |inode: u64| -> Vec<Arc<Program>> {
            let mut pids: Vec<u32> =
                held.get(&inode).into_iter().flatten().map(|holder| holder.pid).collect();
            pids.dedup();
            let mut programs: Vec<_> =
                pids.iter().filter_map(|pid| by_pid.get(pid)).map(|&program| program.clone()).collect();
            programs.sort_by_key(|program| (program.actor.process.key.start, program.actor.process.key.pid));
            programs
        };

        let mut notes: Vec<String> =
            views.notes().filter(|note| note.netns.is_none_or(is_meant)).map(ToString::to_string).collect();
        notes.extend(views.by_proc.note().map(|note| note.to_string()));
        notes.extend(
            self.no_lister.iter().map(|why| format!("compared without the kernel's iterators: {why}")),
        );
        if looks::may_hide_processes() {
            notes.push("/proc is mounted with hidepid: what it hides is not compared".into());
        }
        notes.extend(Services::host().notes().iter().cloned());
        let registered = registered(&rows, &mut notes);
        let servers: Vec<Arc<Server>> = rows
            .iter()
            .filter(|row| row.is_server() && row.local.port != 0 && !row.subflow)
            .map(|row| Arc::new(self.server(row, &views, holders(row.inode), &registered, &mut notes)))
            .collect();
        for disagreement in &mut disagreements {
            disagreement.program = owner(&disagreement.what, &holders, &by_pid);
        }
        notes.extend(self.programs.notes());
        notes.dedup();
        Ok(Facts {
            own_netns: netns::own()?,
            port_ranges: views.port_ranges().clone(),
            unknown: self.unknown(&all_rows, &is_meant, &views, &holders),
            raw: raw
                .iter()
                .map(|row| Raw { kind: row.kind, netns: row.netns, holders: holders(row.inode) })
                .collect(),
            stdio: stdio(&rows, &raw, &held, &by_pid),
            servers,
            disagreements,
            notes,
            programs,
        })
    }

    fn server(
        &self,
        row: &SocketRow,
        views: &Views,
        holders: Vec<Arc<Program>>,
        registered: &Map<u32, Vec<Mapping>>,
        notes: &mut Vec<String>,
    ) -> Server {
        let names = portmap::Programs::host();
        let mut rpc: Vec<_> = registered
            .get(&row.netns)
            .into_iter()
            .flatten()
            .filter(|mapping| (mapping.proto, mapping.port) == (row.proto, row.local.port))
            .map(|mapping| (mapping.program, names.name(mapping.program).map(Into::into)))
            .collect();
        rpc.sort();
        rpc.dedup();
        let range = views.port_ranges().get(&row.netns);
        let history = self.past.as_ref().and_then(|past| match past.of(row) {
            Ok(history) => history,
            Err(error) => {
                let note = format!("the store cannot be asked: {error:#}");
                if !notes.contains(&note) {
                    notes.push(note);
                }
                None
            }
        });
        Server {
            proto: row.proto,
            local: row.local,
            v6only: row.v6only.unwrap_or(false),
            netns: row.netns,
            inode: row.inode,
            uid: row.uid,
            holders,
            service: Services::host().name(row.proto, row.local.port).map(Into::into),
            rpc,
            is_ephemeral: range.is_some_and(|(low, high)| (*low..=*high).contains(&row.local.port)),
            history,
        }
    }

    /// Connections of which no look can tell who began them, nor does the record know.
    fn unknown(
        &self,
        rows: &[SocketRow],
        is_meant: &dyn Fn(u32) -> bool,
        views: &Views,
        holders: &dyn Fn(u64) -> Vec<Arc<Program>>,
    ) -> Vec<Unknown> {
        let mut found: Vec<Unknown> = Vec::new();
        let origins = seeding::find(rows, views.port_ranges());
        for (row, origin) in rows.iter().zip(origins).filter(|(row, _)| is_meant(row.netns)) {
            let (Some(origin), Some(remote)) = (origin, row.remote) else { continue };
            let is_over = row.inode == 0;
            if origin.verdict.side != Side::Unknown || is_over || self.is_recorded(row) {
                continue;
            }
            let program = holders(row.inode).into_iter().next();
            let pid =
                |program: &Option<Arc<Program>>| program.as_ref().map(|program| program.actor.process.key);
            match found
                .iter_mut()
                .find(|other| pid(&other.program) == pid(&program) && other.proto == row.proto)
            {
                Some(other) => other.count += 1,
                None => found.push(Unknown {
                    program,
                    count: 1,
                    proto: row.proto,
                    local: row.local,
                    remote,
                    netns: row.netns,
                }),
            }
        }
        found
    }

    fn is_recorded(&self, row: &SocketRow) -> bool {
        self.past.as_ref().is_some_and(|past| past.knows_originator(row))
    }
}

/// What the portmappers have registered, by namespace; asked in each where something listens on its port.
fn registered(rows: &[&SocketRow], notes: &mut Vec<String>) -> Map<u32, Vec<Mapping>> {
    let mut wanted: Vec<u32> = rows
        .iter()
        .filter(|row| row.is_server() && row.local.port == PORTMAPPER_PORT)
        .map(|row| row.netns)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.len() > MOST_PORTMAPPERS {
        notes.push(format!(
            "{} namespaces have a portmapper; {MOST_PORTMAPPERS} of them were asked",
            wanted.len()
        ));
        wanted.truncate(MOST_PORTMAPPERS);
    }
    let Ok(all) = netns::all() else { return Map::default() };
    let named: Vec<&Netns> = all.iter().filter(|namespace| wanted.contains(&namespace.inum)).collect();
    let answers: Vec<(u32, Result<Vec<Mapping>, String>)> = std::thread::scope(|scope| {
        let ask = |namespace: &Netns| {
            let inside = |_: &Netns, entered: std::io::Result<()>| {
                entered.map_err(|error| error.to_string())?;
                portmap::dump(PORTMAPPER).map_err(|error| error.to_string())
            };
            let asked = netns::inside_each(std::slice::from_ref(namespace), inside);
            let asked = asked
                .map_err(|error| error.to_string())
                .and_then(|mut asked| asked.pop().unwrap_or(Ok(Vec::new())));
            (namespace.inum, asked)
        };
        let threads: Vec<_> =
            named.into_iter().map(|namespace| scope.spawn(move || ask(namespace))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut registered = Map::default();
    for (netns, answer) in answers {
        match answer {
            Ok(mappings) => _ = registered.insert(netns, mappings),
            Err(error) => notes.push(format!("network namespace {netns}: {error}")),
        }
    }
    registered
}

/// Network sockets on standard descriptors.
fn stdio(
    rows: &[&SocketRow],
    raw: &[crate::snapshot::RawRow],
    held: &BTreeMap<u64, Vec<crate::snapshot::Holder>>,
    by_pid: &Map<u32, &Arc<Program>>,
) -> Vec<Stdio> {
    let rows: Map<u64, &SocketRow> = rows.iter().map(|row| (row.inode, *row)).collect();
    let mut found: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
    for (inode, holders) in held {
        for holder in holders.iter().filter(|holder| holder.fd <= 2) {
            found.entry((holder.pid, *inode)).or_default().push(holder.fd);
        }
    }
    let told = |((pid, inode), fds): ((u32, u64), Vec<u32>)| {
        let program = (*by_pid.get(&pid)?).clone();
        let row = rows.get(&inode);
        let packet = raw.iter().find(|raw| raw.inode == inode);
        let what = match (row, packet) {
            (Some(row), _) => in_words(row.proto, row.local, row.remote),
            (None, Some(raw)) => format!("a {}", raw.kind),
            (None, None) => "a network socket".into(),
        };
        Some(Stdio {
            program,
            fds,
            what,
            proto: row.map(|row| row.proto),
            local: row.map(|row| row.local),
            netns: row.map(|row| row.netns).or(packet.map(|raw| raw.netns)),
        })
    };
    found.into_iter().filter_map(told).collect()
}

fn in_words(proto: Proto, local: Endpoint, remote: Option<Endpoint>) -> String {
    match remote {
        Some(remote) => format!("the {} connection {local} - {remote}", proto.name()),
        None => format!("the {} socket that listens on {local}", proto.name()),
    }
}

fn owner(
    what: &crate::audit::views::What,
    holders: &dyn Fn(u64) -> Vec<Arc<Program>>,
    by_pid: &Map<u32, &Arc<Program>>,
) -> Option<Arc<Program>> {
    use crate::audit::views::What;
    match what {
        What::Socket { inode, .. } => holders(*inode).into_iter().next(),
        What::Process { pid } | What::Descriptor { pid, .. } => {
            by_pid.get(pid).map(|&program| program.clone())
        }
    }
}

/// The store that is named, else the usual one where it is there.
pub(super) fn store_path(named: Option<&Path>) -> Option<PathBuf> {
    let usual = Path::new(crate::store::DEFAULT_PATH);
    named.or_else(|| usual.exists().then_some(usual)).map(Into::into)
}
