//! The table: netstat's columns, then the origin.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

use anstyle::{AnsiColor, Style};

use super::{Columns, Names, Row, state_name};
use crate::escape;
use crate::model::{DeviceName, ProcessRow, Proto, SockAddr, SocketRow, State, Timers};
use crate::origin::{Confidence, Side};

/// Widths of netstat's columns: the minimum for an address, and the maximum for `PID/Program name`, which netstat
/// truncates there (including a NUL).
const ADDRESS: usize = 23;
const PROGRAM: usize = 20;
/// Minimum width of the timer, which netstat prints last.
const TIMER: usize = 24;

pub(crate) fn write(rows: &[Row<'_>], table: &Columns<'_>, out: &mut impl Write) -> io::Result<()> {
    let addresses = Addresses::of(rows, table.names.as_ref());
    let (local_width, remote_width) = (addresses.local_width, addresses.remote_width);

    let which = match (table.all, table.listening) {
        (true, _) => "(servers and established)",
        (false, true) => "(only servers)",
        (false, false) => "(w/o servers)",
    };
    writeln!(out, "Active Internet connections {which}")?;
    let (local, remote) = ("Local Address", "Foreign Address");
    write!(out, "Proto Recv-Q Send-Q {local:<local_width$} {remote:<remote_width$} {:<11}", "State")?;
    if table.users.is_some() {
        write!(out, " {:<10} {:<10}", "User", "Inode")?;
    }
    if table.programs {
        write!(out, " {:<PROGRAM$}", "PID/Program name")?;
    }
    if table.timers.is_some() {
        write!(out, " {:<TIMER$}", "Timer")?;
    }
    if table.netns {
        write!(out, " {:<10}", "NETNS")?;
    }
    writeln!(out, " ORIGIN")?;

    // Reused for each line: a table may have a hundred thousand.
    let mut program = String::new();
    for (row, (local, remote)) in rows.iter().zip(addresses.iter()) {
        let socket = row.socket;
        let proto = match (socket.proto, socket.is_on_ipv6()) {
            (Proto::Tcp, false) => "tcp",
            (Proto::Tcp, true) => "tcp6",
            (Proto::Udp, false) => "udp",
            (Proto::Udp, true) => "udp6",
            (Proto::UdpLite, false) => "udpl",
            (Proto::UdpLite, true) => "udpl6",
            (Proto::Packet, _) => "packet",
            (Proto::Icmp | Proto::Icmpv6 | Proto::Raw(_), false) => "raw",
            (Proto::Icmp | Proto::Icmpv6 | Proto::Raw(_), true) => "raw6",
        };
        // For a listener sock_diag has the limit of its queue here, which netstat does not print.
        let send_q = if socket.state == State::Listen { 0 } else { socket.send_q };
        write!(
            out,
            "{proto:<5} {:>6} {send_q:>6} {local:<local_width$} {remote:<remote_width$} ",
            socket.recv_q
        )?;
        let style = match socket.state {
            State::Listen if table.colour => AnsiColor::Cyan.on_default(),
            State::Established if table.colour => AnsiColor::Green.on_default(),
            _ => Style::new(),
        };
        write!(out, "{style}{:<11}{style:#}", state_name(socket))?;
        if let Some(users) = &table.users {
            match users.get(&socket.uid).cloned().flatten() {
                Some(name) => write!(out, " {:<10}", escape::terminal(&name))?,
                None => write!(out, " {:<10}", socket.uid)?,
            }
            write!(out, " {:<10}", socket.inode)?;
        }
        if table.programs {
            program.clear();
            name_program(row.first, &mut program);
            write!(out, " {program:<PROGRAM$}")?;
        }
        if let Some(timers) = table.timers {
            write!(out, " {:<TIMER$}", timer(socket, timers))?;
        }
        if table.netns {
            write!(out, " {:<10}", socket.netns)?;
        }
        out.write_all(b" ")?;
        origin(row, local, remote, out)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The addresses of all rows in one string: the widths of columns are needed before the first line is printed.
#[derive(Default)]
struct Addresses {
    text: String,
    /// End offset of each address in `text`, local and remote alternating.
    ends: Vec<usize>,
    local_width: usize,
    remote_width: usize,
}

impl Addresses {
    fn of(rows: &[Row<'_>], names: Option<&Names<'_>>) -> Self {
        // Addresses are never truncated; the column is widened.
        let mut all = Self { local_width: ADDRESS, remote_width: ADDRESS, ..Self::default() };
        all.ends.reserve(2 * rows.len());
        for row in rows {
            let local = all.push(Some(row.socket.local), row.device, row.socket, names);
            let remote = all.push(row.socket.remote, None, row.socket, names);
            all.local_width = all.local_width.max(local);
            all.remote_width = all.remote_width.max(remote);
        }
        all
    }

    /// Returns the width in characters.
    fn push(
        &mut self,
        end: Option<SockAddr>,
        device: Option<DeviceName>,
        socket: &SocketRow,
        names: Option<&Names<'_>>,
    ) -> usize {
        let began = self.text.len();
        match (end, names) {
            (Some(end), None) => {
                // Writing to a String cannot fail.
                let _ = write!(self.text, "{}", end.ip);
                if let Some(device) = device {
                    let _ = write!(self.text, "%{}", escape::terminal(device.as_str()));
                }
                self.text.push(':');
                match end.port {
                    0 => self.text.push('*'),
                    port => _ = write!(self.text, "{port}"),
                }
            }
            (end, names) => self.text.push_str(&address(end, socket, names)),
        }
        self.ends.push(self.text.len());
        self.text.get(began..).map_or(0, |new| new.chars().count())
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut began = 0;
        let mut next =
            move |end: &usize| self.text.get(std::mem::replace(&mut began, *end)..*end).unwrap_or_default();
        self.ends.chunks_exact(2).map(move |pair| match pair {
            [local, remote] => (next(local), next(remote)),
            _ => ("", ""),
        })
    }
}

/// The timer as netstat prints it: `tcp_do_one` in net-tools' netstat.c.
fn timer(socket: &SocketRow, timers: &Timers) -> String {
    let key = (socket.netns, socket.local, socket.remote, socket.inode);
    let timer = timers.get(&key).copied().unwrap_or_default();
    let seconds = format!("{}.{:02}", timer.expires / 100, timer.expires % 100);
    let name = match timer.kind {
        0 => return format!("off (0.00/{}/{})", timer.retransmits, timer.probes),
        1 => "on",
        2 => "keepalive",
        3 => "timewait",
        4 => "probe",
        other => return format!("unkn-{other} ({seconds}/{}/{})", timer.retransmits, timer.probes),
    };
    format!("{name} ({seconds}/{}/{})", timer.retransmits, timer.probes)
}

/// `None` is printed as any address and port, in the family of the socket.
fn address(end: Option<SockAddr>, socket: &SocketRow, names: Option<&Names<'_>>) -> String {
    let (host, port) = match (end, names) {
        (None, names) => {
            let host = match (socket.is_on_ipv6(), names) {
                (false, _) => "0.0.0.0",
                (true, None) => "::",
                (true, Some(_)) => "[::]",
            };
            (Cow::Borrowed(host), "*".into())
        }
        (Some(end), None) => (Cow::Owned(end.ip.to_string()), port(end.port)),
        (Some(end), Some(names)) => (
            host(end.ip, names),
            names.services.name(socket.proto, end.port).map_or_else(|| port(end.port), str::to_owned),
        ),
    };
    escape::terminal(&format!("{host}:{port}")).into_owned()
}

/// The name of the address, or the address if it has none. A wildcard has no name.
fn host<'a>(ip: IpAddr, names: &Names<'a>) -> Cow<'a, str> {
    if ip.is_unspecified() {
        return Cow::Borrowed(if ip.is_ipv4() { "0.0.0.0" } else { "[::]" });
    }
    names.hosts.get(&ip).map_or_else(|| ip.to_string().into(), |name| name.into())
}

fn port(port: u16) -> String {
    if port == 0 { "*".into() } else { port.to_string() }
}

/// `PID/Program name` as netstat prints it (net-tools, netstat.c, prg_cache_load()): the first argument, the last
/// component if it is an absolute path, with a dot for each byte that is not printable ASCII, truncated to the column.
fn name_program(process: Option<&ProcessRow>, out: &mut String) {
    let Some(process) = process else { return out.push('-') };
    let whole = process.argv0.as_ref();
    let name = match whole {
        [b'/', ..] => whole.rsplit(|b| *b == b'/').next().unwrap_or(whole),
        _ => whole,
    };
    // Writing to a String cannot fail.
    let _ = write!(out, "{}/", process.key.pid);
    out.extend(name.iter().map(|b| if matches!(b, b' '..=b'~') { char::from(*b) } else { '.' }));
    // The text is ASCII, so any index is a character boundary.
    out.truncate(PROGRAM - 1);
}

/// `SIDE WHO (BASIS)`. WHO is the originator's process if it is known, else its address.
fn origin(row: &Row<'_>, local: &str, remote: &str, out: &mut impl Write) -> io::Result<()> {
    let Some(found) = row.origin else { return out.write_all(b"-") };
    let verdict = found.verdict;
    let address = match verdict.side {
        Side::Unknown => return out.write_all(verdict.side.name().as_bytes()),
        Side::Local | Side::Both => local,
        Side::Remote => remote,
    };
    let (side, basis) = (verdict.side.name(), verdict.basis.name());
    match row.initiator {
        // A guess names no process: see `Origin::new`.
        _ if verdict.confidence >= Confidence::Guessed => write!(out, "{side} {address} (guess: {basis})"),
        Some(process) => {
            write!(out, "{side} {}[{}] ({basis})", escape::terminal(&process.comm), process.key.pid)
        }
        None => write!(out, "{side} {address} ({basis})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessKey;
    use crate::model::tests::ns;
    use crate::process::Process;

    fn named(argv0: &[u8]) -> String {
        let mut out = String::new();
        let key = ProcessKey::new(4242, ns(0));
        let process = ProcessRow { facts: Process::bare(key, "comm".into()).facts, argv0: argv0.into() };
        name_program(Some(&process), &mut out);
        out
    }

    #[test]
    fn a_wildcard_is_no_host() {
        let names = Names { hosts: &Default::default(), services: &Default::default() };
        assert_eq!(host(IpAddr::from([0, 0, 0, 0]), &names), "0.0.0.0");
        assert_eq!(host(IpAddr::from([0; 16]), &names), "[::]");
    }

    #[test]
    fn programs_are_named_as_netstat_names_them() {
        let mut nobody = String::new();
        name_program(None, &mut nobody);
        assert_eq!(nobody, "-");
        assert_eq!(named(b"/usr/sbin/nginx"), "4242/nginx");
        assert_eq!(named(b"nginx: master process /usr/sbin/nginx"), "4242/nginx: master ");
        assert_eq!(named(b"./relative/name"), "4242/./relative/name"[..19].to_owned());
        assert_eq!(named(b"\x1b[2J\xff"), "4242/.[2J.");
        assert_eq!(named(b""), "4242/");
    }
}
