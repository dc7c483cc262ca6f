//! Lost records and events, as reported.

use std::collections::BTreeMap;

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// The ring buffer was full, or the kernel skipped a run of a probe.
    Ring,
    /// The record could not be decoded.
    Undecodable,
    /// The reader of the output was too slow.
    Stdout,
    /// The store was too slow, or rejected writes for a while.
    Store,
}

impl LossReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Ring, Self::Undecodable, Self::Stdout, Self::Store];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Undecodable => "undecodable",
            Self::Stdout => "stdout",
            Self::Store => "store",
        }
    }
}

/// What was lost since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where it was lost.
    pub reason: LossReason,
    /// Number by kind: of record (`netwatch_common::kind`), or of event if the output lost it.
    pub kinds: BTreeMap<&'static str, u64>,
}

impl Loss {
    /// The sum of all kinds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.values().sum()
    }
}
