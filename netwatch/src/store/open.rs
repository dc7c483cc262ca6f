//! Opens, creates and upgrades stores.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::files::{Files, beside};
use super::{APPLICATION_ID, StoreError, VERSION, lock, place};

/// Statements of each version; an older store gets those of later versions. A released statement is never changed.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("schema.sql"), include_str!("schema-2.sql")];

/// Views for readers; recreated at each start, since they hold no data.
const VIEWS: &str = include_str!("views.sql");

/// Page size in bytes.
pub(super) const PAGE: u64 = 4096;

/// Page cache in KiB: holds the pages of a segment and its indexes that are written to.
const CACHE: i32 = 8 << 10;

/// How long to wait for a lock, for example of the sqlite3 shell.
const PATIENCE: Duration = Duration::from_secs(2);

/// A store that is open for writing.
pub(super) struct Opened {
    pub(super) db: Connection,
    /// The files, and the lock. Declared after the connection, since they must be dropped later: see [`Files`].
    pub(super) files: Arc<Files>,
}

/// Whether to create missing directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folders {
    Create,
    /// The directory was there, so if it is missing somebody removed it.
    MustExist,
}

/// Opens or creates the store at `path` for writing. `wal_pages`: size of the log at which it is checkpointed.
pub(super) fn for_writing(path: &Path, wal_pages: i64, folders: Folders) -> Result<Opened, StoreError> {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = parent.filter(|_| folders == Folders::Create) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| StoreError::Open { path: folder.to_owned(), source })?;
    }
    let (lock, is_new) = match place::open(path)? {
        Some(file) => (file, false),
        None => {
            place::create(path, &empty_store()?)?;
            (place::open(path)?.ok_or_else(|| StoreError::Missing(path.to_owned()))?, true)
        }
    };
    let opened = open_locked(path, wal_pages, lock);
    // Another recorder may have it by now.
    if is_new && opened.as_ref().is_err_and(|error| !matches!(error, StoreError::Held { .. })) {
        place::remove(path);
    }
    opened
}

fn open_locked(path: &Path, wal_pages: i64, lock: File) -> Result<Opened, StoreError> {
    lock::take(&lock, path)?;
    place::create_beside(path)?;
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check(path, &db).map_err(|error| foreign(path, error))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    db.pragma_update(None, "wal_autocheckpoint", wal_pages)?;
    // The log is overwritten from its beginning, without allocating space each time.
    db.pragma_update(
        None,
        "journal_size_limit",
        wal_pages.saturating_mul(2).saturating_mul(PAGE.cast_signed()),
    )?;
    db.set_prepared_statement_cache_capacity(32);
    migrate(&db)?;
    let real = db.path().map_or_else(|| path.to_owned(), PathBuf::from);
    let files = Files::hold(path, lock, &real)?;
    Ok(Opened { db, files: Arc::new(files) })
}

/// The content of a new store.
fn empty_store() -> Result<Vec<u8>, StoreError> {
    let mut db = Connection::open_in_memory()?;
    db.pragma_update(None, "page_size", PAGE.cast_signed())?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(&db)?;
    Ok(db.serialize("main")?.to_vec())
}

/// The schema of a version, without content.
pub(super) fn reference(version: i32) -> Result<Connection, StoreError> {
    let db = Connection::open_in_memory()?;
    let steps: String = MIGRATIONS.iter().take(usize::try_from(version).unwrap_or(0)).copied().collect();
    db.execute_batch(&format!("{steps} {VIEWS}"))?;
    Ok(db)
}

/// Lets the connection be closed without writing to the database or removing its files.
pub(super) fn leave_as_it_is(db: &Connection) -> Result<(), StoreError> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Disables syncs and checkpoints of this connection.
pub(super) fn leave_syncing(db: &Connection) -> Result<(), StoreError> {
    db.pragma_update(None, "synchronous", "OFF")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Enables them again.
pub(super) fn sync_again(db: &Connection) -> Result<(), StoreError> {
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(())
}

/// Opens the store at `path` for syncing what another connection of this process writes.
pub(super) fn for_syncing(path: &Path) -> Result<Connection, StoreError> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Syncs the log before writing to the database, and the database before restarting the log.
    db.pragma_update(None, "synchronous", "FULL")?;
    // It only copies pages, so it needs no cache.
    db.pragma_update(None, "cache_size", -64)?;
    Ok(db)
}

/// Opens the store at `path` for reading, also while another process writes. Returns also the version of its tables.
pub(super) fn for_reading(path: &Path) -> Result<(Connection, i32), StoreError> {
    place::check_readable(path)?;
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let db = if is_locked_out(&db) && !beside(path, "-wal").exists() { as_it_lies(path)? } else { db };
    let version = check(path, &db).map_err(|error| foreign(path, error))?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok((db, version))
}

/// Whether it cannot be read because the shared memory and log files are missing and cannot be created, on a read-only
/// file system or in another user's directory, which may be one that is shared for reading (`ReadOnly`).
fn is_locked_out(db: &Connection) -> bool {
    let code = is_empty(db).err().and_then(|error| error.sqlite_error_code());
    matches!(code, Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly))
}

/// Opens it without those files (immutable): it was closed in order, and a writer would have created them.
fn as_it_lies(path: &Path) -> Result<Connection, StoreError> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            // Writing to a String cannot fail.
            other => _ = write!(uri, "%{other:02x}"),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    connect(Path::new(&uri), flags)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(PATIENCE)?;
    // Otherwise SQLite plans again for each bound value, which takes longer than most queries.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The schema is data of the file, which somebody else may have written: no function in it may have side effects, and
    // no statement may write to internal tables.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(db)
}

fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(|count| count == 0)
}

/// Maps "not a database" to [`StoreError::Foreign`].
fn foreign(path: &Path, error: StoreError) -> StoreError {
    match &error {
        StoreError::NotADatabase => StoreError::Foreign(path.to_owned()),
        _ => error,
    }
}

/// Returns the version.
fn check(path: &Path, db: &Connection) -> Result<i32, StoreError> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    if pragma("application_id")? != APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let version = pragma("user_version")?;
    place::check_version(path, version)?;
    Ok(version)
}

/// Creates missing tables in one transaction.
fn migrate(db: &Connection) -> Result<(), StoreError> {
    let version: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0));
    let steps: String = missing.copied().collect();
    db.execute_batch(&format!("BEGIN IMMEDIATE; {steps} {VIEWS} PRAGMA user_version = {VERSION}; COMMIT;"))
        .map_err(|error| {
            // Fails only if no transaction was started.
            let _ = db.execute_batch("ROLLBACK");
            error.into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_of_another_program_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let (db, other) = (connect(&path, flags).unwrap(), connect(&path, flags).unwrap());
        let wait: i64 = db.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap();
        assert_eq!(Duration::from_millis(wait.cast_unsigned()), PATIENCE);
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        let error = StoreError::from(db.execute_batch("CREATE TABLE t (x)").unwrap_err());
        assert!(error.may_pass(), "{error}");
        other.execute_batch("COMMIT").unwrap();
        db.execute_batch("CREATE TABLE t (x)").unwrap();
    }
}
