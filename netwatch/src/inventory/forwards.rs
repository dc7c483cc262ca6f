//! The client behind a listener that sshd(8) opened for a remote forward: the connection of the session that the same
//! process has.

use std::sync::Arc;

use super::held::Held;
use crate::audit::facts::Program;
use crate::hash::{Map, Set};
use crate::model::{NetnsId, Proto, SockAddr, SocketRow};

/// The connections of sessions, by process.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_pid: Map<u32, SockAddr>,
}

impl Clients {
    /// A session's connection came to a port on which an sshd listens, and its process does not listen on that port.
    pub(super) fn of(rows: &[&SocketRow], held: &Held) -> Self {
        let is_sshd = |row: &&&SocketRow| held.owner(row.inode).is_some_and(|program| is_server(&program));
        let listening: Set<(NetnsId, u16)> = rows
            .iter()
            .filter(|row| row.proto == Proto::Tcp && row.is_server())
            .filter(is_sshd)
            .map(|row| (row.netns, row.local.port))
            .collect();
        let own: Set<(u32, u16)> = rows
            .iter()
            .filter(|row| row.is_server())
            .flat_map(|row| held.pids(row.inode).map(|pid| (pid, row.local.port)))
            .collect();
        let mut by_pid = Map::default();
        for row in rows.iter().filter(|row| listening.contains(&(row.netns, row.local.port))) {
            let Some(remote) = row.remote else { continue };
            for pid in held.pids(row.inode).filter(|pid| !own.contains(&(*pid, row.local.port))) {
                by_pid.entry(pid).or_insert(remote);
            }
        }
        Self { by_pid }
    }

    /// The client for which this listener was opened.
    pub(super) fn of_listener(&self, row: &SocketRow, holders: &[Arc<Program>]) -> Option<SockAddr> {
        let program =
            holders.iter().find(|program| is_server(program)).filter(|_| row.proto == Proto::Tcp)?;
        self.by_pid.get(&program.actor.process.key.pid).copied()
    }
}

/// Whether a program is sshd, or the part of it that serves a session.
fn is_server(program: &Program) -> bool {
    matches!(program.name(), "sshd" | "sshd-session")
}
