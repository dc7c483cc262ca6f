//! The kernel side's map of UDP flows: payload and time of the last datagram.

use std::mem::offset_of;
use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData, MapError};
use netwatch_common::{FlowCount, FlowKey};

use crate::model::{BootTime, Cookie, Payload, SockAddr};

/// The map.
pub struct FlowTable(HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowCount>()]>);

impl FlowTable {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        HashMap::try_from(map).map(Self)
    }

    /// Payload so far, and time of the last datagram. `None` if the flow is not in the map.
    #[must_use]
    pub fn get(&self, cookie: Cookie, remote: SockAddr) -> Option<(Payload, BootTime)> {
        let count = self.0.get(&key(cookie, remote), 0).ok()?;
        let field = |offset: usize| Some(u64::from_ne_bytes(count.get(offset..offset + 8)?.try_into().ok()?));
        let bytes = Payload {
            sent: field(offset_of!(FlowCount, sent))?,
            received: field(offset_of!(FlowCount, received))?,
        };
        Some((bytes, BootTime::from_nanos(field(offset_of!(FlowCount, last))?)))
    }

    /// The same, and removes it: the next datagram begins another flow.
    pub fn take(&mut self, cookie: Cookie, remote: SockAddr) -> Option<Payload> {
        let (bytes, _) = self.get(cookie, remote)?;
        // Fails only if it is gone.
        let _ = self.0.remove(&key(cookie, remote));
        Some(bytes)
    }
}

fn key(cookie: Cookie, remote: SockAddr) -> [u8; size_of::<FlowKey>()] {
    let mut key = [0; size_of::<FlowKey>()];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(field) = key.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(offset_of!(FlowKey, cookie), &cookie.get().to_ne_bytes());
    match remote.ip {
        IpAddr::V4(ip) => put(offset_of!(FlowKey, remote), &ip.octets()),
        IpAddr::V6(ip) => put(offset_of!(FlowKey, remote), &ip.octets()),
    }
    put(offset_of!(FlowKey, port), &remote.port.to_ne_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;

    #[test]
    fn keys_lie_as_the_kernel_side_has_them() {
        let cookie = |number| Cookie::new(number).unwrap();
        let reported = key(cookie(0x0102_0304_0506_0708), at("10.0.0.1:53"));
        assert_eq!(reported[..8], 0x0102_0304_0506_0708_u64.to_ne_bytes());
        assert_eq!(reported[8..24], [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reported[24..26], 53_u16.to_ne_bytes());
        assert_eq!(reported[26..], [0; 6]);
        assert_eq!(key(cookie(1), at("[::1]:1"))[23], 1);
    }
}
