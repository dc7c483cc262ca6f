//! Control groups, removed with their guard as soon as no process is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A hierarchy of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// cgroup v2.
    Unified,
    /// The named v1 hierarchy of systemd.
    Systemd,
}

impl Tree {
    /// Its mount point, if it is mounted.
    #[must_use]
    pub fn root(self) -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        mounts.find_map(|mount| match mount.as_slice() {
            [_, at, "cgroup2", ..] if self == Self::Unified => Some(at.into()),
            [_, at, "cgroup", options, ..] if self == Self::Systemd => {
                options.split(',').any(|option| option == "name=systemd").then(|| at.into())
            }
            _ => None,
        })
    }
}

/// A group below one that belongs to the test.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Creates it, with its parents.
    ///
    /// # Panics
    /// If there is no such hierarchy, or the group cannot be created.
    #[must_use]
    pub fn new(tree: Tree, path: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = tree.root().expect("a tree of control groups");
        let own = format!("netwatch-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = Self { path: Path::new(&own).join(path), root };
        fs::create_dir_all(group.directory()).expect("a control group");
        group
    }

    /// The path as in `/proc/PID/cgroup`: from the root of the hierarchy.
    ///
    /// # Panics
    /// Never: it was made of text.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}", self.path.to_str().expect("it was made of text"))
    }

    /// The file that takes the pids of the processes to move there.
    #[must_use]
    pub fn procs(&self) -> PathBuf {
        self.directory().join("cgroup.procs")
    }

    /// Moves a process there.
    ///
    /// # Panics
    /// If there is no such process.
    pub fn takes(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).expect("a process to put there");
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.root.join(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        /// A killed process leaves its group some time after it was reaped.
        const PATIENCE: Duration = Duration::from_secs(5);
        const PAUSE: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + PATIENCE;
        for group in self.path.ancestors().filter(|group| !group.as_os_str().is_empty()) {
            while fs::remove_dir(self.root.join(group)).is_err() && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
    }
}
