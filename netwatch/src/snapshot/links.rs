//! The interfaces of a network namespace, by rtnetlink.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::netns;
use crate::limits;
use crate::model::{DeviceName, NetnsId};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: DeviceName,
    /// The loopback interface.
    pub is_loopback: bool,
    /// The socket of the kernel through which it sends and receives, if it is such a tunnel.
    pub tunnel: Option<(&'static str, u16)>,
    /// Its socket is in another network namespace, in which it was created.
    pub is_moved: bool,
    /// It is of WireGuard, whose port is told by another family.
    pub is_wireguard: bool,
}

/// As much as the kernel puts into one datagram of a dump: see `netlink.rs`.
const BUFFER: usize = 64 * 1024;

/// The interfaces of the network namespace of the calling thread, up to [`limits::MOST_LINKS`].
///
/// # Errors
/// If the kernel does not list them.
pub fn own() -> io::Result<Vec<Link>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut request =
        NetlinkMessage::new(header, RouteNetlinkMessage::GetLink(LinkMessage::default()).into());
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut links = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if take(&buffer, &mut links)? || links.len() >= limits::MOST_LINKS {
            links.truncate(limits::MOST_LINKS);
            return Ok(links);
        }
    }
}

/// The interfaces of a network namespace; `None` if it cannot be entered.
#[must_use]
pub fn of(netns: NetnsId) -> Option<Vec<Link>> {
    if netns::own().ok()? == netns {
        return own().ok();
    }
    let all = netns::all().ok()?;
    let wanted = all.iter().find(|namespace| namespace.inum == netns)?;
    let found = netns::inside_each(std::slice::from_ref(wanted), |_, entered| entered.and_then(|()| own()));
    found.ok()?.pop()?.ok()
}

/// Takes the messages of one datagram; returns true after the last one of the dump. What cannot be decoded is left out.
fn take(datagram: &[u8], links: &mut Vec<Link>) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some((length, _)) =
        rest.split_first_chunk::<4>().map(|(length, rest)| (u32::from_ne_bytes(*length), rest))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) => {
                links.extend(link(&message));
            }
            Ok(NetlinkPayload::Done(_)) => return Ok(true),
            Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
            Ok(_) => {}
            Err(error) => log::debug!("an interface cannot be decoded: {error}"),
        }
        if length == 0 {
            break;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn link(message: &LinkMessage) -> Option<Link> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(DeviceName::new(name)),
        _ => None,
    })?;
    let info = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info.as_slice()),
        _ => None,
    });
    let data = info.unwrap_or_default().iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    let is_wireguard = info
        .unwrap_or_default()
        .iter()
        .any(|info| matches!(info, LinkInfo::Kind(netlink_packet_route::link::InfoKind::Wireguard)));
    Some(Link {
        index: message.header.index,
        name,
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        tunnel: data.and_then(port),
        is_moved: message
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_))),
        is_wireguard,
    })
}

/// Kind and port of a tunnel over UDP.
fn port(data: &InfoData) -> Option<(&'static str, u16)> {
    match data {
        InfoData::Vxlan(all) => all.iter().find_map(|info| match info {
            InfoVxlan::Port(port) => Some(("vxlan", *port)),
            _ => None,
        }),
        InfoData::Geneve(all) => all.iter().find_map(|info| match info {
            InfoGeneve::Port(port) => Some(("geneve", *port)),
            _ => None,
        }),
        InfoData::BareUdp(all) => all.iter().find_map(|info| match info {
            InfoBareUdp::Port(port) => Some(("bareudp", *port)),
            _ => None,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = attributes;
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), RouteNetlinkMessage::NewLink(link).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn loopback_is_listed() {
        let links = own().unwrap();
        let loopback: Vec<_> = links.iter().filter(|link| link.is_loopback).collect();
        assert_eq!(loopback.len(), 1, "{links:?}");
        assert_eq!((loopback[0].name.as_str(), loopback[0].tunnel), ("lo", None));
        assert_eq!(of(netns::own().unwrap()), Some(links));
        assert_eq!(of(NetnsId::new(1)), None);
    }

    #[test]
    fn port_of_a_tunnel_is_read() {
        let vxlan = LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![InfoVxlan::Id(3), InfoVxlan::Port(8472)])),
        ]);
        let bytes =
            message(vec![LinkAttribute::IfName("flannel.1".into()), vxlan, LinkAttribute::LinkNetNsId(0)]);
        let mut links = Vec::new();
        assert!(!take(&bytes, &mut links).unwrap());
        assert_eq!((links[0].index, links[0].name.as_str()), (7, "flannel.1"));
        assert_eq!((links[0].tunnel, links[0].is_moved), (Some(("vxlan", 8472)), true));
    }

    #[test]
    fn interfaces_are_listed_up_to_the_limit() {
        let one = message(vec![LinkAttribute::IfName("x".into())]);
        let mut links = Vec::new();
        for _ in 0..=limits::MOST_LINKS {
            take(&one, &mut links).unwrap();
        }
        // As `own` does with what a dump gave.
        links.truncate(limits::MOST_LINKS);
        assert_eq!(links.len(), limits::MOST_LINKS);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = take(&bytes, &mut Vec::new());
        }
    }
}
