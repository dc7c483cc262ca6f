//! Which processes have which socket open.

use smallvec::SmallVec;

use super::ProcessKey;
use crate::hash::{Map, Set};

/// An open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// Thread group.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
}

/// Every open descriptor of a socket, of whatever family.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Nearly every socket has one.
    by_inode: Map<u64, SmallVec<[Holder; 1]>>,
    /// Processes whose descriptors may not be read.
    refused: Set<u32>,
    /// Those whose descriptors were all read, where `/proc` was asked.
    read: Set<u32>,
}

impl Holders {
    /// These, each with the inode of what it holds.
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

    /// The same, with the processes that were asked: those whose descriptors were all read, and those that may not be.
    #[must_use]
    pub fn of_asked(
        each: impl IntoIterator<Item = (u64, Holder)>,
        read: Set<u32>,
        refused: Set<u32>,
    ) -> Self {
        Self { read, refused, ..Self::of_each(each) }
    }

    /// How many processes' descriptors may not be read.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// By pid, then descriptor; empty where nobody that could be seen holds it.
    #[must_use]
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], SmallVec::as_slice)
    }

    /// The owner of a socket: of several holders the oldest, which is the opener, or the nearest to it that still lives.
    /// Workers that inherited the socket are younger. `process` finds the process of a pid, `key` its key.
    pub fn owner<P>(
        &self,
        inode: u64,
        process: impl Fn(u32) -> Option<P>,
        key: impl Fn(&P) -> ProcessKey,
    ) -> Option<P> {
        let processes = self.of(inode).iter().filter_map(|holder| process(holder.pid));
        processes.min_by_key(|process| key(process).age())
    }

    /// All of them, each with the inode of what it holds.
    pub fn all(&self) -> impl Iterator<Item = (u64, Holder)> {
        self.by_inode.iter().flat_map(|(inode, holders)| holders.iter().map(|holder| (*inode, *holder)))
    }

    /// Whether `/proc` showed all descriptors of a process.
    #[must_use]
    pub fn could_be_read(&self, pid: u32) -> bool {
        self.read.contains(&pid)
    }

    /// Whether it refused to.
    #[must_use]
    pub fn was_refused(&self, pid: u32) -> bool {
        self.refused.contains(&pid)
    }

    /// Of sockets that several have open, keeps those for which `keep` is true, which gets a holder and the inode.
    pub fn retain_shared(&mut self, keep: impl Fn(Holder, u64) -> bool) {
        for (inode, same) in &mut self.by_inode {
            let first = same.first().map(|holder| holder.pid);
            if same.iter().any(|holder| Some(holder.pid) != first) {
                same.retain(|holder| keep(*holder, *inode));
            }
        }
    }
}
