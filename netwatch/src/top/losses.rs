//! What was lost, and what else a user has to know about the run.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::loss::{Loss, LossReason};

/// How many losses and notes are kept, the newest. Test: `top::losses::tests::number_of_lines_is_bounded`.
const MOST_LINES: usize = 1000;

/// A line about the run.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Counts up, to select it by.
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Loss(Loss),
    /// A sentence.
    Note(String),
}

/// Losses and notes, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    pub(super) lines: VecDeque<Line>,
    last: u64,
    /// Records and events that were lost, without those that a limit kept from being followed.
    pub(super) lost: u64,
    /// What was not followed because of a limit.
    pub(super) limited: u64,
}

impl Losses {
    pub(super) fn push(&mut self, at: Timestamp, what: What) {
        if let What::Loss(loss) = &what {
            let sum = if loss.reason == LossReason::Limit { &mut self.limited } else { &mut self.lost };
            *sum = sum.saturating_add(loss.count());
        }
        self.last += 1;
        self.lines.push_back(Line { number: self.last, at, what });
        if self.lines.len() > MOST_LINES {
            self.lines.pop_front();
        }
    }

    /// The last loss.
    pub(super) fn newest(&self) -> Option<&Loss> {
        self.lines.iter().rev().find_map(|line| match &line.what {
            What::Loss(loss) => Some(loss),
            What::Note(_) => None,
        })
    }
}

/// Why it was lost, in words.
pub(super) fn why(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Ring => "the ring was full",
        LossReason::Undecodable => "could not be decoded",
        LossReason::Stdout => "the screen was too slow",
        LossReason::Store => "the store is too slow or rejects writes",
        LossReason::Rules => "the rules are too slow",
        LossReason::Limit => "a limit was reached",
        LossReason::Output(_) => "an output is too slow or cannot be reached",
    }
}

/// A loss as a sentence.
pub(super) fn sentence(loss: &Loss) -> String {
    let kinds: Vec<_> = loss.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let verb = if loss.reason == LossReason::Limit { "not followed" } else { "lost" };
    format!("{verb} {} ({}): {}", loss.count(), why(loss.reason), kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_lines_is_bounded() {
        let mut losses = Losses::default();
        for n in 0..MOST_LINES as u64 + 5 {
            let loss = Loss::new(LossReason::Ring, [("connect", n)].into());
            losses.push(Timestamp::UNIX_EPOCH, What::Loss(loss));
        }
        assert_eq!((losses.lines.len(), losses.lines[0].number), (MOST_LINES, 6));
        assert!(sentence(losses.newest().unwrap()).starts_with("lost 1004 (the ring was full)"));
    }
}
