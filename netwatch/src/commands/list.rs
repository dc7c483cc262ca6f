//! `netwatch list`: the rows and columns of netstat, plus the originator of each connection. It takes one snapshot and
//! attaches no probes; for the caller's own processes it needs no privilege.
//!
//! The snapshot includes all network namespaces that can be entered, whatever is shown, since the peer of a connection
//! may be in another one.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use crate::agent;
use crate::clock::BootClock;
use crate::engine::complain;
use crate::enrich::Users;
use crate::hash::Map;
use crate::model::{Holders, NetnsId, ProcessRow, Proto, SocketRow};
use crate::output::list::{Columns, Names, Row, write_json, write_text};
use crate::process::ProcessTable;
use crate::seeding;
use crate::services::Services;
use crate::snapshot::{HostSnapshot, Mptcp, Note, holders, netns};
use crate::stderr;

mod resolve;

/// Options of netstat. Without any of them, `-natup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// `-t`: TCP. If neither this nor `udp` is set, both.
    pub tcp: bool,
    /// `-u`: UDP.
    pub udp: bool,
    /// `-l`: only listeners and unconnected UDP sockets.
    pub listening: bool,
    /// `-a`: all sockets. If neither this nor `listening` is set, all except those of `-l`.
    pub all: bool,
    /// `-n`: numbers instead of names, which is the default.
    pub numeric: bool,
    /// `-p`: adds a column with the process.
    pub programs: bool,
    /// `-4`: IPv4 sockets. If neither this nor `ipv6` is set, both.
    pub ipv4: bool,
    /// `-6`: IPv6 sockets, including those with IPv4 addresses.
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

    /// Selects rows as netstat does: `tcp_do_one` and `udp_do_one` in net-tools' netstat.c.
    fn show(self, row: &SocketRow) -> bool {
        let proto = match row.proto {
            Proto::Tcp => self.tcp || !self.udp,
            Proto::Udp => self.udp || !self.tcp,
        };
        let family = if row.is_on_ipv6() { self.ipv6 || !self.ipv4 } else { self.ipv4 || !self.ipv6 };
        proto && family && (self.all || self.listening == row.is_server())
    }
}

/// The network namespaces whose sockets are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespaces {
    /// The network namespace of the caller, as in netstat.
    #[default]
    Own,
    /// All that can be entered.
    All,
    /// The one with this inode number.
    Inum(NetnsId),
}

/// Options of `list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Rows and columns.
    pub letters: Letters,
    /// Print names of hosts and services. Text only.
    pub resolve: bool,
    /// Print one JSON object per line instead of the table.
    pub json: bool,
    /// Network namespaces.
    pub namespaces: Namespaces,
    /// Source of the snapshot.
    pub source: Source,
}

/// The source of the snapshot. Both give the same rows, but only the iterators see descriptors that `/proc` may not
/// show, and sockets in namespaces that no process or mount refers to, if a process has them open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The iterators if available, else `/proc`.
    #[default]
    Best,
    /// The kernel's iterators.
    Iterators,
    /// `/proc` and sock_diag.
    Proc,
}

/// Takes a snapshot and prints it. Prints notes about what could not be read to stderr.
///
/// # Errors
/// If no snapshot can be taken, if the namespace of `Namespaces::Inum` does not exist, or if writing to `out` fails.
/// The `io::Error` is in the chain, so that a closed pipe can be recognised.
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
    let is_shown = |note: &&Note| note.hides || shown_netns.is_none() || note.netns == shown_netns;
    for note in snapshot.host.notes.iter().filter(is_shown) {
        complain(&note.to_string());
    }
    if (letters.programs || options.json)
        && let Some(warning) = warning(&snapshot.host.sockets.holders)
    {
        stderr::print(&warning);
    }
    let mut rows: Vec<Row<'_>> = snapshot
        .rows()
        .filter(|row| shown_netns.is_none_or(|netns| row.socket.netns == netns) && letters.show(row.socket))
        .collect();
    // The order of netstat. The sort is stable, so the order of the kernel is kept within each group.
    rows.sort_by_key(|row| {
        (row.socket.netns != own, row.socket.netns, row.socket.proto, row.socket.is_on_ipv6())
    });

    let mut out = BufWriter::new(out);
    if options.json {
        let processes = ProcessTable::of(&snapshot.host.processes);
        let mut users = Users::patient();
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

/// Names of all addresses in the rows.
fn hosts(rows: &[Row<'_>]) -> HashMap<IpAddr, String> {
    let addresses = rows.iter().flat_map(|row| std::iter::once(row.socket.local).chain(row.socket.remote));
    resolve::hosts(addresses.map(|address| address.ip))
}

/// The warnings of netstat, under the same conditions: `prg_cache_load` in net-tools' netstat.c.
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

/// A snapshot, with the origins that can be inferred from it.
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
            // netstat names the first holder in the order of /proc, by pid.
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
    fn sockets_that_netwatch_opened_for_the_snapshot_are_not_counted() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (fd, inode) = (socket.as_raw_fd(), fstat(&socket).unwrap().st_ino);
        let own = Holder { pid: std::process::id(), fd: fd.try_into().unwrap() };
        let holders = Holders::of_asked([(inode, own)], Set::default(), Set::from_iter([1]));
        assert!(warning(&holders).unwrap().starts_with("(Not all"));
        drop(socket);
        assert!(warning(&holders).unwrap().starts_with("(No info"));
    }

    #[test]
    fn letters_select_rows_as_in_netstat() {
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
