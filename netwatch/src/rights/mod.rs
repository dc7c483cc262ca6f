//! Gives up rights that a command no longer needs: capabilities, new privileges by exec, files and the network
//! (Landlock), and system calls (seccomp). Each as far as the kernel offers it; what it does not offer is reported, and
//! is no error.
//!
//! A Landlock domain of any kind takes `/proc/PID/exe`, `fd` and `ns` of other processes away
//! (security/landlock/ptrace.c, hook_ptrace_access_check(), v6.12), so what reads those goes without.

mod calls;
mod capabilities;
mod files;
mod threads;

use std::path::PathBuf;

use serde::Serialize;

pub use calls::Calls;
pub use capabilities::{Lacks, Need, needed_to_write, require};

use capabilities::Set;

/// Rights of one stage of a command.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What `doctor` calls it.
    pub what: &'static str,
    /// Capabilities that are kept, and what for.
    pub keep: &'static [Need],
    /// System calls.
    pub calls: Calls,
    /// Whether files and the network are closed, but for a list.
    pub closes_files: bool,
}

/// `log`, `verify`, `trace` and `top` with a store, once the store is open.
pub const READING: Stage = Stage {
    what: "log, verify, trace and top of a store",
    keep: &[],
    calls: Calls::Output,
    closes_files: true,
};

/// A command that has taken its snapshot, and prints it.
pub const PRINTING: Stage = Stage {
    what: "list, trace, audit, doctor: once the host was read",
    keep: &[],
    calls: Calls::Output,
    closes_files: true,
};

/// The same, if names of hosts have to be resolved, which may take any file and any server.
pub const RESOLVING: Stage =
    Stage { what: "list with names of hosts", keep: &[], calls: Calls::Resolve, closes_files: false };

/// `watch`, `top`, `record` and `audit --watch`, once the probes are attached.
pub const LIVE: Stage = Stage {
    what: "watch, top, record, audit --watch: once the probes are attached",
    keep: capabilities::LIVE,
    calls: Calls::Live,
    closes_files: false,
};

/// `watch` and `record` that serve metrics, once the probes are attached.
pub const SCRAPED: Stage = Stage {
    what: "watch and record with --metrics: once the probes are attached",
    calls: Calls::LiveServing,
    ..LIVE
};

/// The process that reads file systems for those, from its start.
pub const HELPER: Stage = Stage {
    what: "the process that asks file systems and name services",
    keep: capabilities::HELPER,
    calls: Calls::Resolve,
    closes_files: false,
};

/// The same for `log` and `verify`, which only ask for names of users.
pub const NAMES: Stage = Stage {
    what: "the process that asks name services, for log and verify",
    keep: &[],
    calls: Calls::Resolve,
    closes_files: false,
};

/// `serve`, once it listens.
pub const SERVING: Stage =
    Stage { what: "serve, once it listens", keep: &[], calls: Calls::Serve, closes_files: true };

/// In the order of `doctor`.
pub const STAGES: [Stage; 8] = [LIVE, SCRAPED, HELPER, PRINTING, RESOLVING, READING, SERVING, NAMES];

/// What was given up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GivenUp {
    /// Names of the capabilities that were given up.
    pub capabilities: Vec<String>,
    /// No program that is executed gets privileges, such as by its set-user-ID bit.
    pub no_new_privs: bool,
    /// Files and network are closed.
    pub files: bool,
    /// System calls are filtered.
    pub calls: bool,
    /// What could not be given up, and why.
    pub lacks: Vec<String>,
}

/// Gives up everything that `stage` does not need, for all threads of this process. `readable`: files that can be opened
/// afterwards if the stage closes files; those that do not exist are left out. `also`: a further capability to keep.
pub fn give_up(stage: &Stage, readable: &[PathBuf], also: Option<Need>) -> GivenUp {
    let mut given = GivenUp::default();
    let keep: Set = stage.keep.iter().chain(&also).map(Need::set).collect();
    let ruleset = if stage.closes_files { files::ruleset(readable, &mut given.lacks) } else { None };
    given.capabilities = capabilities::beyond(keep);
    // While CAP_SETPCAP is there.
    if let Err(left) = threads::everywhere(keep, ruleset.as_ref()) {
        given.lacks.push(left);
    }
    given.files = ruleset.is_some();
    match rustix::thread::no_new_privs() {
        Ok(true) => given.no_new_privs = true,
        _ => given.lacks.push("no_new_privs".into()),
    }
    match calls::filter(stage.calls) {
        Ok(()) => given.calls = true,
        Err(error) => given.lacks.push(format!("a filter of system calls (seccomp): {error}")),
    }
    log::debug!("gave up: {given:?}");
    given
}

/// From here on this thread connects by TCP to this port only, as far as the kernel offers it.
pub fn connect_to_port_only(port: u16) {
    if let Err(error) = files::connect_to_port_only(port) {
        log::debug!("the thread may connect to any port: {error}");
    }
}

/// What this kernel does not offer, without giving up anything.
#[must_use]
pub fn not_offered() -> Vec<String> {
    let mut lacks = Vec::new();
    files::not_offered(&mut lacks);
    if !calls::are_filtered_by_this_kernel() {
        lacks.push("a filter of system calls (seccomp)".into());
    }
    lacks
}

/// Files that text needs: time zones, and names of services.
#[must_use]
pub fn names() -> Vec<PathBuf> {
    ["/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/etc/services"].map(PathBuf::from).into()
}
