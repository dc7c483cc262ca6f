//! Records about names of hosts.

use std::mem::offset_of;

use netwatch_common::{NAME_BYTES, Name, name_source};

use super::{Bytes, DecodeError};
use crate::model::{Cookie, NetnsId};

/// The record up to its bytes, which is the same for both lengths.
type Fixed = Name<NAME_BYTES>;

/// Bytes in which a host is named, from a packet: whatever their sender wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEvent {
    /// Of the socket that sent or received them.
    pub cookie: Option<Cookie>,
    /// Its network namespace.
    pub netns: NetnsId,
    /// What the bytes are.
    pub source: NameSource,
    /// The bytes, as far as they were copied.
    pub bytes: Vec<u8>,
}

/// What the bytes of a [`NameEvent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The answer to a DNS question of the socket.
    DnsAnswer,
    /// A TLS ClientHello that the socket sent.
    HelloSent,
    /// One that it received.
    HelloReceived,
}

pub(super) fn name(bytes: Bytes<'_>) -> Result<NameEvent, DecodeError> {
    let len = bytes.u16(offset_of!(Fixed, len))?;
    Ok(NameEvent {
        cookie: Cookie::new(bytes.u64(offset_of!(Fixed, cookie))?),
        netns: NetnsId::new(bytes.u32(offset_of!(Fixed, netns))?),
        source: match bytes.u16(offset_of!(Fixed, source))? {
            name_source::DNS_ANSWER => NameSource::DnsAnswer,
            name_source::HELLO_SENT => NameSource::HelloSent,
            name_source::HELLO_RECEIVED => NameSource::HelloReceived,
            other => return Err(DecodeError::Source(other)),
        },
        bytes: bytes.tail(offset_of!(Fixed, bytes), len.into())?.to_vec(),
    })
}
