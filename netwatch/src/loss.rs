//! Lost records and events, as reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Cookie, ProcessKey};

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
    /// Rules could not keep up.
    Rules,
    /// A limit kept something from being followed. Nothing else is affected.
    Limit,
    /// The output of this kind was too slow, could not be reached, or refused them.
    Output(OutputKind),
}

/// Kinds of outputs to which events are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputKind {
    /// A file with rotation.
    File,
    /// A syslog server.
    Syslog,
    /// The journal of systemd.
    Journald,
    /// An HTTP server that takes batches.
    Webhook,
    /// An OpenTelemetry collector.
    Otlp,
    /// The counters for Prometheus.
    Metrics,
}

impl OutputKind {
    /// Name in options and in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Syslog => "syslog",
            Self::Journald => "journald",
            Self::Webhook => "webhook",
            Self::Otlp => "otlp",
            Self::Metrics => "metrics",
        }
    }
}

impl LossReason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Ring,
        Self::Undecodable,
        Self::Stdout,
        Self::Store,
        Self::Rules,
        Self::Limit,
        Self::Output(OutputKind::File),
        Self::Output(OutputKind::Syslog),
        Self::Output(OutputKind::Journald),
        Self::Output(OutputKind::Webhook),
        Self::Output(OutputKind::Otlp),
        Self::Output(OutputKind::Metrics),
    ];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Undecodable => "undecodable",
            Self::Stdout => "stdout",
            Self::Store => "store",
            Self::Rules => "rules",
            Self::Limit => "limit",
            Self::Output(kind) => kind.name(),
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
    /// For [`LossReason::Limit`]: the sockets most concerned.
    pub sockets: Vec<LossOfSocket>,
}

/// The part of a loss that concerns one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossOfSocket {
    /// The socket.
    pub cookie: Cookie,
    /// The process that created it or used it last.
    pub process: Option<ProcessKey>,
    /// The name of that process, escaped for JSON.
    pub comm: Option<Arc<str>>,
    /// Number of datagrams of flows that are not followed.
    pub count: u64,
}

impl Loss {
    /// A loss that concerns no socket in particular.
    #[must_use]
    pub const fn new(reason: LossReason, kinds: BTreeMap<&'static str, u64>) -> Self {
        Self { reason, kinds, sockets: Vec::new() }
    }

    /// The sum of all kinds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kinds.values().sum()
    }
}
