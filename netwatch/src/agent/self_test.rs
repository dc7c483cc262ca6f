//! One connection of netwatch's own on loopback: where its records do not come, no others would.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;

use crate::decode::{Act, Event, Record};
use crate::kernel::Coverage;
use crate::model::State;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// Every record that the attached probes should make came.
    Passed(Vec<&'static str>),
    /// These did not.
    Missing(Vec<&'static str>),
    /// The connection itself could not be made; so nothing is known of the probes.
    NotDone(String),
}

/// The sockets of the connection, all closed already.
pub(super) struct Test {
    sockets: Result<Sockets, io::Error>,
}

#[derive(Clone, Copy)]
struct Sockets {
    listener: u64,
    client: u64,
    server: u64,
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
    // Where loopback was taken down, a SYN may find a way to nowhere.
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"x")?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.read_exact(&mut [0])?;
    // An RST: a TIME_WAIT would stand in the host's table for a minute.
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    Ok(Sockets {
        listener: sockopt::socket_cookie(&listener)?,
        client: sockopt::socket_cookie(&client)?,
        server: sockopt::socket_cookie(&server)?,
    })
}

/// Told the sockets, whether an act on the one of a cookie is the one that is meant.
type Recognise = fn(&Sockets, u64, &Act) -> bool;

/// Each record that has to come: its name, the job whose probes make it, and what it looks like.
const EXPECTED: [(&str, &str, Recognise); 8] = [
    ("listen", "state", |own, cookie, act| cookie == own.listener && own_task(act, Kind::Listen)),
    ("connect", "state", |own, cookie, act| cookie == own.client && own_task(act, Kind::Connect)),
    ("open (client)", "state", |own, cookie, act| cookie == own.client && becomes(act, State::Established)),
    ("open (server)", "state", |own, cookie, act| cookie == own.server && becomes(act, State::Established)),
    ("accept", "accept", |own, cookie, act| cookie == own.server && own_task(act, Kind::Accept)),
    ("use", "use", |own, cookie, act| cookie == own.server && own_task(act, Kind::Use)),
    ("close (client)", "state", |own, cookie, act| cookie == own.client && becomes(act, State::Close)),
    ("close (server)", "state", |own, cookie, act| cookie == own.server && becomes(act, State::Close)),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Listen,
    Connect,
    Accept,
    Use,
}

fn own_task(act: &Act, wanted: Kind) -> bool {
    let (kind, task) = match act {
        Act::Listen(task) => (Kind::Listen, task),
        Act::Connect(task) => (Kind::Connect, task),
        Act::Accept(task) => (Kind::Accept, task),
        Act::Use(task) => (Kind::Use, task),
        _ => return false,
    };
    kind == wanted && task.key.pid == std::process::id()
}

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
            Ok(own) => match split(&own, records, coverage) {
                (came, missing) if missing.is_empty() => SelfTest::Passed(came),
                (_, missing) => SelfTest::Missing(missing),
            },
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
fn own_cookies(records: &[Record]) -> HashSet<u64> {
    let mut own = HashSet::new();
    for record in records {
        let Event::Socket(event) = &record.event else { continue };
        let by_self = event.act.task().is_some_and(|task| task.key.pid == std::process::id());
        let of_own = matches!(&event.act, Act::Change(change)
            if change.listener.is_some_and(|listener| own.contains(&listener)));
        if by_self || of_own {
            own.insert(event.socket.cookie);
        }
    }
    own
}

/// Which came, and which did not, of those whose probes are attached.
fn split(own: &Sockets, records: &[Record], coverage: &Coverage) -> (Vec<&'static str>, Vec<&'static str>) {
    let covered =
        |job: &str| coverage.jobs.iter().any(|(name, covered)| *name == job && covered.probe.is_some());
    let came = |test: Recognise| {
        records.iter().any(|record| match &record.event {
            Event::Socket(event) => test(own, event.socket.cookie, &event.act),
            Event::Process(_) => false,
        })
    };
    let (came, missing): (Vec<_>, Vec<_>) =
        EXPECTED.iter().filter(|(_, job, _)| covered(job)).partition(|(_, _, test)| came(*test));
    let names = |expected: Vec<&(&'static str, _, _)>| expected.iter().map(|(name, ..)| *name).collect();
    (names(came), names(missing))
}
