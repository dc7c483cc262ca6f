//! rpm's database since 4.16, which is one of SQLite: `Packages` has a header each package, `Basenames` says which
//! packages have a file of a name (lib/backend/sqlite.c of rpm 4.18). The older Berkeley DB and SUSE's ndb are not read.
//!
//! The file is read into memory and given to SQLite there. Opened by name it would be whatever lies under that name by
//! then, and a link in `/proc/self/fd` is no way around: SQLite replaces links by what they say before it opens
//! anything. In memory nobody can change or shorten it meanwhile either, and nothing is written beside it.

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
use crate::escape;
use header::Header;

/// Where it lies, by what rpm and the distributions have as `_dbpath`.
const PLACES: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];

/// The file of the format that is read.
const SQLITE: &str = "rpmdb.sqlite";

/// Files of the formats that are not.
const OTHERS: [(&str, &str); 2] = [("Packages", "Berkeley DB"), ("Packages.db", "ndb")];

/// Bytes of the database of this host: some 100 KiB a package, so 10,000 of them.
const MOST_HOST: u64 = 1 << 30;

/// Bytes of a container's: it is whoever is in there who decides how much memory this takes.
const MOST_FOREIGN: u64 = 192 << 20;

/// Bytes of a header. rpm's own limit is 256 MiB (lib/header.c), the largest of Fedora are of some MiB.
const MOST_HEADER: i32 = 64 << 20;

/// Packages that may have a file of one name: `README` is in thousands, an executable's name in a few.
const MOST_PACKAGES: u32 = 4096;

/// For all questions. What is looked up has an index and takes a millisecond; a made-up database may have none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is such a database; what it says of `wanted` goes to `found`.
pub(super) fn search(root: &Folder, shown: &str, wanted: &Wanted<'_>, found: &mut Answer) -> bool {
    let unreadable = |why: &dyn std::fmt::Display| {
        // SQLite puts names from the database into what it says.
        let why = why.to_string();
        format!("the database of rpm in {shown} cannot be read: {}", escape::terminal(&why))
    };
    for place in PLACES {
        let path = format!("{place}/{SQLITE}");
        let file = match root.file(&path) {
            Ok(file) => file,
            Err(error) if error.is_missing() => continue,
            Err(error) => {
                found.notes.push(unreadable(&error));
                return true;
            }
        };
        // What is in the log only came last, and is written back when rpm ends.
        if root.file(&format!("{path}-wal")).is_ok_and(|wal| wal.metadata().is_ok_and(|wal| wal.len() > 0)) {
            found.notes.push(format!(
                "the database of rpm in {shown} is being written to: what came last is not seen"
            ));
        }
        let most = if shown == "/" { MOST_HOST } else { MOST_FOREIGN };
        match load(file, most).and_then(|mut db| look_up(&mut db, PATIENCE, wanted, found)) {
            Ok(0) => found.is_known = true,
            Ok(damaged) => {
                found.is_known = true;
                let what = format!("{damaged} packages whose headers make no sense");
                found.notes.push(format!("the database of rpm in {shown} has {what}"));
            }
            Err(error) => found.notes.push(unreadable(&error)),
        }
        return true;
    }
    for (place, (name, format)) in PLACES.iter().flat_map(|place| OTHERS.map(|other| (place, other))) {
        match root.file(&format!("{place}/{name}")) {
            Err(error) if error.is_missing() => {}
            _ => {
                let note =
                    format!("the database of rpm in {shown} is of a format that is not read here ({format})");
                found.notes.push(note);
                return true;
            }
        }
    }
    false
}

/// Why it was not read.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("it is damaged: {0}")]
    Sqlite(#[source] rusqlite::Error),
    #[error("looking something up takes longer than {} s", PATIENCE.as_secs())]
    Slow,
    #[error("it has no table {0}")]
    Table(&'static str),
    #[error("it is no database of SQLite")]
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

/// Bytes of the header of a database file, fileformat2.html section 1.3 of SQLite's documentation.
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
    // "File format write version" and "read version": 2 is a log beside the file, which there is none of in memory.
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
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MOST_HEADER)?;
    Ok(db)
}

/// Tells how many headers make no sense. `patience` is for all of it.
fn look_up(
    db: &mut Connection,
    patience: Duration,
    wanted: &Wanted<'_>,
    found: &mut Answer,
) -> Result<usize, Failed> {
    let end = Instant::now().checked_add(patience);
    let is_late = move || end.is_none_or(|end| Instant::now() > end);
    // As often as can be: a few steps can take long, and a lookup has few.
    db.progress_handler(1, Some(is_late))?;
    for table in ["Packages", "Basenames"] {
        // A view or a virtual table (which has no page) can be any program.
        let is_table = "SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type = 'table' AND rootpage > 0";
        db.query_row(is_table, [table], |_| Ok(())).optional()?.ok_or(Failed::Table(table))?;
    }
    let names: BTreeSet<&str> = wanted.names().collect();
    let mut having = db.prepare("SELECT hnum FROM Basenames WHERE key = ?1 LIMIT ?2")?;
    let mut packages = BTreeSet::new();
    for name in &names {
        for number in having.query_map((name, MOST_PACKAGES), |row| row.get::<_, i64>(0))? {
            packages.insert(number?);
        }
    }
    let names: HashSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let mut package = db.prepare("SELECT blob FROM Packages WHERE hnum = ?1")?;
    let mut damaged = 0_usize;
    for number in packages {
        // SQLite asks in loops only, and many packages can be one and the same pages.
        if is_late() {
            return Err(Failed::Slow);
        }
        let mut rows = package.query([number])?;
        let blob = match rows.next()? {
            Some(row) => row.get_ref(0)?.as_blob().ok(),
            None => None,
        };
        match blob.and_then(Header::parse) {
            Some(header) => own(&header, &names, wanted, found),
            None => damaged = damaged.saturating_add(1),
        }
    }
    Ok(damaged)
}

fn own(header: &Header<'_>, names: &HashSet<&[u8]>, wanted: &Wanted<'_>, found: &mut Answer) {
    let Some(name) = header.name() else { return };
    let owner = Owner { name: text(name), version: version(header), manager: "rpm" };
    for (folder, name) in header.files(names) {
        let path = format!("{}{}", escape::utf8(folder), escape::utf8(name));
        wanted.own(found, &path, &owner);
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
    fn patience_ends() {
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
            load(file, MOST_HOST)
                .and_then(|mut db| look_up(&mut db, patience, &wanted, &mut Answer::default()))
        };
        assert!(matches!(ask(Duration::ZERO), Err(Failed::Slow)));
        assert!(ask(Duration::from_secs(60)).is_ok());
    }
}
