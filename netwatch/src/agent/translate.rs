//! Asks for the address translation of connections that begin, and tells the tracker, within a share of the processor
//! time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock;
use crate::conntrack::Asker;
use crate::limits;
use crate::loss::{Loss, LossReason};
use crate::model::{BootTime, Nat};
use crate::tracker::{ConnectionEvent, EventKind, Tracker};

/// One part in this many of the time may be spent with questions.
const SHARE: u32 = 10;

/// At most this much at once.
const BURST: Duration = Duration::from_millis(20);

/// After this time the addresses may belong to another connection, so a translation is not used.
const STALE: Duration = Duration::from_secs(1);

/// Interval of reports of what was not asked.
const REPORTS: Duration = Duration::from_secs(5);

pub(super) struct Translator {
    /// `None`: nothing can be asked.
    asker: Option<Asker>,
    /// Connections that could not be asked about yet.
    waiting: VecDeque<ConnectionEvent>,
    /// Time that may be spent now, and since when that holds.
    budget: Duration,
    since: Instant,
    /// Number of connections that were never asked about, since the last report.
    left_out: u64,
    /// When that was.
    reported: Instant,
}

impl Translator {
    pub(super) fn new() -> Self {
        let asker = Asker::new().inspect_err(|error| log::info!("cannot ask for translations: {error}")).ok();
        Self {
            asker,
            waiting: VecDeque::new(),
            budget: BURST,
            since: Instant::now(),
            left_out: 0,
            reported: Instant::now(),
        }
    }

    /// Completes events after the first `from`, of connections that begin, so that those that follow are joined with them.
    pub(super) fn complete(&mut self, events: &mut Vec<ConnectionEvent>, from: usize, tracker: &mut Tracker) {
        let mut place = from;
        while let Some(event) = events.get_mut(place) {
            place += 1;
            if !is_asked_about(event) {
                continue;
            }
            match self.ask(event) {
                Some(nat) => {
                    if tracker.translate(event, nat, true) {
                        place -= 1;
                        events.remove(place);
                    }
                }
                None => self.wait(event),
            }
        }
    }

    fn wait(&mut self, event: &ConnectionEvent) {
        if self.waiting.len() < limits::MOST_UNTRANSLATED {
            self.waiting.push_back(event.clone());
        } else {
            self.left_out += 1;
        }
    }

    /// Asks about connections that wait.
    pub(super) fn tick(&mut self, now: BootTime, tracker: &mut Tracker) {
        let mut rest = self.waiting.len();
        while rest > 0
            && let Some(mut event) = self.waiting.pop_front()
        {
            rest -= 1;
            if is_stale(now, &event) {
                self.left_out += 1;
                continue;
            }
            match self.ask(&event) {
                Some(nat) => {
                    tracker.translate(&mut event, nat, false);
                }
                None => self.waiting.push_back(event),
            }
        }
        if let Some(asker) = &mut self.asker {
            asker.tick();
        }
    }

    /// How many connections since the last report were not asked about, because too many began at once.
    pub(super) fn left_out(&mut self) -> Option<Loss> {
        if self.left_out == 0 || self.reported.elapsed() < REPORTS {
            return None;
        }
        self.reported = Instant::now();
        let kinds = [("nat_not_asked", std::mem::take(&mut self.left_out))].into();
        Some(Loss::new(LossReason::Limit, kinds))
    }

    /// `None`: not now.
    fn ask(&mut self, event: &ConnectionEvent) -> Option<Nat> {
        let Some(asker) = &mut self.asker else { return Some(Nat::Unknown) };
        let before = Instant::now();
        let earned = before.duration_since(self.since) / SHARE;
        (self.budget, self.since) = ((self.budget + earned).min(BURST), before);
        if self.budget.is_zero() {
            return None;
        }
        let nat = asker.ask(&event.endpoint.socket);
        self.budget = self.budget.saturating_sub(before.elapsed());
        let is_translated = nat.as_ref().is_some_and(|nat| nat.translation().is_some());
        if is_translated && clock::since_boot().is_ok_and(|now| is_stale(now, event)) {
            self.left_out += 1;
            return Some(Nat::Unknown);
        }
        nat
    }
}

fn is_stale(now: BootTime, event: &ConnectionEvent) -> bool {
    Duration::from_nanos(now.saturating_sub(event.at)) > STALE
}

/// Connections that begin and whose other endpoint is not known by its addresses.
fn is_asked_about(event: &ConnectionEvent) -> bool {
    matches!(event.kind, EventKind::Open | EventKind::Fail)
        && event.endpoint.remote.is_some()
        && event.endpoint.local.port != 0
        && event.endpoint.peer.is_none()
        && event.endpoint.nat == Nat::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::tests::event;

    #[test]
    fn number_of_waiting_connections_is_bounded() {
        let mut translator = Translator::new();
        let event = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:80"));
        for _ in 0..limits::MOST_UNTRANSLATED + 2 {
            translator.wait(&event);
        }
        assert_eq!(translator.waiting.len(), limits::MOST_UNTRANSLATED);
        // The report is due later.
        assert!(translator.left_out().is_none());
        translator.reported = Instant::now().checked_sub(REPORTS).unwrap();
        assert_eq!(translator.left_out().unwrap().kinds["nat_not_asked"], 2);
        assert!(translator.left_out().is_none());
    }

    #[test]
    fn connection_that_is_too_old_is_not_asked_about() {
        let mut translator = Translator::new();
        let mut tracker = Tracker::new(false);
        let event = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:80"));
        translator.wait(&event);
        let late = event.at.saturating_add(u64::try_from(STALE.as_nanos()).unwrap() + 1);
        translator.tick(late, &mut tracker);
        assert_eq!((translator.waiting.len(), translator.left_out), (0, 1));
    }

    #[test]
    fn questions_have_a_share_of_the_time() {
        let mut translator = Translator::new();
        translator.budget = Duration::ZERO;
        let mut event = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:80"));
        event.at = clock::since_boot().unwrap();
        // The share of the time since the last question is next to nothing.
        translator.since = Instant::now() + Duration::from_secs(60);
        translator.complete(&mut vec![event], 0, &mut Tracker::new(false));
        assert_eq!(translator.waiting.len(), 1);
    }
}
