//! Holders: the processes that have a socket open.

use smallvec::SmallVec;

use super::ProcessKey;
use crate::hash::{Map, Set};

/// An open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// Thread group id.
    pub pid: u32,
    /// Number of the descriptor.
    pub fd: u32,
}

/// Open descriptors of all sockets.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Most sockets have one holder.
    by_inode: Map<u64, SmallVec<[Holder; 1]>>,
    /// Processes whose descriptors may not be read.
    refused: Set<u32>,
    /// Processes whose descriptors were all read, if `/proc` was used.
    read: Set<u32>,
}

impl Holders {
    /// From descriptors, each with the inode number of its socket.
    #[must_use]
    pub fn of_each(each: impl IntoIterator<Item = (u64, Holder)>) -> Self {
        let mut holders = Self::default();
        for (inode, holder) in each {
            holders.by_inode.entry(inode).or_default().push(holder);
        }
        for same in holders.by_inode.values_mut() {
            same.sort_unstable();
        }
        holders
    }

    /// The same, with the processes that were read completely and those that could not be read.
    #[must_use]
    pub fn of_asked(
        each: impl IntoIterator<Item = (u64, Holder)>,
        read: Set<u32>,
        refused: Set<u32>,
    ) -> Self {
        Self { read, refused, ..Self::of_each(each) }
    }

    /// Number of processes whose descriptors may not be read.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Holders sorted by pid, then descriptor; empty if none is visible.
    #[must_use]
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], SmallVec::as_slice)
    }

    /// Whether a process has a socket open.
    #[must_use]
    pub fn has(&self, inode: u64, pid: u32) -> bool {
        self.of(inode).binary_search_by_key(&pid, |holder| holder.pid).is_ok()
    }

    /// The owner of a socket: the oldest holder, which opened it or is the oldest heir that still runs, since workers
    /// that inherited it are younger. `process` finds a process by pid, `key` returns its key.
    pub fn owner<P>(
        &self,
        inode: u64,
        process: impl Fn(u32) -> Option<P>,
        key: impl Fn(&P) -> ProcessKey,
    ) -> Option<P> {
        let processes = self.of(inode).iter().filter_map(|holder| process(holder.pid));
        processes.min_by_key(|process| key(process).age())
    }

    /// All descriptors, each with the inode number of its socket.
    pub fn all(&self) -> impl Iterator<Item = (u64, Holder)> {
        self.by_inode.iter().flat_map(|(inode, holders)| holders.iter().map(|holder| (*inode, *holder)))
    }

    /// Whether all descriptors of a process were read from `/proc`.
    #[must_use]
    pub fn could_be_read(&self, pid: u32) -> bool {
        self.read.contains(&pid)
    }

    /// Whether the descriptors of a process may not be read.
    #[must_use]
    pub fn was_refused(&self, pid: u32) -> bool {
        self.refused.contains(&pid)
    }

    /// For sockets with several holders, keeps those for which `keep` is true; it gets a holder and the inode number.
    pub fn retain_shared(&mut self, mut keep: impl FnMut(Holder, u64) -> bool) {
        for (inode, same) in &mut self.by_inode {
            let first = same.first().map(|holder| holder.pid);
            if same.iter().any(|holder| Some(holder.pid) != first) {
                same.retain(|holder| keep(*holder, *inode));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_among_many_is_found() {
        // One after the other it would take minutes.
        const MANY: u32 = 200_000;
        let holders = Holders::of_each((0..MANY).map(|pid| (7, Holder { pid: pid * 2, fd: 3 })));
        assert!((0..MANY).all(|pid| holders.has(7, pid * 2) && !holders.has(7, pid * 2 + 1)));
        assert!(!holders.has(8, 0));
    }
}
