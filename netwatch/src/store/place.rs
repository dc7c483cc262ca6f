//! Where a store is: whether its path can be trusted, and the creation of its files.
//!
//! A recorder runs as root, and must not write to what others planted: a file of theirs, or a link to a file of root's.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::files::{beside, folder_of, own};
use super::{APPLICATION_ID, DEFAULT_PATH, StoreError, VERSION, share};
use crate::escape;

/// The files that SQLite has beside the database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Open { path, source }
}

fn untrusted(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Untrusted { path: path.to_owned(), why: why.into() }
}

/// Checks that no link of another user is on the way to `path`, and that the default path is none itself.
fn check_links(path: &Path, is_default: bool) -> Result<(), StoreError> {
    for part in path.ancestors() {
        let Ok(link) = fs::symlink_metadata(part) else { continue };
        if !link.is_symlink() {
            continue;
        }
        if is_default && part == path {
            return Err(untrusted(path, "is a symbolic link: select its target with --store"));
        }
        if link.uid() != 0 && link.uid() != own() {
            return Err(untrusted(part, format!("is a symbolic link of user {}", link.uid())));
        }
    }
    Ok(())
}

fn is_default(path: &Path) -> bool {
    path == Path::new(DEFAULT_PATH)
}

/// Checks the folder of the default path: whoever may write there can replace the store. Of another path it is the
/// caller's choice.
fn check_folder(path: &Path, is_default: bool) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|_| is_default) else { return Ok(()) };
    let Ok(found) = fs::metadata(folder) else { return Ok(()) };
    check_owner(folder, &found, &[0, own()])
}

fn check_owner(path: &Path, found: &Metadata, owners: &[u32]) -> Result<(), StoreError> {
    if !owners.contains(&found.uid()) {
        return Err(untrusted(path, format!("belongs to user {}", found.uid())));
    }
    if found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o7777;
        return Err(untrusted(path, format!("can be written by other users (mode {mode:04o})")));
    }
    Ok(())
}

/// Opens the store at `path` for writing, if it is one that only this user may write to. `None`: there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>, StoreError> {
    open_with(path, is_default(path))
}

fn open_with(path: &Path, is_default: bool) -> Result<Option<File>, StoreError> {
    check_links(path, is_default)?;
    check_folder(path, is_default)?;
    let mut options = OpenOptions::new();
    // A device or a pipe must not block.
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(StoreError::Foreign(path.to_owned()));
        }
        Err(error) => return Err(failed(path)(error)),
    };
    let found = file.metadata().map_err(failed(path))?;
    if !found.is_file() {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    check_owner(path, &found, &[own()])?;
    if found.len() == 0 {
        return Err(StoreError::Empty(path.to_owned()));
    }
    check_header(path, &file)?;
    let real = fs::canonicalize(path).map_err(failed(path))?;
    for suffix in BESIDE {
        check_beside(&beside(&real, suffix))?;
    }
    Ok(Some(file))
}

/// The same for reading: the file is not opened, since closing any descriptor of it drops the POSIX locks of the process.
pub(super) fn check_readable(path: &Path) -> Result<(), StoreError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Missing(path.to_owned()));
        }
        Err(error) => return Err(share::refused(path, error)),
    };
    if !found.is_file() {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    if is_default(path) {
        check_links(path, true)?;
        check_folder(path, true)?;
        check_owner(path, &found, &[0, own()])?;
    }
    if found.len() == 0 {
        return Err(StoreError::Empty(path.to_owned()));
    }
    rustix::fs::access(path, rustix::fs::Access::READ_OK).map_err(|error| share::refused(path, error.into()))
}

/// The application id in the header says whether it is a store, before SQLite reads anything:
/// <https://www.sqlite.org/fileformat2.html#the_database_header>.
fn check_header(path: &Path, file: &File) -> Result<(), StoreError> {
    let mut header = [0; 100];
    let is_store = match file.read_exact_at(&mut header, 0) {
        Ok(()) => {
            header.starts_with(b"SQLite format 3\0")
                && header.get(68..72).is_some_and(|id| id == APPLICATION_ID.to_be_bytes())
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(failed(path)(error)),
    };
    if is_store { Ok(()) } else { Err(StoreError::Foreign(path.to_owned())) }
}

fn check_beside(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(untrusted(path, "is not a file")),
        Ok(found) => check_owner(path, &found, &[own()]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Creates a store with this content. It appears at the path whole or not at all.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let folder = folder_of(path);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".new-{}", std::process::id()));
    let draft = folder.join(name);
    // Of an earlier process with this id.
    let _ = fs::remove_file(&draft);
    let made = write(&draft, content).and_then(|()| publish(&draft, path));
    if made.is_err() {
        let _ = fs::remove_file(&draft);
    }
    match made {
        // Another recorder was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(failed(path))?,
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn write(draft: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives it its name, unless another file has it.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE) {
        // Some file systems cannot.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(draft, path)?;
            fs::remove_file(draft)
        }
        other => Ok(other?),
    }
}

/// Creates the files that SQLite needs beside the database. SQLite itself would only say that it cannot open the database.
pub(super) fn create_beside(path: &Path) -> Result<(), StoreError> {
    let real = fs::canonicalize(path).map_err(failed(path))?;
    for suffix in BESIDE {
        let path = beside(&real, suffix);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let made = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        made.map_err(|error| {
            if error.kind() == io::ErrorKind::StorageFull && has_no_inode(&path) {
                StoreError::NoInode(path.clone())
            } else {
                failed(&path)(error)
            }
        })?;
    }
    share::with_group(path, &BESIDE);
    Ok(())
}

fn has_no_inode(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder).is_ok_and(|found| found.f_files > 0 && found.f_favail == 0)
}

/// Removes a store that was just created, with its other files.
pub(super) fn remove(path: &Path) {
    for path in BESIDE.iter().map(|suffix| beside(path, suffix)).chain([path.to_owned()]) {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{}: {error}", shown(&path));
        }
    }
}

/// A path in a message.
pub(super) fn shown(path: &Path) -> String {
    escape::path(path)
}

/// The version in the header, for messages.
pub(super) fn check_version(path: &Path, version: i32) -> Result<(), StoreError> {
    let path: PathBuf = path.to_owned();
    match version {
        1..=VERSION => Ok(()),
        ..=0 => Err(StoreError::Damaged(format!("its version is {version}"))),
        _ => Err(StoreError::Newer { path, version }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    use super::*;

    fn header() -> Vec<u8> {
        let mut header = vec![0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[68..72].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        header
    }

    fn open_error(path: &Path, is_default: bool) -> Option<String> {
        open_with(path, is_default).err().map(|error| error.to_string())
    }

    #[test]
    fn what_others_planted_is_not_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = at("netwatch.db");
        assert!(open_with(&path, true).unwrap().is_none());
        create(&path, &header()).unwrap();
        assert_eq!((open_error(&path, false), open_error(&path, true)), (None, None));
        // It may be written to by others.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(open_error(&path, false).unwrap().contains("can be written by other users (mode 0666)"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open_error(&path, true).unwrap().contains("can be written by other users"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        // An empty file, also at the end of a link.
        fs::write(at("empty"), "").unwrap();
        symlink(at("empty"), at("to-empty")).unwrap();
        for name in ["empty", "to-empty"] {
            assert!(open_error(&at(name), false).unwrap().contains("is empty"), "{name}");
        }
        assert_eq!(fs::metadata(at("empty")).unwrap().len(), 0);
        // A link to a store is one's own choice, but not at the default path.
        symlink(&path, at("link")).unwrap();
        assert_eq!(open_error(&at("link"), false), None);
        assert!(open_error(&at("link"), true).unwrap().contains("is a symbolic link"));
        symlink("/etc/passwd", at("netwatch.db-wal")).unwrap();
        assert!(open_error(&path, false).unwrap().contains("netwatch.db-wal is not a file"));
        fs::remove_file(at("netwatch.db-wal")).unwrap();
        if own() != 0 {
            return;
        }
        lchown(at("link"), Some(65_534), None).unwrap();
        assert!(open_error(&at("link"), false).unwrap().contains("is a symbolic link of user 65534"));
        fs::write(at("netwatch.db-wal"), "").unwrap();
        chown(at("netwatch.db-wal"), Some(65_534), None).unwrap();
        assert!(open_error(&path, false).unwrap().contains("netwatch.db-wal belongs to user 65534"));
        fs::remove_file(at("netwatch.db-wal")).unwrap();
        chown(&path, Some(65_534), None).unwrap();
        assert!(open_error(&path, false).unwrap().contains("belongs to user 65534"));
    }

    #[test]
    fn a_new_store_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netwatch.db");
        fs::write(&path, "mine").unwrap();
        create(&path, &header()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
