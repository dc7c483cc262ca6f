//! What was missed, as it is told.

use std::collections::BTreeMap;

/// Where something went missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// The ring buffer was full, or the kernel left out a run of a probe.
    Ring,
    /// The record made no sense.
    Undecodable,
    /// Whoever reads the output was too slow.
    Stdout,
    /// The store was too slow, or took nothing for a while.
    Store,
}

impl LossReason {
    /// All.
    pub const ALL: [Self; 4] = [Self::Ring, Self::Undecodable, Self::Stdout, Self::Store];

    /// As it is spelled outside.
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

/// What was lost since the last time that it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub reason: LossReason,
    /// How many of each kind: of record (`netwatch_common::kind`), or of event where the output lost it.
    pub kinds: BTreeMap<&'static str, u64>,
}

impl Loss {
    /// All kinds together.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.values().sum()
    }
}
