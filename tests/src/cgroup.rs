//! Control groups, which go with their guard once nobody is in there any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A tree of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// cgroup v2.
    Unified,
    /// The one of v1 that systemd has to itself.
    Systemd,
}

impl Tree {
    /// Where it is mounted, if it is.
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

/// A group below one of the test's own.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Makes it, with those above it.
    ///
    /// # Panics
    /// When there is no such tree, or no such group to be had.
    #[must_use]
    pub fn new(tree: Tree, path: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = tree.root().expect("a tree of control groups");
        let own = format!("netwatch-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = Self { path: Path::new(&own).join(path), root };
        fs::create_dir_all(group.directory()).expect("a control group");
        group
    }

    /// As processes have it: from the tree's root on.
    ///
    /// # Panics
    /// Never: it was made of text.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}", self.path.to_str().expect("it was made of text"))
    }

    /// The file that takes the pids of those that are to be in there.
    #[must_use]
    pub fn procs(&self) -> PathBuf {
        self.directory().join("cgroup.procs")
    }

    /// Puts a process there.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn takes(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).expect("a process to put there");
    }

    fn directory(&self) -> PathBuf {
        self.root.join(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        /// A process that was killed leaves its group in its own time.
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
