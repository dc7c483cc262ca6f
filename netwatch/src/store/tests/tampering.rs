//! Verification of a store that was altered.

use super::*;

#[test]
fn tampering_is_reported_at_its_batch() {
    let tampered = |sql: &str| {
        let place = Place::new();
        let mut writer = place.writer(settings());
        for batch in 0..5 {
            write(&mut writer, &stories(batch * 10 + 1..batch * 10 + 11));
        }
        drop(writer);
        assert_eq!(place.verified().broken, None);
        place.sql(sql);
        place.verified().broken.map(|broken| broken.batch)
    };
    assert_eq!(tampered("UPDATE connection SET remote_ip = '10.0.0.9' WHERE id = 15"), Some(2));
    assert_eq!(tampered("UPDATE process SET comm = 'sshd'"), Some(1));
    assert_eq!(tampered("UPDATE segment SET started = 5"), Some(1));
    assert_eq!(tampered("UPDATE batch SET ts = ts + 1 WHERE id = 3"), Some(3));
    assert_eq!(tampered("DELETE FROM connection WHERE id = 25"), Some(3));
    assert_eq!(tampered("DELETE FROM batch WHERE id = 3"), Some(4));
    assert_eq!(tampered("DELETE FROM batch WHERE id < 3"), Some(3));
    assert_eq!(tampered("DELETE FROM batch WHERE id < 3; DELETE FROM connection WHERE id < 21"), Some(3));
    assert_eq!(tampered("UPDATE connection SET id = 1000 WHERE id = 50"), Some(5));
    assert_eq!(
        tampered("INSERT INTO loss SELECT 1, 1, 1, 'ring', 'change', 1"),
        Some(5),
        "a row in no batch"
    );
    // The end of the chain: only an anchor shows that there was more.
    assert_eq!(tampered("DELETE FROM batch WHERE id = 5; DELETE FROM connection WHERE id > 40"), None);
}

#[test]
fn only_an_anchor_detects_a_rewritten_chain() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(1..11));
    let anchor = newest(&place.reader()).unwrap().unwrap().0;
    write(&mut writer, &stories(11..21));
    drop(writer);
    let anchored = || verify(&place.reader(), Ask { anchor: Some(anchor), key: None }, &mut go_on).unwrap();
    assert_eq!(anchored().anchored, Some(Anchored { batch: 1, is_deleted: false }));
    place.sql("UPDATE connection SET remote_port = 80 WHERE id = 3");
    assert_eq!(anchored().broken.map(|broken| broken.batch), Some(1));
    rehash(&place.path());
    assert_eq!((anchored().broken, anchored().anchored), (None, None));
}
