//! Where the files of processes are: in `/proc`, unless something is mounted over the directory of a process, by which
//! whoever has the privilege makes a process look like another one, or like none. Then they are read in a procfs that
//! is mounted for netwatch alone and has no path, so that nothing is mounted over it.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{bounded, limits};

/// Whether the last look at the mounts found one over the directory of a process.
static IS_COVERED: AtomicBool = AtomicBool::new(false);

/// The directory of a process.
#[must_use]
pub fn of(pid: u32) -> PathBuf {
    root().join(pid.to_string())
}

/// The directory that has those of all processes.
#[must_use]
pub fn root() -> &'static Path {
    let covered = IS_COVERED.load(Ordering::Relaxed);
    own().filter(|_| covered).unwrap_or(Path::new("/proc"))
}

/// The mounts that netwatch sees, as `/proc/PID/mountinfo` (proc(5)) lists them.
#[derive(Debug)]
pub struct Mounts(Vec<u8>);

impl Mounts {
    /// Reads them. If that fails there are none: then only namespaces without a process, and mounts over processes, are
    /// missed.
    #[must_use]
    pub fn read() -> Self {
        let read = bounded::read("/proc/self/mountinfo", limits::MOUNTS_FILE);
        Self(read.map(|file| file.bytes).unwrap_or_default())
    }

    /// Their lines.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.0
    }
}

/// Looks for mounts over directories of processes. Returns the processes, in order. From now on until the next call
/// [`of`] leads around them, if netwatch may mount a procfs.
pub fn find_covered(mounts: &Mounts) -> Vec<u32> {
    let covered = covered(&String::from_utf8_lossy(mounts.lines()));
    IS_COVERED.store(!covered.is_empty(), Ordering::Relaxed);
    covered
}

/// Processes over whose directories something is mounted, by the lines of `/proc/PID/mountinfo` (proc(5)).
fn covered(mounts: &str) -> Vec<u32> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)?.strip_prefix("/proc/"));
    let mut pids: Vec<_> = points.filter_map(|point| point.split('/').next()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The directory of the own mount, which exists as long as netwatch runs; mounted when it is first needed.
fn own() -> Option<&'static Path> {
    static OWN: OnceLock<Option<(OwnedFd, PathBuf)>> = OnceLock::new();
    let is_needed = OWN.get().is_some() || IS_COVERED.load(Ordering::Relaxed);
    let own = is_needed.then(|| OWN.get_or_init(|| mount().inspect_err(|error| log::info!("{error}")).ok()));
    own?.as_ref().map(|(_, path)| path.as_path())
}

/// Mounts a procfs without a path. It is one of the pid namespace of netwatch, so that of `/proc` has to be the same.
fn mount() -> std::io::Result<(OwnedFd, PathBuf)> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let same = |file: &str| -> std::io::Result<bool> {
        Ok(fs::read_link(path.join(file))? == fs::read_link(Path::new("/proc").join(file))?)
    };
    if !same("self")? || !same("self/ns/pid")? {
        return Err(std::io::Error::other("/proc is that of another pid namespace"));
    }
    Ok((mount, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_over_processes_are_found() {
        let mounts = "\
            22 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw\n\
            400 22 0:40 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
            401 22 0:21 /17 /proc/4711 rw - proc proc rw\n\
            402 22 0:33 / /proc/12/fd rw - tmpfs none rw\n\
            403 22 0:33 / /proc/12 rw - tmpfs none rw\n\
            404 22 0:33 / /processes/99 rw - tmpfs none rw\n\
            405\n";
        assert_eq!(covered(mounts), [12, 4711]);
        assert!(covered("").is_empty());
    }
}
