//! Stores that somebody else prepared, and messages about them.

use rusqlite::config::DbConfig;

use super::*;
use crate::store::open::{self, Folders};

fn write_error(path: &Path) -> String {
    Writer::open(path, settings()).map(|_| ()).unwrap_err().to_string()
}

fn read_error(path: &Path) -> String {
    Reader::open(path).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn an_empty_file_does_not_become_a_store() {
    let place = Place::new();
    std::fs::write(place.path(), "").unwrap();
    for error in [write_error(&place.path()), read_error(&place.path())] {
        assert!(error.contains("is empty, and no netwatch store"), "{error}");
    }
    assert_eq!(std::fs::metadata(place.path()).unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1);
}

#[test]
fn an_unreadable_version_is_one_line() {
    for version in [0, -1, i32::MIN] {
        let place = Place::new();
        drop(place.writer(settings()));
        place.sql(&format!("PRAGMA user_version = {version}"));
        for error in [write_error(&place.path()), read_error(&place.path())] {
            assert!(error.contains(&format!("its version is {version}")), "{error}");
            assert!(!error.contains('\n') && !error.contains("CREATE"), "{error}");
        }
    }
}

#[test]
fn an_error_in_a_statement_does_not_print_it() {
    let place = Place::new();
    drop(place.writer(settings()));
    place.sql("PRAGMA user_version = 1");
    let error = write_error(&place.path());
    assert!(
        error.contains("duplicate column") && !error.contains("CREATE") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn paths_are_escaped_in_messages() {
    let place = Place::new();
    let path = place.0.path().join("\u{1b}[2J\nx");
    let missing = read_error(&path);
    std::fs::write(&path, "x").unwrap();
    for error in [missing, write_error(&path), write_error(&path.join("y"))] {
        assert!(error.contains("\\x1b[2J\\x0ax") && !error.chars().any(char::is_control), "{error}");
    }
}

#[test]
fn the_schema_is_not_trusted() {
    let place = Place::new();
    drop(place.writer(settings()));
    let reading = open::for_reading(&place.path()).unwrap().0;
    let syncing = open::for_syncing(&place.path()).unwrap();
    let writing = open::for_writing(&place.path(), 100, Folders::Create).unwrap();
    for db in [&reading, &syncing, &writing.db] {
        assert!(db.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
        assert!(!db.db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA).unwrap());
    }
    // So that a file with a schema of its own cannot be made to write to internal tables.
    let planted = writing.db.execute("UPDATE sqlite_schema SET sql = ''", []);
    assert!(planted.unwrap_err().to_string().contains("may not be modified"));
}
