//! The self-test: netwatch makes a connection on loopback and performs every other action that a job observes. If a
//! record does not arrive, its probe does not work. If a record differs from what netwatch knows about its own sockets
//! and process, the offsets are wrong and no record can be trusted.

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

use crate::blocking::Patience;
use crate::decode::{Act, Event, ProcessEvent, Record, SocketRecord, Task};
use crate::kernel::Coverage;
use crate::model::{Cookie, NetnsId, ProcessRow, SockAddr, State, unmap};
use crate::snapshot::{netns, processes};

/// Result of the self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// Names of the records, all of which arrived.
    Passed(Vec<&'static str>),
    /// Names of the records that did not arrive.
    Missing(Vec<&'static str>),
    /// Records arrived, but with wrong values.
    Misread(Vec<String>),
    /// The test connection could not be made, so the probes are not tested.
    NotDone(String),
}

/// The sockets of the test, already closed.
pub(super) struct Test {
    sockets: Result<Sockets, io::Error>,
}

struct Sockets {
    listener: Own,
    client: Own,
    server: Own,
    /// Cookie of a socket that listens without bind(), so that the kernel selects its port.
    unbound: Option<Cookie>,
    /// Cookie of a socket whose connect() fails before a SYN is sent.
    failed: Option<Cookie>,
    /// Cookie of a socket that sends itself a datagram.
    datagram: Option<Cookie>,
    /// Pid of a child process that has ended. `None` outside the initial pid namespace, where its pid there is unknown.
    child: Option<u32>,
}

/// The known properties of a socket of the test.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    cookie: Option<Cookie>,
    inode: u64,
    netns: NetnsId,
    local: SockAddr,
    /// `None` for a listener.
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

/// Time limit of each call; loopback needs far less.
const PATIENCE: Duration = Duration::from_secs(1);

/// Performs the test.
pub(super) fn perform() -> Test {
    Test { sockets: connect() }
}

fn connect() -> io::Result<Sockets> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|error| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).map_err(|_| error))?;
    let mut client = client_of(listener.local_addr()?, PATIENCE)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"x")?;
    // The first use of a connection after accept() sends no record, unless the process used another socket in between.
    let datagram = send_to_self()?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.read_exact(&mut [0])?;
    // Close with an RST: a TIME_WAIT socket would remain in the host's table for a minute.
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

/// Address of the client. It differs from that of the server, so that swapped addresses are detected.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn client_of(server: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    if server.is_ipv6() {
        return TcpStream::connect_timeout(&server, patience);
    }
    let client = tcp()?;
    // If loopback is down, the SYN may be routed elsewhere and get no answer.
    sockopt::set_socket_timeout(&client, sockopt::Timeout::Send, Some(patience))?;
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

/// TCP cannot connect to a broadcast address (`net/ipv4/tcp_ipv4.c`, tcp_v4_connect).
const NOWHERE: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

fn connect_nowhere() -> io::Result<Option<Cookie>> {
    let socket = tcp()?;
    match rustix::net::connect(&socket, &SocketAddr::from((NOWHERE, 1))) {
        Err(_) => Ok(Cookie::new(sockopt::socket_cookie(&socket)?)),
        Ok(()) => Err(io::Error::other(format!("connect() to the broadcast address {NOWHERE} succeeded"))),
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

/// Whether an event is the expected one.
type Recognise = fn(&Sockets, &Event) -> bool;

/// Whether an event is an act on the socket with this cookie.
fn on(event: &Event, cookie: Option<Cookie>, is: impl Fn(&Act) -> bool) -> bool {
    matches!(event, Event::Socket(event) if event.socket.cookie == cookie && is(&event.act))
}

/// Whether an event is about the child process; true if its pid is unknown.
fn of_child(own: &Sockets, event: &Event, pid: impl Fn(&ProcessEvent) -> Option<u32>) -> bool {
    own.child.is_none() || matches!(event, Event::Process(event) if pid(event) == own.child)
}

/// Expected records: name, the job whose probes send it, and a test that recognises it.
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
    /// Whether expected records are still missing.
    pub(super) fn is_unfinished(&self, records: &[Record], coverage: &Coverage) -> bool {
        self.sockets.as_ref().is_ok_and(|own| !split(own, records, coverage).1.is_empty())
    }

    /// Removes the records of the test from `records` and returns the result.
    pub(super) fn finish(self, records: &mut Vec<Record>, coverage: &Coverage) -> SelfTest {
        let result = match self.sockets {
            Ok(own) => judge(&own, records, coverage),
            Err(error) => SelfTest::NotDone(error.to_string()),
        };
        let own = own_cookies(records);
        records.retain(|record| match &record.event {
            Event::Socket(event) => !own.contains(&event.socket.cookie),
            Event::Process(_) | Event::Name(_) | Event::Netns(_) => true,
        });
        result
    }
}

/// Cookies of sockets of this process, which has no others yet, and of children of its listener.
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

/// Wrong values in records about netwatch's own sockets and process.
fn misread(own: &Sockets, records: &[Record]) -> Vec<String> {
    // Outside the initial pid namespace, netwatch does not know its own pid there either.
    let process = own.child.and_then(|_| processes::one(std::process::id(), Patience::Command));
    let mut wrong = Vec::new();
    let exe = std::fs::read_link(SELF).ok();
    for record in records {
        let event = match &record.event {
            Event::Socket(event) => event,
            Event::Process(event) => {
                compare_child(own, exe.as_deref(), event, &mut wrong);
                continue;
            }
            Event::Name(_) | Event::Netns(_) => continue,
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

/// Compares records of the child process, which runs netwatch's own executable.
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
            // A path that is not UTF-8 is escaped in the record; one that is too long is omitted.
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
    // A child has no file before accept(), and no socket has one at its last transition.
    if read.inode != 0 {
        compare("inode", &read.inode, &known.inode, wrong);
    }
    if let Some(remote) = &known.remote {
        compare("remote address", &read.remote(), remote, wrong);
    }
    // At connect() the socket may not be bound yet.
    if !matches!(act, Act::Connect(_)) || read.local.port != 0 {
        compare("local address", &read.local, &known.local, wrong);
    }
}

/// The initial time namespace: include/linux/proc_ns.h. In another one, times in `/proc` have an offset.
const INITIAL_TIME_NAMESPACE: &str = "time:[4026531834]";

fn compare_task(known: &ProcessRow, read: &Task, wrong: &mut Vec<String>) {
    compare("pid", &read.key.pid, &known.key.pid, wrong);
    let time = std::fs::read_link("/proc/self/ns/time");
    // Before 5.6 there are no time namespaces.
    if time.map_or(true, |time| time.as_os_str() == INITIAL_TIME_NAMESPACE) {
        // /proc has the tick of the start.
        let read = if read.key.may_be(known.key) { known.key.start } else { read.key.start };
        compare("start of the process", &read.nanos(), &known.key.start.nanos(), wrong);
    }
    compare("thread", &read.tid, &nix::unistd::gettid().as_raw().unsigned_abs(), wrong);
    compare("parent", &read.ppid, &known.ppid, wrong);
    compare("user", &read.uid, &known.uid, wrong);
    let auid = |auid: Option<u32>| auid.map_or_else(|| "none".to_owned(), |auid| auid.to_string());
    compare("login user", &auid(read.auid), &auid(known.auid), wrong);
    compare("name", &&*read.comm.text(), &&*known.comm, wrong);
}

/// Names of the expected records that arrived and of those that did not. Only attached probes count.
fn split(own: &Sockets, records: &[Record], coverage: &Coverage) -> (Vec<&'static str>, Vec<&'static str>) {
    let came = |test: Recognise| records.iter().any(|record| test(own, &record.event));
    let (came, missing): (Vec<_>, Vec<_>) =
        EXPECTED.iter().filter(|(_, job, _)| coverage.has(job)).partition(|(_, _, test)| came(*test));
    let names = |expected: Vec<&(&'static str, _, _)>| expected.iter().map(|(name, ..)| *name).collect();
    (names(came), names(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_without_an_answer_is_given_up() {
        for any in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            // Its queue holds one connection more than this says, and then the SYN gets no answer.
            rustix::net::listen(&listener, 0).unwrap();
            let server = listener.local_addr().unwrap();
            let waiting: Vec<_> = (0..3).map(|_| client_of(server, Duration::from_millis(20))).collect();
            assert!(waiting[0].is_ok() && waiting[2].is_err(), "{waiting:?}");
        }
    }
}
