//! Records about UDP.

use std::mem::offset_of;

use netwatch_common::{Flow, Release, flow_flags};

use super::sock::{Act, SocketEvent, socket};
use super::{Bytes, DecodeError};
use crate::model::Device;

pub(super) fn flow(bytes: Bytes<'_>) -> Result<SocketEvent, DecodeError> {
    let flags = bytes.u32(offset_of!(Flow, flags))?;
    let mut socket = socket(bytes, offset_of!(Flow, sock))?;
    if socket.device.is_none() {
        socket.device = Device::of_datagram(bytes.u32(offset_of!(Flow, interface))?);
        // Without link-local addresses it is only the interface that the datagram happened to take.
        socket.device = socket.scope();
    }
    Ok(SocketEvent {
        socket,
        act: Act::Datagram {
            received: flags & flow_flags::RECEIVED != 0,
            old_socket: flags & flow_flags::OLD != 0,
            answers: flags & flow_flags::ANSWER != 0,
            thread: Some(bytes.u32(offset_of!(Flow, tid))?).filter(|tid| *tid != 0),
        },
    })
}

pub(super) fn release(bytes: Bytes<'_>) -> Result<SocketEvent, DecodeError> {
    Ok(SocketEvent { socket: socket(bytes, offset_of!(Release, sock))?, act: Act::Release })
}
