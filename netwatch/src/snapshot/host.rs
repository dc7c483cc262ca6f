//! The host at one moment: the one source of snapshots for `list`, for `trace` without a store, for the agent's start
//! and for its repairs.

use super::{Mptcp, Note, Scope, SnapshotError, Sockets, holders, sockets};
use crate::clock;
use crate::hash::Map;
use crate::model::{Lister, ProcessRow, SocketSnapshot};
use crate::proc::{self, Mounts};

/// Sockets in every network namespace, who holds them, and processes, all seen after `sockets.began`.
#[derive(Debug)]
pub struct HostSnapshot {
    /// Sockets and their holders.
    pub sockets: SocketSnapshot,
    /// Processes, those of all holders among them.
    pub processes: Vec<ProcessRow>,
    /// What could not be seen.
    pub notes: Vec<Note>,
}

impl HostSnapshot {
    /// Takes one, by the kernel's iterators where there is a lister, else by sock_diag and `/proc`. Sockets and holders
    /// are listed at once: either is half of the time that a snapshot takes.
    ///
    /// # Errors
    /// Where sockets or processes cannot be listed at all.
    pub fn take(lister: Option<&dyn Lister>, mptcp: Mptcp) -> Result<Self, SnapshotError> {
        let began = clock::since_boot().map_err(SnapshotError::Clock)?;
        let mounts = Mounts::read();
        let covered = proc::find_covered(&mounts);
        let (listed, holders, processes) = std::thread::scope(|scope| {
            let held = scope.spawn(|| holders::named(lister));
            let listed = sockets(Scope::AllNetns(&mounts), mptcp, lister);
            let (holders, processes) =
                held.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, SnapshotError>((listed?, holders, processes))
        })?;
        let Sockets { rows, port_ranges, packets, mut notes, .. } = listed;
        notes.extend(covered.into_iter().map(Note::of_covered));
        let sockets = SocketSnapshot { sockets: rows, holders, port_ranges, packets, began };
        Ok(Self { sockets, processes, notes })
    }

    /// Writes into each process which sockets are its stdin, stdout and stderr.
    #[must_use]
    pub fn with_stdio(mut self) -> Self {
        let SocketSnapshot { sockets, holders, .. } = &self.sockets;
        let mut by_pid: Map<u32, &mut ProcessRow> =
            self.processes.iter_mut().map(|row| (row.key.pid, row)).collect();
        for socket in sockets.iter().filter(|socket| socket.inode != 0) {
            for holder in holders.of(socket.inode) {
                let slot = by_pid
                    .get_mut(&holder.pid)
                    .and_then(|row| row.stdio.get_mut(usize::try_from(holder.fd).unwrap_or(usize::MAX)));
                if let Some(slot) = slot {
                    *slot = socket.cookie;
                }
            }
        }
        self
    }
}
