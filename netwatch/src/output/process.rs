//! The process object, spelled once for many events: most of an event's bytes are its processes, and most
//! events of a busy host are about the same few.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::{RawValue, to_raw_value};

use crate::hash::Map;
use crate::model::ExeState;
use crate::process::view::{BootClock, Viewer};
use crate::process::{Actor, Process};
use crate::snapshot::processes;

/// For so long what was found out about a file stands. Nobody deletes a program and looks at the log in
/// less, and a flood of events costs no look each.
const FRESH: Duration = Duration::from_millis(20);

/// More are not kept: then all are spelled anew.
const MOST: usize = 4096;

pub(super) struct ProcessObjects {
    viewer: Viewer,
    spelled: Map<(usize, u32), Spelled>,
}

struct Spelled {
    /// Holds the process, so that its address, which is the key, is nobody else's.
    actor: Actor,
    exe_state: ExeState,
    looked: Instant,
    object: Arc<RawValue>,
}

impl ProcessObjects {
    pub(super) fn new(clock: BootClock) -> Self {
        Self { viewer: Viewer::new(clock), spelled: Map::default() }
    }

    /// The object of `actor`, with what has become of its executable by now.
    pub(super) fn object(&mut self, actor: &Actor) -> io::Result<Arc<RawValue>> {
        let key = (Arc::as_ptr(&actor.process).addr(), actor.tid);
        let known = self.spelled.get_mut(&key).filter(|known| known.actor.thread == actor.thread);
        let exe_state = match known {
            Some(known) if known.looked.elapsed() < FRESH => return Ok(known.object.clone()),
            Some(known) => {
                let exe_state = exe_state(&actor.process);
                known.looked = Instant::now();
                if known.exe_state == exe_state {
                    return Ok(known.object.clone());
                }
                exe_state
            }
            None => exe_state(&actor.process),
        };
        let object: Arc<RawValue> = to_raw_value(&self.viewer.view(actor, exe_state))?.into();
        if self.spelled.len() >= MOST {
            self.spelled.clear();
        }
        self.spelled.insert(
            key,
            Spelled { actor: actor.clone(), exe_state, looked: Instant::now(), object: object.clone() },
        );
        Ok(object)
    }
}

/// What has become of the file that a process runs, or ran.
fn exe_state(process: &Process) -> ExeState {
    let image = &process.image;
    if process.kernel || image.exe_state == ExeState::Memfd {
        return image.exe_state;
    }
    let (_, now, file) = processes::exe(process.key.pid);
    if file == image.file && file != (0, 0) {
        return now;
    }
    // It is gone or runs something else by now. Its path still means the same here if it lived among
    // netwatch's own mounts.
    let Some(exe) = image.exe.as_deref().filter(|_| image.mntns == processes::own_mntns()) else {
        return image.exe_state;
    };
    match fs::metadata(exe) {
        Ok(named) if (named.dev(), named.ino()) == image.file => ExeState::Ok,
        Ok(named) if named.dev() == image.file.0 => ExeState::Replaced,
        Err(error) if error.kind() == io::ErrorKind::NotFound => ExeState::Deleted,
        // Some file systems number their files otherwise inside the kernel (overlayfs, btrfs).
        _ => image.exe_state,
    }
}
