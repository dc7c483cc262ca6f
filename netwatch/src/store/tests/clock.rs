//! Retention while the wall clock is wrong. The clocks are read by the caller of `commit_at`, as `commit` does.

use super::*;
use crate::limits;
use crate::store::open::Folders;
use crate::store::steady::Reading;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
const YEAR: i64 = 8766 * HOUR;

/// A store with a limit of ten hours, whose recorder writes a connection every ten minutes.
struct Run {
    place: Place,
    writer: Option<Writer>,
    now: Reading,
    next: u64,
}

fn aged(boot: &str) -> Settings {
    let retention = Retention { age: Duration::from_secs(10 * 3600), ..settings().retention };
    Settings { retention, boot: boot.into(), ..settings() }
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            place: Place::new(),
            writer: None,
            now: Reading { wall: BOOT + 100 * SECOND, boot: 100 * SECOND },
            next: 1,
        };
        run.restart("00000001", 0);
        run
    }

    fn restart(&mut self, boot: &str, ahead: i64) {
        self.writer = None;
        let now = Reading { wall: self.now.wall + ahead, ..self.now };
        self.writer = Some(Writer::open_at(&self.place.path(), aged(boot), Folders::Create, now).unwrap());
    }

    /// With the wall clock ahead of real time.
    fn pass(&mut self, time: i64, ahead: i64) {
        let writer = self.writer.as_mut().unwrap();
        for seconds in 1..=time / (10 * SECOND) {
            self.now = Reading { wall: self.now.wall + 10 * SECOND, boot: self.now.boot + 10 * SECOND };
            let now = Reading { wall: self.now.wall + ahead, ..self.now };
            if seconds % 60 == 0 {
                let clock = Entry::Clock(BootClock::of_boot(now.wall - now.boot));
                let mut items = vec![clock];
                items.extend(stories(self.next..self.next + 1));
                while !items.is_empty() {
                    let taken = writer.commit_at(&items, now).unwrap();
                    items.drain(..taken);
                }
                self.next += 1;
            } else {
                writer.commit_at(&[], now).unwrap();
            }
        }
    }

    fn left(&self) -> u64 {
        let checked = self.place.verified();
        assert!(checked.is_well(), "{checked:?}");
        self.place.reader().connections(&Query::default()).unwrap().len() as u64
    }
}

fn settles() -> i64 {
    limits::CLOCK_SETTLES.as_nanos() as i64
}

#[test]
fn a_jump_of_a_year_and_back_loses_no_row() {
    let mut run = Run::new();
    run.pass(2 * HOUR, 0);
    run.pass(settles() - HOUR, YEAR);
    assert_eq!(run.left(), run.next - 1);
    run.pass(2 * HOUR, 0);
    assert_eq!(run.left(), run.next - 1);
    // What is really old goes.
    run.pass(4 * HOUR, 0);
    assert!(run.left() < run.next - 1 && run.left() >= 60, "{} of {}", run.left(), run.next - 1);
}

#[test]
fn a_jump_that_stands_for_hours_counts() {
    let mut run = Run::new();
    run.pass(2 * HOUR, 0);
    run.pass(settles() + HOUR, YEAR);
    // Of the last hour, and the segment before.
    assert!((6..=18).contains(&run.left()), "{}", run.left());
}

#[test]
fn a_wrong_clock_over_restarts_loses_no_row() {
    let mut run = Run::new();
    run.pass(2 * HOUR, 0);
    // In the same boot with the clock a year ahead, then after a reboot into 1970 and back.
    run.restart("00000001", YEAR);
    run.pass(HOUR, YEAR);
    run.now.boot = 0;
    run.restart("00000002", -50 * YEAR);
    run.pass(HOUR, -50 * YEAR);
    run.restart("00000002", 0);
    run.pass(HOUR, 0);
    assert_eq!(run.left(), run.next - 1);
}

#[test]
fn time_since_boot_counts_whatever_the_wall_clock_says() {
    let mut run = Run::new();
    run.pass(2 * HOUR, 0);
    // A year ahead and a year behind by turns, so that no step lasts.
    for hours in 0..12 {
        run.pass(HOUR, if hours % 2 == 0 { YEAR } else { -YEAR });
    }
    // Of ten hours, and of a segment that is not too old as a whole.
    assert!((60..=68).contains(&run.left()), "{}", run.left());
}
