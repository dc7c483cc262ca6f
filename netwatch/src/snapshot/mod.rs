//! One look at the host: which sockets there are, who holds them, which processes run. By `sock_diag` and
//! `/proc`, so it works without a privilege and on any kernel, as far as the caller may see.
//!
//! It is a look, no history: what begins or ends meanwhile may be missing. A part that cannot be read is
//! a note, never a failure of the rest. What stays unseen: sockets of a network namespace that no process
//! and no mount names, and descriptors of a thread that does not share its group's table.

use std::fmt;
use std::io;

use crate::model::NetnsId;

mod answer;
pub mod holders;
mod host;
mod net_files;
mod netlink;
pub mod netns;
mod parse;
pub mod processes;
pub mod sockets;

pub use host::HostSnapshot;
pub use net_files::{NetFiles, net_files};
pub use sockets::{Mptcp, Sockets, sockets};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The network namespace of the calling thread; needs no privilege.
    OwnNetns,
    /// All that can be found and entered (`CAP_SYS_ADMIN`); the others are noted.
    AllNetns,
}

/// Something that could not be seen; displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The network namespace that it is about, if it is about one.
    pub netns: Option<NetnsId>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netns {
            Some(netns) => write!(f, "network namespace {netns}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Why there is nothing to show at all.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// `/proc` is not to be read: not mounted, perhaps.
    #[error("cannot read {path}")]
    Proc {
        /// Which part of it.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No netlink socket, or not even one kind of socket could be listed.
    #[error("cannot ask the kernel for its sockets (sock_diag)")]
    SockDiag(#[source] io::Error),
    /// The clock.
    #[error("cannot read the clock")]
    Clock(#[source] io::Error),
    /// The thread that enters namespaces could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}
