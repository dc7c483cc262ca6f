//! A connection of netwatch's own on loopback, and one of each other thing that a job watches for: where their records do not come, no others would; and where
//! they say something else than what netwatch knows of its own sockets and itself, the kernel's structures are
//! not what the offsets say, and nothing that is read there can be trusted.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use netwatch_common::EXEC_PATH_MAX;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::decode::{Act, Event, ProcessEvent, Record, SocketRecord, Task};
use crate::kernel::Coverage;
use crate::model::{Cookie, NetnsId, ProcessRow, SockAddr, State, unmap};
use crate::snapshot::{netns, processes};

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// Every record that the attached probes should make came.
    Passed(Vec<&'static str>),
    /// These did not.
    Missing(Vec<&'static str>),
    /// They came, and say of netwatch itself what is not so.
    Misread(Vec<String>),
    /// The connection itself could not be made; so nothing is known of the probes.
    NotDone(String),
}

/// The sockets of the connection, all closed already.
pub(super) struct Test {
    sockets: Result<Sockets, io::Error>,
}

struct Sockets {
    listener: Own,
    client: Own,
    server: Own,
    /// Cookie of one that the kernel picks a port for when it listens.
    unbound: Option<Cookie>,
    /// Of one whose connect() fails before a SYN leaves.
    failed: Option<Cookie>,
    /// Of one that sends itself a datagram.
    datagram: Option<Cookie>,
    /// A process that was started, and ended; unknown by the kernel's number in a namespace of pids of its own.
    child: Option<u32>,
}

/// What netwatch knows of a socket of its own.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    cookie: Option<Cookie>,
    inode: u64,
    netns: NetnsId,
    local: SockAddr,
    /// None has a listener.
    remote: Option<SockAddr>,
}

impl Own {
    fn of(socket: impl AsFd, local: SocketAddr, remote: Option<SocketAddr>) -> io::Result<Self> {
        let endpoint = |address: SocketAddr| SockAddr { ip: unmap(address.ip()).0, port: address.port() };
        Ok(Self {
            cookie: Cookie::new(sockopt::socket_cookie(&socket)?),
            inode: rustix::fs::fstat(&socket)?.st_ino,
            netns: netns::own()?,
            local: endpoint(local),
            remote: remote.map(endpoint),
        })
    }
}

/// An hour, on loopback.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes and closes it.
pub(super) fn perform() -> Test {
    Test { sockets: connect() }
}

fn connect() -> io::Result<Sockets> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|error| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).map_err(|_| error))?;
    let mut client = client_of(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"x")?;
    // Who has just accepted a connection uses it, and that is not told: unless it got something else meanwhile.
    let datagram = send_to_self()?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.read_exact(&mut [0])?;
    // An RST: a TIME_WAIT would stand in the host's table for a minute.
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    Ok(Sockets {
        listener: Own::of(&listener, listener.local_addr()?, None)?,
        client: Own::of(&client, client.local_addr()?, Some(client.peer_addr()?))?,
        server: Own::of(&server, server.local_addr()?, Some(server.peer_addr()?))?,
        unbound: listen_unbound()?,
        failed: connect_nowhere()?,
        datagram,
        child: super::foreign_pids().is_none().then(|| run_self(&client)).transpose()?,
    })
}

/// Where its end has another address than the server's: one that is read in place of the other is noticed.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn client_of(server: SocketAddr) -> io::Result<TcpStream> {
    if server.is_ipv6() {
        return TcpStream::connect_timeout(&server, PATIENCE);
    }
    let client = tcp()?;
    // Where loopback was taken down, a SYN may find a way to nowhere.
    sockopt::set_socket_timeout(&client, sockopt::Timeout::Send, Some(PATIENCE))?;
    rustix::net::bind(&client, &SocketAddr::from((CLIENT, 0)))?;
    rustix::net::connect(&client, &server)?;
    Ok(client.into())
}

fn tcp() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn listen_unbound() -> io::Result<Option<Cookie>> {
    let socket = tcp()?;
    rustix::net::listen(&socket, 1)?;
    Ok(Cookie::new(sockopt::socket_cookie(&socket)?))
}

/// To a broadcast address no connection leads (`net/ipv4/tcp_ipv4.c`, tcp_v4_connect).
const NOWHERE: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn connect_nowhere() -> io::Result<Option<Cookie>> {
    let socket = tcp()?;
    match rustix::net::connect(&socket, &SocketAddr::from((NOWHERE, 1))) {
        Err(_) => Ok(Cookie::new(sockopt::socket_cookie(&socket)?)),
        Ok(()) => Err(io::Error::other(format!("somebody is at {NOWHERE}"))),
    }
}

fn send_to_self() -> io::Result<Option<Cookie>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.send_to(b"x", socket.local_addr()?)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.recv(&mut [0])?;
    Ok(Cookie::new(sockopt::socket_cookie(&socket)?))
}

const SELF: &str = "/proc/self/exe";

fn run_self(stdin: &TcpStream) -> io::Result<u32> {
    let stdin = OwnedFd::from(stdin.try_clone()?);
    let mut child = Command::new(SELF).arg("--version").stdin(stdin).stdout(Stdio::null()).spawn()?;
    child.wait()?;
    Ok(child.id())
}

/// Told what was done, whether an event is the one that is meant.
type Recognise = fn(&Sockets, &Event) -> bool;

/// An act on a socket of netwatch's own.
fn on(event: &Event, cookie: Option<Cookie>, is: impl Fn(&Act) -> bool) -> bool {
    matches!(event, Event::Socket(event) if event.socket.cookie == cookie && is(&event.act))
}

/// Of the process that was started.
fn of_child(own: &Sockets, event: &Event, pid: impl Fn(&ProcessEvent) -> Option<u32>) -> bool {
    own.child.is_none() || matches!(event, Event::Process(event) if pid(event) == own.child)
}

/// Each record that has to come: its name, the job whose probes make it, and what it looks like.
const EXPECTED: [(&str, &str, Recognise); 14] = [
    ("fork", "process", |own, event| {
        of_child(own, event, |event| match event {
            ProcessEvent::Fork(fork) => Some(fork.task.key.pid),
            _ => None,
        })
    }),
    ("exec", "process", |own, event| {
        of_child(own, event, |event| match event {
            ProcessEvent::Exec(exec) => Some(exec.task.key.pid),
            _ => None,
        })
    }),
    ("exit", "process", |own, event| {
        of_child(own, event, |event| match event {
            ProcessEvent::Exit(key) => Some(key.pid),
            _ => None,
        })
    }),
    ("listen", "state", |own, event| on(event, own.listener.cookie, |act| matches!(act, Act::Listen(_)))),
    ("connect", "state", |own, event| on(event, own.client.cookie, |act| matches!(act, Act::Connect(_)))),
    ("open (client)", "state", |own, event| {
        on(event, own.client.cookie, |act| becomes(act, State::Established))
    }),
    ("open (server)", "state", |own, event| {
        on(event, own.server.cookie, |act| becomes(act, State::Established))
    }),
    ("accept", "accept", |own, event| on(event, own.server.cookie, |act| matches!(act, Act::Accept(_)))),
    ("listen (unbound)", "listen", |own, event| {
        on(event, own.unbound, |act| matches!(act, Act::Listen(_)))
            && matches!(event, Event::Socket(event) if event.socket.local.port != 0)
    }),
    ("use", "use", |own, event| on(event, own.server.cookie, |act| matches!(act, Act::Use(_)))),
    ("fail", "connect", |own, event| on(event, own.failed, |act| matches!(act, Act::Fail { .. }))),
    ("datagram", "udp", |own, event| on(event, own.datagram, |act| matches!(act, Act::Datagram { .. }))),
    ("close (client)", "state", |own, event| on(event, own.client.cookie, |act| becomes(act, State::Close))),
    ("close (server)", "state", |own, event| on(event, own.server.cookie, |act| becomes(act, State::Close))),
];

fn becomes(act: &Act, state: State) -> bool {
    matches!(act, Act::Change(change) if change.new == state)
}

impl Test {
    /// Whether records are still to come.
    pub(super) fn is_unfinished(&self, records: &[Record], coverage: &Coverage) -> bool {
        self.sockets.as_ref().is_ok_and(|own| !split(own, records, coverage).1.is_empty())
    }

    /// Takes its own records out of `records`, and judges by them.
    pub(super) fn finish(self, records: &mut Vec<Record>, coverage: &Coverage) -> SelfTest {
        let result = match self.sockets {
            Ok(own) => judge(&own, records, coverage),
            Err(error) => SelfTest::NotDone(error.to_string()),
        };
        let own = own_cookies(records);
        records.retain(|record| match &record.event {
            Event::Socket(event) => !own.contains(&event.socket.cookie),
            Event::Process(_) => true,
        });
        result
    }
}

/// Sockets of this process, which makes no connection but that of the test, and children of its listener.
fn own_cookies(records: &[Record]) -> HashSet<Option<Cookie>> {
    let mut own = HashSet::new();
    for record in records {
        let Event::Socket(event) = &record.event else { continue };
        let by_self = event.act.task().is_some_and(|task| task.key.pid == std::process::id());
        let of_own = matches!(&event.act, Act::Change(change)
            if change.listener.is_some() && own.contains(&change.listener));
        if by_self || of_own {
            own.insert(event.socket.cookie);
        }
    }
    own
}

fn judge(own: &Sockets, records: &[Record], coverage: &Coverage) -> SelfTest {
    let wrong = misread(own, records);
    if !wrong.is_empty() {
        return SelfTest::Misread(wrong);
    }
    match split(own, records, coverage) {
        (came, missing) if missing.is_empty() => SelfTest::Passed(came),
        (_, missing) => SelfTest::Missing(missing),
    }
}

/// What the records say of netwatch's own sockets, and of itself, that is not so.
fn misread(own: &Sockets, records: &[Record]) -> Vec<String> {
    // In a namespace of pids of its own netwatch, too, has two numbers, and knows but one.
    let process = own.child.and_then(|_| processes::one(std::process::id()));
    let mut wrong = Vec::new();
    let exe = std::fs::read_link(SELF).ok();
    for record in records {
        let event = match &record.event {
            Event::Socket(event) => event,
            Event::Process(event) => {
                compare_child(own, exe.as_deref(), event, &mut wrong);
                continue;
            }
        };
        let sockets = [&own.listener, &own.client, &own.server];
        let Some(known) = sockets.into_iter().find(|known| known.cookie == event.socket.cookie) else {
            continue;
        };
        compare_socket(known, &event.socket, &event.act, &mut wrong);
        if let (Some(process), Some(task)) = (&process, event.act.task()) {
            compare_task(process, task, &mut wrong);
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// A copy of netwatch, started as such.
fn compare_child(own: &Sockets, exe: Option<&Path>, event: &ProcessEvent, wrong: &mut Vec<String>) {
    let child = own.child;
    match event {
        ProcessEvent::Fork(fork) if Some(fork.task.key.pid) == child => {
            compare("forking process", &fork.parent.pid, &std::process::id(), wrong);
        }
        ProcessEvent::Exec(exec) if Some(exec.task.key.pid) == child => {
            let [stdin, stdout, _] = exec.stdio.map(Cookie::number);
            compare("socket on stdin", &stdin, &Cookie::number(own.client.cookie), wrong);
            compare("socket on stdout", &stdout, &0, wrong);
            let args = exec.image.args.join(" ");
            compare("arguments", &args, &format!("{SELF} --version"), wrong);
            // A path with other bytes than letters is told with escapes, one that is too long not at all.
            if let Some(exe) = exe.and_then(Path::to_str).filter(|exe| exe.len() < EXEC_PATH_MAX / 2) {
                compare("executable", &exec.image.exe.as_deref().unwrap_or("unknown"), &exe, wrong);
            }
        }
        _ => {}
    }
}

fn compare<T: PartialEq + Display>(what: &str, read: &T, known: &T, wrong: &mut Vec<String>) {
    if read != known {
        wrong.push(format!("{what} {read} in place of {known}"));
    }
}

fn compare_socket(known: &Own, read: &SocketRecord, act: &Act, wrong: &mut Vec<String>) {
    compare("network namespace", &read.netns, &known.netns, wrong);
    // A child has no file before it is accepted, no socket has one when its last transition comes.
    if read.inode != 0 {
        compare("inode", &read.inode, &known.inode, wrong);
    }
    if let Some(remote) = &known.remote {
        compare("remote address", &read.remote(), remote, wrong);
    }
    // Not bound yet.
    if !matches!(act, Act::Connect(_)) || read.local.port != 0 {
        compare("local address", &read.local, &known.local, wrong);
    }
}

/// The initial namespace of time: include/linux/proc_ns.h. In another, `/proc` tells shifted times.
const INITIAL_TIME_NAMESPACE: &str = "time:[4026531834]";

fn compare_task(known: &ProcessRow, read: &Task, wrong: &mut Vec<String>) {
    compare("pid", &read.key.pid, &known.key.pid, wrong);
    let time = std::fs::read_link("/proc/self/ns/time");
    // Before 5.6 there are no others.
    if time.map_or(true, |time| time.as_os_str() == INITIAL_TIME_NAMESPACE) {
        compare("start of the process", &read.key.start.nanos(), &known.key.start.nanos(), wrong);
    }
    compare("thread", &read.tid, &nix::unistd::gettid().as_raw().unsigned_abs(), wrong);
    compare("parent", &read.ppid, &known.ppid, wrong);
    compare("user", &read.uid, &known.uid, wrong);
    let auid = |auid: Option<u32>| auid.map_or_else(|| "none".to_owned(), |auid| auid.to_string());
    compare("login user", &auid(read.auid), &auid(known.auid), wrong);
    compare("name", &&*read.comm.text(), &&*known.comm, wrong);
}

/// Which came, and which did not, of those whose probes are attached.
fn split(own: &Sockets, records: &[Record], coverage: &Coverage) -> (Vec<&'static str>, Vec<&'static str>) {
    let came = |test: Recognise| records.iter().any(|record| test(own, &record.event));
    let (came, missing): (Vec<_>, Vec<_>) =
        EXPECTED.iter().filter(|(_, job, _)| coverage.has(job)).partition(|(_, _, test)| came(*test));
    let names = |expected: Vec<&(&'static str, _, _)>| expected.iter().map(|(name, ..)| *name).collect();
    (names(came), names(missing))
}
