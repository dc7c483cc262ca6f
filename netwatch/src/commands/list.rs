//! `netwatch list`: netstat's table, row for row and cell for cell, and beside it who originated each
//! connection. One snapshot of the host: no privilege is needed for one's own processes, and nothing is
//! attached to the kernel.
//!
//! The snapshot is always as wide as it may be, whatever is shown: the other end of a connection may be in
//! another network namespace.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use crate::agent;
use crate::clock::BootClock;
use crate::enrich::Users;
use crate::hash::Map;
use crate::model::{Holders, NetnsId, ProcessRow, Proto, SocketRow};
use crate::output::list::{Columns, Names, Row, write_json, write_text};
use crate::process::ProcessTable;
use crate::seeding;
use crate::services::Services;
use crate::snapshot::{HostSnapshot, Mptcp, holders, netns};

mod resolve;

/// netstat's letters. None at all stands for `-natup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// `-t`: TCP. Neither this nor `udp`: both.
    pub tcp: bool,
    /// `-u`: UDP.
    pub udp: bool,
    /// `-l`: only listeners, and UDP that is not connected.
    pub listening: bool,
    /// `-a`: those and the others. Neither this nor `listening`: only the others.
    pub all: bool,
    /// `-n`: numbers in place of names, as always.
    pub numeric: bool,
    /// `-p`: a column for the process.
    pub programs: bool,
    /// `-4`: IPv4 sockets. Neither this nor `ipv6`: both.
    pub ipv4: bool,
    /// `-6`: IPv6 sockets, those that speak IPv4 included.
    pub ipv6: bool,
}

impl Letters {
    fn or_default(self) -> Self {
        if self == Self::default() {
            Self { tcp: true, udp: true, all: true, numeric: true, programs: true, ..self }
        } else {
            self
        }
    }

    /// netstat's choice: `tcp_do_one` and `udp_do_one` in net-tools' netstat.c.
    fn show(self, row: &SocketRow) -> bool {
        let proto = match row.proto {
            Proto::Tcp => self.tcp || !self.udp,
            Proto::Udp => self.udp || !self.tcp,
        };
        let family = if row.is_on_ipv6() { self.ipv6 || !self.ipv4 } else { self.ipv4 || !self.ipv6 };
        proto && family && (self.all || self.listening == row.is_server())
    }
}

/// Which network namespaces' sockets are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// The caller's, as netstat does.
    #[default]
    Own,
    /// All that may be entered.
    All,
    /// The one of this inode number.
    Inum(NetnsId),
}

/// What to show, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Which rows and columns.
    pub letters: Letters,
    /// Ask for the names of hosts and services. Text only.
    pub resolve: bool,
    /// One object a line in place of the table.
    pub json: bool,
    /// Whose sockets.
    pub namespaces: Namespaces,
    /// By what.
    pub source: Source,
}

/// By what the snapshot is taken. Both give the same rows; but the iterators see descriptors that `/proc` may not show,
/// and sockets of namespaces that nothing names, if a process has them open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The iterators, where they can be had.
    #[default]
    Best,
    /// The kernel's iterators.
    Iterators,
    /// `/proc` and sock_diag.
    Proc,
}

/// Takes a snapshot and prints it. What could not be seen is reported on stderr.
///
/// # Errors
/// Where nothing can be seen, where `Namespaces::Inum` names a namespace that is not there, and where `out`
/// fails: the `io::Error` is in the chain, so that a closed pipe can be recognized.
pub fn run(options: &ListOptions, out: &mut dyn Write) -> Result<()> {
    let own = netns::own().context("cannot tell the own network namespace (is /proc mounted?)")?;
    let snapshot = Joined::take(options.source)?;
    let shown_netns = match options.namespaces {
        Namespaces::Own => Some(own),
        Namespaces::Inum(inum) if snapshot.exists(inum) => Some(inum),
        Namespaces::Inum(inum) => {
            bail!("no network namespace {inum} that can be entered here: `lsns -t net` lists them")
        }
        Namespaces::All => None,
    };
    let letters = options.letters.or_default();
    for note in snapshot.host.notes.iter().filter(|note| shown_netns.is_none() || note.netns == shown_netns) {
        // There is nowhere to report that stderr is closed.
        let _ = writeln!(io::stderr(), "netwatch: {note}");
    }
    if (letters.programs || options.json)
        && let Some(warning) = warning(&snapshot.host.sockets.holders)
    {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let mut rows: Vec<Row<'_>> = snapshot
        .rows()
        .filter(|row| shown_netns.is_none_or(|netns| row.socket.netns == netns) && letters.show(row.socket))
        .collect();
    // netstat's order; a stable sort, so the kernel's within.
    rows.sort_by_key(|row| {
        (row.socket.netns != own, row.socket.netns, row.socket.proto, row.socket.is_on_ipv6())
    });

    let mut out = BufWriter::new(out);
    if options.json {
        let processes = ProcessTable::of(&snapshot.host.processes);
        let mut users = Users::default();
        rows.iter().flat_map(|row| [row.process, row.initiator]).flatten().for_each(|row| users.ask(row.uid));
        write_json(&rows, &processes, &users.names(), BootClock::now()?, Services::host(), &mut out)?;
    } else {
        let hosts = if options.resolve { hosts(&rows) } else { HashMap::new() };
        let table = Columns {
            all: letters.all,
            listening: letters.listening,
            programs: letters.programs,
            netns: shown_netns.is_none(),
            names: options.resolve.then(|| Names { hosts: &hosts, services: Services::host() }),
        };
        write_text(&rows, &table, &mut out)?;
    }
    Ok(out.flush()?)
}

/// Names of all addresses that the rows have.
fn hosts(rows: &[Row<'_>]) -> HashMap<IpAddr, String> {
    let ends = rows.iter().flat_map(|row| std::iter::once(row.socket.local).chain(row.socket.remote));
    resolve::hosts(ends.map(|end| end.ip))
}

/// netstat's words, on the same occasions: `prg_cache_load` in net-tools' netstat.c.
fn warning(holders: &Holders) -> Option<String> {
    match (holders.refused(), holders::any_socket(holders)) {
        (0, _) => None,
        (_, false) => Some(format!(
            "(No info could be read for \"-p\": geteuid()={} but you should be root.)",
            nix::unistd::geteuid()
        )),
        _ => Some(
            "(Not all processes could be identified, non-owned process info\n \
             will not be shown, you would have to be root to see it all.)"
                .into(),
        ),
    }
}

/// A snapshot, with the origins that it can tell.
struct Joined {
    host: HostSnapshot,
    origins: Vec<Option<seeding::Inferred>>,
    by_pid: Map<u32, usize>,
}

impl Joined {
    fn take(source: Source) -> Result<Self> {
        let lister = match source {
            Source::Best => agent::iterators().ok(),
            Source::Iterators => Some(agent::iterators()?),
            Source::Proc => None,
        };
        let host = HostSnapshot::take(lister.as_deref(), Mptcp::Subflows)?;
        let origins = seeding::infer(&host.sockets.sockets, &host.sockets.port_ranges);
        let by_pid = host.processes.iter().enumerate().map(|(i, process)| (process.key.pid, i)).collect();
        Ok(Self { host, origins, by_pid })
    }

    fn exists(&self, netns: NetnsId) -> bool {
        self.host.sockets.port_ranges.contains_key(&netns)
    }

    fn process(&self, pid: u32) -> Option<&ProcessRow> {
        self.host.processes.get(*self.by_pid.get(&pid)?)
    }

    fn owner(&self, socket: &SocketRow) -> Option<&ProcessRow> {
        self.host.sockets.holders.owner(socket.inode, |pid| self.process(pid), |process| process.key)
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.host.sockets.sockets.iter().zip(&self.origins).map(|(socket, origin)| Row {
            socket,
            origin: *origin,
            process: self.owner(socket),
            initiator: origin
                .and_then(|origin| self.host.sockets.sockets.get(origin.initiator?))
                .and_then(|initiator| self.owner(initiator)),
            holders: self.host.sockets.holders.of(socket.inode),
            // netstat names the first that it meets in /proc, which lists pids in order.
            first: self
                .host
                .sockets
                .holders
                .of(socket.inode)
                .iter()
                .find_map(|holder| self.process(holder.pid)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use nix::sys::stat::fstat;

    use super::*;
    use crate::hash::Set;
    use crate::model::tests::example;
    use crate::model::{Holder, Socket, State};

    fn row(proto: Proto, mapped: bool, server: bool) -> SocketRow {
        let mut row = SocketRow { socket: Socket { proto, mapped, ..example().socket }, ..example() };
        if server {
            (row.socket.remote, row.state) = (None, State::Listen);
        }
        row
    }

    #[test]
    fn what_netwatch_opened_to_look_is_nobody_s_socket() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (fd, inode) = (socket.as_raw_fd(), fstat(&socket).unwrap().st_ino);
        let own = Holder { pid: std::process::id(), fd: fd.try_into().unwrap() };
        let holders = Holders::of_asked([(inode, own)], Set::default(), Set::from_iter([1]));
        assert!(warning(&holders).unwrap().starts_with("(Not all"));
        drop(socket);
        assert!(warning(&holders).unwrap().starts_with("(No info"));
    }

    #[test]
    fn letters_choose_as_netstat_s_do() {
        let none = Letters::default();
        let (tcp, udp) = (row(Proto::Tcp, false, false), row(Proto::Udp, false, false));
        let (listener, mapped) = (row(Proto::Tcp, false, true), row(Proto::Tcp, true, false));
        let shown =
            |letters: Letters| [&tcp, &udp, &listener, &mapped].map(|row| letters.or_default().show(row));
        assert_eq!(shown(none), [true, true, true, true]);
        assert_eq!(shown(Letters { numeric: true, ..none }), [true, true, false, true]);
        assert_eq!(shown(Letters { tcp: true, ..none }), [true, false, false, true]);
        assert_eq!(shown(Letters { udp: true, all: true, ..none }), [false, true, false, false]);
        assert_eq!(shown(Letters { listening: true, ..none }), [false, false, true, false]);
        assert_eq!(shown(Letters { listening: true, all: true, ..none }), [true, true, true, true]);
        assert_eq!(shown(Letters { ipv6: true, all: true, ..none }), [false, false, false, true]);
        assert_eq!(shown(Letters { ipv4: true, all: true, ..none }), [true, true, true, false]);
    }
}
