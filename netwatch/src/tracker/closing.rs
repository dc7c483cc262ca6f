//! Which side closed a connection, by the last transition: the one that sent an RST, else the first FIN.

use super::ClosedBy;
use crate::decode::StateChange;
use crate::model::State;
use crate::origin::Side;

/// Which side sent the first FIN, by the state alone.
pub(super) fn first_fin(state: State) -> Option<Side> {
    match state {
        State::FinWait1 | State::FinWait2 | State::TimeWait | State::Closing => Some(Side::Local),
        State::CloseWait | State::LastAck => Some(Side::Remote),
        _ => None,
    }
}

/// `change` is a transition to CLOSE. `mptcp`: of an MPTCP socket.
pub(super) fn closed_by(change: &StateChange, first_fin: Option<Side>, mptcp: bool) -> ClosedBy {
    use libc::{ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, EPIPE, ETIMEDOUT};
    match change.errno {
        // tcp_reset in net/ipv4/tcp_input.c: EPIPE in CLOSE_WAIT.
        ECONNRESET | EPIPE => return ClosedBy::ResetRemote,
        // tcp_abort() in net/ipv4/tcp.c (`ss -K`), which sends an RST.
        ECONNABORTED => return ClosedBy::ResetLocal,
        // tcp_write_err() in net/ipv4/tcp_timer.c: the last ICMP error takes precedence over ETIMEDOUT.
        ETIMEDOUT | EHOSTUNREACH | ENETUNREACH => return ClosedBy::Timeout,
        _ => {}
    }
    let reset = match change.old {
        // An MPTCP socket whose DATA_FIN was acknowledged goes from here to CLOSE when its subflows are closed, without
        // a TIME_WAIT of its own (net/mptcp/protocol.c, __mptcp_close() and mptcp_worker(), v6.12).
        State::FinWait1 | State::FinWait2 if mptcp => false,
        // Without an error only an RST sent by this side leads from these states to CLOSE: __tcp_close() with unread
        // data, tcp_disconnect() (SO_LINGER 0, connect(AF_UNSPEC), a child that was not accepted).
        State::Established | State::CloseWait | State::SynRecv | State::FinWait1 => true,
        // To TIME_WAIT, which is the way of a FIN, the full socket goes with the peer's FIN (tcp_fin) or as
        // an orphan (tcp_time_wait with FIN_WAIT2); tcp_disconnect comes before either.
        State::FinWait2 => !change.done && !change.dead,
        _ => false,
    };
    match first_fin {
        _ if reset => ClosedBy::ResetLocal,
        Some(Side::Local | Side::Both) => ClosedBy::Local,
        Some(Side::Remote) => ClosedBy::Remote,
        Some(Side::Unknown) | None => ClosedBy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Born;
    use crate::model::Payload;

    #[test]
    fn an_rst_decides_else_the_first_fin() {
        let change = |old| StateChange {
            old,
            new: State::Close,
            born: Born::Connected,
            listener: None,
            owner: None,
            first_fin: None,
            done: false,
            dead: false,
            payload: Some(Payload { sent: 0, received: 0 }),
            errno: 0,
        };
        let emitted = |old, errno, done, dead, first_fin| {
            closed_by(&StateChange { done, dead, errno, ..change(old) }, first_fin, false).name()
        };
        use libc::{ECONNRESET, EPIPE, ETIMEDOUT};
        let (local, remote) = (Some(Side::Local), Some(Side::Remote));
        for (old, errno, done, dead, first_fin, expected) in [
            (State::LastAck, 0, true, true, remote, "remote"),
            (State::FinWait2, 0, true, true, local, "local"),
            (State::FinWait2, 0, false, true, local, "local"),
            (State::FinWait2, 0, false, false, local, "reset-local"),
            (State::Closing, 0, true, true, local, "local"),
            (State::Established, 0, false, false, None, "reset-local"),
            (State::CloseWait, 0, true, false, remote, "reset-local"),
            (State::FinWait1, 0, false, false, local, "reset-local"),
            (State::Established, ECONNRESET, false, false, None, "reset-remote"),
            (State::CloseWait, EPIPE, true, false, remote, "reset-remote"),
            (State::FinWait1, ETIMEDOUT, false, true, local, "timeout"),
            (State::LastAck, 0, true, true, None, "unknown"),
        ] {
            assert_eq!(emitted(old, errno, done, dead, first_fin), expected, "{old:?} {errno}");
        }
        let of_mptcp = |old| closed_by(&change(old), local, true).name();
        let states = [State::FinWait1, State::FinWait2, State::Established];
        assert_eq!(states.map(of_mptcp), ["local", "local", "reset-local"]);
    }
}
