//! Programs by the network sockets that they have open.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::programs::Programs;
use super::views::Views;
use crate::audit::facts::{Program, Stdio};
use crate::audit::views::What;
use crate::hash::Map;
use crate::model::{Holders, Proto, RawRow, SockAddr, SocketRow};
use crate::process::{Process, ProcessTable};

/// Descriptors of sockets, and the programs that have them.
pub(super) struct Held {
    sockets: Holders,
    by_pid: Map<u32, Arc<Program>>,
    /// Programs by pid.
    pub(super) programs: Vec<Arc<Program>>,
}

/// The greatest of the descriptors stdin, stdout and stderr.
const LAST_STANDARD: u32 = 2;

impl Held {
    /// Reads the holders of these sockets, from any view that shows one.
    pub(super) fn of(
        inodes: impl IntoIterator<Item = u64>,
        views: &Views,
        table: &ProcessTable,
        programs: &mut Programs,
    ) -> Self {
        let inodes: BTreeSet<u64> = inodes.into_iter().filter(|inode| *inode != 0).collect();
        let sockets = Holders::of_each(
            inodes.iter().flat_map(|inode| views.holders(*inode).into_iter().map(|holder| (*inode, holder))),
        );
        let pids: HashSet<u32> = sockets.all().map(|(_, holder)| holder.pid).collect();
        let mut holding: Vec<Arc<Process>> =
            pids.iter().filter_map(|pid| table.present(*pid).cloned()).collect();
        holding.sort_by_key(|process| process.key.pid);
        let programs = programs.of(holding);
        let pid = |program: &Arc<Program>| program.actor.process.key.pid;
        Self {
            by_pid: programs.iter().map(|program| (pid(program), program.clone())).collect(),
            sockets,
            programs,
        }
    }

    /// Programs that have a socket open, by age: the first is its owner.
    pub(super) fn holders(&self, inode: u64) -> Vec<Arc<Program>> {
        let mut pids: Vec<u32> = self.sockets.of(inode).iter().map(|holder| holder.pid).collect();
        pids.dedup();
        let mut programs: Vec<_> = pids.iter().filter_map(|pid| self.by_pid.get(pid)).cloned().collect();
        programs.sort_by_key(|program| program.actor.process.key.age());
        programs
    }

    /// The program that owns a socket: see [`Holders::owner`].
    pub(super) fn owner(&self, inode: u64) -> Option<Arc<Program>> {
        let key = |program: &&Arc<Program>| program.actor.process.key;
        self.sockets.owner(inode, |pid| self.by_pid.get(&pid), key).cloned()
    }

    /// A program with network sockets.
    pub(super) fn of_pid(&self, pid: u32) -> Option<&Arc<Program>> {
        self.by_pid.get(&pid)
    }

    /// Pids of the processes that have a socket open.
    pub(super) fn pids(&self, inode: u64) -> impl Iterator<Item = u32> {
        self.sockets.of(inode).iter().map(|holder| holder.pid)
    }

    /// The program that an entry belongs to.
    pub(super) fn program(&self, what: &What) -> Option<Arc<Program>> {
        match what {
            What::Socket { inode, .. } => self.owner(*inode),
            What::Process { pid } | What::Descriptor { pid, .. } => self.by_pid.get(pid).cloned(),
        }
    }

    /// Sockets that are stdin, stdout or stderr of a process.
    pub(super) fn stdio(&self, rows: &[&SocketRow], raw: &[RawRow]) -> Vec<Stdio> {
        let rows: Map<u64, &SocketRow> = rows.iter().map(|row| (row.inode, *row)).collect();
        let mut packets: Map<u64, &RawRow> = Map::default();
        for row in raw {
            packets.entry(row.inode).or_insert(row);
        }
        let mut standard: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
        for (inode, holder) in self.sockets.all().filter(|(_, holder)| holder.fd <= LAST_STANDARD) {
            standard.entry((holder.pid, inode)).or_default().push(holder.fd);
        }
        let stdio = |((pid, inode), fds): ((u32, u64), Vec<u32>)| {
            let (row, raw) = (rows.get(&inode), packets.get(&inode));
            let what = match (row, raw) {
                (Some(row), _) => in_words(row.proto, row.local, row.remote),
                (None, Some(raw)) => format!("a {}", raw.kind),
                (None, None) => "a network socket".into(),
            };
            Some(Stdio {
                program: self.by_pid.get(&pid)?.clone(),
                fds,
                what,
                relay: None,
                proto: row.map(|row| row.proto),
                local: row.map(|row| row.local),
                netns: row.map(|row| row.netns).or(raw.map(|raw| raw.netns)),
            })
        };
        standard.into_iter().filter_map(stdio).collect()
    }
}

pub(super) fn in_words(proto: Proto, local: SockAddr, remote: Option<SockAddr>) -> String {
    match remote {
        Some(remote) => format!("the {} connection {local} - {remote}", proto.name()),
        None => format!("the {} socket at {local}", proto.name()),
    }
}
