//! Questions to the connection tracking table of one network namespace (ctnetlink).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Status, Tuple as TupleAttribute,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::model::{Proto, SockAddr, Tuple};
use crate::snapshot::netlink::{Message, Netlink};

/// `enum cntl_msg_types` in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const GET_STATS: u8 = 5;

/// `CTA_STATS_GLOBAL_ENTRIES` there.
const GLOBAL_ENTRIES: u16 = 1;

/// `CTA_ZONE` there.
const ZONE: u16 = 18;

/// An entry of the table: both directions as they arrive, `reply` after the translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
}

impl Entry {
    /// What the packets of a direction are translated to, if it is one of this entry.
    pub(super) fn translate(&self, tuple: &Tuple) -> Option<Tuple> {
        if self.original == *tuple {
            Some(self.reply.reversed())
        } else if self.reply == *tuple {
            Some(self.original.reversed())
        } else {
            None
        }
    }

    pub(super) fn is_translated(&self) -> bool {
        self.original != self.reply.reversed()
    }
}

/// The table of the network namespace in which it was opened, which it keeps alive.
pub(super) struct Table(Netlink);

impl Table {
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_NETFILTER).map(Self)
    }

    /// The number of entries.
    pub(super) fn count(&mut self) -> io::Result<u32> {
        let stats = ConntrackMessage::Other { message_type: GET_STATS, attributes: Vec::new() };
        let mut count = 0;
        self.ask(NetfilterProtoFamily::Unspec, stats, 0, |answer| {
            count = answer.and_then(global_entries).unwrap_or(0);
            true
        })?;
        Ok(count)
    }

    /// The entry that has this direction. Entries of zones other than 0 are not found.
    pub(super) fn get(&mut self, tuple: &Tuple) -> io::Result<Option<Entry>> {
        let Some(attribute) = spell(tuple) else { return Ok(None) };
        let family = match tuple.source.ip {
            IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
            IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        let mut entry = None;
        let asked = self.ask(family, ConntrackMessage::Get(vec![attribute]), 0, |answer| {
            entry = answer.and_then(read);
            true
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            other => other.map(|()| entry),
        }
    }

    /// All entries whose addresses are translated, at most `most`.
    pub(super) fn translated(&mut self, most: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let all = ConntrackMessage::Get(Vec::new());
        self.ask(NetfilterProtoFamily::Unspec, all, NLM_F_DUMP, |answer| {
            keep(&mut entries, answer.and_then(read), most);
            false
        })?;
        Ok(entries)
    }

    /// `each` gets each message of the answer, `None` if it cannot be read.
    fn ask(
        &mut self,
        family: NetfilterProtoFamily,
        message: ConntrackMessage,
        flags: u16,
        mut each: impl FnMut(Option<ConntrackMessage>) -> bool,
    ) -> io::Result<()> {
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        let request = self.0.request(flags, message);
        self.0.ask(&request, |answer: Message<NetfilterMessage>| {
            each(answer.payload.and_then(|answer| match answer.inner {
                NetfilterMessageInner::Conntrack(message) => Some(message),
                _ => None,
            }))
        })
    }
}

/// Keeps an entry that translates something.
fn keep(entries: &mut Vec<Entry>, entry: Option<Entry>, most: usize) {
    if entries.len() < most {
        entries.extend(entry.filter(Entry::is_translated));
    }
}

/// The answer to [`GET_STATS`].
fn global_entries(message: ConntrackMessage) -> Option<u32> {
    use netlink_packet_core::Nla as _;
    let ConntrackMessage::Other { attributes, .. } = message else { return None };
    let attribute = attributes.into_iter().find(|attribute| attribute.kind() == GLOBAL_ENTRIES)?;
    let mut value = [0; 4];
    (attribute.value_len() == value.len()).then(|| attribute.emit_value(&mut value))?;
    Some(u32::from_be_bytes(value))
}

/// `None` for a protocol without ports.
fn spell(tuple: &Tuple) -> Option<ConntrackAttribute> {
    let protocol = match tuple.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        // Of ICMP it knows echoes and their identifiers, which flows have not.
        _ => return None,
    };
    Some(ConntrackAttribute::CtaTupleOrig(vec![
        TupleAttribute::Ip(vec![
            IPTuple::SourceAddress(tuple.source.ip),
            IPTuple::DestinationAddress(tuple.destination.ip),
        ]),
        TupleAttribute::Proto(vec![
            ProtoTuple::Protocol(protocol),
            ProtoTuple::SourcePort(tuple.source.port),
            ProtoTuple::DestinationPort(tuple.destination.port),
        ]),
    ]))
}

/// `None` for an entry of another zone, that is not in use, or of a protocol without ports.
fn read(message: ConntrackMessage) -> Option<Entry> {
    use netlink_packet_core::Nla as _;
    let ConntrackMessage::New(attributes) = message else { return None };
    let (mut original, mut reply) = (None, None);
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(parts),
            ConntrackAttribute::CtaStatus(status) if status.contains(Status::Dying) => return None,
            ConntrackAttribute::Other(other) if other.kind() == ZONE => return None,
            _ => {}
        }
    }
    Some(Entry { original: original?, reply: reply? })
}

fn tuple(parts: &[TupleAttribute]) -> Option<Tuple> {
    let (mut source, mut destination, mut proto, mut from, mut to) = (None, None, None, None, None);
    for part in parts {
        match part {
            TupleAttribute::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            TupleAttribute::Proto(ports) => {
                for port in ports {
                    match port {
                        ProtoTuple::Protocol(Protocol::Tcp) => proto = Some(Proto::Tcp),
                        ProtoTuple::Protocol(Protocol::Udp) => proto = Some(Proto::Udp),
                        ProtoTuple::SourcePort(port) => from = Some(*port),
                        ProtoTuple::DestinationPort(port) => to = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        proto: proto?,
        source: SockAddr { ip: source?, port: from? },
        destination: SockAddr { ip: destination?, port: to? },
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, NetlinkMessage, NetlinkPayload};
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::at;

    fn example(source: &str, destination: &str) -> Tuple {
        Tuple { proto: Proto::Udp, source: at(source), destination: at(destination) }
    }

    fn spelled(tuple: &Tuple) -> Vec<TupleAttribute> {
        match spell(tuple) {
            Some(ConntrackAttribute::CtaTupleOrig(parts)) => parts,
            _ => Vec::new(),
        }
    }

    #[test]
    fn entry_is_read_as_it_is_asked_for() {
        let (original, reply) =
            (example("[fd00::1]:5", "[fd00::2]:6"), example("[fd00::3]:7", "[fd00::1]:5"));
        let message = |more| {
            let tuples = [
                ConntrackAttribute::CtaTupleOrig(spelled(&original)),
                ConntrackAttribute::CtaTupleReply(spelled(&reply)),
            ];
            ConntrackMessage::New(tuples.into_iter().chain(more).collect())
        };
        let entry = read(message(None)).unwrap();
        assert_eq!(entry, Entry { original, reply });
        assert_eq!(entry.translate(&original), Some(reply.reversed()));
        assert_eq!(entry.translate(&reply), Some(original.reversed()));
        assert_eq!(entry.translate(&original.reversed()), None);
        // Of another zone, and one that is on its way out.
        let zone = ConntrackAttribute::Other(DefaultNla::new(ZONE, vec![0, 1]));
        assert_eq!(read(message(Some(zone))), None);
        assert_eq!(read(message(Some(ConntrackAttribute::CtaStatus(Status::Dying)))), None);
    }

    #[test]
    fn number_of_translations_is_bounded() {
        let (original, reply) = (example("10.0.0.1:5", "10.0.0.2:6"), example("10.0.0.3:7", "10.0.0.1:5"));
        let mut entries = Vec::new();
        for _ in 0..3 {
            keep(&mut entries, Some(Entry { original, reply }), 2);
            keep(&mut entries, Some(Entry { original, reply: original.reversed() }), 2);
            keep(&mut entries, None, 2);
        }
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(Entry::is_translated));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(kind in 0_u16..7, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = Vec::new();
            message.extend(u32::try_from(16 + 4 + bytes.len()).unwrap().to_ne_bytes());
            message.extend((0x0100 | kind).to_ne_bytes());
            message.extend([0; 10]);
            message.extend([2, 0, 0, 0]);
            message.extend(bytes);
            if let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(&message)
                && let NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(message), ..
                }) = message.payload
            {
                global_entries(message.clone());
                read(message);
            }
        }
    }
}
