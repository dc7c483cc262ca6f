//! A store as large as one likes, of connections that never were: what searching is measured with.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::entry::Entry;
use super::writer::{Settings, Writer};
use crate::model::{
    BootTime, Cookie, ExeState, Family, Image, Nat, NetnsId, Payload, ProcessKey, Proto, SockAddr, Socket,
    State,
};
use crate::names::Names;
use crate::origin::{Side, Verdict};
use crate::process::{Actor, ExeStatus, Process};
use crate::tracker::{
    ClosedBy, ConnectionEvent, Endpoint, EndpointId, EventKind, HostFacts, Outcome, Party, ProcessBasis,
};

/// Nanoseconds between two connections: three weeks hold some ten millions of them.
const APART: u64 = 180_000_000;

/// Ports that clients have in turn: each is found several times in a million.
const CLIENT_PORTS: u64 = 28_232;
const FIRST_CLIENT_PORT: u64 = 32_768;

/// Programs that connect, one after the other.
const PROGRAMS: u64 = 200;

/// Connections in a batch.
const BATCH: u64 = 4096;

/// Writes `connections`, both ends of each on this host, into the store at `path`.
///
/// # Errors
/// If it cannot be written.
pub fn generate(path: &Path, settings: Settings, connections: u64) -> Result<(), StoreError> {
    let mut writer = Writer::open(path, settings)?;
    let init = Arc::new(Process::bare(ProcessKey::from_ticks(1, 1), "init".into()));
    let programs: Vec<_> = (0..PROGRAMS).map(|n| program(n, &init)).collect();
    let server = program(PROGRAMS, &init);
    let mut next = 1;
    while next <= connections {
        let endpoint = connections.min(next + BATCH - 1);
        let items: Vec<_> = (next..=endpoint)
            .filter_map(|n| {
                let client = programs.get(usize::try_from(n % PROGRAMS).ok()?)?;
                Some(connection(n, client, &server))
            })
            .flatten()
            .map(Entry::Event)
            .collect();
        let mut rest = &items[..];
        while !rest.is_empty() {
            let taken = writer.commit(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        next = endpoint + 1;
    }
    Ok(())
}

fn program(n: u64, init: &Arc<Process>) -> Actor {
    let pid = u32::try_from(1000 + n).unwrap_or(0);
    let image = Image { exe: Some(format!("/usr/bin/program{n}").into()), ..Image::clone(&Image::unknown()) };
    let mut process = Process::bare(ProcessKey::from_ticks(pid, 1000 + n), format!("program{n}").into());
    process.image = Arc::new(image);
    process.ppid = 1;
    Actor::leader(Arc::new(process.child_of(Some(init))))
}

/// Two ends, each from open to close.
fn connection(n: u64, client: &Actor, server: &Actor) -> Vec<ConnectionEvent> {
    let at = BootTime::from_nanos(n * APART);
    let [.., a, b] = (n % 5000).to_be_bytes();
    let address = |ip, port: u64| SockAddr { ip: IpAddr::V4(ip), port: u16::try_from(port).unwrap_or(0) };
    let here = address(Ipv4Addr::new(10, 9, a, b), FIRST_CLIENT_PORT + n % CLIENT_PORTS);
    let there = address(Ipv4Addr::new(10, 8, 0, 1), 5000 + n % 100);
    let (client_id, server_id) = (
        EndpointId { cookie: 2 * n, began: at },
        EndpointId { cookie: 2 * n + 1, began: at.saturating_add(20_000) },
    );
    let endpoint = |id: EndpointId, local, remote| Endpoint {
        id,
        flow: client_id,
        socket: Socket {
            cookie: Cookie::new(id.cookie),
            inode: 3 * n,
            netns: NetnsId::new(4_026_531_840),
            proto: Proto::Tcp,
            family: Family::Ipv4,
            mapped: false,
            via: None,
            device: None,
            local,
            remote: Some(remote),
        },
        state: State::Close,
        verdict: Verdict::CONNECT,
        originator: Some(client.clone()),
        cause: crate::process::Cause::default(),
        process: Some(client.clone()),
        process_basis: Some(ProcessBasis::Connect),
        listener: None,
        peer: None,
        handshake: None,
        nat: Nat::Unknown,
        names: Names::default(),
    };
    let party = |id, actor: &Actor| Some(Party { id, process: Some(actor.clone()) });
    let client_end = Endpoint {
        handshake: NonZeroU64::new(60_000),
        peer: party(server_id, server),
        ..endpoint(client_id, here, there)
    };
    let listener =
        Party { id: EndpointId { cookie: 1, began: BootTime::from_nanos(5) }, process: Some(server.clone()) };
    let server_end = Endpoint {
        verdict: Verdict::ACCEPT,
        process: Some(server.clone()),
        process_basis: Some(ProcessBasis::Accept),
        listener: Some(Arc::new(listener)),
        peer: party(client_id, client),
        ..endpoint(server_id, there, here)
    };
    let unfinished = |endpoint: &Endpoint| Endpoint { state: State::Established, ..endpoint.clone() };
    let over = Outcome {
        errno: None,
        duration: Some(1_000_000),
        bytes: Some(Payload { sent: 100, received: 2000 }),
        closed_by: Some(ClosedBy::Local),
    };
    let event = |after, kind, endpoint: Endpoint| {
        let outcome = if kind == EventKind::Close { over } else { Outcome::default() };
        let exe = endpoint.actors().map(|_| ExeStatus { state: ExeState::Ok, world_writable: false });
        ConnectionEvent {
            at: at.saturating_add(after),
            kind,
            endpoint,
            outcome,
            repaired: false,
            facts: HostFacts { exe, ..HostFacts::default() },
        }
    };
    let client_open = Endpoint { peer: None, ..unfinished(&client_end) };
    let server_open = Endpoint {
        socket: Socket { inode: 0, ..server_end.socket },
        verdict: Verdict::handshake(Side::Remote),
        process_basis: Some(ProcessBasis::Listener),
        ..unfinished(&server_end)
    };
    vec![
        event(10_000, EventKind::Open, client_open),
        event(20_000, EventKind::Open, server_open),
        event(30_000, EventKind::Accept, unfinished(&server_end)),
        event(1_010_000, EventKind::Close, client_end),
        event(1_020_000, EventKind::Close, server_end),
    ]
}
