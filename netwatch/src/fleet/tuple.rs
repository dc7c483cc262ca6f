//! What both ends of a connection share: a hash of the protocol and the two addresses, in an order that is the same on
//! both hosts. Where the addresses are translated, they are as the other side saw them.

use std::net::IpAddr;

use crate::model::SockAddr;

/// `None`: an address that other hosts have too, such as that of the loopback interface, leads to no other host.
#[must_use]
pub(super) fn tuple(proto: u8, one: SockAddr, other: SockAddr) -> Option<u64> {
    let is_shared = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    };
    if is_shared(one.ip) || is_shared(other.ip) {
        return None;
    }
    let bytes = |end: SockAddr| {
        let ip = match end.ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        (ip.octets(), end.port.to_be_bytes())
    };
    let (mut low, mut high) = (bytes(one), bytes(other));
    if low > high {
        std::mem::swap(&mut low, &mut high);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[proto]);
    for (ip, port) in [low, high] {
        hasher.update(&ip).update(&port);
    }
    let mut first = [0; 8];
    first.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<8>()?);
    // 0 stands for no hash.
    Some(u64::from_le_bytes(first).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SockAddr {
        let address: std::net::SocketAddr = text.parse().unwrap();
        SockAddr { ip: address.ip(), port: address.port() }
    }

    #[test]
    fn both_ends_have_the_same_and_others_another() {
        let (one, other) = (at("10.0.0.1:40000"), at("10.0.0.2:22"));
        let hash = tuple(6, one, other);
        assert!(hash.is_some());
        assert_eq!(hash, tuple(6, other, one));
        assert_ne!(hash, tuple(17, one, other));
        assert_ne!(hash, tuple(6, at("10.0.0.1:40001"), other));
        assert_ne!(hash, tuple(6, at("10.0.0.1:22"), at("10.0.0.2:40000")));
        assert_eq!(tuple(6, at("127.0.0.1:1"), other), None);
        assert_eq!(tuple(6, at("[fe80::1]:1"), other), None);
    }
}
