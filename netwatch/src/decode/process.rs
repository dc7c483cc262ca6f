//! Records about processes and cgroups.

use std::borrow::Cow;
use std::mem::offset_of;
use std::sync::Arc;

use netwatch_common::{
    COMM_LEN, Cgroup, Exec, Exit, Fork, Stream as WireStream, Task as Wire, exec_flags, stream_kind,
    task_flags,
};

use super::{Bytes, DecodeError, Messages, PairEvent};
use crate::escape;
use crate::model::{Arguments, CgroupId, Cookie, ExeState, Image, ProcessKey, Stream, StreamKind, Via};

/// A task, read by the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Thread group and its start.
    pub key: ProcessKey,
    /// Thread.
    pub tid: u32,
    /// Thread group id of the current parent.
    pub ppid: u32,
    /// Effective user.
    pub uid: u32,
    /// Login user.
    pub auid: Option<u32>,
    /// Whether it is a kernel thread.
    pub kernel: bool,
    /// The way of its call, if the probe reads it and it is not a plain system call.
    pub via: Option<Via>,
    /// Id of its cgroup in the unified hierarchy, if known.
    pub cgroup: Option<CgroupId>,
    /// The socket that the thread had last received from or accepted, for a record about its action; for a new process
    /// that of the forking thread.
    pub cause: Option<Cookie>,
    /// The cause reached the thread by messages: see [`Messages`].
    pub by_message: bool,
    /// Name of the leader.
    pub comm: Name,
    /// Name of the thread, if it is not the leader.
    pub thread: Option<Name>,
}

/// The name of a task as bytes, which avoids an allocation: most names are known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; COMM_LEN]);

impl Name {
    /// Escaped for JSON.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        let bytes = self.0.split(|b| *b == 0).next().unwrap_or_default();
        std::str::from_utf8(bytes).map_or_else(|_| escape::utf8(bytes).into(), Into::into)
    }
}

#[cfg(test)]
impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut name = [0; COMM_LEN];
        name[..text.len()].copy_from_slice(text.as_bytes());
        Self(name)
    }
}

#[cfg(test)]
impl Task {
    /// A task of root, for tests.
    pub(crate) fn example(key: ProcessKey, comm: &str) -> Self {
        Self {
            key,
            tid: key.pid,
            ppid: 1,
            uid: 0,
            auid: None,
            kernel: false,
            via: None,
            cgroup: None,
            cause: None,
            by_message: false,
            comm: comm.into(),
            thread: None,
        }
    }
}

/// An event about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// Fork.
    Fork(ForkEvent),
    /// Exec.
    Exec(ExecEvent),
    /// The last thread exited.
    Exit(ProcessKey),
    /// A cgroup was created, or a process moved to one.
    Cgroup(CgroupEvent),
    /// The messages that led to the record with the same time.
    Messages(Messages),
    /// A message went from one process to another for the first time.
    Pair(PairEvent),
}

/// A new process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEvent {
    /// The child.
    pub task: Task,
    /// The process that called fork(); not always the parent (CLONE_PARENT).
    pub parent: ProcessKey,
}

/// An exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEvent {
    /// The process with its new name.
    pub task: Task,
    /// The new image; `file` has the device in the kernel's encoding. No path if it was truncated, since its beginning
    /// would be missing.
    pub image: Arc<Image>,
    /// Cookies of the IPv4 or IPv6 sockets that are stdin, stdout and stderr.
    pub stdio: [Option<Cookie>; 3],
    /// Those that are pipes, terminals or UNIX sockets.
    pub streams: [Option<Stream>; 3],
}

/// The path of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// Id: the inode number of its directory.
    pub id: Option<CgroupId>,
    /// 0 is the unified hierarchy.
    pub hierarchy: u32,
    /// Path from the root of the hierarchy.
    pub path: Arc<str>,
    /// The process that moved to it; `None` if it was created.
    pub moved: Option<ProcessKey>,
}

pub(super) fn task(bytes: Bytes<'_>, at: usize) -> Result<Task, DecodeError> {
    let tgid = bytes.u32(at + offset_of!(Wire, tgid))?;
    let tid = bytes.u32(at + offset_of!(Wire, tid))?;
    let auid = bytes.u32(at + offset_of!(Wire, auid))?;
    let name = |offset: usize| bytes.array(at + offset).map(Name);
    let flags = bytes.u32(at + offset_of!(Wire, flags))?;
    let kernel = flags & task_flags::KERNEL != 0;
    let via = match flags {
        flags if flags & task_flags::IO_URING != 0 => Some(Via::IoUring),
        flags if flags & task_flags::SOCKETCALL != 0 => Some(Via::Socketcall),
        _ => kernel.then_some(Via::Kernel),
    };
    Ok(Task {
        key: ProcessKey::new(tgid, bytes.time(at + offset_of!(Wire, start))?),
        tid,
        ppid: bytes.u32(at + offset_of!(Wire, ppid))?,
        uid: bytes.u32(at + offset_of!(Wire, uid))?,
        auid: (auid != u32::MAX).then_some(auid),
        kernel,
        via,
        cgroup: CgroupId::new(bytes.u64(at + offset_of!(Wire, cgroup))?),
        cause: None,
        by_message: false,
        comm: name(offset_of!(Wire, comm))?,
        thread: if tid == tgid { None } else { Some(name(offset_of!(Wire, thread))?) },
    })
}

/// A cookie, if there is one.
pub(super) fn cookie(bytes: Bytes<'_>, at: usize) -> Result<Option<Cookie>, DecodeError> {
    Ok(Cookie::new(bytes.u64(at)?))
}

pub(super) fn fork(bytes: Bytes<'_>) -> Result<ProcessEvent, DecodeError> {
    Ok(ProcessEvent::Fork(ForkEvent {
        task: Task {
            cause: cookie(bytes, offset_of!(Fork, cause))?,
            by_message: bytes.u32(offset_of!(Fork, messages))? != 0,
            ..task(bytes, offset_of!(Fork, task))?
        },
        parent: ProcessKey::new(
            bytes.u32(offset_of!(Fork, parent_tgid))?,
            bytes.time(offset_of!(Fork, parent_start))?,
        ),
    }))
}

pub(super) fn exit(bytes: Bytes<'_>) -> Result<ProcessEvent, DecodeError> {
    let key = ProcessKey::new(bytes.u32(offset_of!(Exit, tgid))?, bytes.time(offset_of!(Exit, start))?);
    Ok(ProcessEvent::Exit(key))
}

pub(super) fn exec(bytes: Bytes<'_>) -> Result<ProcessEvent, DecodeError> {
    let path_len = usize::from(bytes.u16(offset_of!(Exec, path_len))?);
    let args_len = usize::from(bytes.u16(offset_of!(Exec, args_len))?);
    let components = bytes.tail(size_of::<Exec>(), path_len)?;
    let args = bytes.tail(size_of::<Exec>() + path_len, args_len)?;
    let flags = bytes.u32(offset_of!(Exec, flags))?;
    let path_cut = flags & (exec_flags::PATH_CUT | exec_flags::PATH_UNSURE) != 0;
    let path = path(components);
    let exe_state = match bytes.u32(offset_of!(Exec, nlink))? {
        _ if flags & exec_flags::PATH_UNSURE != 0 => ExeState::Unknown,
        0 if path.starts_with(b"/memfd:") => ExeState::Memfd,
        0 => ExeState::Deleted,
        _ => ExeState::Ok,
    };
    let image = Image {
        exe: (!path_cut).then(|| escape::utf8(&path).into()),
        exe_state,
        file: (device(bytes.u32(offset_of!(Exec, dev))?), bytes.u64(offset_of!(Exec, ino))?),
        mntns: bytes.u32(offset_of!(Exec, mntns))?,
        args: if flags & exec_flags::ARGS_CUT == 0 {
            Arguments::of(args)
        } else {
            Arguments::of_ends(args, b"", Some(bytes.u32(offset_of!(Exec, args_bytes))?.into()))
        },
    };
    let task = task(bytes, offset_of!(Exec, task))?;
    let (mut stdio, mut streams) = ([None; 3], [None; 3]);
    for (fd, (socket, stream)) in stdio.iter_mut().zip(&mut streams).enumerate() {
        let at = offset_of!(Exec, stdio) + fd * size_of::<WireStream>();
        let id = bytes.u64(at + offset_of!(WireStream, id))?;
        let at_parent = bytes.u32(at + offset_of!(WireStream, at_parent))? != 0;
        let kind = match bytes.u32(at + offset_of!(WireStream, kind))? {
            stream_kind::SOCKET => {
                *socket = Cookie::new(id);
                continue;
            }
            stream_kind::PIPE => StreamKind::Pipe,
            stream_kind::TERMINAL => StreamKind::Terminal,
            stream_kind::UNIX => StreamKind::Unix,
            _ => continue,
        };
        *stream = Some(Stream { kind, id, at_parent });
    }
    Ok(ProcessEvent::Exec(ExecEvent { task, image: Arc::new(image), stdio, streams }))
}

/// Reverses the components of a path, each terminated by a NUL, which the record has from the file to the root.
fn path(components: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(components.len() + 1);
    let whole = components.strip_suffix(b"\0").unwrap_or(components);
    for component in whole.rsplit(|b| *b == 0) {
        // A file without a mount tree (a memfd) has its name as root.
        if component != b"/" {
            path.push(b'/');
            path.extend_from_slice(component);
        }
    }
    path
}

/// Converts the kernel's device encoding (12 bits major, 20 bits minor: include/linux/kdev_t.h) to that of stat(2).
fn device(dev: u32) -> u64 {
    libc::makedev(dev >> 20, dev & 0xf_ffff)
}

pub(super) fn cgroup(bytes: Bytes<'_>) -> Result<ProcessEvent, DecodeError> {
    let len = usize::from(bytes.u16(offset_of!(Cgroup, path_len))?);
    let path = bytes.tail(size_of::<Cgroup>(), len)?;
    let tgid = bytes.u32(offset_of!(Cgroup, tgid))?;
    let start = bytes.time(offset_of!(Cgroup, start))?;
    Ok(ProcessEvent::Cgroup(CgroupEvent {
        id: CgroupId::new(bytes.u64(offset_of!(Cgroup, id))?),
        hierarchy: bytes.u32(offset_of!(Cgroup, hierarchy))?,
        path: escape::utf8(path).into(),
        moved: (tgid != 0).then(|| ProcessKey::new(tgid, start)),
    }))
}
