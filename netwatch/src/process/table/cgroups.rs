//! Cgroups of processes: moves, and paths by id.

use std::sync::Arc;

use super::{Live, ProcessTable};
use crate::decode::{CgroupEvent, Task};
use crate::limits;
use crate::model::CgroupId;
use crate::process::Process;

impl ProcessTable {
    pub(super) fn cgroup(&mut self, event: &CgroupEvent) {
        const UNIFIED: u32 = 0;
        if event.hierarchy == UNIFIED
            && let Some(id) = event.id
        {
            self.learn_cgroup(id, Some(event.path.clone()));
        }
        let Some(Live { process, epoch, changed }) = event.moved.and_then(|key| self.live.get(&key.pid))
        else {
            return;
        };
        if Some(process.key) != event.moved {
            return;
        }
        if names_a_group(&event.path) && (event.hierarchy == UNIFIED || process.cgroup.len() <= 1) {
            let mut moved = Process::clone(process);
            moved.cgroup = event.path.clone();
            if event.hierarchy == UNIFIED {
                moved.cgroup_id = event.id;
            }
            let (epoch, changed) = (*epoch, *changed);
            self.put(moved, epoch, changed);
        }
    }

    /// Whether the path of a cgroup was learnt, or could not be found out.
    #[must_use]
    pub fn knows_cgroup(&self, id: CgroupId) -> bool {
        self.cgroups.contains_key(&id)
    }

    /// Notes the path of a cgroup in the unified hierarchy.
    pub fn learn_cgroup(&mut self, id: CgroupId, path: Option<Arc<str>>) {
        if self.cgroups.len() >= limits::MOST_CGROUPS && !self.knows_cgroup(id) {
            self.cgroups.clear();
        }
        self.cgroups.insert(id, path);
    }

    /// The path of the task's cgroup, if it is known and [`names_a_group`].
    pub(super) fn group_path(&self, task: &Task) -> Option<&Arc<str>> {
        self.cgroups.get(&task.cgroup?)?.as_ref().filter(|path| names_a_group(path))
    }
}

/// Whether a path in the unified hierarchy names a group. As for `/proc/PID/cgroup`, a v1 hierarchy is used if the unified
/// one has only its root.
fn names_a_group(path: &str) -> bool {
    path.len() > 1
}
