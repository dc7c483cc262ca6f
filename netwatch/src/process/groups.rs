//! Paths of cgroups.

use std::sync::Arc;

use crate::hash::Map;
use crate::limits;
use crate::model::CgroupId;

/// Paths by id in the unified hierarchy; `None` if that cannot be found out. At most [`limits::MOST_CGROUPS`].
#[derive(Debug, Default)]
pub(super) struct Groups(Map<CgroupId, Option<Arc<str>>>);

impl Groups {
    pub(super) fn knows(&self, id: CgroupId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn learn(&mut self, id: CgroupId, path: Option<Arc<str>>) {
        if self.0.len() >= limits::MOST_CGROUPS && !self.knows(id) {
            self.0.clear();
        }
        self.0.insert(id, path);
    }

    /// The path, if it is known and [`names_a_group`].
    pub(super) fn path(&self, id: CgroupId) -> Option<&Arc<str>> {
        self.0.get(&id)?.as_ref().filter(|path| names_a_group(path))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whether a path in the unified hierarchy names a group. As for `/proc/PID/cgroup`, a v1 hierarchy is used if the unified
/// one has only its root.
pub(super) fn names_a_group(path: &str) -> bool {
    path.len() > 1
}
