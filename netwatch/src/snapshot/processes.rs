//! Reads processes from `/proc`.

use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::{SnapshotError, parse};
use crate::blocking::{self, FileFacts, Patience, Place, Subject};
use crate::bounded::{self, Ends, Gap};
use crate::decode::listed;
use crate::hash::Map;
use crate::model::{Arguments, ExeState, Image, Lister, Listing, ProcessFacts, ProcessKey, ProcessRow};
use crate::{escape, limits, proc};

/// Reads all processes, sorted by pid. Those that end meanwhile, or are hidden by `hidepid`, are left out.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn all() -> Result<Vec<ProcessRow>, SnapshotError> {
    let mut pids = pids()?;
    pids.sort_unstable();
    Ok(within(pids, limits::ARGS_ALL))
}

/// Reads processes, and the arguments of the first of them up to `most` bytes in all.
fn within(pids: impl IntoIterator<Item = u32>, most: usize) -> Vec<ProcessRow> {
    let mut left = most;
    let mut rows = Vec::new();
    for pid in pids {
        let most = limits::ARGS_BYTES.min(left.max(limits::ARGS_SHORT));
        let Some(row) = read(pid, Patience::Command, most) else { continue };
        left = left.saturating_sub(row.image.args.size());
        rows.push(row);
    }
    rows
}

/// Reads one process; `None` if it is gone.
#[must_use]
pub fn one(pid: u32, patience: Patience) -> Option<ProcessRow> {
    read(pid, patience, limits::ARGS_BYTES)
}

/// Reads the process with this key; `None` if it is gone, or the pid is another's.
#[must_use]
pub fn of(key: ProcessKey, patience: Patience) -> Option<ProcessRow> {
    let mut row = one(key.pid, patience).filter(|row| row.key.may_be(key))?;
    row.key = key.or_exact(row.key);
    Some(row)
}

/// Reads all processes, with their exact start if the kernel's iterator can be read.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn with_exact_start(lister: Option<&dyn Lister>) -> Result<Vec<ProcessRow>, SnapshotError> {
    let mut rows = all()?;
    match lister.map(|lister| lister.list(Listing::Tasks)) {
        Some(Ok(bytes)) => set_exact(&mut rows, listed::running(&bytes)),
        Some(Err(error)) => log::info!("processes cannot be listed by an iterator: {error}"),
        None => {}
    }
    Ok(rows)
}

/// Replaces the keys of the processes that are listed in `exact` by the ones there.
pub fn set_exact(rows: &mut [ProcessRow], exact: impl IntoIterator<Item = ProcessKey>) {
    let exact: Map<u32, ProcessKey> = exact.into_iter().map(|key| (key.pid, key)).collect();
    for row in rows {
        if let Some(key) = exact.get(&row.key.pid).filter(|key| key.may_be(row.key)) {
            row.key = key.or_exact(row.key);
        }
    }
}

/// `most`: of its arguments, bytes.
fn read(pid: u32, patience: Patience, most: usize) -> Option<ProcessRow> {
    let base = proc::of(pid);
    let bytes = |name: &str| bounded::read(base.join(name), limits::PROC_FILE).map(|file| file.bytes);
    let line = bytes("stat").ok()?;
    let stat = parse::stat(&line)?;
    let bytes = |name: &str| bytes(name).unwrap_or_default();
    let comm = bytes("comm");
    let uid = parse::effective_uid(&bytes("status"))?;
    let cmdline = cmdline(pid, uid, &line, most, patience);
    let (exe, exe_state, file) =
        if stat.kernel { (None, ExeState::Unknown, (0, 0)) } else { exe(pid, patience) };
    let facts = ProcessFacts {
        key: ProcessKey::from_ticks(pid, stat.start_ticks),
        ppid: stat.ppid,
        comm: escape::utf8(comm.strip_suffix(b"\n").unwrap_or(&comm)).into(),
        uid,
        auid: parse::login_uid(&bytes("loginuid")),
        image: Arc::new(Image { exe, exe_state, file, mntns: mntns(pid), args: in_words(&cmdline) }),
        cgroup: escape::utf8(parse::cgroup(&bytes("cgroup"))).into(),
        kernel: stat.kernel,
        stdio: [None; 3],
        streams: [None; 3],
    };
    Some(ProcessRow { facts, argv0: cmdline.bytes.split(|b| *b == 0).next().unwrap_or_default().into() })
}

/// The arguments as they lie in memory, or their ends; `stat` is what the file of that name says. Nothing of them if the
/// memory map of the process is held.
fn cmdline(pid: u32, uid: u32, stat: &[u8], most: usize, patience: Patience) -> Ends {
    let length = parse::args_length(stat);
    let read = move || {
        let file = File::open(proc::of(pid).join("cmdline"))?;
        bounded::ends(&file, most, limits::ARGS_SEARCHED, || length)
    };
    match blocking::of_memory(pid, uid, patience, read) {
        Some(read) => read.unwrap_or(Ends { bytes: Vec::new(), gap: None }),
        None => Ends { bytes: Vec::new(), gap: Some(Gap { at: 0, length }) },
    }
}

fn in_words(cmdline: &Ends) -> Arguments {
    let Some(gap) = cmdline.gap else { return Arguments::of(&cmdline.bytes) };
    let (head, tail) = cmdline.bytes.split_at_checked(gap.at).unwrap_or((&cmdline.bytes, &[]));
    Arguments::of_ends(head, tail, gap.length)
}

/// Ids of all thread groups, in the order in which the kernel lists them.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn pids() -> Result<Vec<u32>, SnapshotError> {
    let list = || {
        let mut pids = Vec::new();
        for entry in fs::read_dir(proc::root())? {
            pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    };
    list().map_err(|source| SnapshotError::Proc { path: "/proc", source })
}

/// The suffix of a link to a file without a name (fs/d_path.c, d_path(), v6.12).
const DELETED: &[u8] = b" (deleted)";

/// The current executable of a process: its path (without the suffix), the state of that file, and device and inode (0
/// if not known). Nothing is known about kernel threads and processes that the caller may not inspect. If a file system
/// does not answer, the state is not known.
#[must_use]
pub fn exe(pid: u32, patience: Patience) -> (Option<Arc<str>>, ExeState, (u64, u64)) {
    let link = proc::of(pid).join("exe");
    let Ok(target) = fs::read_link(&link) else { return (None, ExeState::Unknown, (0, 0)) };
    let target = target.into_os_string().into_vec();
    // Follows the magic link, not its text, so it is right even if the file was renamed or deleted.
    let running = blocking::stat_running(pid, patience).ok();
    let file = running.as_ref().map_or((0, 0), FileFacts::identity);
    let named = |path: &[u8]| named(pid, path, file.0, patience);

    let stripped = target.strip_suffix(DELETED);
    // The name of a file may end with this suffix.
    if stripped.is_some() && matches!(named(&target), Named::File(named) if named == file) {
        return (Some(escape::utf8(&target).into()), ExeState::Ok, file);
    }
    let path = stripped.unwrap_or(&target);
    let state = if stripped.is_some() && path.starts_with(b"/memfd:") {
        ExeState::Memfd
    } else {
        match (named(path), stripped) {
            _ if running.is_none() => ExeState::Unknown,
            (Named::NoAnswer, _) => ExeState::Unknown,
            // Also where the kernel forgot the name of a file on another host, and so says "(deleted)".
            (Named::File(named), _) if named == file => ExeState::Ok,
            (Named::File(_), _) => ExeState::Replaced,
            (Named::Nothing, Some(_)) => ExeState::Deleted,
            // The process is gone, so the path cannot be resolved.
            (Named::Nothing, None) if fs::read_link(&link).is_err() => {
                return (None, ExeState::Unknown, (0, 0));
            }
            // The path cannot be resolved: another root directory, or a detached mount.
            (Named::Nothing, None) => ExeState::Unknown,
        }
    };
    (Some(escape::utf8(path).into()), state, file)
}

/// What has a path.
enum Named {
    /// Device and inode of a file.
    File((u64, u64)),
    /// No file, or none that can be found.
    Nothing,
    NoAnswer,
}

/// The file that has this path in the mount namespace of the process, which runs a file of `device`. A path in `/proc`
/// starts at the root directory of the reader if both share the namespace, else at the root of the process's namespace.
fn named(pid: u32, path: &[u8], device: u64, patience: Patience) -> Named {
    let root_of = (!shares_mounts(pid)).then_some(pid);
    let place = Place { root_of, path: Path::new(std::ffi::OsStr::from_bytes(path)) };
    let subject = || {
        let user = fs::metadata(proc::of(pid)).map_or(0, |process| process.uid());
        Subject::Files { device, user }
    };
    match blocking::stat(place, subject, patience) {
        Some(Ok(file)) => Named::File(file.identity()),
        Some(Err(_)) => Named::Nothing,
        None => Named::NoAnswer,
    }
}

fn shares_mounts(pid: u32) -> bool {
    own_mntns() != 0 && own_mntns() == mntns(pid)
}

/// The mount namespace of netwatch; 0 if not known.
#[must_use]
pub fn own_mntns() -> u32 {
    static OWN: OnceLock<u32> = OnceLock::new();
    *OWN.get_or_init(|| link_of_mntns(Path::new("/proc/self/ns/mnt")))
}

fn mntns(pid: u32) -> u32 {
    link_of_mntns(&proc::of(pid).join("ns/mnt"))
}

fn link_of_mntns(path: &Path) -> u32 {
    let link = fs::read_link(path).unwrap_or_default();
    parse::mnt_link(link.as_os_str().as_bytes()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use super::*;
    use crate::model::tests::ns;

    /// Kills the child in any case.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A copy of `sleep` under a chosen name.
    fn sleeper(name: &str) -> (Running, PathBuf) {
        let path = std::env::temp_dir().join(format!("netwatch-{}-{name}", std::process::id()));
        let source = std::env::var_os("PATH").and_then(|all| {
            std::env::split_paths(&all).map(|dir| dir.join("sleep")).find(|path| path.exists())
        });
        fs::copy(source.unwrap(), &path).unwrap();
        // A fork in another test's thread may have the copy open for writing for a moment (ETXTBSY).
        let child = (0..50).find_map(|_| {
            let child = Command::new(&path).arg("600").spawn();
            if child.is_err() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            child.ok()
        });
        let child = Running(child.unwrap());
        // spawn() returns once the exec closes its pipe (begin_new_exec in fs/exec.c), which is before the
        // new arguments are in place.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while fs::read(format!("/proc/{}/cmdline", child.0.id())).unwrap().is_empty() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        (child, path)
    }

    #[test]
    fn child_is_read_correctly() {
        let (child, path) = sleeper("as-it-is");
        let row = one(child.0.id(), Patience::Command).unwrap();
        assert_eq!(row.ppid, std::process::id());
        assert_eq!(&*row.comm, &path.file_name().unwrap().to_str().unwrap()[..15]);
        assert_eq!(row.image.exe.as_deref(), path.to_str());
        assert_eq!(row.image.exe_state, ExeState::Ok);
        assert_eq!(row.image.args.iter().collect::<Vec<_>>(), [path.to_str().unwrap(), "600"]);
        assert_eq!(row.image.file, {
            let file = fs::metadata(&path).unwrap();
            (file.dev(), file.ino())
        });
        assert_eq!(&*row.argv0, path.as_os_str().as_bytes());
        assert_eq!(row.uid, nix::unistd::geteuid().as_raw());
        assert!(!row.kernel);
        // Younger than this process, and not from the future.
        let own = one(std::process::id(), Patience::Command).unwrap();
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
        assert!(own.key.start <= row.key.start);
        assert!(row.key.start <= ns(u64::try_from(now.tv_sec() + 1).unwrap() * 1_000_000_000));
        assert!(all().unwrap().contains(&row));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn state_of_the_executable_is_read() {
        let (child, path) = sleeper("file");
        let state = || exe(child.0.id(), Patience::Command).1;
        assert_eq!(state(), ExeState::Ok);
        let moved = path.with_extension("moved");
        fs::rename(&path, &moved).unwrap();
        // The link follows renames.
        assert_eq!(exe(child.0.id(), Patience::Command).0.as_deref(), moved.to_str());
        fs::remove_file(&moved).unwrap();
        assert_eq!(state(), ExeState::Deleted);
        assert_eq!(exe(child.0.id(), Patience::Command).0.as_deref(), moved.to_str());
        fs::write(&moved, "another").unwrap();
        assert_eq!(state(), ExeState::Replaced);
        fs::remove_file(&moved).unwrap();
    }

    #[test]
    fn a_name_may_look_deleted() {
        let (child, path) = sleeper("odd (deleted)");
        assert_eq!(exe(child.0.id(), Patience::Command).0.as_deref(), path.to_str());
        assert_eq!(exe(child.0.id(), Patience::Command).1, ExeState::Ok);
        fs::remove_file(&path).unwrap();
        assert_eq!(exe(child.0.id(), Patience::Command).0.as_deref(), path.to_str());
        assert_eq!(exe(child.0.id(), Patience::Command).1, ExeState::Deleted);
    }

    #[test]
    fn arguments_of_all_processes_are_limited() {
        // sleep(1) adds its arguments up, and leading zeros are as good as none.
        let long = "0".repeat(10_000);
        let mut command = Command::new("sleep");
        command.args(["600", &long]);
        let running: Vec<_> = (0..3).map(|_| Running(command.spawn().unwrap())).collect();
        let pids: Vec<_> = running.iter().map(|child| child.0.id()).collect();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        for pid in &pids {
            while fs::read(format!("/proc/{pid}/cmdline")).unwrap().len() < long.len() {
                assert!(std::time::Instant::now() < deadline);
                std::thread::yield_now();
            }
        }
        let kept = |most| -> Vec<_> {
            let rows = within(pids.iter().copied(), most);
            rows.iter()
                .map(|row| (row.image.args.size() > long.len(), row.image.args.cut().is_some()))
                .collect()
        };
        assert_eq!(kept(limits::ARGS_ALL), [(true, false); 3]);
        assert_eq!(kept(12_000), [(true, false), (false, true), (false, true)]);
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(one(0, Patience::Command), None);
        assert_eq!(exe(0, Patience::Command), (None, ExeState::Unknown, (0, 0)));
    }
}
