//! The files of an open store: whether the path still leads to them, and whether somebody truncated them.
//!
//! SQLite does not notice either: it goes on writing to a file without a name, and a log that was truncated and then
//! written to again has a hole of zeros, which a checkpoint would copy into the database.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::StoreError;
use crate::escape;

/// The database, its log and its shared memory, held open.
///
/// SQLite's locks are POSIX locks, which are dropped when the process closes any descriptor of the file: these must be
/// closed after every connection to the store.
pub(super) struct Files {
    database: Watched,
    log: Watched,
    index: Watched,
    /// Pages of the shared memory were missing.
    damaged: AtomicBool,
    /// Pages of the log, or of the database, were lost after a sync that failed.
    unsynced_log: AtomicBool,
    unsynced: AtomicBool,
}

struct Watched {
    path: PathBuf,
    file: File,
    /// The greatest length so far.
    longest: AtomicU64,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Database,
    /// `-wal`: what is not in the database file yet.
    Log,
    /// `-shm`: shared memory, where the pages in the log are.
    Index,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Deleted,
    /// The path leads to another file or to none.
    Moved,
    Truncated,
    /// A sync failed, so what was written may not be on the disk.
    Unsynced,
}

/// Interference with the store of a running recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interference {
    pub(super) part: Part,
    pub(super) how: How,
    pub(super) path: PathBuf,
}

impl std::fmt::Display for Interference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.how {
            How::Deleted => "deleted",
            How::Moved => "moved or replaced",
            How::Truncated => "truncated",
            How::Unsynced => "not written to the disk",
        };
        write!(f, "{} was {how} while it was being recorded to", escape::path(&self.path))
    }
}

impl Files {
    /// `database`: the database, which `path` leads to. `real`: its path without symbolic links, beside which SQLite
    /// has the other files; they exist once a connection has read the database.
    pub(super) fn hold(path: &Path, database: File, real: &Path) -> Result<Self, StoreError> {
        let beside = |suffix: &str| {
            let path = beside(real, suffix);
            let file = OpenOptions::new().read(true).write(true).open(&path);
            file.map(|file| Watched::new(path.clone(), file))
                .map_err(|source| StoreError::Open { path, source })
        };
        let (log, index) = (beside("-wal")?, beside("-shm")?);
        let database = Watched::new(path.to_owned(), database);
        Ok(Self {
            database,
            log,
            index,
            damaged: false.into(),
            unsynced_log: false.into(),
            unsynced: false.into(),
        })
    }

    /// Pages of the shared memory were missing when SQLite accessed them.
    pub(super) fn index_is_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Pages that were to be synced to the database may not be there.
    pub(super) fn database_is_unsynced(&self) {
        self.unsynced.store(true, Ordering::Relaxed);
    }

    /// Pages of the log are gone.
    pub(super) fn log_is_unsynced(&self) {
        self.unsynced_log.store(true, Ordering::Relaxed);
    }

    pub(super) fn log(&self) -> &File {
        &self.log.file
    }

    /// Length of the log in bytes.
    pub(super) fn log_length(&self) -> io::Result<u64> {
        Ok(self.log.file.metadata()?.len())
    }

    pub(super) fn sync_log(&self) -> io::Result<()> {
        self.log.file.sync_data()
    }

    pub(super) fn log_path(&self) -> &Path {
        &self.log.path
    }

    /// The path of the database without symbolic links.
    pub(super) fn real(&self) -> PathBuf {
        let name = self.log.path.as_os_str().as_encoded_bytes();
        let name = name.strip_suffix(b"-wal").unwrap_or(name);
        PathBuf::from(std::os::unix::ffi::OsStrExt::from_bytes(name) as &std::ffi::OsStr)
    }

    /// Checks the files. An error of the file system is no interference: writes report it.
    pub(super) fn check(&self) -> Result<(), Interference> {
        let unsynced = |part, watched: &Watched| {
            Err(Interference { part, how: How::Unsynced, path: watched.path.clone() })
        };
        if self.unsynced_log.load(Ordering::Relaxed) {
            return unsynced(Part::Log, &self.log);
        }
        // The index of the log has what was copied.
        if self.unsynced.load(Ordering::Relaxed) {
            return unsynced(Part::Index, &self.database);
        }
        for (part, watched) in
            [(Part::Database, &self.database), (Part::Log, &self.log), (Part::Index, &self.index)]
        {
            let wrong = |how| Interference { part, how, path: watched.path.clone() };
            // Before the length is read, which another thread may do as well.
            let longest = watched.longest.load(Ordering::Relaxed);
            let Ok(held) = watched.file.metadata() else { continue };
            if !watched.is_in_place(&held) {
                return Err(wrong(if held.nlink() == 0 { How::Deleted } else { How::Moved }));
            }
            watched.longest.fetch_max(held.len(), Ordering::Relaxed);
            let is_shorter = held.len() < longest;
            let is_truncated = match part {
                // A checkpoint after a VACUUM shortens the file too, and writes the new length to it first.
                Part::Database => is_shorter && self.database_length().is_none_or(|whole| held.len() < whole),
                // A restart of the log shortens it too, after the frames in it were written to the database. Asked
                // twice, since another program may write to the log in between.
                Part::Log => self.lacks_frames() && self.lacks_frames(),
                // SQLite never shortens it while it is in use.
                Part::Index => is_shorter || self.damaged.load(Ordering::Relaxed),
            };
            if is_truncated {
                return Err(wrong(How::Truncated));
            }
        }
        Ok(())
    }

    /// Length of the database in bytes by its header, which does not count what is only in the log:
    /// <https://www.sqlite.org/fileformat2.html#the_database_header>. `None` if there is no header.
    fn database_length(&self) -> Option<u64> {
        let mut header = [0; 32];
        self.database.file.read_exact_at(&mut header, 0).ok()?;
        let page = u16::from_be_bytes(*header.get(16..)?.first_chunk()?);
        let page = if page == 1 { 65_536 } else { u64::from(page) };
        let pages = u32::from_be_bytes(*header.get(28..)?.first_chunk()?);
        Some(page * u64::from(pages))
    }

    fn lacks_frames(&self) -> bool {
        self.log_length().is_ok_and(|length| self.frames_end().is_some_and(|end| length < end))
    }

    /// Where the last frame in the log ends by the shared memory, which is written after the frames:
    /// <https://www.sqlite.org/walformat.html#the_wal_index_file_format>.
    pub(super) fn frames_end(&self) -> Option<u64> {
        const HEADER: u64 = 32;
        const FRAME_HEADER: u64 = 24;
        let mut index = [0; 20];
        self.index.file.read_exact_at(&mut index, 0).ok()?;
        let page = u16::from_ne_bytes(*index.get(14..)?.first_chunk()?);
        let page = if page == 1 { 65_536 } else { u64::from(page) };
        let frames = u32::from_ne_bytes(*index.get(16..)?.first_chunk()?);
        (frames > 0).then(|| HEADER + u64::from(frames) * (FRAME_HEADER + page))
    }

    /// Removes the log and the shared memory, if the paths still lead to them: the log belongs to a database that is not
    /// at the path any more, or `index` alone, which SQLite then makes anew from the log.
    pub(super) fn remove_others(&self, parts: &[Part]) {
        let all = [(Part::Log, &self.log), (Part::Index, &self.index)];
        for (_, watched) in all.iter().filter(|(part, _)| parts.contains(part)) {
            if watched.file.metadata().is_ok_and(|held| watched.is_in_place(&held))
                && let Err(error) = fs::remove_file(&watched.path)
            {
                log::warn!("{}: {error}", escape::path(&watched.path));
            }
        }
    }

    /// Renames the database and its log, so that what is readable can be recovered. Returns the new path, which must
    /// not exist.
    pub(super) fn set_aside(&self) -> Result<PathBuf, StoreError> {
        let real = self.real();
        let aside = beside(&real, "-damaged");
        let failed = |path: &Path, source| StoreError::Open { path: path.to_owned(), source };
        if aside.exists() {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "an earlier damaged store is still there");
            return Err(failed(&aside, source));
        }
        fs::rename(&real, &aside).map_err(|error| failed(&real, error))?;
        if self.log.file.metadata().is_ok_and(|held| self.log.is_in_place(&held)) {
            fs::rename(&self.log.path, beside(&aside, "-wal"))
                .map_err(|error| failed(&self.log.path, error))?;
        }
        Ok(aside)
    }
}

impl Watched {
    fn new(path: PathBuf, file: File) -> Self {
        let length = file.metadata().map_or(0, |file| file.len());
        Self { path, file, longest: length.into() }
    }

    /// Whether the path leads to the file. True if that is not known.
    fn is_in_place(&self, held: &Metadata) -> bool {
        match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) == (held.dev(), held.ino()),
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }
}

/// The files that are read with the store at `path`.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    ["", "-wal", "-shm"].map(|suffix| beside(path, suffix)).into()
}

/// The user whom files of this process belong to.
pub(super) fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
