//! The process object, spelled once for many events: most of an event's bytes are its processes, and most
//! events of a busy host are about the same few.

use std::io;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

use crate::hash::Map;
use crate::process::found::Looks;
use crate::process::view::{BootClock, Viewer};
use crate::process::{Actor, Found};

/// More are not kept: then all are spelled anew.
const MOST: usize = 4096;

pub(super) struct ProcessObjects {
    viewer: Viewer,
    looks: Looks,
    spelled: Map<(usize, u32), Spelled>,
}

struct Spelled {
    /// Holds the process, so that its address, which is the key, is nobody else's.
    actor: Actor,
    found: Found,
    object: Arc<RawValue>,
}

impl ProcessObjects {
    pub(super) fn new(clock: BootClock, looks: Looks) -> Self {
        Self { viewer: Viewer::new(clock), looks, spelled: Map::default() }
    }

    /// The object of `actor`, with what has become of its executable by now, or had when it was recorded.
    pub(super) fn object(&mut self, actor: &Actor) -> io::Result<Arc<RawValue>> {
        let found = self.looks.of(&actor.process);
        let key = (Arc::as_ptr(&actor.process).addr(), actor.tid());
        let known = self.spelled.get(&key);
        if let Some(known) =
            known.filter(|known| known.found == found && known.actor.thread() == actor.thread())
        {
            return Ok(known.object.clone());
        }
        let object: Arc<RawValue> = to_raw_value(&self.viewer.view(actor, found))?.into();
        if self.spelled.len() >= MOST {
            self.spelled.clear();
        }
        self.spelled.insert(key, Spelled { actor: actor.clone(), found, object: object.clone() });
        Ok(object)
    }
}
