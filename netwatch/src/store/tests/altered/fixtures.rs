//! Stores as each version wrote them, as SQL. They are kept for ever: a change to the schema must not change how they read.

use std::os::unix::fs::PermissionsExt as _;

use super::as_version_1;
use crate::store::tests::*;

/// One for each version. A new one is written by this test with NETWATCH_WRITE_FIXTURE set, which needs `sqlite3`.
const FIXTURES: [&str; VERSION as usize] =
    [include_str!("../fixtures/store-1.sql"), include_str!("../fixtures/store-2.sql")];

/// The connections in each of them.
const CONNECTIONS: std::ops::Range<u64> = 1..4;

fn from_sql(version: i32, sql: &str) -> Place {
    let place = Place::new();
    let db = Connection::open(place.path()).unwrap();
    let (id, journal) = (APPLICATION_ID, "PRAGMA journal_mode = WAL");
    db.execute_batch(&format!(
        "{journal}; PRAGMA application_id = {id}; PRAGMA user_version = {version}; {sql}"
    ))
    .unwrap();
    drop(db);
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    place
}

#[test]
fn store_of_every_version_is_read_verified_and_upgraded() {
    if std::env::var_os("NETWATCH_WRITE_FIXTURE").is_some() {
        write_fixtures();
    }
    for (sql, version) in FIXTURES.into_iter().zip(1..) {
        let place = from_sql(version, sql);
        let count = || place.reader().connections(&Query::default()).unwrap().len();
        let check = |connections, batches| {
            assert_eq!(count(), connections, "{version}");
            let verified = place.verified();
            assert!(verified.is_well(), "{version}: {verified:?}");
            assert_eq!(verified.batches, batches, "{version}");
        };
        assert_eq!(place.reader().version(), version);
        check(3, 1);
        write(&mut place.writer(settings()), &stories(4..6));
        assert_eq!(place.reader().version(), VERSION);
        check(5, 2);
    }
}

fn write_fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/tests/fixtures");
    for version in 1..=VERSION {
        let place = Place::new();
        write(&mut place.writer(settings()), &stories(CONNECTIONS));
        if version == 1 {
            as_version_1(&place);
        }
        let dump = std::process::Command::new("sqlite3").arg(place.path()).arg(".dump").output().unwrap();
        assert!(dump.status.success(), "{dump:?}");
        std::fs::write(folder.join(format!("store-{version}.sql")), dump.stdout).unwrap();
    }
}
