//! Status of the executables that processes run, at the time of an event: intact, deleted, replaced. Each file is
//! examined once per batch at most, and every subscriber is given the same answer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Stage;
use crate::blocking::{self, FileFacts, Patience, Place, Subject};
use crate::hash::Map;
use crate::model::ExeState;
use crate::process::{Actor, ExeStatus, Process};
use crate::snapshot::processes;
use crate::stream::{Batch, Item};
use crate::tracker::ConnectionEvent;

/// How long a status stays valid: so that a flood of events does not cost a stat(2) each.
const FRESH: Duration = Duration::from_millis(20);

/// Processes whose status is remembered. When there are more, all are examined anew.
const MOST_REMEMBERED: usize = 4096;

/// Examines executables, and remembers each status for [`FRESH`].
#[derive(Debug, Default)]
pub struct Executables {
    by_process: Map<usize, Remembered>,
    patience: Patience,
}

#[derive(Debug)]
struct Remembered {
    /// Holds the process, so that its address, which is the key, is not used for another.
    _process: Arc<Process>,
    at: Instant,
    status: ExeStatus,
}

impl Executables {
    /// For a command that prints once.
    #[must_use]
    pub fn patient() -> Self {
        Self { patience: Patience::Command, ..Self::default() }
    }

    /// The status of the executable of `process` at `now`; of a process read from the store, the status as recorded.
    #[must_use]
    pub fn status(&mut self, process: &Arc<Process>, now: Instant) -> ExeStatus {
        if let Some(status) = process.exe_status {
            return status;
        }
        let (key, patience) = (Arc::as_ptr(process).addr(), self.patience);
        if let Some(remembered) = self.by_process.get_mut(&key) {
            if now.saturating_duration_since(remembered.at) >= FRESH {
                let before = remembered.status.state;
                remembered.status.state = match exe_state(process, patience) {
                    // It was deleted while the process ran.
                    ExeState::Unknown if before == ExeState::Deleted => before,
                    state => state,
                };
                remembered.at = now;
            }
            return remembered.status;
        }
        if self.by_process.len() >= MOST_REMEMBERED {
            self.by_process.clear();
        }
        let status = ExeStatus {
            state: exe_state(process, patience),
            world_writable: is_world_writable(process, patience),
        };
        self.by_process.insert(key, Remembered { _process: process.clone(), at: now, status });
        status
    }

    /// Sets the status of each process of an event.
    pub fn complete_event(&mut self, event: &mut ConnectionEvent, now: Instant) {
        event.facts.exe = event.endpoint.actors().map(|actor| self.status(&actor.process, now));
    }

    /// Writes the present status into the process itself, for a caller that has no event to carry it.
    pub fn complete(&mut self, actor: &mut Actor) {
        let status = self.status(&actor.process, Instant::now());
        Arc::make_mut(&mut actor.process).exe_status = Some(status);
    }
}

impl Stage for Executables {
    fn enrich(&mut self, batch: &mut Batch) {
        let now = Instant::now();
        for item in &mut batch.items {
            match item {
                Item::Event(event) => self.complete_event(event, now),
                Item::Table(events) => events.iter_mut().for_each(|event| self.complete_event(event, now)),
                Item::Process(process, status) => *status = self.status(process, now),
                Item::Ready(_) | Item::Exec(..) | Item::Alert(_) | Item::Loss(..) => {}
            }
        }
    }
}

fn exe_state(process: &Process, patience: Patience) -> ExeState {
    let image = &process.image;
    if process.kernel || image.exe_state == ExeState::Memfd {
        return image.exe_state;
    }
    let (_, now, file) = processes::exe(process.key.pid, patience);
    if file == image.file && file != (0, 0) {
        return now;
    }
    // The process has ended or runs another program. Its path still names the same file here only if it lived among
    // netwatch's own mounts.
    let Some(exe) = image.exe.as_deref().filter(|_| image.mntns == processes::own_mntns()) else {
        return image.exe_state;
    };
    match stat(process, Place { root_of: None, path: Path::new(exe) }, patience) {
        None => ExeState::Unknown,
        Some(Ok(named)) if named.identity() == image.file => ExeState::Ok,
        Some(Ok(named)) if named.device == image.file.0 => ExeState::Replaced,
        // It was deleted or renamed, or its folder was. Which of them is known only if it was seen before.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => match image.exe_state {
            ExeState::Deleted => ExeState::Deleted,
            _ => ExeState::Unknown,
        },
        // Some file systems report other device numbers to user space than inside the kernel (overlayfs, btrfs).
        Some(_) => image.exe_state,
    }
}

/// Whether any user may write to the directory of the executable, as netwatch's own mounts or the process's show it.
/// False if not known.
fn is_world_writable(process: &Process, patience: Patience) -> bool {
    let image = &process.image;
    let Some(folder) = image.exe.as_deref().and_then(|exe| Path::new(exe).parent()) else { return false };
    if image.exe_state == ExeState::Memfd {
        return false;
    }
    let root_of = (image.mntns != processes::own_mntns()).then_some(process.key.pid);
    stat(process, Place { root_of, path: folder }, patience)
        .is_some_and(|folder| folder.is_ok_and(|folder| folder.is_open_to_all()))
}

fn stat(process: &Process, place: Place<'_>, patience: Patience) -> Option<io::Result<FileFacts>> {
    let subject = || Subject::Files { device: process.image.file.0, user: process.uid };
    blocking::stat(place, subject, patience)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Image;

    /// A process that has ended.
    fn ended(path: &str, recorded: ExeState) -> Arc<Process> {
        let mut process = Process::clone(&crate::process::tests::process(u32::MAX, None));
        process.image = Arc::new(Image {
            exe: Some(path.into()),
            exe_state: recorded,
            file: (1, 1),
            mntns: processes::own_mntns(),
            ..Image::clone(&process.image)
        });
        Arc::new(process)
    }

    #[test]
    fn file_that_may_have_been_renamed_is_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let state = |recorded| {
            let process = ended(path.to_str().unwrap(), recorded);
            Executables::patient().status(&process, Instant::now()).state
        };
        assert_eq!(state(ExeState::Ok), ExeState::Unknown);
        assert_eq!(state(ExeState::Deleted), ExeState::Deleted);
    }

    #[test]
    fn deleted_file_stays_deleted_when_its_process_has_ended() {
        let process = ended("/nowhere", ExeState::Ok);
        let mut executables = Executables::patient();
        let now = Instant::now();
        assert_eq!(executables.status(&process, now).state, ExeState::Unknown);
        for remembered in executables.by_process.values_mut() {
            remembered.status.state = ExeState::Deleted;
        }
        assert_eq!(executables.status(&process, now + FRESH).state, ExeState::Deleted);
    }
}
