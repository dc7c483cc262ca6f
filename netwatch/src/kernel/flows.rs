//! The kernel side's maps about UDP flows: payload and time of the last datagram of each flow, and the sockets whose
//! flows found no place.

use std::mem::offset_of;
use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData, MapError};
use netwatch_common::{FlowCount, FlowKey, NOT_FOLLOWED_MAX};

use crate::model::{BootTime, Cookie, Flow, Payload};

/// The maps.
pub struct FlowTable {
    flows: HashMap<MapData, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowCount>()]>,
    /// Number of flows of each socket that were removed.
    removed: HashMap<MapData, u64, u64>,
    not_followed: HashMap<MapData, u64, u64>,
}

impl FlowTable {
    pub(super) fn new(flows: Map, removed: Map, not_followed: Map) -> Result<Self, MapError> {
        Ok(Self {
            flows: HashMap::try_from(flows)?,
            removed: HashMap::try_from(removed)?,
            not_followed: HashMap::try_from(not_followed)?,
        })
    }

    /// Payload so far, and time of the last datagram. `None` if the flow is not in the map.
    #[must_use]
    pub fn get(&self, flow: Flow) -> Option<(Payload, BootTime)> {
        let count = self.flows.get(&key(flow), 0).ok()?;
        let field = |offset: usize| Some(u64::from_ne_bytes(count.get(offset..offset + 8)?.try_into().ok()?));
        let bytes = Payload {
            sent: field(offset_of!(FlowCount, sent))?,
            received: field(offset_of!(FlowCount, received))?,
        };
        Some((bytes, BootTime::from_nanos(field(offset_of!(FlowCount, last))?)))
    }

    /// The same, and removes it: the next datagram begins another flow. The socket gets the place back.
    pub fn take(&mut self, flow: Flow) -> Option<Payload> {
        let bytes = self.remove(flow)?;
        let cookie = flow.cookie.get();
        let removed = self.removed.get(&cookie, 0).unwrap_or(0).wrapping_add(1);
        // If the map is full the socket does not get its place back.
        let _ = self.removed.insert(cookie, removed, 0);
        Some(bytes)
    }

    /// The same for a flow of a socket that is closed.
    pub fn remove(&mut self, flow: Flow) -> Option<Payload> {
        let (bytes, _) = self.get(flow)?;
        // Fails only if it is gone.
        let _ = self.flows.remove(&key(flow));
        Some(bytes)
    }

    /// Forgets a socket that is closed.
    pub fn forget(&mut self, cookie: Cookie) {
        // Fails if no flow of it was idle.
        let _ = self.removed.remove(&cookie.get());
    }

    /// Removes flows that the agent does not know, because their record was lost, and returns their number. Takes two
    /// system calls for each flow in the map.
    pub fn remove_unknown(&mut self, is_known: impl Fn(Cookie) -> bool) -> usize {
        let unknown: Vec<_> = self
            .flows
            .keys()
            .filter_map(Result::ok)
            .filter(|key| {
                let cookie = key.first_chunk().map_or(0, |cookie| u64::from_ne_bytes(*cookie));
                Cookie::new(cookie).is_none_or(|cookie| !is_known(cookie))
            })
            .collect();
        for key in &unknown {
            // Fails only if it is gone.
            let _ = self.flows.remove(key);
        }
        unknown.len()
    }

    /// Sockets with flows that found no place since the last call, and the number of datagrams of those flows; the
    /// largest first.
    pub fn not_followed(&mut self) -> Vec<(Cookie, u64)> {
        let mut sockets: Vec<_> = self
            .not_followed
            .iter()
            // Bounds the loop if sockets are added meanwhile.
            .take(NOT_FOLLOWED_MAX)
            .filter_map(|entry| {
                let (cookie, count) = entry.ok()?;
                Some((Cookie::new(cookie)?, count))
            })
            .collect();
        for (cookie, _) in &sockets {
            // Fails only if it was evicted.
            let _ = self.not_followed.remove(&cookie.get());
        }
        sockets.sort_unstable_by_key(|(cookie, count)| (std::cmp::Reverse(*count), *cookie));
        sockets
    }
}

fn key(flow: Flow) -> [u8; size_of::<FlowKey>()] {
    let mut key = [0; size_of::<FlowKey>()];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(field) = key.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(offset_of!(FlowKey, cookie), &flow.cookie.get().to_ne_bytes());
    for (offset, ip) in [
        (offset_of!(FlowKey, local), flow.addresses.local),
        (offset_of!(FlowKey, remote), flow.addresses.remote.ip),
    ] {
        match ip {
            IpAddr::V4(ip) => put(offset, &ip.octets()),
            IpAddr::V6(ip) => put(offset, &ip.octets()),
        }
    }
    put(offset_of!(FlowKey, port), &flow.addresses.remote.port.to_ne_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FlowAddresses;
    use crate::model::tests::at;

    #[test]
    fn keys_lie_as_the_kernel_side_has_them() {
        let flow = |number, local, remote| Flow {
            cookie: Cookie::new(number).unwrap(),
            addresses: FlowAddresses { local: at(local).ip, remote: at(remote) },
        };
        let reported = key(flow(0x0102_0304_0506_0708, "127.0.0.2:9", "10.0.0.1:53"));
        assert_eq!(reported[..8], 0x0102_0304_0506_0708_u64.to_ne_bytes());
        assert_eq!(reported[8..24], [127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reported[24..40], [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reported[40..42], 53_u16.to_ne_bytes());
        assert_eq!(reported[42..], [0; 6]);
        assert_eq!(key(flow(1, "[::2]:1", "[::1]:1"))[23], 2);
        assert_eq!(key(flow(1, "[::2]:1", "[::1]:1"))[39], 1);
    }
}
