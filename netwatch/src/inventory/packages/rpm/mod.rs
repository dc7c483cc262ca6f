//! rpm's database since 4.16, an SQLite database: `Packages` has the header of each package, `Basenames` the packages
//! that have a file with a given name (lib/backend/sqlite.c of rpm 4.18). The older Berkeley DB and SUSE's ndb are not
//! supported.
//!
//! The file is read into memory, and SQLite opens the copy. If SQLite opened it by name, the file could have been
//! replaced since it was checked; a link in `/proc/self/fd` does not help, since SQLite resolves links before it opens
//! a file. A copy in memory cannot be changed or truncated meanwhile, and SQLite writes no files next to the database.

mod header;
#[cfg(test)]
pub(super) use header::made::Made;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::folder::{Folder, Unread};
use super::{Answer, Wanted, text};
use crate::audit::facts::Owner;
use crate::{escape, limits};
use header::Header;

/// Folders of the database: `_dbpath` of rpm and of distributions.
const PLACES: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];

/// The file of the supported format.
const SQLITE: &str = "rpmdb.sqlite";

/// Files of formats that are not supported.
const OTHERS: [(&str, &str); 2] = [("Packages", "Berkeley DB"), ("Packages.db", "ndb")];

/// Returns whether there is an rpm database; adds the owners of `wanted` to `answer`.
pub(super) fn search(root: &Folder, shown: &str, wanted: &Wanted<'_>, answer: &mut Answer) -> bool {
    let unreadable = |why: &dyn std::fmt::Display| {
        // SQLite's messages can contain names from the database.
        let why = why.to_string();
        format!("cannot read the rpm database in {shown}: {}", escape::terminal(&why))
    };
    for place in PLACES {
        let path = format!("{place}/{SQLITE}");
        let file = match root.file(&path) {
            Ok(file) => file,
            Err(error) if error.is_missing() => continue,
            Err(error) => {
                answer.notes.push(unreadable(&error));
                return true;
            }
        };
        // The newest transactions are only in the write-ahead log until rpm ends.
        if root.file(&format!("{path}-wal")).is_ok_and(|wal| wal.metadata().is_ok_and(|wal| wal.len() > 0)) {
            answer.notes.push(format!(
                "the rpm database in {shown} is being written to: the newest changes are not seen"
            ));
        }
        let most = if shown == "/" { limits::RPM_DATABASE } else { limits::RPM_FOREIGN_DATABASE };
        match load(file, most).and_then(|mut db| look_up(&mut db, limits::RPM_WAIT, wanted, answer)) {
            Ok(0) => answer.is_known = true,
            Ok(damaged) => {
                answer.is_known = true;
                let what = format!("{damaged} packages with invalid headers");
                answer.notes.push(format!("the rpm database in {shown} has {what}"));
            }
            Err(error) => answer.notes.push(unreadable(&error)),
        }
        return true;
    }
    for (place, (name, format)) in PLACES.iter().flat_map(|place| OTHERS.map(|other| (place, other))) {
        match root.file(&format!("{place}/{name}")) {
            Err(error) if error.is_missing() => {}
            _ => {
                let note = format!("the rpm database in {shown} has an unsupported format ({format})");
                answer.notes.push(note);
                return true;
            }
        }
    }
    false
}

/// Why the database was not read.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("the database is damaged: {0}")]
    Sqlite(#[source] rusqlite::Error),
    #[error("a query takes longer than {} s", limits::RPM_WAIT.as_secs())]
    Slow,
    #[error("no table {0}")]
    Table(&'static str),
    #[error("not an SQLite database")]
    Foreign,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Slow,
            _ => Self::Sqlite(error),
        }
    }
}

/// Size of the header of a database file, in bytes: fileformat2.html, section 1.3, in SQLite's documentation.
const HEADER: usize = 100;

fn load(mut file: File, most: u64) -> Result<Connection, Failed> {
    let size = file.metadata().map_err(Unread::from)?.len();
    if size > most {
        return Err(Unread::Large(most >> 20).into());
    }
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|_| Failed::Foreign)?;
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(Failed::Foreign);
    }
    // "File format write version" and "read version": 2 means write-ahead log, which a database in memory cannot have.
    if let Some(versions) = header.get_mut(18..20) {
        versions.fill(1);
    }
    let mut db = Connection::open_in_memory()?;
    let size = usize::try_from(size).map_err(|_| Failed::Foreign)?;
    db.deserialize_read_exact("main", header.as_slice().chain(file), size, true)?;
    // "Untrusted SQLite Database Files" in security.html of SQLite's documentation.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, limits::RPM_HEADER)?;
    Ok(db)
}

/// Adds owners to `answer`; returns the number of invalid headers. `patience` is the time limit.
fn look_up(
    db: &mut Connection,
    patience: Duration,
    wanted: &Wanted<'_>,
    answer: &mut Answer,
) -> Result<usize, Failed> {
    let end = Instant::now().checked_add(patience);
    let is_late = move || end.is_none_or(|end| Instant::now() > end);
    // Checked after each step, since a lookup has few steps and each can take long.
    db.progress_handler(1, Some(is_late))?;
    for table in ["Packages", "Basenames"] {
        // A view or a virtual table (which has no root page) could run arbitrary queries or code.
        let is_table = "SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type = 'table' AND rootpage > 0";
        db.query_row(is_table, [table], |_| Ok(())).optional()?.ok_or(Failed::Table(table))?;
    }
    let names: BTreeSet<&str> = wanted.names().collect();
    let mut having = db.prepare("SELECT hnum FROM Basenames WHERE key = ?1 LIMIT ?2")?;
    let mut packages = BTreeSet::new();
    for name in &names {
        for number in having.query_map((name, limits::RPM_PACKAGES), |row| row.get::<_, i64>(0))? {
            packages.insert(number?);
        }
    }
    let names: HashSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let mut package = db.prepare("SELECT blob FROM Packages WHERE hnum = ?1")?;
    let mut damaged = 0_usize;
    for number in packages {
        // SQLite calls the handler only in loops, and many rows can refer to the same pages.
        if is_late() {
            return Err(Failed::Slow);
        }
        let mut rows = package.query([number])?;
        let blob = match rows.next()? {
            Some(row) => row.get_ref(0)?.as_blob().ok(),
            None => None,
        };
        match blob.and_then(Header::parse) {
            Some(header) => own(&header, &names, wanted, answer),
            None => damaged = damaged.saturating_add(1),
        }
    }
    Ok(damaged)
}

fn own(header: &Header<'_>, names: &HashSet<&[u8]>, wanted: &Wanted<'_>, answer: &mut Answer) {
    let Some(name) = header.name() else { return };
    let owner = Owner { name: text(name), version: version(header), manager: "rpm" };
    for (folder, name) in header.files(names) {
        let path = format!("{}{}", escape::utf8(folder), escape::utf8(name));
        wanted.own(answer, &path, &owner);
    }
}

/// `[epoch:]version-release`, as `rpm -q --qf '%{EVR}'` prints it.
fn version(header: &Header<'_>) -> Option<String> {
    let (epoch, version, release) = header.version();
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let release = release.map(|release| format!("-{}", text(release))).unwrap_or_default();
    Some(format!("{epoch}{}{release}", text(version?)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn queries_have_a_time_limit() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE Packages (hnum, blob); CREATE TABLE Basenames (key, hnum);
             INSERT INTO Basenames VALUES ('y', 1), ('y', 2), ('y', 3);",
        )
        .unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&db.serialize("main").unwrap()).unwrap();
        let root = tempfile::tempdir().unwrap();
        let paths = HashSet::from(["/bin/x".to_owned()]);
        let wanted = Wanted::new(&Folder::open(root.path()).unwrap(), &paths);
        let ask = |patience| {
            let mut file = file.try_clone().unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            load(file, limits::RPM_DATABASE)
                .and_then(|mut db| look_up(&mut db, patience, &wanted, &mut Answer::default()))
        };
        assert!(matches!(ask(Duration::ZERO), Err(Failed::Slow)));
        assert!(ask(Duration::from_secs(60)).is_ok());
    }

    /// A database with this content, searched for `/bin/y`.
    fn searched(sql: &str) -> Result<usize, Failed> {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE Packages (hnum, blob); CREATE TABLE Basenames (key, hnum);").unwrap();
        db.execute_batch(sql).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&db.serialize("main").unwrap()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let root = tempfile::tempdir().unwrap();
        let paths = HashSet::from(["/bin/y".to_owned()]);
        let wanted = Wanted::new(&Folder::open(root.path()).unwrap(), &paths);
        let patience = Duration::from_secs(60);
        load(file, limits::RPM_DATABASE)
            .and_then(|mut db| look_up(&mut db, patience, &wanted, &mut Answer::default()))
    }

    #[test]
    fn database_over_the_limit_is_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(limits::RPM_DATABASE + 1).unwrap();
        assert!(matches!(load(file, limits::RPM_DATABASE), Err(Failed::Unread(Unread::Large(1024)))));
    }

    #[test]
    fn header_over_the_limit_is_not_read() {
        let header = |size: i32| {
            let blob = format!("INSERT INTO Packages VALUES (1, zeroblob({size}))");
            searched(&format!("INSERT INTO Basenames VALUES ('y', 1); {blob};"))
        };
        // Zeros are a header without anything.
        assert!(matches!(header(1 << 20), Ok(0)));
        assert!(matches!(header(limits::RPM_HEADER + 1), Err(Failed::Sqlite(_))));
    }

    #[test]
    fn packages_with_one_name_are_limited() {
        let all = limits::RPM_PACKAGES + 2;
        let numbers = format!("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT {all})");
        let read =
            searched(&format!("INSERT INTO Basenames SELECT 'y', i FROM ({numbers} SELECT i FROM n);"));
        assert!(matches!(read, Ok(read) if read == limits::RPM_PACKAGES as usize));
    }
}
