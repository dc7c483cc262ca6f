//! The only room that knows aya: loads the object with the running kernel's offsets, attaches what the
//! plan says, hands out the ring and the counts of what was lost.

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
use std::time::Duration;

use attach::Attacher;
use aya::maps::{MapData, MapType, RingBuf};
use aya::sys::is_map_supported;
use aya::{Btf, Ebpf};
use netwatch_common::Offsets;
use serde::Serialize;
use thiserror::Error;

pub use flows::FlowTable;
pub use forced::Forced;
pub use iterators::Iterators;
use load::{Helpers, Prepared, global, load, takes_helpers};
pub use lost::{Lost, LostCounter};
pub use plan::Phase;
use plan::{JOBS, NEVER_SEEN, NO_MPTCP_COUNTS, NO_REGISTERS, Sockets};
pub use sabotage::Sabotage;

/// Default size of the ring: at the highest rate seen, 28,000 connections a second, it holds a third
/// of a second of records.
pub const DEFAULT_RING_BYTES: u32 = 16 << 20;

/// The reader is woken for no record that comes sooner after the last one that it was woken for: it has to look by
/// itself for as long.
pub const WAKE: Duration = Duration::from_millis(5);

/// Default of [`Options::udp_flows`].
pub const DEFAULT_UDP_FLOWS: u32 = netwatch_common::FLOWS_MAX as u32;

/// Why the kernel side cannot run. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The caller lacks capabilities.
    #[error("needs {0}: run it as root")]
    Capabilities(String),
    /// Its own capabilities cannot be told.
    #[error("cannot read /proc/self/status (is /proc mounted?): {0}")]
    Proc(String),
    /// No BTF to take offsets from.
    #[error(
        "this kernel offers no BTF ({path}: {0}): netwatch needs a kernel of 5.8 or later built with CONFIG_DEBUG_INFO_BTF",
        path = offsets::VMLINUX
    )]
    NoBtf(String),
    /// Too old.
    #[error(
        "this kernel has no BPF ring buffer, through which all records come: netwatch needs 5.8 or later"
    )]
    NoRing,
    /// A structure is not what this version knows.
    #[error(
        "this kernel has no `{0}`, which netwatch cannot do without: please report it with the kernel's version"
    )]
    Member(&'static str),
    /// The kernel side and `/proc` number processes each in their own way.
    #[error(
        "this is a pid namespace of its own, where the kernel's iterators number processes otherwise than /proc"
    )]
    ForeignPids,
    /// The object did not load.
    #[error("the kernel did not take netwatch's maps: {0}")]
    Load(String),
    /// A required job found no rung.
    #[error("no probe for `{job}` can be had on this kernel: {reason}")]
    Required {
        /// The job.
        job: &'static str,
        /// Why each rung was refused.
        reason: String,
    },
}

/// What the loader is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring; rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// Every TCP transition, not only those that begin or end something.
    pub all_states: bool,
    /// UDP flows that are followed at once; of more it is counted that they were not.
    pub udp_flows: u32,
    /// A UDP flow on which nothing passes for so long is over.
    pub udp_idle: Duration,
    /// Jobs that are to be done in one way and no other.
    pub forced: Vec<Forced>,
    /// Something to do wrong, so that tests see that it is noticed.
    pub sabotage: Option<Sabotage>,
}

/// What was attached for one job.
#[derive(Clone, Debug, Serialize)]
pub struct Covered {
    /// The rung in use, `None` when none could be had.
    pub probe: Option<&'static str>,
    /// Its name on the command line.
    pub rung: Option<&'static str>,
    /// The rungs that were refused, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A rung that was passed over.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Its name in the plan.
    pub probe: &'static str,
    /// What the kernel said.
    pub reason: String,
}

/// Which probe does which job, and what is therefore not seen.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// In the order of the plan.
    pub jobs: Vec<(&'static str, Covered)>,
    /// In words, for lack of a probe.
    unseen: Vec<&'static str>,
}

impl Coverage {
    /// Whether a job has a probe.
    #[must_use]
    pub fn has(&self, job: &str) -> bool {
        self.jobs.iter().any(|(name, covered)| *name == job && covered.probe.is_some())
    }

    /// What is not seen, in words.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        self.unseen.iter().chain(NEVER_SEEN).copied().collect()
    }
}

/// The kernel side, loaded. Dropping it detaches every probe.
pub struct Kernel {
    ebpf: Ebpf,
    /// The kernel side's own lines, for whoever works on it.
    #[cfg(debug_assertions)]
    lines: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// Until all is attached: it takes up as much as many thousand connections.
    btf: Option<Btf>,
    sockets: Sockets,
    /// Why its sockets cannot be listed by iterators.
    no_iterators: Option<&'static str>,
    /// Whether it leaves programs out.
    leaves_out: bool,
    /// Why the kernel is not used in the better way.
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
    /// What is missing: capabilities, BTF, a member, or what the kernel refused.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        attach::check_capabilities()?;
        // An answer that cannot be had is for the load to give.
        if matches!(is_map_supported(MapType::RingBuf), Ok(false)) {
            return Err(KernelError::NoRing);
        }
        let Prepared { mut offsets, btf, loader } = Prepared::read()?;
        if let Some(sabotage) = options.sabotage {
            offsets = sabotage.offsets(&offsets);
        }
        let helpers = Helpers::look();
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
        #[cfg_attr(not(debug_assertions), expect(unused_mut, reason = "only the lines' ring is taken out"))]
        let mut kernel = match Forced::of(&options.forced, "state") {
            Some(Some("address")) => (load(Sockets::Plain)?, Sockets::Plain, Some("not wanted".to_owned())),
            _ => {
                let mut ebpf = load(Sockets::Helpers)?;
                match takes_helpers(&mut ebpf, &btf) {
                    Ok(()) => (ebpf, Sockets::Helpers, None),
                    Err(reason) => (load(Sockets::Plain)?, Sockets::Plain, Some(reason)),
                }
            }
        };
        // They stay where they are: programs that are yet to be loaded name them by their descriptors.
        let map = |name| kernel.0.map(name).ok_or_else(|| KernelError::Load("no table of losses".into()));
        let lost = LostCounter::new(map("LOST")?, map("CAUGHT")?, map("UNBEGUN")?)?;
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

    /// Attaches every job of a phase by the first rung that the kernel takes. Phases have their turn in order, each once.
    ///
    /// # Errors
    /// [`KernelError::Required`] when a job that netwatch cannot do without found none.
    pub fn attach(&mut self, phase: Phase) -> Result<(), KernelError> {
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

    /// Hands the kernel side's lines to the log of this process.
    #[cfg(debug_assertions)]
    pub fn flush_lines(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.flush();
        }
    }

    /// The ring. Can be taken once.
    ///
    /// # Errors
    /// [`KernelError::Load`] when it cannot be mapped.
    pub fn take_records(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        let map = self.ebpf.take_map("RECORDS").ok_or_else(|| KernelError::Load("no ring".into()))?;
        RingBuf::try_from(map).map_err(|error| KernelError::Load(chain(&error)))
    }

    /// What lists sockets and who has them open; `None` where the job `snapshot` is done in another way.
    #[must_use]
    pub fn iterators(&self) -> Option<Iterators> {
        let by_iterators = plan::SNAPSHOT.rungs.first().map(|rung| rung.key);
        let (_, covered) = self.coverage.jobs.iter().find(|(job, _)| *job == plan::SNAPSHOT.name)?;
        (covered.rung == by_iterators).then(|| Iterators::of(&self.ebpf)).flatten()
    }

    /// The table of UDP flows. Can be taken once.
    ///
    /// # Errors
    /// [`KernelError::Load`] when the map is not there.
    pub fn take_flows(&mut self) -> Result<FlowTable, KernelError> {
        let map = self.ebpf.take_map("FLOWS").ok_or_else(|| KernelError::Load("no table of flows".into()))?;
        FlowTable::new(map).map_err(|error| KernelError::Load(chain(&error)))
    }

    /// The counts of what was lost. Can be taken once, after all phases are attached.
    ///
    /// # Errors
    /// [`KernelError::Load`] when they were taken.
    pub fn take_lost(&mut self) -> Result<LostCounter, KernelError> {
        self.lost.take().ok_or_else(|| KernelError::Load("no table of losses".into()))
    }

    /// What is attached.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }
}

/// An error with its causes, in one line: verifiers answer in many.
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

/// The verifier answers in many lines, its verdict followed by statistics: keeps what was said before
/// its output, and the verdict.
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
    fn of_a_verifier_log_the_verdict_stays() {
        let log = "the syscall returned EACCES. Verifier output: 0: R1=ctx()\n1: (79) r1\nR1 invalid mem access\nprocessed 9 insns (limit 1000000)\n";
        assert_eq!(one_line(log), "the syscall returned EACCES: R1 invalid mem access");
        assert_eq!(one_line("no such file"), "no such file");
    }
}
