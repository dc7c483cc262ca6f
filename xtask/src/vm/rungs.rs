//! The rungs of probes with which the tests are run.

/// A way to run the suite.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) name: &'static str,
    /// Forced rungs, each as `JOB=RUNG`; empty if netwatch selects them.
    pub(super) probes: &'static str,
    /// Prefixes of the names of the tests to run; empty for all.
    pub(super) tests: &'static [&'static str],
}

/// The tests that the jobs of the lower rungs have a part in: the whole suite on each would take far too long.
const WHO_CONNECTS_AND_ACCEPTS: &[&str] = &[
    "accept::",
    "connect::",
    "fail::",
    "fastopen::",
    "handover::",
    "uring::",
    "ways::",
    "corners::",
    "mptcp::",
];

/// Prefixes of the names of tests that do not depend on the kernel; they run on the host only. In an emulator they
/// would take most of the time, since each starts several netwatches. The judgement of an audit does not depend on the
/// kernel; the views that it compares do (`audit::views`, `audit::executables`).
pub(super) const SAME_EVERYWHERE: &[&str] = &[
    "alerts::alerts_are_recorded",
    "alerts::exec::",
    "alerts::filter_decides",
    "alerts::rules::",
    "alerts::what_is_held_back",
    "alerts::wrong_options",
    "audit::baseline::",
    "audit::broken::",
    "audit::findings::",
    "audit::watching::",
    "bare::full_file_system",
    "bare::without_loopback",
    "filter::",
    "log::",
    "loss::signal_ends_watch",
    "loss::events_missed_by_a_stuck_reader",
    "record::",
    "run::closed_pipe",
    "run::watch_ends_after",
    "run::count",
    "run::signals",
    "run::two_runs",
    "text::",
    "usage::",
    "verify::",
];

/// The best first. On a rung that a kernel does not offer nothing is run, and the table says why.
pub(super) const RUNGS: &[Rung] = &[
    Rung { name: BEST, probes: "", tests: &[] },
    Rung { name: "kprobe", probes: "accept=kprobe connect=kretprobe", tests: WHO_CONNECTS_AND_ACCEPTS },
    Rung { name: "tracepoint", probes: "accept=syscall connect=cgroup", tests: WHO_CONNECTS_AND_ACCEPTS },
];

/// What `cargo xtask test` does on each kernel: what differs most from one to the next, on the best rung.
pub(super) const SHORT: &[Rung] = &[Rung {
    name: BEST,
    probes: "",
    tests: &[
        "accept::",
        "bare::",
        "clock::",
        "connect::",
        "corners::",
        "doctor::",
        "fail::",
        "fastopen::",
        "handover::passed::",
        "mptcp::",
        "names::connection_has_",
        "names::name_in_tls_",
        "process::",
        "udp::every_",
        "uring::",
        "ways::",
    ],
}];

/// The rung that every kernel must support.
pub(super) const BEST: &str = "best";
