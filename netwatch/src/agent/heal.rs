//! Counts losses and takes the snapshot that repairs the tables after them. A separate thread takes it, since records
//! continue to arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netwatch_common::kind;

use super::AgentError;
use crate::kernel::{Lost, LostCounter};
use crate::loss::{Loss, LossReason};
use crate::model::Lister;
use crate::snapshot::HostSnapshot;

/// Interval of reading the counts, which takes about forty system calls.
const READS: Duration = Duration::from_millis(250);
/// Interval while no records arrive: reading the counts is most of the cost on an idle host.
const QUIET_READS: Duration = Duration::from_secs(2);

/// Interval of reports of what is not followed, which would fill the log as long as somebody sends.
const LIMIT_READS: Duration = Duration::from_secs(5);

/// The snapshot starts when no record was lost for this time, since under load it would cause more losses.
const QUIET: Duration = Duration::from_millis(300);
/// The snapshot starts at the latest after this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names in the output of what is not followed, by kind of record: datagrams of UDP flows without a place, uses of
/// sockets beyond the budget of each, and names of UNIX sockets and of hosts beyond theirs.
const NOT_FOLLOWED: [(u16, &str); 4] = [
    (kind::FLOW, "flow"),
    (kind::USE, "handovers_not_followed"),
    (kind::PAIR, "unix_names_not_followed"),
    (kind::NAME, "names_not_followed"),
];

/// What a loss makes uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// Nothing that a snapshot could repair.
    Nothing,
    /// UDP flows.
    Udp,
    /// Everything.
    Everything,
}

impl Doubt {
    /// By the kinds of the records that were lost.
    fn of(kinds: impl Iterator<Item = u16>) -> Self {
        let of_kind = |kind| match kind {
            kind if kind::is_tcp_or_process(kind) => Self::Everything,
            kind if kind::is_udp(kind) => Self::Udp,
            _ => Self::Nothing,
        };
        kinds.map(of_kind).max().unwrap_or(Self::Nothing)
    }
}

pub(super) struct Healer {
    counter: LostCounter,
    reported: Lost,
    /// When the counts of what is not followed were last read.
    limit_read: Instant,
    /// What was reported as not followed.
    not_followed: Lost,
    /// Number of listeners whose port was lost since the last report.
    listens: u64,
    /// When the counts were last read.
    read: Instant,
    /// Number of records that had arrived by then.
    taken: u64,
    /// Times of the first and the last loss since the last repair.
    unhealed: Option<(Instant, Instant)>,
    /// Source of snapshots. `None`: sock_diag and `/proc`.
    lister: Option<Arc<dyn Lister>>,
    snapshot: Option<JoinHandle<Result<HostSnapshot, AgentError>>>,
    /// A test wants the first snapshot after a loss to fail.
    fails: bool,
}

impl Healer {
    /// `fails`: see [`Sabotage::fails_snapshot`](crate::kernel::Sabotage).
    pub(super) fn new(counter: LostCounter, lister: Option<Arc<dyn Lister>>, fails: bool) -> Self {
        Self {
            counter,
            reported: [0; kind::COUNT as usize],
            limit_read: Instant::now(),
            not_followed: [0; kind::COUNT as usize],
            listens: 0,
            read: Instant::now(),
            taken: 0,
            unhealed: None,
            lister,
            snapshot: None,
            fails,
        }
    }

    /// Losses since the last report, if the counts are due. `taken`: number of records that arrived so far.
    pub(super) fn losses_if_due(&mut self, undecodable: &mut u64, taken: u64) -> Vec<(Loss, Doubt)> {
        let pause = if taken == self.taken { QUIET_READS } else { READS };
        if self.read.elapsed() < pause {
            return Vec::new();
        }
        self.taken = taken;
        self.losses(undecodable)
    }

    /// Last read of a run: reads twice, so that the most recent skipped runs are counted too.
    pub(super) fn last_losses(&mut self, undecodable: &mut u64) -> Vec<Loss> {
        let _ = self.counter.read(&self.reported);
        let losses = self.losses(undecodable).into_iter().map(|(loss, _)| loss);
        losses.chain(self.not_followed(true)).collect()
    }

    /// What a limit kept from being followed since the last report, if a report is due or `last`. It needs no repair.
    fn not_followed(&mut self, last: bool) -> Option<Loss> {
        if !last && self.limit_read.elapsed() < LIMIT_READS {
            return None;
        }
        self.limit_read = Instant::now();
        let now = self.counter.not_followed();
        let kinds: BTreeMap<_, _> = NOT_FOLLOWED
            .into_iter()
            .filter_map(|(kind, name)| {
                let count =
                    now.get(usize::from(kind))?.checked_sub(*self.not_followed.get(usize::from(kind))?)?;
                (count > 0).then_some((name, count))
            })
            .collect();
        self.not_followed = now;
        (!kinds.is_empty()).then(|| Loss::new(LossReason::Limit, kinds))
    }

    /// Losses since the last report. Resets `undecodable` to 0.
    pub(super) fn losses(&mut self, undecodable: &mut u64) -> Vec<(Loss, Doubt)> {
        self.read = Instant::now();
        let lost = self.counter.read(&self.reported);
        let mut counts: BTreeMap<u16, u64> = (0..)
            .zip(lost.iter().zip(&self.reported))
            .map(|(kind, (now, before))| (kind, now.saturating_sub(*before)))
            .collect();
        self.reported = lost;
        *counts.entry(kind::LISTEN).or_default() += std::mem::take(&mut self.listens);
        counts.retain(|kind, count| *count > 0 && kind::name(*kind).is_some());
        let mut losses = Vec::new();
        if !counts.is_empty() {
            let kinds =
                counts.iter().filter_map(|(kind, count)| Some((kind::name(*kind)?, *count))).collect();
            losses.push((Loss::new(LossReason::Ring, kinds), Doubt::of(counts.into_keys())));
        }
        if *undecodable > 0 {
            let kinds = BTreeMap::from([("record", std::mem::take(undecodable))]);
            losses.push((Loss::new(LossReason::Undecodable, kinds), Doubt::Everything));
        }
        if !losses.is_empty() {
            let at = Instant::now();
            let first = self.unhealed.map_or(at, |(first, _)| first);
            self.unhealed = Some((first, at));
        }
        losses.extend(self.not_followed(false).map(|loss| (loss, Doubt::Nothing)));
        losses
    }

    /// Adds the number of listeners whose port was lost.
    pub(super) fn lost_ports(&mut self, listens: u64) {
        self.listens += listens;
    }

    /// Whether a snapshot is due or in progress.
    pub(super) fn is_at_work(&self) -> bool {
        self.unhealed.is_some() || self.snapshot.is_some() || self.listens > 0
    }

    /// Starts a snapshot if one is due. Returns whether it did.
    pub(super) fn start_snapshot(&mut self) -> bool {
        let now = Instant::now();
        if !self.unhealed.is_some_and(|losses| is_due(losses, now)) || self.snapshot.is_some() {
            return false;
        }
        let lister = self.lister.clone();
        let take = move || Ok(super::take_snapshot(lister.as_deref())?);
        let Ok(snapshot) = std::thread::Builder::new().name("netwatch-snap".into()).spawn(take) else {
            // The next tick tries again.
            return false;
        };
        self.unhealed = None;
        self.snapshot = Some(snapshot);
        true
    }

    /// The snapshot that was started, once it is finished.
    pub(super) fn finished(&mut self) -> Option<Result<HostSnapshot, AgentError>> {
        let snapshot = if self.fails && self.unhealed.is_some() {
            self.fails = false;
            Err(std::io::Error::other("a test wants it to fail").into())
        } else {
            let snapshot = self.snapshot.take_if(|snapshot| snapshot.is_finished())?;
            snapshot.join().unwrap_or_else(|_| Err(std::io::Error::other("the snapshot panicked").into()))
        };
        if snapshot.is_err() {
            let at = Instant::now();
            self.unhealed = Some((at, at));
        }
        Some(snapshot)
    }
}

/// Whether to repair now what was lost between these times.
fn is_due((first, last): (Instant, Instant), now: Instant) -> bool {
    now.saturating_duration_since(last) >= QUIET || now.saturating_duration_since(first) >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_is_not_put_off_for_ever() {
        let first = Instant::now();
        let after = |ms| first + Duration::from_millis(ms);
        assert!(!is_due((first, first), after(299)) && is_due((first, first), after(300)));
        // Records are lost all the time.
        assert!(!is_due((first, after(1999)), after(1999)) && is_due((first, after(2000)), after(2000)));
    }

    #[test]
    fn lost_udp_records_cast_no_doubt_on_tcp() {
        let of = |kinds: &[u16]| Doubt::of(kinds.iter().copied());
        assert_eq!(of(&[]), Doubt::Nothing);
        assert_eq!(of(&[kind::FLOW]), Doubt::Udp);
        assert_eq!(of(&[kind::FLOW, kind::CONNECT]), Doubt::Everything);
        assert_eq!(of(&[kind::EXIT]), Doubt::Everything);
    }
}
