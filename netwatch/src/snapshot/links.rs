//! The interfaces of a network namespace, by rtnetlink.

use std::io;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBareUdp, InfoData, InfoGeneve, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{Message, Netlink};
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

/// The interfaces of the network namespace of the calling thread, up to [`limits::MOST_LINKS`].
///
/// # Errors
/// If the kernel does not list them.
pub fn own() -> io::Result<Vec<Link>> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let request = netlink.request(NLM_F_DUMP, RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let mut links = Vec::new();
    netlink.ask(&request, |message| take(message, &mut links))?;
    Ok(links)
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

/// Takes a message; returns true at the limit. What cannot be decoded is left out.
fn take(message: Message<RouteNetlinkMessage>, links: &mut Vec<Link>) -> bool {
    match message.payload {
        Some(RouteNetlinkMessage::NewLink(message)) if links.len() < limits::MOST_LINKS => {
            links.extend(link(&message));
        }
        Some(_) => {}
        None => log::debug!("an interface cannot be decoded"),
    }
    links.len() >= limits::MOST_LINKS
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
    use netlink_packet_core::{NetlinkHeader, NetlinkMessage};
    use netlink_packet_route::link::InfoKind;

    use super::super::netlink;
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

    /// Whether the datagram was the last.
    fn read(datagram: &[u8], links: &mut Vec<Link>) -> io::Result<bool> {
        netlink::read(datagram, 0, &mut |message| take(message, links))
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
        assert!(!read(&bytes, &mut links).unwrap());
        assert_eq!((links[0].index, links[0].name.as_str()), (7, "flannel.1"));
        assert_eq!((links[0].tunnel, links[0].is_moved), (Some(("vxlan", 8472)), true));
    }

    #[test]
    fn interfaces_are_listed_up_to_the_limit() {
        let one = message(vec![LinkAttribute::IfName("x".into())]);
        let mut links = Vec::new();
        for _ in 0..=limits::MOST_LINKS {
            read(&one, &mut links).unwrap();
        }
        assert_eq!(links.len(), limits::MOST_LINKS);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = read(&bytes, &mut Vec::new());
        }
    }
}
