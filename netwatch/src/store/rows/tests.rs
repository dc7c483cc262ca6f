//! Rows, and arbitrary events for other tests.

use crate::model::tests::at;
use crate::model::{Device, DeviceName, Nat, NetnsId, Proto, Translation};
use proptest::prelude::*;

use super::*;
use crate::tracker::tests::event;

fn some_actor(pid: u32) -> Actor {
    Actor::leader(crate::process::tests::process(pid, None))
}

#[test]
fn columns_are_at_their_index() {
    for (column, name) in [
        (FLOW, "flow_cookie"),
        (LOCAL, "local_ip"),
        (REMOTE, "remote_ip"),
        (STATE, "state"),
        (BASIS, "basis"),
        (ORIGINATOR, "originator"),
        (PROCESS, "process"),
        (LISTENER_PROCESS, "listener_process"),
        (PEER, "peer_cookie"),
        (PEER_PROCESS, "peer_process"),
        (ERRNO, "errno"),
        (CLOSED_BY, "closed_by"),
        (REPAIRED, "repaired"),
    ] {
        assert_eq!(COLUMNS[column], name);
    }
}

/// An arbitrary event with all fields.
pub(crate) fn any_event() -> impl Strategy<Value = ConnectionEvent> {
    let numbers = prop::array::uniform12(any::<u64>());
    (numbers, prop::array::uniform16(any::<u8>()), any::<[bool; 16]>()).prop_map(|(n, b, has)| {
        let remote = has[0].then_some("[2001:db8::1]:65535");
        let mut event = event(EventKind::ALL[usize::from(b[0]) % 10], "10.0.0.1:40000", remote);
        event.at = BootTime::from_nanos(n[11] >> 2);
        event.repaired = has[1];
        let id = |cookie, began| EndpointId { cookie, began: BootTime::from_nanos(began) };
        let actor = |has: bool, pid: u8| has.then(|| some_actor(u32::from(pid)));
        let endpoint = &mut event.endpoint;
        endpoint.id = id(u64::from(b[15] % 4), n[1] >> 2);
        endpoint.flow = if has[2] { endpoint.id } else { id(n[2], n[3]) };
        endpoint.proto = if has[3] { Proto::Tcp } else { Proto::Udp };
        endpoint.family = if has[4] { Family::Ipv4 } else { Family::Ipv6 };
        endpoint.mapped = has[5];
        endpoint.netns = NetnsId::new(n[4] as u32);
        endpoint.cookie = Cookie::new(if has[6] { endpoint.id.cookie } else { n[5] });
        endpoint.inode = n[6];
        endpoint.local.port = n[7] as u16;
        endpoint.state = State::from_kernel(b[1]);
        endpoint.via = Word::from_code(i64::from(b[2] % 8));
        endpoint.verdict = Verdict {
            side: Word::from_code(i64::from(b[3] % 4)).unwrap(),
            basis: Word::from_code(i64::from(b[4] % 7)).unwrap(),
            confidence: Word::from_code(i64::from(b[5] % 4)).unwrap(),
        };
        endpoint.originator = actor(has[7], b[6]);
        endpoint.process = actor(has[8], b[7]);
        endpoint.process_basis = Word::from_code(i64::from(b[8] % 8));
        let listener = || Party { id: id(n[8], n[9]), process: actor(has[10], b[9]) };
        endpoint.listener = has[9].then(|| Arc::new(listener()));
        endpoint.peer = has[11].then(|| Party { id: id(n[9], n[8]), process: actor(has[12], b[10]) });
        endpoint.cause = Cause::of_socket(has[14].then_some(n[10] >> 1).and_then(Cookie::new));
        endpoint.socket.device = Device::from_code(n[4] as u32);
        event.facts.device =
            endpoint.device.map(|device| DeviceName::new(&format!("if{}", device.index() % 100)));
        endpoint.nat = match b[13] % 3 {
            0 => Nat::Unknown,
            1 => Nat::None,
            _ => Nat::Translated(Translation { local: endpoint.local, remote: at("[fd00::1]:9") }.into()),
        };
        endpoint.handshake = NonZeroU64::new(n[10]).filter(|_| has[15]);
        event.outcome = Outcome {
            errno: has[13].then_some(i32::from(b[11])),
            duration: has[13].then_some(n[9]),
            bytes: has[12].then_some(Payload { sent: n[0], received: n[1] }),
            closed_by: Word::from_code(i64::from(b[12] % 8)),
        };
        event
    })
}

fn pids(event: &ConnectionEvent) -> Roles<Option<i64>> {
    event.endpoint.actors().map(|actor| i64::from(actor.process.key.pid))
}

proptest! {
    #[test]
    fn an_event_comes_back_as_it_was(event in any_event()) {
        let cells = Cells::of(&event, pids(&event), event.endpoint.cause.socket.map(|socket| socket.get().cast_signed()), NameRows::default());
        let back = cells.event(event.endpoint.id, event.at, event.kind, cells.rows().map(|row| some_actor(row as u32)), Names::default());
        prop_assert_eq!(back, Some(event));
    }
}
