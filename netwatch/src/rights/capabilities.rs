//! Capabilities, by capabilities(7).

use std::fmt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

pub(super) use rustix::thread::CapabilitySet as Set;

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    name: &'static str,
    set: CapabilitySet,
    /// What is done with it, for the user.
    pub why: &'static str,
}

impl Need {
    const fn new(name: &'static str, set: CapabilitySet, why: &'static str) -> Self {
        Self { name, set, why }
    }

    /// Its name, as in capabilities(7).
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn set(&self) -> CapabilitySet {
        self.set
    }
}

const BPF: Need = Need::new("CAP_BPF", CapabilitySet::BPF, "to load BPF programs and read their maps");
const PERFMON: Need = Need::new("CAP_PERFMON", CapabilitySet::PERFMON, "to attach probes");
const NET_ADMIN: Need = Need::new(
    "CAP_NET_ADMIN",
    CapabilitySet::NET_ADMIN,
    "to attach to cgroups and to ask for address translations",
);
const SYS_ADMIN: Need =
    Need::new("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN, "to enter other network namespaces");
const SYS_PTRACE: Need = Need::new(
    "CAP_SYS_PTRACE",
    CapabilitySet::SYS_PTRACE,
    "to read programs and descriptors of other users' processes",
);
const DAC_READ_SEARCH: Need =
    Need::new("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH, "to read directories of other users");

/// For a store in a directory that only another user may write to.
const DAC_OVERRIDE: Need = Need::new(
    "CAP_DAC_OVERRIDE",
    CapabilitySet::DAC_OVERRIDE,
    "to write to a store in a directory of another user",
);

/// What a run with probes keeps. CAP_BPF: commands of bpf(2) on maps and links need it where
/// `kernel.unprivileged_bpf_disabled` is set (kernel/bpf/syscall.c, __sys_bpf(), v5.15). CAP_NET_ADMIN: each question to a
/// connection tracking table needs it (net/netfilter/nfnetlink.c, nfnetlink_rcv(), v6.12).
pub(super) const LIVE: &[Need] = &[BPF, NET_ADMIN, SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH];

/// What the helper keeps.
pub(super) const HELPER: &[Need] = &[SYS_PTRACE, DAC_READ_SEARCH];

/// What the probes cannot do without.
const PROBES: [Need; 3] = [BPF, PERFMON, NET_ADMIN];

/// What is not seen without these.
const LOOKS: [Need; 3] = [SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH];

/// Capabilities that are missing.
#[derive(Clone, Debug)]
pub struct Lacks(Vec<Need>);

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, need) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({})", need.name, need.why)?;
        }
        Ok(())
    }
}

/// Checks the capabilities of a command with probes before its start, since a later EPERM would not name them. Returns
/// those without which it sees less.
///
/// # Errors
/// Those without which it cannot run.
pub fn require() -> Result<Option<Lacks>, Lacks> {
    let effective = current().effective;
    let missing = missing(effective);
    if !missing.is_empty() {
        return Err(Lacks(missing));
    }
    let less: Vec<_> = LOOKS.into_iter().filter(|need| !has(effective, need)).collect();
    Ok((!less.is_empty()).then_some(Lacks(less)))
}

fn missing(effective: CapabilitySet) -> Vec<Need> {
    PROBES.into_iter().filter(|need| !has(effective, need)).collect()
}

/// CAP_SYS_ADMIN implies CAP_BPF and CAP_PERFMON (include/linux/capability.h, bpf_capable(), v6.12), but not
/// CAP_NET_ADMIN, which cgroup hooks require. CAP_DAC_OVERRIDE implies CAP_DAC_READ_SEARCH for reading (fs/namei.c,
/// generic_permission(), v6.12).
fn has(effective: CapabilitySet, need: &Need) -> bool {
    let implied = match need.set {
        CapabilitySet::BPF | CapabilitySet::PERFMON => CapabilitySet::SYS_ADMIN,
        CapabilitySet::DAC_READ_SEARCH => CapabilitySet::DAC_OVERRIDE,
        _ => CapabilitySet::empty(),
    };
    effective.intersects(need.set | implied)
}

/// CAP_DAC_OVERRIDE if files cannot be created in `folder` without it.
#[must_use]
pub fn needed_to_write(folder: &Path) -> Option<Need> {
    let may = || {
        let may = Access::WRITE_OK | Access::EXEC_OK;
        accessat(CWD, folder, may, AtFlags::EACCESS).is_ok()
    };
    // In a thread that has no more than what would be kept, but the capabilities to get there.
    let without = || {
        let now = current();
        let effective = now.effective.difference(CapabilitySet::DAC_OVERRIDE);
        set_capabilities(None, CapabilitySets { effective, ..now }).is_ok() && may()
    };
    let without = std::thread::scope(|scope| scope.spawn(without).join().unwrap_or(false));
    (!without && may()).then_some(DAC_OVERRIDE)
}

fn current() -> CapabilitySets {
    let none = CapabilitySet::empty();
    capabilities(None).unwrap_or(CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Names of the capabilities that this thread has, or may get by exec, and that are not in `keep`.
pub(super) fn beyond(keep: CapabilitySet) -> Vec<String> {
    let permitted = current().permitted;
    permitted.difference(keep).iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// For the calling thread only. Async-signal-safe: system calls only.
pub(super) fn keep_only(keep: CapabilitySet) -> rustix::io::Result<()> {
    let now = capabilities(None)?;
    // No program can get back what is not in the bounding set.
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            match capability_is_in_bounding_set(one) {
                Ok(true) if !keep.contains(one) => remove_capability_from_bounding_set(one)?,
                Ok(_) => {}
                // The last one that the kernel has.
                Err(_) => break,
            }
        }
    }
    // Fails before Linux 4.3, which has no such set.
    let _ = clear_ambient_capability_set();
    let kept = now.permitted.intersection(keep);
    set_capabilities(
        None,
        CapabilitySets {
            effective: now.effective & kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(missing: &[Need]) -> Vec<&str> {
        missing.iter().map(|need| need.name).collect()
    }

    #[test]
    fn capabilities_that_are_missing_are_named() {
        let none = CapabilitySet::empty();
        assert!(missing(CapabilitySet::all()).is_empty());
        assert_eq!(names(&missing(none)), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(names(&missing(CapabilitySet::SYS_ADMIN)), ["CAP_NET_ADMIN"]);
        assert_eq!(names(&missing(CapabilitySet::BPF | CapabilitySet::NET_ADMIN)), ["CAP_PERFMON"]);
        assert_eq!(
            Lacks(missing(CapabilitySet::SYS_ADMIN)).to_string(),
            "CAP_NET_ADMIN (to attach to cgroups and to ask for address translations)"
        );
    }
}
