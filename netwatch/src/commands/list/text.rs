//! The table: netstat's columns as they are, then what netstat cannot say.

use std::borrow::Cow;
use std::io::{self, Write};

use super::resolve::Names;
use super::{Letters, ListOptions, Row, on_ipv6, state_name};
use crate::escape;
use crate::model::{Endpoint, State};
use crate::origin::{Confidence, Side};
use crate::services::Services;
use crate::snapshot::{ProcessRow, SocketRow};

/// netstat's: the width of an address where it is short, and of a program with its pid, which netstat cuts
/// there (its closing NUL takes one).
const ADDRESS: usize = 23;
const PROGRAM: usize = 20;

/// Which columns there are.
pub(super) struct Columns {
    letters: Letters,
    resolve: bool,
    netns: bool,
}

impl Columns {
    pub(super) fn of(options: &ListOptions, letters: Letters, netns: bool) -> Self {
        Self { letters, resolve: options.resolve, netns }
    }
}

pub(super) fn write(rows: &[Row<'_>], columns: &Columns, out: &mut impl Write) -> io::Result<()> {
    let mut names = columns.resolve.then(Names::default);
    let addresses: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            let mut address = |end| address(end, row.socket, names.as_mut());
            (address(Some(row.socket.local)), address(row.socket.remote))
        })
        .collect();
    // Never cut: where one is longer than netstat's column, the column is wider.
    let width = |of: fn(&(String, String)) -> &String| {
        addresses.iter().map(|pair| of(pair).chars().count()).fold(ADDRESS, usize::max)
    };
    let (local_width, remote_width) = (width(|pair| &pair.0), width(|pair| &pair.1));

    let which = match (columns.letters.all, columns.letters.listening) {
        (true, _) => "(servers and established)",
        (false, true) => "(only servers)",
        (false, false) => "(w/o servers)",
    };
    writeln!(out, "Active Internet connections {which}")?;
    let optional = |out: &mut dyn Write, program: &str, netns: &str| {
        if columns.letters.programs {
            write!(out, " {program:<PROGRAM$}")?;
        }
        if columns.netns {
            write!(out, " {netns:<10}")?;
        }
        Ok::<(), io::Error>(())
    };
    let (local, remote) = ("Local Address", "Foreign Address");
    write!(out, "Proto Recv-Q Send-Q {local:<local_width$} {remote:<remote_width$} {:<11}", "State")?;
    optional(out, "PID/Program name", "NETNS")?;
    writeln!(out, " ORIGIN")?;

    for (row, (local, remote)) in rows.iter().zip(&addresses) {
        let socket = row.socket;
        let proto = format!("{}{}", socket.proto.name(), if on_ipv6(socket) { "6" } else { "" });
        // Of a listener netstat shows what is queued; its limit, which sock_diag has here, it does not know.
        let send_q = if socket.state == State::Listen { 0 } else { socket.send_q };
        write!(
            out,
            "{proto:<5} {:>6} {send_q:>6} {local:<local_width$} {remote:<remote_width$} {:<11}",
            socket.recv_q,
            state_name(socket)
        )?;
        optional(out, &program(row.first), &socket.netns.to_string())?;
        writeln!(out, " {}", origin(row, local, remote))?;
    }
    Ok(())
}

/// `None` is any address and any port, in the family of the socket.
fn address(end: Option<Endpoint>, socket: &SocketRow, names: Option<&mut Names>) -> String {
    let (host, port) = match (end, names) {
        (None, names) => {
            let host = match (on_ipv6(socket), names) {
                (false, _) => "0.0.0.0",
                (true, None) => "::",
                (true, Some(_)) => "[::]",
            };
            (Cow::Borrowed(host), "*".into())
        }
        (Some(end), None) => (Cow::Owned(end.ip.to_string()), port(end.port)),
        (Some(end), Some(names)) => (
            Cow::Owned(names.host(end.ip)),
            Services::host().name(socket.proto, end.port).map_or_else(|| port(end.port), str::to_owned),
        ),
    };
    escape::terminal(&format!("{host}:{port}")).into_owned()
}

fn port(port: u16) -> String {
    if port == 0 { "*".into() } else { port.to_string() }
}

/// netstat's `PID/Program name`: the first argument, its last part if it is an absolute path, whatever is
/// not printable ASCII as a dot, cut to the column: `prg_cache_load` in net-tools' netstat.c.
fn program(process: Option<&ProcessRow>) -> String {
    let Some(process) = process else { return "-".into() };
    let whole = process.argv0.as_ref();
    let name = match whole {
        [b'/', ..] => whole.rsplit(|b| *b == b'/').next().unwrap_or(whole),
        _ => whole,
    };
    let name = name.iter().map(|b| if matches!(b, b' '..=b'~') { char::from(*b) } else { '.' });
    process.key.pid.to_string().chars().chain(['/']).chain(name).take(PROGRAM - 1).collect()
}

/// `SIDE WHO (BASIS)`: who began it, a process where one of this host is known to have, else an address.
fn origin(row: &Row<'_>, local: &str, remote: &str) -> String {
    let Some(found) = row.found else { return "-".into() };
    let verdict = found.verdict;
    let address = match verdict.side {
        Side::Unknown => return verdict.side.name().into(),
        Side::Local | Side::Both => local,
        Side::Remote => remote,
    };
    let (side, basis) = (verdict.side.name(), verdict.basis.name());
    match row.initiator {
        // A guess names nobody: see `Origin::new`.
        _ if verdict.confidence >= Confidence::Guessed => format!("{side} {address} (guess: {basis})"),
        Some(process) => {
            format!("{side} {}[{}] ({basis})", escape::terminal(&process.comm), process.key.pid)
        }
        None => format!("{side} {address} ({basis})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Image, ProcessKey};

    fn named(argv0: &[u8]) -> String {
        program(Some(&ProcessRow {
            stdio: [0; 3],
            key: ProcessKey { pid: 4242, start: 0 },
            ppid: 1,
            comm: "comm".into(),
            uid: 0,
            auid: None,
            image: Image::unknown(),
            argv0: argv0.into(),
            cgroup: Arc::from("/"),
            kernel: false,
        }))
    }

    #[test]
    fn programs_are_named_as_netstat_names_them() {
        assert_eq!(program(None), "-");
        assert_eq!(named(b"/usr/sbin/nginx"), "4242/nginx");
        assert_eq!(named(b"nginx: master process /usr/sbin/nginx"), "4242/nginx: master ");
        assert_eq!(named(b"./relative/name"), "4242/./relative/name"[..19].to_owned());
        assert_eq!(named(b"\x1b[2J\xff"), "4242/.[2J.");
        assert_eq!(named(b""), "4242/");
    }
}
