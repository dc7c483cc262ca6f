//! A cache of rendered process objects: most bytes of an event are its processes, and most events of a busy host are
//! about the same few.

mod view;

use std::io;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

pub use view::{AncestorView, ProcessView};

use crate::hash::Map;
use crate::process::{Actor, ExeStatus};
use crate::stream::Context;

/// Maximum number of cached objects; when it is reached the cache is cleared.
const MOST_REMEMBERED: usize = 4096;

#[derive(Default)]
pub(super) struct ProcessObjects {
    rendered: Map<(usize, u32), Rendered>,
}

struct Rendered {
    /// Keeps the process alive, so that its address, which is the key, is not reused.
    actor: Actor,
    status: ExeStatus,
    object: Arc<RawValue>,
}

impl ProcessObjects {
    /// The object of `actor`, with the status of its executable at that time.
    pub(super) fn object(
        &mut self,
        actor: &Actor,
        status: ExeStatus,
        context: &Context,
    ) -> io::Result<Arc<RawValue>> {
        let key = (Arc::as_ptr(&actor.process).addr(), actor.tid());
        let known = self.rendered.get(&key);
        if let Some(known) =
            known.filter(|known| known.status == status && known.actor.thread() == actor.thread())
        {
            return Ok(known.object.clone());
        }
        let user = context.users.get(&actor.process.uid).cloned().flatten();
        let object: Arc<RawValue> =
            to_raw_value(&ProcessView::new(actor, status, user, context.run_clock))?.into();
        if self.rendered.len() >= MOST_REMEMBERED {
            self.rendered.clear();
        }
        self.rendered.insert(key, Rendered { actor: actor.clone(), status, object: object.clone() });
        Ok(object)
    }

    /// Clears the cache, because the context changed.
    pub(super) fn clear(&mut self) {
        self.rendered.clear();
    }
}
