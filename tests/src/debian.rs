//! A plain Debian to start servers in: a mount namespace whose root is an overlay on the Debian that `cargo xtask test`
//! built. Writes go to memory and are discarded with the test. Pids are those of the host.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pivot_root};

use crate::wait::{skip, until};

const OWN: &str = "/proc/thread-self/ns/mnt";

/// A namespace for one test. Processes in it are killed with it.
#[derive(Debug)]
pub struct Debian(File);

impl Debian {
    /// With no process in it; `None` if no Debian was built, which is reported as a skip of `test`.
    ///
    /// # Panics
    /// If the overlay cannot be mounted.
    #[must_use]
    pub fn of_this_run(test: &str) -> Option<Self> {
        Self::of(test, "DEBIAN")
    }

    /// The same of the Debian that has ClickHouse.
    ///
    /// # Panics
    /// As [`Self::of_this_run`].
    #[must_use]
    pub fn with_clickhouse(test: &str) -> Option<Self> {
        Self::of(test, "CLICKHOUSE")
    }

    fn of(test: &str, name: &str) -> Option<Self> {
        let Some(root) = std::env::var_os(format!("NETWATCH_{name}")).map(PathBuf::from) else {
            let why = std::env::var(format!("NETWATCH_NO_{name}"));
            skip(test, why.as_deref().unwrap_or("no Debian was built for the tests of this run"));
            return None;
        };
        // Only a thread can leave the mount namespace, and only for itself: this one exits here.
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().to_owned();
        let made = std::thread::spawn(move || {
            view(&root, &path).unwrap_or_else(|error| panic!("no view of {}: {error}", root.display()));
            File::open(OWN).expect("/proc is mounted")
        });
        // The folder is removed here: in this namespace nothing is mounted on it, and it is empty.
        Some(Self(made.join().expect("a mount namespace")))
    }

    /// Runs `work` on a thread in that mount namespace, in the calling thread's network namespace.
    ///
    /// # Panics
    /// As `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // setns(2) refuses while root and working directory are shared with other threads.
                unshare(CloneFlags::CLONE_FS).expect("a root of the thread's own");
                setns(&self.0, CloneFlags::CLONE_NEWNS).expect("a namespace to enter");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its inode number.
    fn inum(&self) -> u64 {
        self.0.metadata().map_or(0, |found| found.ino())
    }

    /// Processes that run in it. Zombies have no namespace.
    fn pids(&self) -> Vec<i32> {
        let inum = self.inum();
        let is_inside = |pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|namespace| namespace.ino() == inum)
        };
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).filter(is_inside).collect()
    }
}

impl Drop for Debian {
    /// Servers have children that outlive them. All processes in the namespace belong to the test; its own threads are
    /// not listed.
    fn drop(&mut self) {
        let ended = || {
            let pids = self.pids();
            for pid in &pids {
                // It may have exited meanwhile.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            pids.is_empty()
        };
        // A second panic would hide the first, and abort all tests.
        if std::thread::panicking() {
            ended();
        } else {
            until("what ran in the Debian ends", ended);
        }
    }
}

/// Makes the calling thread's mount namespace one whose root is an overlay on `root`, mounted on the folder `place`
/// first.
fn view(root: &Path, place: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let lower = root.to_str().ok_or_else(|| io::Error::other("its path is no UTF-8"))?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // The following mounts must not propagate to other namespaces.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    let [upper, work, view] = ["upper", "work", "view"].map(|name| place.join(name));
    for folder in [&upper, &work, &view] {
        fs::create_dir(folder)?;
    }
    // Documentation/filesystems/overlayfs.rst: these are escaped by a backslash.
    let lower: String = lower
        .chars()
        .flat_map(|c| [matches!(c, '\\' | ':' | ',').then_some('\\'), Some(c)])
        .flatten()
        .collect();
    let layers = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &view, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))?;
    for shared in ["proc", "sys"] {
        let from = Path::new("/").join(shared);
        mount(Some(&from), &view.join(shared), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    }
    let (memory, own) = (view.join("dev/shm"), Some("mode=1777"));
    mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), own)?;
    // An instance of its own: a test finds it without terminals (Documentation/filesystems/devpts.rst).
    mount(Some("devpts"), &view.join("dev/pts"), Some("devpts"), MsFlags::empty(), Some("ptmxmode=0666"))?;
    let multiplexer = view.join("dev/ptmx");
    if fs::symlink_metadata(&multiplexer).is_err() {
        std::os::unix::fs::symlink("pts/ptmx", multiplexer)?;
    }
    // pivot_root(2), NOTES: the old root comes to lie on the new one, and is taken away from there.
    std::env::set_current_dir(&view)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}
