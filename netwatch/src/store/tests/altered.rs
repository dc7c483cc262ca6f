//! What is in no row: the schema, the content of indexes, and what retention claims.

mod fixtures;

use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;

use super::*;
use crate::output::verify::Verdict;
use crate::store::chain::{Contents, Format};
use crate::store::open::Folders;
use crate::store::pruned;
use crate::store::steady::Reading;

const SECOND: i64 = 1_000_000_000;

/// A store of five segments, with ten connections each in a batch of its own, and the links of the batches.
fn five_segments(place: &Place) -> Vec<Link> {
    let mut writer = place.writer(settings());
    let mut links = Vec::new();
    for batch in 0..5_u64 {
        let mut items = vec![Entry::Clock(BootClock::of_boot(BOOT + batch.cast_signed() * SECOND))];
        items.extend(stories(batch * 10 + 1..batch * 10 + 11));
        while !items.is_empty() {
            let taken = writer.commit(&items).unwrap();
            items.drain(..taken);
        }
        links.push(newest(&place.reader()).unwrap().unwrap().0);
    }
    links
}

fn found(place: &Place, anchor: Link) -> Checked {
    verify(&place.reader(), Ask { anchor: Some(anchor), key: None }, &mut go_on).unwrap()
}

fn said(checked: &Checked, anchor: Option<Link>) -> String {
    let mut out = Vec::new();
    Verdict::of(checked, anchor).write(false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn an_altered_schema_is_found() {
    let schema = |sql: &str| {
        let place = Place::new();
        let anchor = five_segments(&place)[4];
        assert!(place.verified().is_well());
        place.sql(sql);
        let checked = found(&place, anchor);
        assert_eq!(checked.schema, verify_schema(&place.reader()).unwrap().schema);
        (checked.schema.clone(), said(&checked, Some(anchor)))
    };
    for sql in [
        "DROP INDEX connection_by_local_port; \
         CREATE INDEX connection_by_local_port ON connection (segment, local_port) WHERE local_port <> 40007",
        "DROP INDEX connection_by_local_port",
        "CREATE INDEX connection_by_local_port_2 ON connection (segment, local_port) WHERE local_port <> 40007",
        "DROP VIEW events; CREATE VIEW events AS SELECT * FROM connection WHERE local_port <> 40007",
        "CREATE TRIGGER hide AFTER INSERT ON connection BEGIN DELETE FROM connection WHERE local_port = 4444; END",
        "CREATE TABLE more (x)",
        "ALTER TABLE connection ADD COLUMN more INTEGER",
    ] {
        let (schema, said) = schema(sql);
        assert!(schema.is_some() && said.starts_with("ALTERED: "), "{sql}: {said}");
    }
    // It is what people do to make queries faster.
    assert_eq!(schema("ANALYZE").0, None);
}

#[test]
fn an_index_with_other_entries_is_found() {
    let place = Place::new();
    five_segments(&place);
    for (name, on, condition) in [
        ("connection_by_local_port", "connection (segment, local_port)", "local_port <> 40007"),
        ("connection_by_cookie", "connection (cookie)", "cookie <> 7"),
        ("process_by_pid", "process (segment, pid)", "pid <> 77"),
        ("batch_by_segment", "batch (segment)", "segment <> 3"),
    ] {
        // With the text of the real one.
        place.sql(&format!(
            "CREATE TEMP TABLE own AS SELECT sql FROM main.sqlite_schema WHERE name = '{name}'; \
             DROP INDEX {name}; CREATE INDEX {name} ON {on} WHERE {condition}; PRAGMA writable_schema = ON; \
             UPDATE main.sqlite_schema SET sql = (SELECT sql FROM own) WHERE name = '{name}'"
        ));
        let checked = place.verified();
        let index = checked.index.clone().unwrap_or_default();
        assert!(
            checked.schema.is_none() && index.starts_with(&format!("index {name} has")),
            "{name}: {checked:?}"
        );
        assert!(said(&checked, None).starts_with("ALTERED: index"));
        place.sql(&format!("REINDEX {name}"));
        assert!(place.verified().is_well());
    }
}

/// Whether `verify` says that the store is well after one byte of a page was flipped: the last byte of its content.
fn well_after_flip(place: &Place, object: &str) -> bool {
    let db = Connection::open(place.path()).unwrap();
    let root: i64 = db
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?", [object], |row| row.get(0))
        .unwrap();
    drop(db);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(place.path()).unwrap();
    let (at, mut byte) = (root.cast_unsigned() * 4096 - 1, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let checked = verify(&place.reader(), Ask::default(), &mut go_on);
    file.write_all_at(&byte, at).unwrap();
    assert!(place.verified().is_well());
    checked.is_ok_and(|checked| checked.is_well())
}

#[test]
fn a_flipped_byte_in_an_index_or_a_table_is_found() {
    for rows in [10, 4000] {
        let place = Place::new();
        let mut writer = place.writer(settings());
        write(&mut writer, &stories(1..rows));
        drop(writer);
        for object in [
            "connection_by_cookie",
            "connection_by_local_port",
            "connection_by_remote_port",
            "connection_by_local_ip",
            "connection_by_process",
            "process_by_pid",
            "process_by_image",
            "image_by_exe",
            "batch_by_segment",
            // The root has keys only, by which rows are searched for.
            "connection",
        ] {
            assert!(!well_after_flip(&place, object), "{object} with {rows} rows");
        }
    }
}

/// What root can do to make two deleted segments look like retention's work: the rows, and the hash of the last batch.
fn cut_off(place: &Place, columns: &str, values: &str) {
    place.sql("DELETE FROM segment WHERE id <= 2");
    for table in ["image", "process", "connection"] {
        place.sql(&format!("DELETE FROM {table} WHERE segment <= 2"));
    }
    place.sql(&format!(
        "INSERT INTO pruned (id, segment, ts, through_segment, through_batch, hash {columns}) \
         SELECT 1, 5, {BOOT}, 2, 2, hash {values} FROM batch WHERE id = 2; \
         DELETE FROM batch WHERE id <= 2; UPDATE batch SET pruned_to = 1 WHERE id = 5"
    ));
    rehash_from(&place.path(), 5);
}

#[test]
fn history_that_is_cut_off_as_if_by_retention_is_found() {
    let attack = |columns: &str, values: &str, kept_links: bool, more: &str| {
        let place = Place::new();
        let links = five_segments(&place);
        let mut digest = Link::NONE;
        if kept_links {
            let db = Connection::open(place.path()).unwrap();
            let ended: i64 =
                db.query_row("SELECT steady FROM batch WHERE id = 2", [], |row| row.get(0)).unwrap();
            for segment in 1..=2 {
                digest = pruned::add(&db, segment, ended).unwrap().unwrap();
            }
        }
        place.sql(more);
        cut_off(&place, columns, &values.replace("DIGEST", &format!("x'{digest}'")));
        for anchor in [links[0], links[1], links[3]] {
            let checked = found(&place, anchor);
            assert_eq!((checked.broken.clone(), checked.is_well()), (None, false), "{columns} {values}");
            let said = said(&checked, Some(anchor));
            assert!(said.starts_with("NOT EXPLAINED by the limits of retention: batches up to 2"), "{said}");
        }
        // The last batch was hashed again.
        assert_eq!(found(&place, links[4]).anchored, None);
    };
    attack("", "", false, "");
    let all = ", reason, pages, digest";
    attack(all, ", 'age', NULL, DIGEST", false, "");
    attack(all, ", 'age', NULL, DIGEST", true, "");
    attack(all, ", 'size', 1 << 20, DIGEST", true, "");
    attack(all, ", 'size', 10, DIGEST", true, "");
    attack(all, ", 'other', 10, DIGEST", true, "");
    // By a clock that runs ahead.
    attack(all, ", 'age', NULL, DIGEST", true, "UPDATE batch SET steady = 1 << 62 WHERE id = 5");
}

#[test]
fn limits_that_are_forged_as_well_are_found_by_an_anchor() {
    let place = Place::new();
    let links = five_segments(&place);
    let db = Connection::open(place.path()).unwrap();
    let digest = (1..=2).map(|segment| pruned::add(&db, segment, 0).unwrap().unwrap()).last().unwrap();
    drop(db);
    place.sql("UPDATE segment SET max_age = 0 WHERE id = 5");
    cut_off(&place, ", reason, pages, digest", &format!(", 'age', NULL, x'{digest}'"));
    assert!(place.verified().is_well());
    assert_eq!(found(&place, links[3]).anchored, Some(Anchored { batch: 4, is_deleted: false }));
    assert_eq!(found(&place, links[4]).anchored, None);
}

#[test]
fn a_batch_does_not_go_back_to_the_version_without_limits() {
    let place = Place::new();
    five_segments(&place);
    place.sql("UPDATE batch SET steady = NULL WHERE id = 5");
    let broken = place.verified().broken.unwrap();
    assert!(broken.batch == 5 && broken.why.contains("older version"), "{broken:?}");
}

#[test]
fn anchors_of_what_retention_deleted_are_found() {
    let place = Place::new();
    let links = five_segments(&place);
    let now = Reading::now().unwrap();
    let age = Duration::from_secs(3600);
    let aged = || Settings { retention: Retention { age, ..settings().retention }, ..settings() };
    let later =
        |seconds: i64| Reading { wall: now.wall + seconds * SECOND, boot: now.boot + seconds * SECOND };
    let mut writer = Writer::open_at(&place.path(), aged(), Folders::Create, now).unwrap();
    writer.commit_at(&stories(100..101), later(1800)).unwrap();
    // Once for the first five segments, and once for that of the new one.
    writer.commit_at(&[], later(4000)).unwrap();
    writer.commit_at(&stories(101..102), later(4001)).unwrap();
    let sixth = newest(&place.reader()).unwrap().unwrap();
    writer.commit_at(&stories(102..103), later(9000)).unwrap();
    writer.commit_at(&[], later(9010)).unwrap();
    let checked = place.verified();
    assert!(checked.is_well() && checked.pruned.is_some_and(|(batch, _)| batch > 5), "{checked:?}");
    for (n, link) in links.iter().enumerate() {
        let checked = found(&place, *link);
        let batch = i64::try_from(n).unwrap() + 1;
        assert_eq!(checked.anchored, Some(Anchored { batch, is_deleted: true }));
        let said = said(&checked, Some(*link));
        assert!(
            said.contains(&format!("the anchor is batch {batch}, of which only the link is left")),
            "{said}"
        );
    }
    assert_eq!(found(&place, sixth.0).anchored.map(|anchored| anchored.batch), Some(sixth.1));
    // An anchor of another store is no alteration of this one.
    let other = Link::from_bytes(&[7; 32]).unwrap();
    let checked = found(&place, other);
    let said = said(&checked, Some(other));
    assert!(
        checked.is_well() && said.contains("not found in this chain") && !said.contains("ALTERED"),
        "{said}"
    );
    // The links that are kept are covered by the chain.
    place.sql("UPDATE pruned_segment SET ended = ended + 1 WHERE id = 3");
    assert!(place.verified().unexplained.is_some());
}

/// The store as version 1 had written it.
fn as_version_1(place: &Place) {
    let old = place.path().with_extension("old");
    let db = open::reference(1).unwrap();
    db.execute("ATTACH ? AS new", [place.path().to_str().unwrap()]).unwrap();
    for table in Format::One.tables() {
        let columns = table.columns(Format::One).join(",");
        db.execute_batch(&format!("INSERT INTO main.{0} SELECT {columns} FROM new.{0}", table.name()))
            .unwrap();
    }
    let columns = Format::One.batch_columns();
    db.execute_batch(&format!("INSERT INTO main.batch SELECT {}, hash FROM new.batch", columns.join(",")))
        .unwrap();
    db.execute_batch("DETACH new").unwrap();
    let mut previous = Link::NONE;
    let batches: Vec<Vec<i64>> = db
        .prepare(&format!("SELECT {} FROM batch ORDER BY id", columns.join(",")))
        .unwrap()
        .query_map([], |row| (0..columns.len()).map(|column| row.get(column)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for batch in batches {
        let mut contents = Contents::new();
        for table in Format::One.tables() {
            let (from, to) = (batch[3 + 2 * table as usize], batch[4 + 2 * table as usize]);
            verify::hash_rows(&db, table, Format::One, from, to, &mut contents).unwrap();
        }
        previous = contents.link(Format::One, &previous, &batch);
        db.execute("UPDATE batch SET hash = ? WHERE id = ?", (previous.bytes(), batch[0])).unwrap();
    }
    let id = APPLICATION_ID;
    db.execute_batch(&format!("PRAGMA application_id = {id}; PRAGMA user_version = 1")).unwrap();
    db.execute("VACUUM INTO ?", [old.to_str().unwrap()]).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", place.path().display()));
    }
    std::fs::rename(&old, place.path()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_store_of_version_1_is_read_and_migrated() {
    let place = Place::new();
    five_segments(&place);
    as_version_1(&place);
    let count = || place.reader().connections(&Query::default()).unwrap().len();
    let version = || place.reader().version();
    let old = newest(&place.reader()).unwrap().unwrap().0;
    // Read as it is.
    assert_eq!((count(), version(), place.verified().is_well()), (50, 1, true));
    assert_eq!(place.verified().batches, 5);
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(51..61));
    assert_eq!((count(), version()), (60, 2));
    let checked = found(&place, old);
    assert!(
        checked.is_well() && checked.anchored == Some(Anchored { batch: 5, is_deleted: false }),
        "{checked:?}"
    );
    assert_eq!(checked.batches, 6);
    drop(writer);
    // Its rows are covered as before.
    place.sql("UPDATE connection SET remote_port = 80 WHERE id = 3");
    assert_eq!(place.verified().broken.map(|broken| broken.batch), Some(1));
    place.sql("UPDATE connection SET remote_port = 443 WHERE id = 3");
    // Retention deletes them, by the limits of the new version.
    let age = Duration::from_secs(3600);
    let now = Reading::now().unwrap();
    let settings = Settings { retention: Retention { age, ..settings().retention }, ..settings() };
    let mut writer = Writer::open_at(&place.path(), settings, Folders::Create, now).unwrap();
    let hours = 10 * 3600 * SECOND;
    writer.commit_at(&stories(61..62), Reading { wall: now.wall + hours, boot: now.boot + hours }).unwrap();
    writer.commit_at(&[], Reading { wall: now.wall + hours, boot: now.boot + hours }).unwrap();
    let checked = found(&place, old);
    assert!(checked.is_well() && checked.anchored.is_some_and(|anchored| anchored.is_deleted), "{checked:?}");
    assert_eq!(count(), 1);
}

#[test]
fn deletions_of_version_1_are_said_to_be_unchecked() {
    let place = Place::new();
    five_segments(&place);
    as_version_1(&place);
    place.sql(
        "INSERT INTO pruned SELECT 1, 5, 1, 2, 2, hash FROM batch WHERE id = 2; DELETE FROM segment WHERE id <= 2; \
         DELETE FROM image WHERE segment <= 2; DELETE FROM process WHERE segment <= 2; \
         DELETE FROM connection WHERE segment <= 2; DELETE FROM batch WHERE id <= 2; \
         UPDATE batch SET pruned_to = 1 WHERE id = 5",
    );
    let db = Connection::open(place.path()).unwrap();
    let columns = Format::One.batch_columns();
    let select = format!("SELECT {} FROM batch WHERE id = 5", columns.join(","));
    let batch: Vec<i64> =
        db.query_row(&select, [], |row| (0..columns.len()).map(|column| row.get(column)).collect()).unwrap();
    let previous: Vec<u8> =
        db.query_row("SELECT hash FROM batch WHERE id = 4", [], |row| row.get(0)).unwrap();
    let mut contents = Contents::new();
    for table in Format::One.tables() {
        let (from, to) = (batch[3 + 2 * table as usize], batch[4 + 2 * table as usize]);
        verify::hash_rows(&db, table, Format::One, from, to, &mut contents).unwrap();
    }
    let link = contents.link(Format::One, &Link::from_bytes(&previous).unwrap(), &batch);
    db.execute("UPDATE batch SET hash = ? WHERE id = 5", [link.bytes()]).unwrap();
    drop(db);
    let checked = place.verified();
    assert!(checked.is_well() && checked.is_pruned_without_limits, "{checked:?}");
    let said = said(&checked, None);
    assert!(said.contains("by limits that this version of the store did not record"), "{said}");
}
