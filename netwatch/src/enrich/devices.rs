//! Names of interfaces: of the device that a socket is bound to, and of link-local addresses. They are read in the network
//! namespace of the socket when the first socket with an unknown index comes, and again after some time, since interfaces
//! are renamed. An interface that is gone is named by its index.

use std::time::Instant;

use super::Stage;
use crate::hash::Map;
use crate::limits;
use crate::model::{Device, DeviceName, NetnsId, Socket};
use crate::snapshot::links::{self, Link};
use crate::stream::{Batch, Item};

/// Names by namespace and index.
#[derive(Debug, Default)]
pub struct Devices {
    known: Map<NetnsId, Known>,
}

#[derive(Debug)]
struct Known {
    at: Instant,
    names: Map<u32, DeviceName>,
    loopback: Option<u32>,
}

impl Devices {
    /// The name of the interface of a socket, if it has one.
    pub fn name(&mut self, socket: &Socket) -> Option<DeviceName> {
        let device = socket.device?;
        let name = self.of(socket.netns, device, Instant::now(), links::of);
        // A datagram to an own address goes over loopback, whatever interface has the address.
        let known = self.known.get(&socket.netns);
        let is_loopback = known.is_some_and(|known| known.loopback == Some(device.index()));
        name.filter(|_| device.is_bound() || !is_loopback)
    }

    /// Whether an index is that of the loopback interface.
    pub fn is_loopback(&mut self, netns: NetnsId, index: u32) -> bool {
        // Reads the names of the namespace if needed.
        let Some(device) = Device::bound(index) else { return false };
        self.of(netns, device, Instant::now(), links::of);
        self.known.get(&netns).is_some_and(|known| known.loopback == Some(index))
    }

    fn of(
        &mut self,
        netns: NetnsId,
        device: Device,
        now: Instant,
        read: impl FnOnce(NetnsId) -> Option<Vec<Link>>,
    ) -> Option<DeviceName> {
        let index = device.index();
        let is_fresh = |known: &&Known| {
            let age = now.saturating_duration_since(known.at);
            let limit =
                if known.names.contains_key(&index) { limits::DEVICE_AGE } else { limits::NO_DEVICE_AGE };
            age < limit
        };
        if self.known.get(&netns).filter(is_fresh).is_none() {
            if self.known.len() >= limits::MOST_DEVICE_NETNS && !self.known.contains_key(&netns) {
                self.known.clear();
            }
            let links = read(netns).unwrap_or_default();
            let loopback = links.iter().find(|link| link.is_loopback).map(|link| link.index);
            let names = links.iter().map(|link| (link.index, link.name)).collect();
            self.known.insert(netns, Known { at: now, names, loopback });
        }
        let name = self.known.get(&netns).and_then(|known| known.names.get(&index)).copied();
        Some(name.unwrap_or_else(|| DeviceName::of_index(index)))
    }
}

impl Stage for Devices {
    fn enrich(&mut self, batch: &mut Batch) {
        for item in &mut batch.items {
            match item {
                Item::Event(event) => event.facts.device = self.name(&event.endpoint),
                Item::Table(events) => {
                    events.iter_mut().for_each(|event| event.facts.device = self.name(&event.endpoint));
                }
                Item::Ready(_) | Item::Exec(..) | Item::Alert(_) | Item::Process(..) | Item::Loss(..) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: DeviceName::new(name),
            is_loopback: index == 1,
            tunnel: None,
            is_moved: false,
            is_wireguard: false,
        }
    }

    #[test]
    fn names_are_read_once_and_again_when_they_are_old() {
        let (netns, mut devices, start) = (NetnsId::new(1), Devices::default(), Instant::now());
        let device = |index| Device::bound(index).unwrap();
        let name = |name: &str| Some(DeviceName::new(name));
        let links = |_| Some(vec![link(1, "lo"), link(2, "eth0")]);
        assert_eq!(devices.of(netns, device(2), start, links), name("eth0"));
        let renamed = |_| Some(vec![link(2, "lan0")]);
        let never = |_| panic!("it was read just now");
        assert_eq!(devices.of(netns, device(1), start, never), name("lo"));
        assert_eq!(devices.of(netns, device(2), start + limits::NO_DEVICE_AGE, never), name("eth0"));
        assert_eq!(devices.of(netns, device(2), start + limits::DEVICE_AGE, renamed), name("lan0"));
        // Gone: asked for again after a short time only.
        assert_eq!(devices.of(netns, device(9), start + limits::DEVICE_AGE, never), name("9"));
        let later = start + limits::DEVICE_AGE + limits::NO_DEVICE_AGE;
        assert_eq!(devices.of(netns, device(9), later, |_| None), name("9"));
    }

    #[test]
    fn namespaces_are_remembered_up_to_the_limit() {
        let (mut devices, now) = (Devices::default(), Instant::now());
        for netns in 0..=limits::MOST_DEVICE_NETNS {
            let netns = NetnsId::new(netns.try_into().unwrap());
            devices.of(netns, Device::bound(1).unwrap(), now, |_| Some(vec![link(1, "lo")]));
        }
        assert_eq!(devices.known.len(), 1);
    }
}
