//! A FUSE file system with a program and an empty file, which can stop answering.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
    Session, SessionACL,
};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::wait::PATIENCE;

/// The file system, until this is dropped.
#[derive(Debug)]
pub struct Hanging {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    /// Dropped with it, which ends the thread that waits for the longest silence.
    _end: Sender<()>,
    _session: BackgroundSession,
}

/// After this it answers all the same: what waits for it cannot be killed, and a test that fails has to end it.
const LONGEST: Duration = PATIENCE.saturating_mul(2);

#[derive(Default)]
struct State {
    is_silent: bool,
    /// How many times the page of the other file is yet refused.
    refusals: usize,
    /// Answers that were not given.
    held: Vec<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Hanging {
    /// One with a copy of `program`, which answers.
    ///
    /// # Errors
    /// If it cannot be mounted here.
    ///
    /// # Panics
    /// When the program cannot be read.
    pub fn with(program: &Path) -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let state = Arc::new(Mutex::new(State::default()));
        let served = Served { program: std::fs::read(program).expect("a program"), state: state.clone() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("hanging".into())];
        config.acl = SessionACL::All;
        let session = Session::new(served, folder.path(), &config)?.spawn()?;
        let (end, ended) = channel::<()>();
        let hanging = Self { folder, state: state.clone(), _end: end, _session: session };
        std::thread::spawn(move || {
            let _ = ended.recv_timeout(LONGEST);
            answer_all(&state);
        });
        // All of it is in the page cache now, so whoever runs it does not need the file system.
        let whole = std::fs::read(hanging.program())?;
        assert!(!whole.is_empty());
        Ok(hanging)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Another file, of one page.
    #[must_use]
    pub fn other(&self) -> PathBuf {
        self.folder.path().join(OTHER_NAME)
    }

    /// The page of the other file cannot be read so many times, also while it does not answer.
    pub fn refuses(&self, times: usize) {
        self.locked().refusals = times;
    }

    /// From now on it reads requests and does not answer.
    pub fn stops_answering(&self) {
        self.locked().is_silent = true;
    }

    /// Requests that it did not answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.locked().held.len()
    }

    /// Answers what it was asked meanwhile, and whatever follows.
    pub fn answers_again(&self) {
        answer_all(&self.state);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
        self.answers_again();
    }
}

fn answer_all(state: &Mutex<State>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.is_silent = false;
    state.held.drain(..).for_each(|answer| answer());
}

const NAME: &str = "actor";
const PROGRAM: INodeNo = INodeNo(2);

const OTHER_NAME: &str = "other";
const OTHER: INodeNo = INodeNo(3);
const PAGE: &[u8] = &[0; 4096];

/// The kernel caches nothing.
const NO_TIME: Duration = Duration::ZERO;

struct Served {
    program: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl Served {
    /// Gives an answer, now or later.
    fn give(&self, answer: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_silent {
            state.held.push(Box::new(answer));
        } else {
            answer();
        }
    }

    /// Whether it refuses this time.
    fn refuses(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.refusals.checked_sub(1);
        state.refusals = left.unwrap_or_default();
        left.is_some()
    }

    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, size) = match ino {
            PROGRAM => (FileType::RegularFile, self.program.len() as u64),
            OTHER => (FileType::RegularFile, PAGE.len() as u64),
            _ => (FileType::Directory, 0),
        };
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let file = match name.to_str() {
            Some(NAME) => Some(PROGRAM),
            Some(OTHER_NAME) => Some(OTHER),
            _ => None,
        };
        let attributes = file.filter(|_| parent == INodeNo::ROOT).map(|file| self.attributes(file));
        self.give(move || match attributes {
            Some(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attributes = self.attributes(ino);
        self.give(move || reply.attr(&NO_TIME, &attributes));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.give(|| reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if ino == OTHER && self.refuses() {
            return reply.error(Errno::EIO);
        }
        let file = if ino == OTHER { PAGE } else { &self.program };
        let rest = usize::try_from(offset).ok().and_then(|from| file.get(from..)).unwrap_or_default();
        let part = rest[..rest.len().min(size as usize)].to_vec();
        self.give(move || reply.data(&part));
    }
}
