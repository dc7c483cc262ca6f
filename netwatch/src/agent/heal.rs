//! Losses, and the look at the host that repairs the tables after them. The look runs on a thread of its
//! own: records keep coming meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netwatch_common::kind;

use super::AgentError;
use crate::kernel::{Lost, LostCounter};
use crate::loss::{Loss, LossReason};
use crate::model::Lister;
use crate::snapshot::{HostSnapshot, Mptcp};

/// The counts are read this often: that takes some forty system calls.
const READS: Duration = Duration::from_millis(250);
/// or, while nothing happens of which anything could be lost, so often: it is most of what a quiet host pays.
const QUIET_READS: Duration = Duration::from_secs(2);

/// A flood that loses records would only lose more under a look: so it waits for this long a pause,
const QUIET: Duration = Duration::from_millis(300);
/// but no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Healer {
    counter: LostCounter,
    reported: Lost,
    /// Listeners whose port was lost since it was last told.
    listens: u64,
    /// When the counts were last read.
    looked: Instant,
    /// Records that had come by then.
    taken: u64,
    /// The first and the last loss that no look has healed.
    unhealed: Option<(Instant, Instant)>,
    /// What the looks are taken with; `None`: sock_diag and `/proc`.
    lister: Option<Arc<dyn Lister>>,
    snapshot: Option<JoinHandle<Result<HostSnapshot, AgentError>>>,
}

impl Healer {
    pub(super) fn new(counter: LostCounter, lister: Option<Arc<dyn Lister>>) -> Self {
        Self {
            counter,
            reported: [0; kind::COUNT as usize],
            listens: 0,
            looked: Instant::now(),
            taken: 0,
            unhealed: None,
            lister,
            snapshot: None,
        }
    }

    /// What was lost since it was last told, if the counts are due.
    /// `taken`: records that came so far.
    pub(super) fn losses_if_due(&mut self, undecodable: &mut u64, taken: u64) -> Vec<Loss> {
        let pause = if taken == self.taken { QUIET_READS } else { READS };
        if self.looked.elapsed() < pause {
            return Vec::new();
        }
        self.taken = taken;
        self.losses(undecodable)
    }

    /// The same where there is no later: what was left out a moment ago is due too.
    pub(super) fn last_losses(&mut self, undecodable: &mut u64) -> Vec<Loss> {
        let _ = self.counter.read(&self.reported);
        self.losses(undecodable)
    }

    /// What was lost since it was last told; `undecodable` is taken and set to 0.
    pub(super) fn losses(&mut self, undecodable: &mut u64) -> Vec<Loss> {
        self.looked = Instant::now();
        let lost = self.counter.read(&self.reported);
        let mut kinds: BTreeMap<_, _> = (0..)
            .zip(lost.iter().zip(&self.reported))
            .filter_map(|(kind, (now, before))| Some((kind::name(kind)?, now.saturating_sub(*before))))
            .filter(|(_, count)| *count > 0)
            .collect();
        self.reported = lost;
        if self.listens > 0
            && let Some(name) = kind::name(kind::LISTEN)
        {
            *kinds.entry(name).or_default() += std::mem::take(&mut self.listens);
        }
        let mut losses = Vec::new();
        if !kinds.is_empty() {
            losses.push(Loss { reason: LossReason::Ring, kinds });
        }
        if *undecodable > 0 {
            let kinds = BTreeMap::from([("record", std::mem::take(undecodable))]);
            losses.push(Loss { reason: LossReason::Undecodable, kinds });
        }
        if !losses.is_empty() {
            let at = Instant::now();
            let first = self.unhealed.map_or(at, |(first, _)| first);
            self.unhealed = Some((first, at));
        }
        losses
    }

    /// The ports of so many listeners were lost.
    pub(super) fn lost_ports(&mut self, listens: u64) {
        self.listens += listens;
    }

    /// Whether a look is due, or under way.
    pub(super) fn is_at_work(&self) -> bool {
        self.unhealed.is_some() || self.snapshot.is_some() || self.listens > 0
    }

    /// Starts a look where one is due; tells whether it did.
    pub(super) fn start_snapshot(&mut self) -> bool {
        let due =
            self.unhealed.is_some_and(|(first, last)| last.elapsed() >= QUIET || first.elapsed() >= PATIENCE);
        if !due || self.snapshot.is_some() {
            return false;
        }
        let lister = self.lister.clone();
        let take = move || Ok(HostSnapshot::take(lister.as_deref(), Mptcp::Whole)?.with_stdio());
        let Ok(snapshot) = std::thread::Builder::new().name("netwatch-look".into()).spawn(take) else {
            // No thread now: the next tick tries again.
            return false;
        };
        self.unhealed = None;
        self.snapshot = Some(snapshot);
        true
    }

    /// The look that was started, once it is there.
    pub(super) fn finished(&mut self) -> Option<Result<HostSnapshot, AgentError>> {
        let snapshot = self.snapshot.take_if(|snapshot| snapshot.is_finished())?;
        let snapshot =
            snapshot.join().unwrap_or_else(|_| Err(std::io::Error::other("the look panicked").into()));
        if snapshot.is_err() {
            let at = Instant::now();
            self.unhealed = Some((at, at));
        }
        Some(snapshot)
    }
}
