//! Selection by state and order of rows, as with ss(8).

use std::str::FromStr;

use crate::model::{SocketRow, State};
use crate::output::list::Row;

/// States, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u16);

const ALL: [State; 11] = [
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
];

impl States {
    fn of(states: impl Fn(State) -> bool) -> Self {
        let bits = ALL.iter().enumerate().filter(|(_, state)| states(**state)).map(|(nth, _)| 1 << nth);
        Self(bits.fold(0, |set, bit: u16| set | bit))
    }

    /// Whether a socket is in one of them.
    pub(super) fn has(self, row: &SocketRow) -> bool {
        ALL.iter().enumerate().any(|(nth, state)| *state == row.state && self.0 & 1 << nth != 0)
    }

    /// All states of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These states without the others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// All other states.
    #[must_use]
    pub const fn inverted(self) -> Self {
        Self(!self.0)
    }
}

impl FromStr for States {
    type Err = String;

    /// The names of ss(8) and of netstat(8), in upper or lower case.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_uppercase().replace(['-', '_'], "");
        let is_connected = |state| !matches!(state, State::Listen | State::Close);
        Ok(match name.as_str() {
            "ALL" => Self::of(|_| true),
            "CONNECTED" => Self::of(is_connected),
            "SYNCHRONIZED" => Self::of(|state| is_connected(state) && state != State::SynSent),
            "BUCKET" => Self::of(|state| matches!(state, State::SynRecv | State::TimeWait)),
            "BIG" => Self::of(|state| !matches!(state, State::SynRecv | State::TimeWait)),
            "LISTENING" => Self::of(|state| state == State::Listen),
            "CLOSED" | "UNCONN" | "UNCONNECTED" => Self::of(|state| state == State::Close),
            "ESTAB" => Self::of(|state| state == State::Established),
            _ => match ALL.iter().find(|state| state.name().replace('_', "") == name) {
                Some(known) => Self::of(|state| state == *known),
                None => {
                    return Err(format!(
                        "not a state: `{text}` (established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, time-wait, close, close-wait, last-ack, listen, closing, connected, synchronized, bucket, big, all)"
                    ));
                }
            },
        })
    }
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    by: By,
    /// The greatest first.
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Proto,
    RecvQ,
    SendQ,
    Local,
    Remote,
    State,
    Pid,
    Program,
    Port,
    Origin,
    User,
}

const KEYS: [(&str, By); 11] = [
    ("proto", By::Proto),
    ("recv-q", By::RecvQ),
    ("send-q", By::SendQ),
    ("local", By::Local),
    ("remote", By::Remote),
    ("state", By::State),
    ("pid", By::Pid),
    ("program", By::Program),
    ("port", By::Port),
    ("origin", By::Origin),
    ("user", By::User),
];

impl FromStr for SortKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let key = KEYS.iter().find(|(known, _)| *known == name.replace('_', "-"));
        let names = || KEYS.map(|(name, _)| name).join(", ");
        key.map(|(_, by)| Self { by: *by, descending })
            .ok_or_else(|| format!("one of {}; with a hyphen before it the greatest first", names()))
    }
}

impl SortKey {
    /// Sorts rows; those that are equal keep their order.
    pub(super) fn sort(self, rows: &mut [Row<'_>]) {
        match self.by {
            By::Proto => self.by(rows, |row| (row.socket.proto, row.socket.is_on_ipv6())),
            By::RecvQ => self.by(rows, |row| row.socket.recv_q),
            By::SendQ => self.by(rows, |row| row.socket.send_q),
            By::Local => self.by(rows, |row| (row.socket.local.ip, row.socket.local.port)),
            By::Remote => self.by(rows, |row| row.socket.remote.map(|remote| (remote.ip, remote.port))),
            By::State => self.by(rows, |row| row.socket.state.name()),
            By::Pid => self.by(rows, |row| row.process.map(|process| process.key.pid)),
            By::Program => self.by(rows, |row| row.process.map(|process| process.comm.clone())),
            By::Port => self.by(rows, |row| row.socket.local.port),
            By::Origin => self.by(rows, |row| row.origin.map(|origin| origin.verdict.side.name())),
            By::User => self.by(rows, |row| row.socket.uid),
        }
    }

    fn by<'a, K: Ord>(self, rows: &mut [Row<'a>], key: impl Fn(&Row<'a>) -> K) {
        if self.descending {
            rows.sort_by_cached_key(|row| std::cmp::Reverse(key(row)));
        } else {
            rows.sort_by_cached_key(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::example;

    #[test]
    fn states_by_the_names_of_ss_and_netstat() {
        let in_state = |state| SocketRow { state, ..example() };
        for (name, states) in [
            ("established", &[State::Established][..]),
            ("ESTABLISHED", &[State::Established]),
            ("fin-wait-1", &[State::FinWait1]),
            ("FIN_WAIT2", &[State::FinWait2]),
            ("listening", &[State::Listen]),
            ("LISTEN", &[State::Listen]),
            ("closed", &[State::Close]),
            ("bucket", &[State::SynRecv, State::TimeWait]),
            ("all", &ALL),
        ] {
            let set: States = name.parse().unwrap();
            for state in ALL {
                assert_eq!(set.has(&in_state(state)), states.contains(&state), "{name} {state:?}");
                assert_eq!(
                    set.inverted().has(&in_state(state)),
                    !states.contains(&state),
                    "{name} {state:?}"
                );
            }
        }
        assert!("open".parse::<States>().unwrap_err().contains("established"));
        assert!("size".parse::<SortKey>().unwrap_err().contains("recv-q"));
    }
}
