//! Loads and attaches the probes of one job: tries its rungs in order.

use std::collections::HashSet;

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, FExit, KProbe, Program,
    ProgramError, TracePoint, trace_point,
};
use aya::{Btf, Ebpf};

use super::forced::Forced;
use super::plan::{Hook, Job, Probe, Rung, Sockets};
use super::{Covered, KernelError, Refused, chain, mounts};
use crate::rights;

/// Checks capabilities first, so that the error names them; a later EPERM would not.
pub(super) fn check_capabilities() -> Result<(), KernelError> {
    rights::require().map(drop).map_err(KernelError::Capabilities)
}

/// State for attaching programs.
pub(super) struct Attacher<'a> {
    pub ebpf: &'a mut Ebpf,
    pub btf: &'a Btf,
    /// The mode that the object was loaded for.
    pub sockets: Sockets,
    /// Why the object was not loaded for [`Sockets::Helpers`].
    pub no_helpers: Option<&'a str>,
    /// The member for lack of which sockets cannot be listed by iterators.
    pub no_iterators: Option<&'static str>,
    /// Whether the kernel may skip runs, so that second programs are needed.
    pub leaves_out: bool,
    pub forced: &'a [Forced],
    /// Programs that are attached: two jobs may share one.
    pub attached: &'a mut HashSet<&'static str>,
}

impl Attacher<'_> {
    /// Attaches the first rung that works, or only the forced one.
    pub(super) fn job(&mut self, job: &Job) -> Result<Covered, KernelError> {
        let forced = Forced::of(self.forced, job.name);
        let mut refused = Vec::new();
        for rung in job.rungs.iter().filter(|rung| forced.is_none_or(|forced| forced == Some(rung.key))) {
            match self.rung(rung) {
                Ok(()) => return Ok(Covered { probe: Some(rung.name), rung: Some(rung.key), refused }),
                Err(reason) => refused.push(Refused { probe: rung.name, reason }),
            }
        }
        // A forced rung that does not work is an error.
        if job.required || matches!(forced, Some(Some(_))) {
            let reasons: Vec<_> = refused.iter().map(|r| format!("{}: {}", r.probe, r.reason)).collect();
            return Err(KernelError::Required { job: job.name, reason: reasons.join("; ") });
        }
        Ok(Covered { probe: None, rung: None, refused })
    }

    /// Attaches all probes of a rung, or none.
    fn rung(&mut self, rung: &Rung) -> Result<(), String> {
        match rung.only {
            Some(only) if only != self.sockets => {
                return Err(self.no_helpers.unwrap_or("not needed here").to_owned());
            }
            _ => {}
        }
        let lists = rung.probes.iter().any(|probe| matches!(probe.hook, Hook::Iterator(_)));
        if let Some(member) = self.no_iterators.filter(|_| lists) {
            return Err(format!("this kernel has no `{member}`"));
        }
        let leaves_out = self.leaves_out;
        let needed = |attached: &HashSet<_>, probe: &Probe| {
            (leaves_out || !probe.again) && !attached.contains(probe.program)
        };
        let probes: Vec<_> = rung.probes.iter().filter(|probe| needed(self.attached, probe)).collect();
        for (done, probe) in probes.iter().enumerate() {
            if let Err(reason) = self.attach(probe) {
                for probe in probes.iter().take(done) {
                    self.detach(probe);
                }
                return Err(reason);
            }
        }
        for probe in rung.beside {
            if !needed(self.attached, probe) {
                continue;
            }
            if let Err(reason) = self.attach(probe) {
                log::info!("cannot attach optional probe {} of {}: {reason}", probe.program, rung.name);
            }
        }
        Ok(())
    }

    /// Detaches the probes of all rungs of a job.
    pub(super) fn detach_all_of(&mut self, job: &Job) {
        for probe in job.rungs.iter().flat_map(|rung| rung.probes.iter().chain(rung.beside)) {
            self.detach(probe);
        }
    }

    fn detach(&mut self, probe: &Probe) {
        if let Some(program) = self.ebpf.program_mut(probe.program) {
            // Unloading detaches. Its error is ignored: the caller reports why it detached.
            let _ = unload(program);
        }
        self.attached.remove(probe.program);
    }

    fn attach(&mut self, probe: &Probe) -> Result<(), String> {
        self.load(probe)?;
        let program = self.ebpf.program_mut(probe.program).ok_or(NOT_THERE)?;
        let result = match probe.hook {
            Hook::TypedTracepoint(_) => {
                let program: &mut BtfTracePoint = program.try_into().map_err(said)?;
                program.attach().map(drop).map_err(said)
            }
            Hook::Entry(_) => {
                let program: &mut FEntry = program.try_into().map_err(said)?;
                program.attach().map(drop).map_err(said)
            }
            Hook::Exit(_) => {
                let program: &mut FExit = program.try_into().map_err(said)?;
                program.attach().map(drop).map_err(said)
            }
            Hook::Kprobe(function) => {
                let program: &mut KProbe = program.try_into().map_err(said)?;
                program.attach(function, 0).map(drop).map_err(said)
            }
            Hook::Syscall(name) => syscall(program, name),
            Hook::CgroupRoot => cgroup_root(program),
            Hook::CgroupIngress => cgroup_packets(program, CgroupSkbAttachType::Ingress),
            Hook::CgroupEgress => cgroup_packets(program, CgroupSkbAttachType::Egress),
            Hook::Iterator(_) => Ok(()),
        };
        result?;
        self.attached.insert(probe.program);
        Ok(())
    }

    /// Loads a program unless it is loaded.
    pub(super) fn load(&mut self, probe: &Probe) -> Result<(), String> {
        let program = self.ebpf.program_mut(probe.program).ok_or(NOT_THERE)?;
        if program.fd().is_ok() {
            return Ok(());
        }
        match (program, probe.hook) {
            (Program::BtfTracePoint(program), Hook::TypedTracepoint(name)) => program.load(name, self.btf),
            (Program::FEntry(program), Hook::Entry(function)) => program.load(function, self.btf),
            (Program::FExit(program), Hook::Exit(function)) => program.load(function, self.btf),
            (Program::KProbe(program), Hook::Kprobe(_)) => program.load(),
            (Program::TracePoint(program), Hook::Syscall(_)) => program.load(),
            (Program::CgroupSockAddr(program), Hook::CgroupRoot) => program.load(),
            (Program::CgroupSock(program), Hook::CgroupRoot) => program.load(),
            (Program::SockOps(program), Hook::CgroupRoot) => program.load(),
            (Program::Iter(program), Hook::Iterator(of)) => program.load(of, self.btf),
            (Program::CgroupSkb(program), Hook::CgroupIngress | Hook::CgroupEgress) => program.load(),
            _ => return Err("not a program for that hook".into()),
        }
        .map_err(said)
    }
}

const NOT_THERE: &str = "not in the object file";

fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::CgroupSockAddr(program) => program.unload(),
        Program::CgroupSock(program) => program.unload(),
        Program::SockOps(program) => program.unload(),
        Program::CgroupSkb(program) => program.unload(),
        _ => Ok(()),
    }
}

fn syscall(program: &mut Program, name: &str) -> Result<(), String> {
    let program: &mut TracePoint = program.try_into().map_err(said)?;
    mounts::with_tracefs(|| program.attach("syscalls", name).map(drop).map_err(said))
}

/// A link takes no flags (kernel/bpf/cgroup.c, cgroup_bpf_link_attach(), v6.12) and allows other programs.
const BESIDE_OTHERS: CgroupAttachMode = CgroupAttachMode::Single;

fn cgroup_root(program: &mut Program) -> Result<(), String> {
    let root = mounts::cgroup2_root()?;
    match program {
        Program::CgroupSockAddr(program) => {
            program.attach(root, BESIDE_OTHERS).map_err(said)?;
        }
        Program::CgroupSock(program) => {
            program.attach(root, BESIDE_OTHERS).map_err(said)?;
        }
        Program::SockOps(program) => {
            program.attach(root, BESIDE_OTHERS).map_err(said)?;
        }
        _ => return Err("not a program for the cgroup tree".into()),
    }
    Ok(())
}

fn cgroup_packets(program: &mut Program, direction: CgroupSkbAttachType) -> Result<(), String> {
    let program: &mut CgroupSkb = program.try_into().map_err(said)?;
    program.attach(mounts::cgroup2_root()?, direction, BESIDE_OTHERS).map_err(said)?;
    Ok(())
}

/// The error as one line.
fn said(error: ProgramError) -> String {
    match error {
        ProgramError::TracePointError(trace_point::TracePointError::FileError { filename, io_error }) => {
            format!("{}: {io_error}", filename.display())
        }
        other => chain(&other),
    }
}
