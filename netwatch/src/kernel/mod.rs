//! The kernel side of the agent, and the only room that uses aya: loads the BPF object with the offsets of the running
//! kernel, attaches probes by the plan, and provides the ring and the counts of lost records.

mod attach;
mod flows;
mod forced;
mod iterators;
mod load;
mod lost;
mod mounts;
mod offsets;
mod plan;
mod preemption;
mod sabotage;
mod types;

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::time::Duration;

use attach::Attacher;
use aya::maps::{MapData, MapType, RingBuf};
use aya::sys::is_map_supported;
use aya::{Btf, Ebpf};
use netwatch_common::Offsets;
use serde::Serialize;
use thiserror::Error;

use crate::rights::Lacks;
pub use flows::FlowTable;
pub use forced::Forced;
pub use iterators::Iterators;
use load::{Helpers, Prepared, global, load, takes_helpers};
pub use lost::{Lost, LostCounter};
pub use plan::Phase;
use plan::{JOBS, NEVER_SEEN, NO_MPTCP_COUNTS, NO_REGISTERS, Sockets};
pub use sabotage::Sabotage;

/// Minimum time between two wake-ups of the reader. After a wake-up the reader has to poll the ring for this long.
pub const WAKE: Duration = Duration::from_millis(5);

/// Default of [`Options::udp_flows`].
pub const DEFAULT_UDP_FLOWS: u32 = netwatch_common::FLOWS_MAX as u32;

/// Why the kernel side cannot run. Each message is one line.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The caller lacks capabilities.
    #[error("netwatch lacks {0}: run it as root")]
    Capabilities(Lacks),
    /// No BTF, which has the offsets.
    #[error(
        "this kernel has no BTF ({path}: {0}): netwatch needs Linux 5.8 or later with CONFIG_DEBUG_INFO_BTF",
        path = offsets::VMLINUX
    )]
    NoBtf(String),
    /// No ring buffer map, which Linux has since 5.8.
    #[error("this kernel has no BPF ring buffer: netwatch needs Linux 5.8 or later")]
    NoRing,
    /// A required member of a kernel structure was not found.
    #[error("this kernel has no `{0}`, which netwatch requires: please report this with the kernel version")]
    Member(&'static str),
    /// netwatch runs in a pid namespace other than the initial one.
    #[error("netwatch runs in a pid namespace, where the BPF iterators and /proc use different process ids")]
    ForeignPids,
    /// The object did not load.
    #[error("cannot load the BPF object: {0}")]
    Load(String),
    /// No rung of a required job works.
    #[error("no probe for `{job}` works on this kernel: {reason}")]
    Required {
        /// Name of the job.
        job: &'static str,
        /// Why each rung was refused.
        reason: String,
    },
}

/// Options of the kernel side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring in bytes; rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// Emit every TCP state transition.
    pub all_states: bool,
    /// Maximum number of UDP flows tracked at once; others are counted as not followed.
    pub udp_flows: u32,
    /// Time without a datagram after which a UDP flow ends.
    pub udp_idle: Duration,
    /// Jobs for which the user chose the rung.
    pub forced: Vec<Forced>,
    /// A fault to introduce (test equipment).
    pub sabotage: Option<Sabotage>,
}

/// The probes of one job.
#[derive(Clone, Debug, Serialize)]
pub struct Covered {
    /// The rung in use; `None` if none works.
    pub probe: Option<&'static str>,
    /// Its name on the command line.
    pub rung: Option<&'static str>,
    /// The rungs that were refused, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A rung that could not be used.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Its name in the plan.
    pub probe: &'static str,
    /// The error of the kernel.
    pub reason: String,
}

/// The probe of each job, and what is not seen.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// In the order of the plan.
    pub jobs: Vec<(&'static str, Covered)>,
    /// Sentences about what is not seen for lack of a probe.
    unseen: Vec<&'static str>,
}

impl Coverage {
    /// Whether a job has a probe.
    #[must_use]
    pub fn has(&self, job: &str) -> bool {
        self.jobs.iter().any(|(name, covered)| *name == job && covered.probe.is_some())
    }

    /// What is not seen, as sentences.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        self.unseen.iter().chain(NEVER_SEEN).copied().collect()
    }
}

/// The kernel side, loaded. Dropping it detaches every probe.
pub struct Kernel {
    ebpf: Ebpf,
    /// Log lines of the kernel side, for debugging.
    #[cfg(debug_assertions)]
    lines: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// Dropped when all probes are attached, since it needs much memory.
    btf: Option<Btf>,
    sockets: Sockets,
    /// The member for lack of which sockets cannot be listed by iterators.
    no_iterators: Option<&'static str>,
    /// Whether the kernel may skip runs of programs: see `preemption`.
    leaves_out: bool,
    /// Why [`Sockets::Helpers`] is not used.
    no_helpers: Option<String>,
    forced: Vec<Forced>,
    attached: HashSet<&'static str>,
    lost: Option<LostCounter>,
    sabotage: Option<Sabotage>,
    coverage: Coverage,
}

impl Kernel {
    /// Loads the object; nothing is attached yet.
    ///
    /// # Errors
    /// If capabilities, BTF or a member are missing, or the kernel rejects the object.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        attach::check_capabilities()?;
        // If this cannot be determined, the load reports the error.
        if matches!(is_map_supported(MapType::RingBuf), Ok(false)) {
            return Err(KernelError::NoRing);
        }
        let Prepared { mut offsets, btf, loader } = Prepared::read()?;
        if let Some(sabotage) = options.sabotage {
            offsets = sabotage.offsets(&offsets);
        }
        let helpers = Helpers::probe();
        let mut unseen = Vec::from_iter((!helpers.registers).then_some(NO_REGISTERS));
        let counts = offsets.mptcp_bytes_sent != Offsets::MISSING;
        if !counts && offsets.subflow_conn != Offsets::MISSING {
            unseen.push(NO_MPTCP_COUNTS);
        }
        let no_iterators = iterators::missing(&offsets);
        let leaves_out = offsets.prog_active != Offsets::MISSING && preemption::stops_tasks();
        let offsets = global(&offsets.to_members());
        let mut loader = Some(loader);
        let mut load = |sockets| {
            let loader = loader.take().unwrap_or_default();
            load(loader, options, &offsets, &btf, helpers, sockets, false)
        };
        #[cfg_attr(not(debug_assertions), expect(unused_mut, reason = "only the logger needs mut"))]
        let mut kernel = match Forced::of(&options.forced, "state") {
            Some(Some("address")) => {
                (load(Sockets::Plain)?, Sockets::Plain, Some("not requested".to_owned()))
            }
            _ => {
                let mut ebpf = load(Sockets::Helpers)?;
                match takes_helpers(&mut ebpf, &btf) {
                    Ok(()) => (ebpf, Sockets::Helpers, None),
                    Err(reason) => (load(Sockets::Plain)?, Sockets::Plain, Some(reason)),
                }
            }
        };
        // The maps stay in the object: programs that are loaded later refer to their descriptors.
        let map = |name| {
            kernel.0.map(name).ok_or_else(|| KernelError::Load("the object has no counts of losses".into()))
        };
        let lost = LostCounter::new(map("LOST")?, map("CAUGHT")?, map("UNBEGUN")?, map("NOT_FOLLOWED")?)?;
        Ok(Self {
            #[cfg(debug_assertions)]
            lines: aya_log::EbpfLogger::init(&mut kernel.0).inspect_err(|error| log::info!("{error}")).ok(),
            ebpf: kernel.0,
            sockets: kernel.1,
            no_helpers: kernel.2,
            no_iterators,
            leaves_out,
            btf: Some(btf),
            forced: options.forced.clone(),
            attached: HashSet::new(),
            lost: Some(lost),
            sabotage: options.sabotage,
            coverage: Coverage { unseen, ..Coverage::default() },
        })
    }

    /// Attaches the first rung that works of each job of a phase. Call it once for each phase, in order.
    /// `attaching` is called with the name of each job before.
    ///
    /// # Errors
    /// [`KernelError::Required`] if no rung of a required job works.
    pub fn attach(&mut self, phase: Phase, attaching: impl Fn(&str)) -> Result<(), KernelError> {
        let Some(btf) = self.btf.take() else { return Ok(()) };
        let mut attacher = Attacher {
            ebpf: &mut self.ebpf,
            btf: &btf,
            sockets: self.sockets,
            no_helpers: self.no_helpers.as_deref(),
            no_iterators: self.no_iterators,
            leaves_out: self.leaves_out,
            forced: &self.forced,
            attached: &mut self.attached,
        };
        for job in JOBS.iter().filter(|job| job.phase == phase) {
            attaching(job.name);
            if let Some(pause) = self.sabotage.and_then(|sabotage| sabotage.slows(job.name)) {
                std::thread::sleep(pause);
            }
            let covered = attacher.job(job)?;
            if self.sabotage.is_some_and(|sabotage| sabotage.deafens(job.name)) {
                attacher.detach_all_of(job);
            }
            match job.rungs.iter().find(|rung| Some(rung.name) == covered.probe) {
                Some(rung) => self.coverage.unseen.extend(rung.unseen),
                None => self.coverage.unseen.push(job.without),
            }
            self.coverage.jobs.push((job.name, covered));
        }
        if let Some(lost) = &mut self.lost {
            lost.watch(&self.ebpf, &self.attached);
        }
        self.btf = (phase != Phase::Sockets).then_some(btf);
        Ok(())
    }

    /// Forwards log lines of the kernel side to the log of this process.
    #[cfg(debug_assertions)]
    pub fn flush_lines(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.flush();
        }
    }

    /// The ring. Can be taken once.
    ///
    /// # Errors
    /// [`KernelError::Load`] if it cannot be mapped.
    pub fn take_records(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        let map = self.ebpf.take_map("RECORDS").ok_or_else(|| KernelError::Load("no ring".into()))?;
        RingBuf::try_from(map).map_err(|error| KernelError::Load(chain(&error)))
    }

    /// The iterators that list sockets and descriptors; `None` if the job `snapshot` uses another rung.
    #[must_use]
    pub fn iterators(&self) -> Option<Iterators> {
        let by_iterators = plan::SNAPSHOT.rungs.first().map(|rung| rung.key);
        let (_, covered) = self.coverage.jobs.iter().find(|(job, _)| *job == plan::SNAPSHOT.name)?;
        (covered.rung == by_iterators).then(|| Iterators::of(&self.ebpf)).flatten()
    }

    /// The table of UDP flows. Can be taken once.
    ///
    /// # Errors
    /// [`KernelError::Load`] if it was taken.
    pub fn take_flows(&mut self) -> Result<FlowTable, KernelError> {
        let mut take = |name| {
            let map = self.ebpf.take_map(name);
            map.ok_or_else(|| KernelError::Load(format!("the object has no map {name}")))
        };
        let maps = (take("FLOWS")?, take("REMOVED_FLOWS")?, take("NOT_FOLLOWED_BY")?);
        FlowTable::new(maps.0, maps.1, maps.2).map_err(|error| KernelError::Load(chain(&error)))
    }

    /// The root of the cgroup v2 hierarchy.
    #[must_use]
    pub fn cgroup_root(&self) -> Option<File> {
        mounts::cgroup2_root().inspect_err(|error| log::info!("{error}")).ok()
    }

    /// The counts of lost records. Can be taken once, after all phases are attached.
    ///
    /// # Errors
    /// [`KernelError::Load`] if they were taken.
    pub fn take_lost(&mut self) -> Result<LostCounter, KernelError> {
        self.lost.take().ok_or_else(|| KernelError::Load("the object has no counts of losses".into()))
    }

    /// Fills the map that a test wants full, after the self-test, which needs room.
    pub fn sabotage_maps(&self) {
        if let Some(sabotage) = self.sabotage {
            sabotage.fill(&self.ebpf);
        }
    }

    /// The probes in use.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }
}

/// An error with its causes as one line.
fn chain(error: &dyn Error) -> String {
    log::debug!("{error:?}");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    one_line(&text)
}

/// Shortens a verifier log to the message before it and its last line that is not statistics, which is the verdict.
fn one_line(text: &str) -> String {
    let statistics = ["processed ", "verification time", "stack depth", "insns_", "total_states"];
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.split(" Verifier output:").next().unwrap_or(first);
    match lines.rfind(|line| !statistics.iter().any(|start| line.starts_with(start))) {
        Some(verdict) => format!("{}: {verdict}", first.trim_end_matches('.')),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_of_a_verifier_log_is_kept() {
        let log = "the syscall returned EACCES. Verifier output: 0: R1=ctx()\n1: (79) r1\nR1 invalid mem access\nprocessed 9 insns (limit 1000000)\n";
        assert_eq!(one_line(log), "the syscall returned EACCES: R1 invalid mem access");
        assert_eq!(one_line("no such file"), "no such file");
    }
}
