//! Views of the host that must agree: an entry that one shows and another does not may be hidden by a rootkit.
//!
//! Views are not taken at the same time, so a difference counts only if a second comparison shows it as well.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::program::Program;
use crate::model::{NetnsId, Proto, SockAddr};

/// A source that lists sockets or processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// The files in `/proc/net`.
    NetFiles,
    /// sock_diag, over netlink.
    SockDiag,
    /// BPF iterators.
    Iterators,
    /// The directories of processes in `/proc`.
    Processes,
    /// A procfs that nothing is mounted over, if something is mounted over the directory of a process in `/proc`.
    OwnProc,
    /// The table of endpoints of a live run.
    Live,
}

impl View {
    /// The views of sockets that an audit takes.
    pub const OF_SOCKETS: [Self; 3] = [Self::NetFiles, Self::SockDiag, Self::Iterators];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetFiles => "/proc/net",
            Self::SockDiag => "sock_diag",
            Self::Iterators => "the BPF iterators",
            Self::Processes => "/proc",
            Self::OwnProc => "a procfs of netwatch's own",
            Self::Live => "the live event stream",
        }
    }
}

/// Identifies an entry across views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A socket with a file.
    Socket {
        /// Network namespace inode number.
        netns: NetnsId,
        /// Transport.
        proto: Proto,
        /// Inode number of its file.
        inode: u64,
        /// Bound address.
        local: (std::net::IpAddr, u16),
    },
    /// A process that has a network socket open.
    Process {
        /// Thread group.
        pid: u32,
    },
    /// A socket descriptor of a process.
    Descriptor {
        /// Thread group.
        pid: u32,
        /// Inode number of the socket.
        inode: u64,
    },
}

impl What {
    /// A socket's transport.
    #[must_use]
    pub const fn proto(&self) -> Option<Proto> {
        match self {
            Self::Socket { proto, .. } => Some(*proto),
            Self::Process { .. } | Self::Descriptor { .. } => None,
        }
    }

    /// A socket's address.
    #[must_use]
    pub const fn local(&self) -> Option<SockAddr> {
        match self {
            Self::Socket { local: (ip, port), .. } => Some(SockAddr { ip: *ip, port: *port }),
            Self::Process { .. } | Self::Descriptor { .. } => None,
        }
    }

    /// A socket's network namespace.
    #[must_use]
    pub const fn netns(&self) -> Option<NetnsId> {
        match self {
            Self::Socket { netns, .. } => Some(*netns),
            Self::Process { .. } | Self::Descriptor { .. } => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { proto, inode, local: (ip, port), .. } => {
                write!(f, "{} socket {} (inode {inode})", proto.name(), SockAddr { ip: *ip, port: *port })
            }
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Descriptor { pid, inode } => write!(f, "descriptor of socket {inode} in process {pid}"),
        }
    }
}

/// An entry that one view shows and another does not.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The entry.
    pub what: What,
    /// Views that show it.
    pub shown_by: Vec<View>,
    /// Views that do not show it.
    pub hidden_by: Vec<View>,
    /// The program that it belongs to, if known.
    pub program: Option<Arc<Program>>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |views: &[View]| views.iter().map(|view| view.name()).collect::<Vec<_>>().join(" and ");
        write!(f, "{} is shown by {}, not by {}", self.what, names(&self.shown_by), names(&self.hidden_by))?;
        match self.what {
            What::Process { pid } if self.shown_by == [View::OwnProc] => {
                write!(f, ": something is mounted over /proc/{pid}")
            }
            _ => Ok(()),
        }
    }
}

/// The entries that each view shows.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    by: BTreeMap<View, std::collections::HashSet<What>>,
}

impl Shown {
    /// Adds a complete view with its entries.
    pub fn add(&mut self, view: View, what: impl IntoIterator<Item = What>) {
        self.by.entry(view).or_default().extend(what);
    }

    /// Entries that some views show and others do not.
    #[must_use]
    pub fn differences(&self) -> BTreeMap<What, (Vec<View>, Vec<View>)> {
        let mut found = BTreeMap::new();
        for what in self.by.values().flatten() {
            if found.contains_key(what) {
                continue;
            }
            let (shown, hidden): (Vec<View>, Vec<View>) =
                self.by.keys().partition(|view| self.by.get(view).is_some_and(|all| all.contains(what)));
            if !hidden.is_empty() {
                found.insert(*what, (shown, hidden));
            }
        }
        found
    }

    /// Differences that `later` has as well, between the same views.
    #[must_use]
    pub fn standing(&self, later: &Self) -> Vec<Disagreement> {
        let later = later.differences();
        let stands = |(what, (shown_by, hidden_by)): (What, (Vec<View>, Vec<View>))| {
            let (shown_then, hidden_then) = later.get(&what)?;
            let same = *shown_then == shown_by && *hidden_then == hidden_by;
            same.then_some(Disagreement { what, shown_by, hidden_by, program: None })
        };
        self.differences().into_iter().filter_map(stands).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: What = What::Process { pid: 7 };
    const SEEN: What = What::Process { pid: 8 };

    fn shown(by_iterators: &[What], by_proc: &[What]) -> Shown {
        let mut shown = Shown::default();
        shown.add(View::Iterators, by_iterators.iter().copied());
        shown.add(View::Processes, by_proc.iter().copied());
        shown
    }

    #[test]
    fn a_difference_in_two_comparisons_is_reported() {
        let look = shown(&[HIDDEN, SEEN], &[SEEN]);
        let standing = look.standing(&look);
        assert_eq!(standing.len(), 1);
        assert_eq!(standing[0].to_string(), "process 7 is shown by the BPF iterators, not by /proc");
    }

    #[test]
    fn a_difference_in_one_comparison_is_not() {
        let (lie, truth) = (shown(&[HIDDEN], &[]), shown(&[HIDDEN], &[HIDDEN]));
        assert!(lie.standing(&truth).is_empty() && truth.standing(&lie).is_empty());
        // Hidden by different views at different times: not the same difference.
        assert!(lie.standing(&shown(&[], &[HIDDEN])).is_empty());
    }

    #[test]
    fn a_missing_view_hides_nothing() {
        let mut alone = Shown::default();
        alone.add(View::SockDiag, [HIDDEN]);
        assert!(alone.differences().is_empty());
    }
}
