//! The letters of netstat, and which rows they select.

use crate::model::{Proto, SocketRow};

/// Options of netstat. Without any of them, `-natup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the single-letter flags of netstat")]
pub struct Letters {
    /// `-t`: TCP. If none of this, `udp` and `raw` is set, TCP and UDP.
    pub tcp: bool,
    /// `-u`: UDP.
    pub udp: bool,
    /// `-w`: raw sockets.
    pub raw: bool,
    /// `-l`: only listeners and unconnected sockets.
    pub listening: bool,
    /// `-a`: all sockets. If neither this nor `listening` is set, all except those of `-l`.
    pub all: bool,
    /// `-n`: numbers instead of names, which is the default.
    pub numeric: bool,
    /// `-p`: adds a column with the process.
    pub programs: bool,
    /// `-4`: IPv4 sockets. If neither this nor `ipv6` is set, both.
    pub ipv4: bool,
    /// `-6`: IPv6 sockets, including those with IPv4 addresses.
    pub ipv6: bool,
    /// `-e`: adds columns with user and inode number.
    pub extend: bool,
    /// `-o`: adds a column with the timer.
    pub timers: bool,
}

impl Letters {
    pub(super) fn or_default(self) -> Self {
        if self == Self::default() {
            Self { tcp: true, udp: true, all: true, numeric: true, programs: true, ..self }
        } else {
            self
        }
    }

    /// Selects rows as netstat does: `tcp_do_one` and `udp_do_one` in net-tools' netstat.c.
    pub(super) fn show(self, row: &SocketRow) -> bool {
        self.shows_kind(row) && (self.all || self.listening == row.is_server())
    }

    /// The same by protocol and family alone.
    pub(super) fn shows_kind(self, row: &SocketRow) -> bool {
        let proto = match row.proto {
            Proto::Tcp => self.tcp || !(self.udp || self.raw),
            Proto::Udp => self.udp || !(self.tcp || self.raw),
            Proto::UdpLite | Proto::Icmp | Proto::Icmpv6 | Proto::Raw(_) | Proto::Packet => self.raw,
        };
        let family = if row.is_on_ipv6() { self.ipv6 || !self.ipv4 } else { self.ipv4 || !self.ipv6 };
        proto && family
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::example;
    use crate::model::{Socket, State};

    fn row(proto: Proto, mapped: bool, server: bool) -> SocketRow {
        let mut row = SocketRow { socket: Socket { proto, mapped, ..example().socket }, ..example() };
        if server {
            (row.socket.remote, row.state) = (None, State::Listen);
        }
        row
    }

    #[test]
    fn letters_select_rows_as_in_netstat() {
        let none = Letters::default();
        let (tcp, udp) = (row(Proto::Tcp, false, false), row(Proto::Udp, false, false));
        let (listener, mapped) = (row(Proto::Tcp, false, true), row(Proto::Tcp, true, false));
        let shown =
            |letters: Letters| [&tcp, &udp, &listener, &mapped].map(|row| letters.or_default().show(row));
        assert_eq!(shown(none), [true, true, true, true]);
        assert_eq!(shown(Letters { numeric: true, ..none }), [true, true, false, true]);
        assert_eq!(shown(Letters { tcp: true, ..none }), [true, false, false, true]);
        assert_eq!(shown(Letters { udp: true, all: true, ..none }), [false, true, false, false]);
        assert_eq!(shown(Letters { listening: true, ..none }), [false, false, true, false]);
        assert_eq!(shown(Letters { listening: true, all: true, ..none }), [true, true, true, true]);
        assert_eq!(shown(Letters { ipv6: true, all: true, ..none }), [false, false, false, true]);
        assert_eq!(shown(Letters { ipv4: true, all: true, ..none }), [true, true, true, false]);
    }
}
