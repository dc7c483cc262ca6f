//! Sockets as JSON, one object per line.

use std::io::{self, Write};

use serde::Serialize;

use super::{Row, state_name};
use crate::clock::BootClock;
use crate::model::{Cookie, DeviceName, Family, Holder, Nat, NetnsId, ProcessRow, SockAddr};
use crate::origin::{Origin, responder};
use crate::output::ProcessView;
use crate::process::{Actor, ProcessTable};
use crate::services::Services;
use crate::stream::UserNames;

/// The keys of the specification, in its order.
#[derive(Serialize)]
struct Line<'a> {
    proto: &'static str,
    family: Family,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mapped: bool,
    local: SockAddr,
    remote: Option<SockAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<DeviceName>,
    state: &'static str,
    recv_q: u32,
    send_q: u32,
    netns: NetnsId,
    inode: u64,
    cookie: u64,
    /// `null` for a listener or unconnected UDP.
    origin: Option<Origin<ProcessView<'a>>>,
    service: Option<&'a str>,
    /// Absent if it could not be asked.
    #[serde(skip_serializing_if = "Nat::is_unknown")]
    nat: &'a Nat,
    process: Option<ProcessView<'a>>,
    holders: Vec<HolderView<'a>>,
}

#[derive(Serialize)]
struct HolderView<'a> {
    pid: u32,
    fd: u32,
    /// `null` if the process ended while the snapshot was taken.
    comm: Option<&'a str>,
}

/// `table` has all processes of the same snapshot, `users` the names of their users.
pub(crate) fn write(
    rows: &[Row<'_>],
    table: &ProcessTable,
    users: &UserNames,
    clock: BootClock,
    services: &Services,
    out: &mut impl Write,
) -> io::Result<()> {
    let actor = |row: Option<&ProcessRow>| table.find(row?.key).cloned().map(Actor::leader);
    for row in rows {
        let actors = [row.process, row.initiator].map(actor);
        let [process, initiator] = actors.each_ref().map(|actor| {
            let actor = actor.as_ref()?;
            let user = users.get(&actor.process.uid).cloned().flatten();
            Some(ProcessView::new(actor, actor.process.exe_status(), user, clock))
        });
        let line = line(row, table, services, process, initiator);
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn line<'a>(
    row: &Row<'a>,
    table: &'a ProcessTable,
    services: &'a Services,
    process: Option<ProcessView<'a>>,
    initiator: Option<ProcessView<'a>>,
) -> Line<'a> {
    let socket = row.socket;
    let origin = row
        .origin
        .zip(socket.remote)
        .map(|(found, remote)| Origin::new(found.verdict, socket.local, remote, initiator));
    let side = origin.as_ref().map(|origin| origin.side);
    let responder = responder(side, socket.local, socket.remote);
    let holder =
        |Holder { pid, fd }| HolderView { pid, fd, comm: table.present(pid).map(|process| &*process.comm) };
    Line {
        proto: socket.proto.name(),
        family: socket.family,
        mapped: socket.mapped,
        local: socket.local,
        remote: socket.remote,
        device: row.device.filter(|_| socket.bound_device() != 0),
        scope: row.device.filter(|_| socket.scope().is_some()),
        state: state_name(socket),
        recv_q: socket.recv_q,
        send_q: socket.send_q,
        netns: socket.netns,
        inode: socket.inode,
        cookie: Cookie::number(socket.cookie),
        origin,
        nat: &socket.nat,
        service: responder.and_then(|end| services.name(socket.proto, end.port)),
        process,
        holders: row.holders.iter().copied().map(holder).collect(),
    }
}
