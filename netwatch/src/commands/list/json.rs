//! One object a line.

use std::io::{self, Write};

use serde::Serialize;

use super::{Look, Row, state_name};
use crate::model::{Endpoint, Family, Proto};
use crate::origin::{Origin, Side};
use crate::process_view::{AncestorView, BootClock, ProcessView, Users};
use crate::services::Services;
use crate::snapshot::{Holder, ProcessRow};
use crate::where_it_runs;

/// The keys of the contract in its order.
#[derive(Serialize)]
struct Line<'a> {
    proto: Proto,
    family: Family,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mapped: bool,
    local: Endpoint,
    remote: Option<Endpoint>,
    state: &'static str,
    recv_q: u32,
    send_q: u32,
    netns: u32,
    inode: u64,
    cookie: u64,
    /// `null` where there is no connection: a listener, UDP that is not connected.
    origin: Option<Origin<ProcessView<'a>>>,
    service: Option<&'a str>,
    process: Option<ProcessView<'a>>,
    holders: Vec<HolderView<'a>>,
}

#[derive(Serialize)]
struct HolderView<'a> {
    pid: u32,
    fd: u32,
    /// `null` where the process ended while we looked.
    comm: Option<&'a str>,
}

pub(super) fn write(rows: &[Row<'_>], look: &Look, out: &mut impl Write) -> io::Result<()> {
    let mut views = Views { look, clock: BootClock::now()?, users: Users::default() };
    for row in rows {
        let line = views.line(row);
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

struct Views<'a> {
    look: &'a Look,
    clock: BootClock,
    users: Users,
}

impl<'a> Views<'a> {
    fn line(&mut self, row: &Row<'a>) -> Line<'a> {
        let socket = row.socket;
        let origin = row.found.zip(socket.remote).map(|(found, remote)| {
            let process = row.initiator.map(|process| self.process(process));
            Origin::new(found.verdict, socket.local, remote, process)
        });
        // The responder's port; of a socket that waits for anybody, its own.
        let responder = match (origin.as_ref().map(|origin| origin.side), socket.remote) {
            (None, _) | (Some(Side::Remote), _) => Some(socket.local.port),
            (Some(Side::Local | Side::Both), Some(remote)) => Some(remote.port),
            _ => None,
        };
        Line {
            proto: socket.proto,
            family: socket.family,
            mapped: socket.mapped,
            local: socket.local,
            remote: socket.remote,
            state: state_name(socket),
            recv_q: socket.recv_q,
            send_q: socket.send_q,
            netns: socket.netns,
            inode: socket.inode,
            cookie: socket.cookie,
            origin,
            service: responder.and_then(|port| Services::host().name(socket.proto, port)),
            process: row.process.map(|process| self.process(process)),
            holders: row.holders.iter().map(|holder| self.holder(*holder)).collect(),
        }
    }

    fn holder(&self, Holder { pid, fd }: Holder) -> HolderView<'a> {
        HolderView { pid, fd, comm: self.look.process(pid).map(|process| &*process.comm) }
    }

    fn process(&mut self, process: &'a ProcessRow) -> ProcessView<'a> {
        let place = where_it_runs::of_cgroup(&process.cgroup);
        ProcessView {
            pid: process.key.pid,
            tid: process.key.pid,
            key: process.key,
            start: self.clock.time(process.key.start),
            comm: &process.comm,
            thread: None,
            exe: process.image.exe.as_deref(),
            exe_state: process.image.exe_state,
            args: &process.image.args,
            uid: process.uid,
            user: self.users.name(process.uid),
            auid: process.auid,
            ppid: process.ppid,
            cgroup: &process.cgroup,
            container: place.container,
            unit: place.unit.map(Into::into),
            kernel: process.kernel,
            ancestors: self.ancestors(process),
        }
    }

    /// By the present parents, which is all that one look knows: who lost his is under whoever adopted him.
    fn ancestors(&self, process: &ProcessRow) -> Vec<AncestorView<'a>> {
        let mut ancestors = Vec::new();
        let (mut parent, mut child) = (process.ppid, process.key);
        // A pid may be reused between two reads: a parent is never younger than its child, which also ends
        // every circle.
        while let Some(next) =
            self.look.process(parent).filter(|next| (next.key.start, next.key.pid) < (child.start, child.pid))
        {
            ancestors.push(AncestorView {
                pid: next.key.pid,
                key: next.key,
                comm: &next.comm,
                exe: next.image.exe.as_deref(),
            });
            (parent, child) = (next.ppid, next.key);
        }
        ancestors
    }
}
