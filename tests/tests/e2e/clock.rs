//! The clock of the host is set. Only in a guest, whose clock no one else uses.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime, clock_settime};
use tests::{Presence, Recorder, Store, in_fresh_netns, skip, until};

use crate::actor;

const HOUR: Duration = Duration::from_secs(3600);

/// The clock is set back by an hour, and forward again on drop.
struct SetBack;

impl SetBack {
    fn by_an_hour() -> Self {
        move_clock(-3600);
        Self
    }
}

impl Drop for SetBack {
    fn drop(&mut self) {
        move_clock(3600);
    }
}

fn move_clock(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let then = nix::sys::time::TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
}

fn seconds(time: &serde_json::Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_second()
}

#[test]
fn clock_set_back_loses_nothing() {
    if !tests::is_emulated() {
        return skip(
            "clock::clock_set_back_loses_nothing",
            "it sets the clock, which is done in guests only",
        );
    }
    let _presence = Presence::alone();
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        let mut client = actor();
        let attempts = |client: &mut tests::Actor, ports: std::ops::Range<u16>| {
            for port in ports.clone() {
                assert!(client.try_say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000")).is_err());
            }
            until("it is recorded", || store.log(&[]).len() == usize::from(ports.end - 2000));
        };
        attempts(&mut client, 2000..2002);
        let back = SetBack::by_an_hour();
        let set = SystemTime::now();
        // The recorder reads the clock again at one of its ticks.
        until("times are those of the clock as it is now", || {
            let last = store.log(&[]).len();
            let next = u16::try_from(2000 + last).unwrap();
            attempts(&mut client, next..next + 1);
            let log = store.log(&[]);
            let now = set.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            (seconds(&log.last().unwrap()["ts"]) - i64::try_from(now).unwrap()).abs() < 600
        });
        let log = store.log(&[]);
        let ports: Vec<_> = log.iter().map(|event| event["local"]["port"].as_u64().unwrap()).collect();
        assert!(
            ports.iter().copied().eq((2000..).take(ports.len())),
            "the order is that of the record: {ports:?}"
        );
        let (first, last) = (seconds(&log[0]["ts"]), seconds(&log.last().unwrap()["ts"]));
        assert!(first - last > i64::try_from(HOUR.as_secs()).unwrap() - 600, "{first} {last}");
        drop(back);
        attempts(
            &mut client,
            u16::try_from(2000 + ports.len()).unwrap()..u16::try_from(2001 + ports.len()).unwrap(),
        );
        assert_eq!(store.verify(&[]).0, Some(0));
        recorder.finish();
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}
