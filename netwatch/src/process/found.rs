//! What has become of the file that a process runs: looked at when an event is told, once for whoever prints it and
//! whoever records it, so that both say the same.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Process;
use crate::hash::Map;
use crate::model::ExeState;
use crate::snapshot::processes;

/// What a look at a process's executable found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// What became of the file.
    pub exe_state: ExeState,
    /// Everybody may put files where it lies.
    pub world_writable: bool,
}

/// For so long what was found out about a file stands. Nobody deletes a program and looks at the log in less, and a
/// flood of events costs no look each.
const FRESH: Duration = Duration::from_millis(20);

/// More are not kept: then all are looked at anew.
const MOST: usize = 4096;

/// Looks, and remembers for a moment. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Looks(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// Everything that is told between two calls of [`Looks::refresh`] is told of one moment.
    now: Instant,
    by_process: Map<usize, Look>,
}

#[derive(Debug)]
struct Look {
    /// Holds it, so that its address, which is the key, is nobody else's.
    _process: Arc<Process>,
    at: Instant,
    found: Found,
}

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Known { now: Instant::now(), by_process: Map::default() })))
    }
}

impl Looks {
    /// Time goes on: to be called once for each bunch of events.
    pub fn refresh(&self) {
        self.lock().now = Instant::now();
    }

    /// What has become of the file of `process`; where that was written down, what it was then.
    #[must_use]
    pub fn of(&self, process: &Arc<Process>) -> Found {
        if let Some(found) = process.found {
            return found;
        }
        let mut known = self.lock();
        let now = known.now;
        let key = Arc::as_ptr(process).addr();
        if let Some(look) = known.by_process.get_mut(&key) {
            if now.saturating_duration_since(look.at) >= FRESH {
                look.found.exe_state = exe_state(process);
                look.at = now;
            }
            return look.found;
        }
        if known.by_process.len() >= MOST {
            known.by_process.clear();
        }
        let found = Found { exe_state: exe_state(process), world_writable: is_world_writable(process) };
        known.by_process.insert(key, Look { _process: process.clone(), at: now, found });
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing in there is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Whether everybody may write to the folder of its executable, as netwatch's own mounts or the process's show it.
fn is_world_writable(process: &Process) -> bool {
    const WRITE_BY_OTHERS: u32 = 0o002;
    let image = &process.image;
    let Some(folder) = image.exe.as_deref().and_then(|exe| Path::new(exe).parent()) else { return false };
    if image.exe_state == ExeState::Memfd {
        return false;
    }
    let folder = if image.mntns == processes::own_mntns() {
        folder.to_owned()
    } else {
        let root = Path::new("/proc").join(process.key.pid.to_string()).join("root");
        root.join(folder.strip_prefix("/").unwrap_or(folder))
    };
    fs::metadata(folder).is_ok_and(|folder| folder.is_dir() && folder.mode() & WRITE_BY_OTHERS != 0)
}
