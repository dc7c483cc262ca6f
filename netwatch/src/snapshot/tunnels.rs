//! Tunnels over UDP that rtnetlink does not tell the port of: WireGuard, L2TP and FOU, by generic netlink. A family that
//! this kernel does not have, or that the caller may not ask (`CAP_NET_ADMIN`), has no tunnels.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, NlasIterator};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::links::Link;
use super::netlink;
use crate::limits;
use crate::model::{DeviceName, Proto};

/// A tunnel with a socket of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Kind of tunnel.
    pub kind: &'static str,
    /// Port of its socket.
    pub port: u16,
    /// Its device, if it has one.
    pub device: Option<DeviceName>,
    /// Protocol of its socket.
    pub proto: Proto,
}

/// A generic netlink family: its name, and the command that lists its tunnels.
struct Family {
    name: &'static str,
    command: u8,
    /// Attribute with the port.
    port: u16,
    /// The port is in network byte order.
    is_big: bool,
}

impl Family {
    /// Adds a port, up to the limit.
    fn collect(&self, kind: u16, bytes: &[u8], ports: &mut Vec<u16>) {
        if kind == self.port && ports.len() < limits::MOST_TUNNELS {
            ports.extend(number(bytes, self.is_big).filter(|port| *port != 0));
        }
    }
}

/// `include/uapi/linux/wireguard.h`: WG_CMD_GET_DEVICE, WGDEVICE_A_LISTEN_PORT.
const WIREGUARD: Family = Family { name: "wireguard", command: 0, port: 6, is_big: false };
const WGDEVICE_A_IFINDEX: u16 = 1;
/// `include/uapi/linux/l2tp.h`: L2TP_CMD_TUNNEL_GET, L2TP_ATTR_UDP_SPORT.
const L2TP: Family = Family { name: "l2tp", command: 4, port: 26, is_big: false };
/// `include/uapi/linux/fou.h`: FOU_CMD_GET, FOU_ATTR_PORT.
const FOU: Family = Family { name: "fou", command: 3, port: 1, is_big: true };

/// The tunnels of the network namespace of the calling thread, of which `links` are the interfaces.
#[must_use]
pub fn own(links: &[Link]) -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for link in links.iter().filter(|link| link.is_wireguard).take(limits::MOST_TUNNELS) {
        let index = attribute(WGDEVICE_A_IFINDEX, &link.index.to_ne_bytes());
        tunnels.extend(
            ports(&WIREGUARD, &index).into_iter().map(|port| tunnel("wireguard", port, Some(link.name))),
        );
    }
    for family in [&L2TP, &FOU] {
        tunnels.extend(ports(family, &[]).into_iter().map(|port| tunnel(family.name, port, None)));
    }
    tunnels
}

fn tunnel(kind: &'static str, port: u16, device: Option<DeviceName>) -> Tunnel {
    Tunnel { kind, port, device, proto: Proto::Udp }
}

fn ports(family: &Family, attributes: &[u8]) -> Vec<u16> {
    dump(family, attributes)
        .inspect_err(|error| log::debug!("tunnels of {}: {error}", family.name))
        .unwrap_or_default()
}

/// `include/uapi/linux/genetlink.h`
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Lengths of `struct nlmsghdr` and `struct genlmsghdr`.
const NETLINK_HEADER: usize = 16;
const HEADERS: usize = NETLINK_HEADER + 4;

/// `include/uapi/linux/netlink.h`
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const BUFFER: usize = 64 * 1024;

fn dump(family: &Family, attributes: &[u8]) -> io::Result<Vec<u16>> {
    let socket = netlink::connected(NETLINK_GENERIC)?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, format!("{}\0", family.name).as_bytes());
    socket.send(&request(GENL_ID_CTRL, NLM_F_REQUEST, CTRL_CMD_GETFAMILY, &name), 0)?;
    let mut id = None;
    read(&socket, |kind, bytes| {
        id = (kind == CTRL_ATTR_FAMILY_ID).then(|| number(bytes, false)).flatten().or(id);
    })?;
    let id = id.ok_or(io::ErrorKind::NotFound)?;
    socket.send(&request(id, NLM_F_REQUEST | NLM_F_DUMP, family.command, attributes), 0)?;
    let mut ports = Vec::new();
    while read(&socket, |kind, bytes| {
        family.collect(kind, bytes, &mut ports);
    })? {}
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn request(family: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number, and the port that the kernel fills in.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(bytes: &[u8], is_big: bool) -> Option<u16> {
    let bytes = *bytes.first_chunk()?;
    Some(if is_big { u16::from_be_bytes(bytes) } else { u16::from_ne_bytes(bytes) })
}

/// Reads one datagram and calls `each` on the attributes of its messages. Returns whether more come.
fn read(socket: &Socket, each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return take(&buffer, each),
        }
    }
}

fn take(datagram: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    let mut rest = datagram;
    while let (Some(length), Some(kind)) =
        (rest.first_chunk::<4>(), rest.get(4..6).and_then(|kind| kind.first_chunk()))
    {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..length).filter(|message| message.len() >= NETLINK_HEADER) else {
            break;
        };
        match u16::from_ne_bytes(*kind) {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let code = message.get(NETLINK_HEADER..).and_then(|code| code.first_chunk::<4>());
                let code = code.map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 {
                    Ok(false)
                } else {
                    Err(io::Error::from_raw_os_error(code.saturating_neg()))
                };
            }
            _ => {
                let attributes = message.get(HEADERS..).unwrap_or_default();
                for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
                    let attribute: NlaBuffer<&[u8]> = attribute;
                    each(attribute.kind(), attribute.value());
                }
            }
        }
        // Messages start on multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_that_the_kernel_lacks_is_an_error() {
        let family = Family { name: "no-such-family", command: 1, port: 1, is_big: false };
        assert!(dump(&family, &[]).is_err());
        assert!(ports(&family, &[]).is_empty());
    }

    #[test]
    fn ports_are_read_from_attributes() {
        let mut message =
            request(30, 0, 0, &[attribute(9, &[1; 5]), attribute(6, &51820_u16.to_ne_bytes())].concat());
        message.extend(request(NLMSG_DONE, 0, 0, &[]));
        let mut found = Vec::new();
        let more = take(&message, |kind, bytes| {
            if kind == WIREGUARD.port {
                found.extend(number(bytes, WIREGUARD.is_big));
            }
        });
        assert_eq!((found, more.unwrap()), (vec![51820], false));
        assert_eq!(number(&5555_u16.to_be_bytes(), FOU.is_big), Some(5555));
        assert_eq!(number(&[1], false), None);
    }

    #[test]
    fn tunnels_are_read_up_to_the_limit() {
        let mut ports = Vec::new();
        for _ in 0..=limits::MOST_TUNNELS {
            FOU.collect(FOU.port, &[1, 2], &mut ports);
        }
        FOU.collect(FOU.port + 1, &[1, 2], &mut ports);
        assert_eq!(ports.len(), limits::MOST_TUNNELS);
    }

    #[test]
    fn refusal_is_an_error() {
        let mut refused = request(NLMSG_ERROR, 0, 0, &[]);
        refused.truncate(NETLINK_HEADER);
        refused.extend((-libc::EPERM).to_ne_bytes());
        assert_eq!(take(&refused, |_, _| {}).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = take(&bytes, |_, _| {});
        }
    }
}
