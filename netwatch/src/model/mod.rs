//! Basic types of all rooms: addresses, sockets and their holders, processes. Values without I/O.

mod address;
mod arguments;
mod device;
mod flow;
mod holders;
mod ids;
mod listing;
mod nat;
mod process;
mod snapshot;
mod socket;
mod state;
mod stream;
mod time;
mod timer;

pub use address::{Family, Proto, SockAddr, unmap};
pub use arguments::{Arguments, Cut};
pub use device::{Device, DeviceName};
pub use flow::{Flow, FlowAddresses};
pub use holders::{Holder, Holders};
pub use ids::{CgroupId, Cookie, NetnsId};
pub use listing::{Lister, Listing};
pub use nat::{Nat, Translation, Tuple};
pub use process::{ExeState, Image, ProcessFacts, ProcessKey, ProcessRow};
pub use snapshot::SocketSnapshot;
pub(crate) use socket::is_connected;
pub use socket::{Payload, RawKind, RawRow, Socket, SocketRow};
pub use state::{State, Via};
pub use stream::{Stream, StreamKind, Way};
pub use time::BootTime;
pub use timer::{Timer, Timers};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `10.0.0.1:80`, `[::1]:80`
    pub(crate) fn at(text: &str) -> SockAddr {
        let address: std::net::SocketAddr = text.parse().unwrap();
        SockAddr { ip: address.ip(), port: address.port() }
    }

    /// Nanoseconds since boot.
    pub(crate) fn ns(nanoseconds: u64) -> BootTime {
        BootTime::from_nanos(nanoseconds)
    }

    /// An established TCP connection on loopback, for a test to change.
    pub(crate) fn example() -> SocketRow {
        SocketRow {
            socket: Socket {
                cookie: Cookie::new(1),
                inode: 1,
                netns: NetnsId::new(1),
                proto: Proto::Tcp,
                family: Family::Ipv4,
                mapped: false,
                via: None,
                device: None,
                local: at("127.0.0.1:80"),
                remote: Some(at("127.0.0.1:80")),
            },
            uid: 0,
            state: State::Established,
            recv_q: 0,
            send_q: 0,
            v6only: None,
            kernel: None,
            reuseport: None,
            subflow: false,
            bytes: None,
            nat: Nat::Unknown,
        }
    }
}
