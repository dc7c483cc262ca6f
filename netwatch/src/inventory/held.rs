//! Programs by the network sockets that they have open.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::programs::Programs;
use super::views::Views;
use crate::audit::facts::{Program, Stdio};
use crate::audit::views::What;
use crate::hash::Map;
use crate::model::{Holder, Proto, RawRow, SockAddr, SocketRow};
use crate::process::{Process, ProcessTable};

/// Descriptors of sockets, and the programs that have them.
pub(super) struct Held {
    by_inode: BTreeMap<u64, Vec<Holder>>,
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
        let by_inode: BTreeMap<u64, Vec<Holder>> = inodes
            .into_iter()
            .filter(|inode| *inode != 0)
            .map(|inode| (inode, views.holders(inode)))
            .collect();
        let pids: HashSet<u32> = by_inode.values().flatten().map(|holder| holder.pid).collect();
        let mut holding: Vec<Arc<Process>> =
            pids.iter().filter_map(|pid| table.present(*pid).cloned()).collect();
        holding.sort_by_key(|process| process.key.pid);
        let programs = programs.of(holding);
        let pid = |program: &Arc<Program>| program.actor.process.key.pid;
        Self {
            by_pid: programs.iter().map(|program| (pid(program), program.clone())).collect(),
            by_inode,
            programs,
        }
    }

    /// Programs that have a socket open, its owner first: see [`crate::model::Holders::owner`].
    pub(super) fn holders(&self, inode: u64) -> Vec<Arc<Program>> {
        let mut pids: Vec<u32> =
            self.by_inode.get(&inode).into_iter().flatten().map(|held| held.pid).collect();
        pids.dedup();
        let mut programs: Vec<_> = pids.iter().filter_map(|pid| self.by_pid.get(pid)).cloned().collect();
        programs.sort_by_key(|program| program.actor.process.key.age());
        programs
    }

    /// The program that an entry belongs to.
    pub(super) fn owner(&self, what: &What) -> Option<Arc<Program>> {
        match what {
            What::Socket { inode, .. } => self.holders(*inode).into_iter().next(),
            What::Process { pid } | What::Descriptor { pid, .. } => self.by_pid.get(pid).cloned(),
        }
    }

    /// Sockets that are stdin, stdout or stderr of a process.
    pub(super) fn stdio(&self, rows: &[&SocketRow], raw: &[RawRow]) -> Vec<Stdio> {
        let rows: Map<u64, &SocketRow> = rows.iter().map(|row| (row.inode, *row)).collect();
        let mut found: BTreeMap<(u32, u64), Vec<u32>> = BTreeMap::new();
        for (inode, holders) in &self.by_inode {
            for holder in holders.iter().filter(|holder| holder.fd <= LAST_STANDARD) {
                found.entry((holder.pid, *inode)).or_default().push(holder.fd);
            }
        }
        let told = |((pid, inode), fds): ((u32, u64), Vec<u32>)| {
            let (row, raw) = (rows.get(&inode), raw.iter().find(|raw| raw.inode == inode));
            let what = match (row, raw) {
                (Some(row), _) => in_words(row.proto, row.local, row.remote),
                (None, Some(raw)) => format!("a {}", raw.kind),
                (None, None) => "a network socket".into(),
            };
            Some(Stdio {
                program: self.by_pid.get(&pid)?.clone(),
                fds,
                what,
                proto: row.map(|row| row.proto),
                local: row.map(|row| row.local),
                netns: row.map(|row| row.netns).or(raw.map(|raw| raw.netns)),
            })
        };
        found.into_iter().filter_map(told).collect()
    }
}

fn in_words(proto: Proto, local: SockAddr, remote: Option<SockAddr>) -> String {
    match remote {
        Some(remote) => format!("the {} connection {local} - {remote}", proto.name()),
        None => format!("the {} socket at {local}", proto.name()),
    }
}
