//! `netwatch list`: the rows and columns of netstat, plus the originator of each connection. It takes one snapshot and
//! attaches no probes; for the caller's own processes it needs no privilege.
//!
//! The snapshot includes all network namespaces that can be entered, whatever is shown, since the peer of a connection
//! may be in another one.

use std::collections::HashMap;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::pager::Pager;
use crate::agent;
use crate::clock::BootClock;
use crate::conntrack;
use crate::engine::complain;
use crate::enrich::{Devices, Users};
use crate::filter::Filter;
use crate::hash::Map;
use crate::model::{Device, DeviceName, Holders, NetnsId, ProcessRow, SocketRow, Timers};
use crate::output::list::{Columns, Names, Row, write_json, write_text};
use crate::process::ProcessTable;
use crate::rights;
use crate::seeding;
use crate::services::Services;
use crate::snapshot::{self, HostSnapshot, Mptcp, Note, holders, netns};
use crate::stderr;

mod letters;
mod order;
mod resolve;

pub use letters::Letters;
pub use order::{SortKey, States};

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
#[derive(Clone, Debug, Default)]
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
    /// Sockets that are shown.
    pub filter: Filter,
    /// States that are shown; `None`: those that the letters select.
    pub states: Option<States>,
    /// Order of the rows; `None`: netstat's.
    pub sort: Option<SortKey>,
    /// Show the table again after each of these intervals.
    pub again: Option<Duration>,
    /// Use colours.
    pub colour: bool,
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

/// Takes a snapshot and prints it, again and again if the options say so. Prints notes about what could not be read to
/// stderr. On a terminal it goes through a pager, which leaves a table that fits on the screen.
///
/// # Errors
/// If no snapshot can be taken, if the namespace of `Namespaces::Inum` does not exist, or if writing to `out` fails.
/// The `io::Error` is in the chain, so that a closed pipe can be recognised.
pub fn run(options: &ListOptions, out: &mut dyn Write) -> Result<()> {
    if let Some(interval) = options.again {
        return repeat(options, interval, out);
    }
    let seen = Seen::look(options)?;
    // Before no program can be executed any more.
    let pager = Pager::start();
    let stage = if options.resolve { &rights::RESOLVING } else { &rights::PRINTING };
    rights::give_up(stage, &rights::names(), None);
    pager.show(out, |out| print(options, &seen, out))
}

/// Prints the table until a signal ends it. On a terminal each replaces the one before.
fn repeat(options: &ListOptions, interval: Duration, out: &mut dyn Write) -> Result<()> {
    /// Moves the cursor to the top left, and clears the screen.
    const CLEAR: &[u8] = b"\x1b[H\x1b[2J";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_terminal = io::stdout().is_terminal();
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let mut table = Vec::new();
            if is_terminal {
                table.extend(CLEAR);
            }
            print(options, &Seen::look(options)?, &mut table)?;
            out.write_all(&table)?;
            out.flush()?;
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    })
}

/// What was read from the host for one table.
struct Seen {
    snapshot: Joined,
    own: NetnsId,
    /// The network namespace that is shown; `None`: all.
    shown: Option<NetnsId>,
    timers: Timers,
}

impl Seen {
    fn look(options: &ListOptions) -> Result<Self> {
        let own = netns::own().context("cannot tell the own network namespace (is /proc mounted?)")?;
        let mut snapshot = Joined::take(options.source)?;
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
        if letters.raw {
            snapshot.add(snapshot::raw_sockets(shown_netns)?);
        }
        let timers = if letters.timers { snapshot::timers(shown_netns)? } else { Timers::default() };
        Ok(Self { snapshot, own, shown: shown_netns, timers })
    }
}

fn print(options: &ListOptions, seen: &Seen, out: &mut dyn Write) -> Result<()> {
    let Seen { snapshot, own, shown: shown_netns, timers } = seen;
    let (own, shown_netns, letters) = (*own, *shown_netns, options.letters.or_default());
    let selects = |row: &Row<'_>| match options.states {
        Some(states) => letters.shows_kind(row.socket) && states.has(row.socket),
        None => letters.show(row.socket),
    };
    let passes = |row: &Row<'_>| {
        let verdict = row.origin.map(|origin| origin.verdict);
        let process = row.process.map(|process| &process.facts);
        options.filter.shows_socket(row.socket, verdict, process, row.device)
    };
    let mut rows: Vec<Row<'_>> = snapshot
        .rows()
        .filter(|row| shown_netns.is_none_or(|netns| row.socket.netns == netns))
        .filter(|row| selects(row) && passes(row))
        .collect();
    // The order of netstat. The sort is stable, so the order of the kernel is kept within each group.
    rows.sort_by_key(|row| {
        (row.socket.netns != own, row.socket.netns, row.socket.proto, row.socket.is_on_ipv6())
    });
    if let Some(key) = options.sort {
        key.sort(&mut rows);
    }

    let mut out = BufWriter::new(out);
    let mut users = Users::patient();
    if options.json {
        let processes = ProcessTable::of(&snapshot.host.processes);
        rows.iter().flat_map(|row| [row.process, row.initiator]).flatten().for_each(|row| users.ask(row.uid));
        write_json(&rows, &processes, &users.names(), BootClock::now()?, Services::host(), &mut out)?;
    } else {
        let hosts = if options.resolve { hosts(&rows) } else { HashMap::new() };
        if letters.extend && options.resolve {
            rows.iter().for_each(|row| users.ask(row.socket.uid));
        }
        let table = Columns {
            all: letters.all || options.states.is_some(),
            listening: letters.listening,
            programs: letters.programs,
            netns: shown_netns.is_none(),
            names: options.resolve.then(|| Names { hosts: &hosts, services: Services::host() }),
            users: letters.extend.then(|| users.names()),
            timers: letters.timers.then_some(timers),
            colour: options.colour,
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
    /// Names of the interfaces of sockets.
    devices: Map<(NetnsId, Option<Device>), DeviceName>,
}

impl Joined {
    fn take(source: Source) -> Result<Self> {
        let lister = match source {
            Source::Best => agent::iterators().ok(),
            Source::Iterators => Some(agent::iterators()?),
            Source::Proc => None,
        };
        let mut host = HostSnapshot::take(lister.as_deref(), Mptcp::Subflows)?;
        conntrack::Translations::read().complete(&mut host.sockets.sockets);
        let origins = seeding::infer(&host.sockets.sockets, &host.sockets.port_ranges);
        let by_pid = host.processes.iter().enumerate().map(|(i, process)| (process.key.pid, i)).collect();
        let mut names = Devices::default();
        let named = host.sockets.sockets.iter().filter(|row| row.device.is_some());
        let devices = named.filter_map(|row| Some(((row.netns, row.device), names.name(row)?))).collect();
        Ok(Self { host, origins, by_pid, devices })
    }

    /// Adds sockets that have no originator.
    fn add(&mut self, sockets: Vec<SocketRow>) {
        self.origins.extend(sockets.iter().map(|_| None));
        self.host.sockets.sockets.extend(sockets);
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
            device: self.devices.get(&(socket.netns, socket.device)).copied(),
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
    use crate::model::Holder;

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
}
