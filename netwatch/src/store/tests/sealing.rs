//! Seals: what was recorded before a key was stolen cannot be altered without being found.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::open::Folders;
use crate::store::steady::Reading;

const EPOCH: i64 = crate::limits::SEAL_EPOCH.as_nanos() as i64 + 1;

struct Sealing {
    place: Place,
    key: Key,
    writer: Option<Writer>,
    now: Reading,
}

impl Sealing {
    /// A store with a key.
    fn new() -> Self {
        let place = Place::new();
        let key = new_key(&place.path()).unwrap().parse().unwrap();
        let now = Reading { wall: BOOT + EPOCH, boot: EPOCH };
        let mut sealing = Self { place, key, writer: None, now };
        sealing.restart(settings().retention);
        sealing
    }

    fn restart(&mut self, retention: Retention) {
        self.writer = None;
        let settings = Settings { seal: true, retention, ..settings() };
        let writer = Writer::open_at(&self.place.path(), settings, Folders::Create, self.now).unwrap();
        writer.sealer().unwrap().advance().unwrap();
        self.writer = Some(writer);
    }

    /// Ten connections in a batch, at the end of an epoch. `is_synced`: the key is erased.
    fn epoch(&mut self, from: u64, is_synced: bool) {
        self.now = Reading { wall: self.now.wall + EPOCH, boot: self.now.boot + EPOCH };
        let writer = self.writer.as_mut().unwrap();
        assert_eq!(writer.commit_at(&stories(from..from + 10), self.now).unwrap(), 20);
        if is_synced {
            writer.sealer().unwrap().advance().unwrap();
        }
    }

    /// Four batches, of which all but the first end an epoch, and what the thief of the key gets then.
    fn four() -> (Self, Vec<u8>) {
        let mut sealing = Self::new();
        (0..4).for_each(|batch| sealing.epoch(batch * 10 + 1, true));
        let stolen = std::fs::read(sealing.file()).unwrap();
        sealing.writer = None;
        (sealing, stolen)
    }

    fn file(&self) -> PathBuf {
        self.place.0.path().join("netwatch.db-seal")
    }

    fn checked(&self) -> Checked {
        let path = self.place.path();
        verify(
            &self.place.reader(),
            Ask { anchor: None, key: Some((&self.key, &SealFile::read(&path).unwrap())) },
            &mut go_on,
        )
        .unwrap()
    }

    #[track_caller]
    fn broken(&self) -> String {
        let checked = self.checked();
        assert!(checked.broken.is_none() && !checked.is_well(), "{checked:?}");
        checked.seals.unwrap().broken.unwrap()
    }
}

#[test]
fn a_chain_that_is_hashed_again_is_found_by_its_seals() {
    let (sealing, _) = Sealing::four();
    let seals = sealing.checked().seals.unwrap();
    assert_eq!((seals.count, seals.last.unwrap().0, seals.unsealed, seals.broken), (3, 4, 0, None));
    sealing.place.sql("UPDATE connection SET remote_port = 80 WHERE id = 3");
    rehash(&sealing.place.path());
    assert!(sealing.place.verified().is_well());
    assert!(sealing.broken().contains("batch 2 or an earlier one is not what the seal of epoch 0 has"));
    // Also if the hashes in the seals are made to fit.
    sealing.place.sql("UPDATE seal SET link = (SELECT hash FROM batch WHERE id = seal.batch)");
    assert!(sealing.broken().contains("was not made with this key"));
}

#[test]
fn the_thief_of_a_key_can_alter_only_what_came_after() {
    let (mut sealing, stolen) = Sealing::four();
    // No earlier key is in the file.
    let state = String::from_utf8(stolen).unwrap();
    let stolen: Key = state.split_whitespace().last().unwrap().parse().unwrap();
    assert!(state.contains(" 3 ") && !stolen.is(&sealing.key));
    assert_eq!(std::fs::metadata(sealing.file()).unwrap().permissions().mode() & 0o777, 0o600);
    sealing.restart(settings().retention);
    // The first batch after a start begins an epoch.
    sealing.epoch(41, true);
    sealing.epoch(51, true);
    sealing.writer = None;
    let forge = |id: i64, what: &str| {
        sealing.place.sql(what);
        rehash(&sealing.place.path());
        let db = Connection::open(sealing.place.path()).unwrap();
        let select =
            "SELECT epoch, ts, batch, (SELECT hash FROM batch WHERE id = batch), mac FROM seal WHERE id = ?";
        let (sealed, _) = db.query_row(select, [id], seal::read).unwrap().unwrap();
        let mac = stolen.mac(&sealed);
        db.execute("UPDATE seal SET link = ?, mac = ? WHERE id = ?", (sealed.link.bytes(), mac.bytes(), id))
            .unwrap();
    };
    // Of the epoch of the theft.
    forge(4, "UPDATE connection SET remote_port = 80 WHERE id = 45");
    assert!(sealing.checked().is_well(), "{:?}", sealing.checked());
    forge(3, "UPDATE connection SET remote_port = 80 WHERE id = 35");
    assert!(sealing.broken().contains("epoch 2 was not made with this key"));
}

#[test]
fn seals_and_batches_that_were_cut_off_are_missed() {
    let cut = |sql: &str| {
        let (sealing, _) = Sealing::four();
        sealing.place.sql(sql);
        sealing.broken()
    };
    assert!(cut("DELETE FROM seal WHERE id = 2").contains("the seal of epoch 1 is missing"));
    assert!(cut("DELETE FROM seal WHERE id = 1").contains("the seal of epoch 0 is missing"));
    let end = "DELETE FROM batch WHERE id = 4; DELETE FROM connection WHERE id > 30;";
    assert!(cut(end).contains("batch 4 or an earlier one"));
    assert!(
        cut(&format!("{end} DELETE FROM seal WHERE id = 3"))
            .contains("the seals of epochs 2 to 2 are missing")
    );
    let (sealing, _) = Sealing::four();
    std::fs::remove_file(sealing.file()).unwrap();
    assert!(sealing.broken().contains("is missing, so later seals may be"));
    // Whoever begins anew has another key.
    let other = new_key(&sealing.place.path()).unwrap().parse().unwrap();
    assert!(sealing.broken().contains("of another series"));
    let sealing = Sealing { key: other, ..sealing };
    assert!(sealing.checked().is_well());
}

#[test]
fn an_older_copy_of_the_store_is_missed_by_its_seals() {
    let mut sealing = Sealing::new();
    (0..3).for_each(|batch| sealing.epoch(batch * 10 + 1, true));
    let copy = sealing.place.0.path().join("copy");
    let db = Connection::open(sealing.place.path()).unwrap();
    db.execute("VACUUM INTO ?", [copy.to_str().unwrap()]).unwrap();
    drop(db);
    (3..5).for_each(|batch| sealing.epoch(batch * 10 + 1, true));
    let anchor = newest(&sealing.place.reader()).unwrap().unwrap().0;
    sealing.writer = None;
    std::fs::copy(&copy, sealing.place.path()).unwrap();
    assert!(sealing.place.verified().is_well());
    let ask = Ask { anchor: Some(anchor), key: None };
    assert_eq!(verify(&sealing.place.reader(), ask, &mut go_on).unwrap().anchored, None);
    assert!(sealing.broken().contains("the seals of epochs 2 to 3 are missing"));
}

#[test]
fn a_recorder_that_was_killed_before_the_key_was_erased_goes_on() {
    let mut sealing = Sealing::new();
    sealing.epoch(1, true);
    sealing.epoch(11, false);
    assert!(sealing.checked().is_well(), "{:?}", sealing.checked());
    sealing.restart(settings().retention);
    sealing.epoch(21, true);
    sealing.epoch(31, true);
    let checked = sealing.checked();
    assert!(checked.is_well() && checked.seals.as_ref().is_some_and(|seals| seals.count == 2), "{checked:?}");
}

#[test]
fn seals_of_deleted_batches_go_with_them() {
    let mut sealing = Sealing::new();
    let retention = Retention { age: Duration::from_secs(300), ..settings().retention };
    sealing.restart(retention);
    (0..20).for_each(|batch| sealing.epoch(batch * 10 + 1, true));
    sealing.writer.as_mut().unwrap().commit_at(&[], sealing.now).unwrap();
    let checked = sealing.checked();
    let seals = checked.seals.clone().unwrap();
    assert!(checked.is_well() && checked.pruned.is_some() && (3..15).contains(&seals.count), "{checked:?}");
}

#[test]
fn a_key_is_not_replaced_and_not_shared() {
    let place = Place::new();
    let sealing = || {
        let settings = Settings { seal: true, ..settings() };
        Writer::open(&place.path(), settings).map(|_| ()).unwrap_err().to_string()
    };
    assert!(sealing().contains("make one with `netwatch verify --new-key`"));
    _ = new_key(&place.path()).unwrap();
    let file = place.0.path().join("netwatch.db-seal");
    let before = std::fs::read(&file).unwrap();
    assert!(new_key(&place.path()).unwrap_err().to_string().contains("netwatch.db-seal"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(sealing().contains("can be read or written by other users"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, "x").unwrap();
    assert!(sealing().contains("netwatch.db-seal"));
}
