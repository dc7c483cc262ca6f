//! Shells that take their commands from a process with a network connection: reverse shells by nc, socat and others.

use std::sync::Arc;

use super::Programs;
use super::held::{Held, in_words};
use crate::audit::facts::{Program, Relay, Stdio};
use crate::hash::Map;
use crate::model::{SocketRow, StreamKind};
use crate::process::{Process, ProcessTable};
use crate::snapshot::streams;
use crate::{relays, signs};

/// Ports of X servers on this host, and of those that sshd(8) forwards: a terminal emulator has such a connection.
const X11_PORTS: std::ops::Range<u16> = 6000..6100;

/// The shells that somebody steers over the network through another process.
pub(super) fn find(
    table: &ProcessTable,
    rows: &[&SocketRow],
    held: &Held,
    programs: &mut Programs,
) -> Vec<Stdio> {
    let is_candidate =
        |process: &&Arc<Process>| signs::reads_commands(process) && streams::leads_away(process.key.pid);
    let shells: Vec<u32> = table.running().filter(is_candidate).map(|shell| shell.key.pid).collect();
    if shells.is_empty() {
        return Vec::new();
    }
    let mut connected: Map<u32, Vec<&SocketRow>> = Map::default();
    for row in rows.iter().filter(|row| row.inode != 0 && row.remote.is_some() && !row.is_server()) {
        for pid in held.pids(row.inode) {
            connected.entry(pid).or_default().push(row);
        }
    }
    let name = |pid: &u32| match table.present(*pid) {
        Some(process) => format!("{}[{pid}]", process.comm),
        None => format!("[{pid}]"),
    };
    let found = relays::find(&shells, &streams::all(), |pid| connected.contains_key(&pid));
    let stdio = |relayed: relays::Relayed| {
        let holder = held.of_pid(relayed.holder)?;
        let shell = programs.of([table.present(relayed.shell)?.clone()]).pop()?;
        let connections = connected.get(&relayed.holder)?;
        if is_explained(&shell, holder, connections, relayed.kind) {
            return None;
        }
        let row = connections.first()?;
        Some(Stdio {
            program: shell,
            fds: vec![0, 1],
            what: in_words(row.proto, row.local, row.remote),
            relay: Some(Relay {
                holder: holder.clone(),
                between: relayed.between.iter().map(name).collect(),
                kind: relayed.kind,
            }),
            proto: Some(row.proto),
            local: Some(row.local),
            netns: Some(row.netns),
        })
    };
    found.into_iter().filter_map(stdio).collect()
}

/// Whether another reason than the connection explains why the holder steers the shell: a login, a container that it
/// runs, or a terminal emulator, whose connections are those to its X server.
fn is_explained(shell: &Program, holder: &Program, connections: &[&SocketRow], kind: StreamKind) -> bool {
    let is_packaged = holder.package().is_some();
    let login = is_packaged && signs::is_login_server(holder.name());
    let runtime = is_packaged && shell.container.is_some() && shell.container != holder.container;
    let to_x11 = |row: &&SocketRow| {
        row.remote.is_some_and(|remote| X11_PORTS.contains(&remote.port) && remote.ip.is_loopback())
    };
    let emulator = kind == StreamKind::Terminal && connections.iter().all(to_x11);
    login || runtime || emulator
}
