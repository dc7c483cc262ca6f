//! Names of the responders' ports, from `/etc/services`.

use super::Stage;
use crate::origin::responder;
use crate::services::Services;
use crate::stream::{Batch, Item};
use crate::tracker::ConnectionEvent;

/// Sets `service` of each event.
#[derive(Debug)]
pub struct ServiceNames;

impl Stage for ServiceNames {
    fn enrich(&mut self, batch: &mut Batch) {
        for item in &mut batch.items {
            match item {
                Item::Event(event) => service_of(event),
                Item::Table(events) => events.iter_mut().for_each(service_of),
                Item::Ready(_) | Item::Exec(..) | Item::Alert(_) | Item::Process(..) | Item::Loss(..) => {}
            }
        }
    }
}

/// Sets `service` of an event.
pub fn service_of(event: &mut ConnectionEvent) {
    let endpoint = &event.endpoint;
    let responder = responder(endpoint.side(), endpoint.local, endpoint.remote);
    event.facts.service = responder.and_then(|address| Services::host().name(endpoint.proto, address.port));
}
