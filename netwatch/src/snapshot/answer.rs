//! Converts an answer of sock_diag to a row.

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_sock_diag::inet::InetResponse;
use netlink_packet_sock_diag::inet::nlas::Nla;

use crate::model::{
    Cookie, Device, Family, Nat, NetnsId, Payload, Proto, SockAddr, Socket, SocketRow, State, is_connected,
    unmap,
};

/// The row of a socket of `proto` in namespace `netns`.
pub(super) fn row(netns: NetnsId, proto: Proto, response: &InetResponse) -> SocketRow {
    let header = &response.header;
    let id = &header.socket_id;
    let (local_ip, local_mapped) = unmap(id.source_address);
    let (remote_ip, remote_mapped) = unmap(id.destination_address);
    let state = State::from_kernel(header.state);
    let remote = SockAddr { ip: remote_ip, port: id.destination_port };
    let connected = is_connected(state, remote);
    let mapped = local_mapped || (connected && remote_mapped);
    let mut row = SocketRow {
        socket: Socket {
            cookie: cookie(id.cookie),
            inode: header.inode.into(),
            netns,
            proto,
            family: Family::of(local_ip),
            mapped,
            via: None,
            device: Device::bound(id.interface_id),
            local: SockAddr { ip: local_ip, port: id.source_port },
            remote: connected.then_some(remote),
        },
        uid: header.uid,
        state,
        recv_q: header.recv_queue,
        send_q: header.send_queue,
        v6only: None,
        kernel: None,
        reuseport: None,
        subflow: false,
        bytes: None,
        nat: Nat::Unknown,
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::SkV6Only(v6only) => row.v6only = Some(*v6only),
            Nla::Other(other) if other.kind() == INET_DIAG_ULP_INFO => row.subflow = is_mptcp(other),
            Nla::TcpInfo(info) if connected => row.bytes = bytes(info, state),
            _ => {}
        }
    }
    row
}

/// `include/uapi/linux/inet_diag.h`
const INET_DIAG_ULP_INFO: u16 = 19;

/// The name of what is layered on TCP lies among nested attributes: tcp_diag_put_ulp in net/ipv4/tcp_diag.c.
fn is_mptcp(info: &DefaultNla) -> bool {
    let mut nested = vec![0; info.value_len()];
    info.emit_value(&mut nested);
    nested.windows(6).any(|name| name == b"mptcp\0")
}

/// Two halves in host byte order, the lower first: `sock_diag_save_cookie` in net/core/sock_diag.c.
fn cookie([a, b, c, d, e, f, g, h]: [u8; 8]) -> Option<Cookie> {
    let halves = [[a, b, c, d], [e, f, g, h]].map(|half| u64::from(u32::from_ne_bytes(half)));
    let [low, high] = halves;
    Cookie::new(low | high << 32)
}

/// Offsets in `struct tcp_info` of include/uapi/linux/tcp.h, which only ever grows at its end.
const TCPI_BYTES_RECEIVED: usize = 128;
const TCPI_BYTES_SENT: usize = 200;
const TCPI_BYTES_RETRANS: usize = 208;

/// Payload, from a `struct tcp_info` as long as the running kernel makes it (`bytes_sent` since 4.19).
fn bytes(info: &[u8], state: State) -> Option<Payload> {
    let number = |offset: usize| Some(u64::from_ne_bytes(info.get(offset..offset + 8)?.try_into().ok()?));
    let sent = number(TCPI_BYTES_SENT)?.saturating_sub(number(TCPI_BYTES_RETRANS)?);
    Some(Payload::without_fin(sent, number(TCPI_BYTES_RECEIVED)?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tcp_info_has_no_byte_counts() {
        assert_eq!(bytes(&[0; 200], State::Established), None);
        assert_eq!(bytes(&[0; 216], State::CloseWait), Some(Payload { sent: 0, received: 0 }));
    }
}
