//! Snapshots of the host: sockets, the processes that have them open, and all processes. They are taken by BPF
//! iterators if available, else by `sock_diag` and `/proc`, which work on every kernel and show what the caller is
//! permitted to read.
//!
//! A snapshot is not atomic: sockets and processes that begin or end while it is taken may be missing. A part that
//! cannot be read gives a note and does not fail the rest. Without iterators, two kinds of entries are not visible:
//! sockets of a network namespace that no process and no mount refers to, and descriptors of a thread with a table of
//! its own.

use std::fmt;
use std::io;

use crate::model::NetnsId;
use crate::proc::Mounts;

mod answer;
mod cgroups;
pub mod holders;
mod host;
pub mod links;
mod net_files;
pub mod netlink;
pub mod netns;
mod parse;
pub mod processes;
mod sock_diag;
pub mod sockets;
pub mod streams;
pub mod tables;
pub mod tunnels;

pub use cgroups::CgroupPaths;
pub use host::HostSnapshot;
pub use net_files::{NetFiles, net_files, raw_sockets, timers};
pub use sockets::{Mptcp, Sockets, sockets};

/// Which network namespaces a snapshot includes.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The network namespace of the calling thread; needs no privilege.
    OwnNetns,
    /// All that can be entered (`CAP_SYS_ADMIN`), those of these mounts among them. For each other one there is a note.
    AllNetns(&'a Mounts),
}

/// A part of the host that could not be read; displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The network namespace, if it is about one.
    pub netns: Option<NetnsId>,
    /// A sentence for the user.
    pub text: String,
    /// Somebody hides a part of the host, so it is shown in any case.
    pub hides: bool,
}

impl Note {
    /// Something is mounted over the directory of a process.
    pub(crate) fn of_covered(pid: u32) -> Self {
        let text = format!(
            "something is mounted over /proc/{pid}; the process is read from a procfs of netwatch's own"
        );
        Self { netns: None, text, hides: true }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netns {
            Some(netns) => write!(f, "network namespace {netns}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Why no snapshot could be taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// `/proc` cannot be read, for example because it is not mounted.
    #[error("cannot read {path}")]
    Proc {
        /// The path.
        path: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The netlink socket cannot be opened, or no kind of socket could be listed.
    #[error("cannot ask the kernel for its sockets (sock_diag)")]
    SockDiag(#[source] io::Error),
    /// The clock cannot be read.
    #[error("cannot read the clock")]
    Clock(#[source] io::Error),
    /// The thread that enters namespaces could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}
