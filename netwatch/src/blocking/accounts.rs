//! How long callers may still wait for each subject. A file system that answers, but slowly, must not hold up the event
//! stream any more than one that does not.

use std::time::{Duration, Instant};

use super::{Patience, Subject};
use crate::hash::Map;
use crate::limits;

/// Waits shorter than this cost nothing: they are the rule.
const SHORT: Duration = Duration::from_millis(1);

/// The time that was spent waiting.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_subject: Map<Subject, Account>,
    /// Of the event stream, whatever it waited for.
    live: Option<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    spent: Duration,
    at: Instant,
}

impl Account {
    /// What is not forgiven yet.
    fn owed(account: Option<&Self>, now: Instant) -> Duration {
        let owed = |account: &Self| {
            account.spent.saturating_sub(now.saturating_duration_since(account.at) / limits::WAIT_SHARE)
        };
        account.map_or(Duration::ZERO, owed)
    }
}

impl Accounts {
    /// How long a caller may wait now; `None`: not at all.
    pub(super) fn left(&self, subject: &Subject, patience: Patience, now: Instant) -> Option<Duration> {
        let own = patience.most().saturating_sub(Account::owed(self.by_subject.get(subject), now));
        let left = match patience {
            Patience::Live => {
                own.min(limits::LIVE_WAITS.saturating_sub(Account::owed(self.live.as_ref(), now)))
            }
            Patience::Command => own,
        };
        (left >= SHORT).then_some(left)
    }

    /// Notes that a caller waited.
    pub(super) fn spend(&mut self, subject: &Subject, patience: Patience, waited: Duration, now: Instant) {
        if waited < SHORT {
            return;
        }
        if self.by_subject.len() >= limits::MOST_SUBJECTS {
            self.by_subject.retain(|_, account| !Account::owed(Some(account), now).is_zero());
            if self.by_subject.len() >= limits::MOST_SUBJECTS {
                self.by_subject.clear();
            }
        }
        let spent =
            |account: Option<&Account>| Account { spent: Account::owed(account, now) + waited, at: now };
        let own = spent(self.by_subject.get(subject));
        self.by_subject.insert(subject.clone(), own);
        if patience == Patience::Live {
            self.live = Some(spent(self.live.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> Subject {
        Subject::Folder(name.into())
    }

    /// Waits for the subject as long as allowed, over and over; returns how long that was in all.
    fn waited(subjects: &[Subject], time: Duration) -> Duration {
        let (mut accounts, start) = (Accounts::default(), Instant::now());
        let (mut now, mut waited) = (start, Duration::ZERO);
        while now < start + time {
            now += SHORT;
            for subject in subjects {
                if let Some(left) = accounts.left(subject, Patience::Live, now) {
                    now += left;
                    waited += left;
                    accounts.spend(subject, Patience::Live, left, now);
                }
            }
        }
        waited
    }

    #[test]
    fn slow_subject_takes_a_tenth_of_the_time() {
        let time = Duration::from_secs(100);
        let most = time / limits::WAIT_SHARE + 2 * limits::LIVE_WAIT;
        let waited = waited(&[folder("/slow")], time);
        assert!(waited > limits::LIVE_WAIT && waited <= most, "{waited:?}");
    }

    #[test]
    fn many_slow_subjects_take_a_tenth_of_the_time() {
        let subjects: Vec<_> = (0..50).map(|n| folder(&format!("/slow/{n}"))).collect();
        let time = Duration::from_secs(100);
        let most = time / limits::WAIT_SHARE + limits::LIVE_WAITS + limits::LIVE_WAIT;
        let waited = waited(&subjects, time);
        assert!(waited > limits::LIVE_WAIT && waited <= most, "{waited:?}");
    }

    #[test]
    fn command_waits_longer_than_the_stream() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        for n in 0..100 {
            accounts.spend(&folder(&n.to_string()), Patience::Live, limits::LIVE_WAIT, now);
        }
        assert_eq!(accounts.left(&folder("/other"), Patience::Live, now), None);
        assert_eq!(accounts.left(&folder("/other"), Patience::Command, now), Some(limits::COMMAND_WAIT));
        accounts.spend(&folder("/other"), Patience::Command, limits::COMMAND_WAIT, now);
        assert_eq!(accounts.left(&folder("/other"), Patience::Command, now), None);
    }

    #[test]
    fn remembered_subjects_are_limited() {
        let (mut accounts, now) = (Accounts::default(), Instant::now());
        for n in 0..3 * limits::MOST_SUBJECTS {
            accounts.spend(&folder(&n.to_string()), Patience::Live, limits::LIVE_WAIT, now);
            assert!(accounts.by_subject.len() <= limits::MOST_SUBJECTS);
        }
    }
}
