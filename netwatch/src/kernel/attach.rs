//! Loads and attaches the probes of one job, by trying.

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, TracePoint,
    trace_point,
};
use aya::{Btf, Ebpf};
use procfs::process::Process;

use super::plan::{Hook, Job, Probe, Rung};
use super::{Covered, KernelError, Refused, chain, mounts};

/// `include/uapi/linux/capability.h`
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Says which capabilities are missing, before the kernel says EPERM to something in the middle.
pub(super) fn check_capabilities() -> Result<(), KernelError> {
    let effective = Process::myself()
        .and_then(|me| me.status())
        .map(|status| status.capeff)
        .map_err(|error| KernelError::Proc(error.to_string()))?;
    let missing = missing_capabilities(effective);
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Capabilities(missing.join(", "))) }
}

/// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON (`kernel/bpf/syscall.c`, bpf_capable), not for
/// CAP_NET_ADMIN, which cgroup hooks want.
fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    let admin = has(CAP_SYS_ADMIN);
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !admin {
        missing.push("CAP_BPF");
    }
    if !has(CAP_PERFMON) && !admin {
        missing.push("CAP_PERFMON");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

/// Takes the first rung that the kernel takes.
pub(super) fn job(ebpf: &mut Ebpf, btf: &Btf, job: &Job) -> Result<Covered, KernelError> {
    let mut refused = Vec::new();
    for rung in job.rungs {
        match attach_rung(ebpf, btf, rung) {
            Ok(()) => return Ok(Covered { probe: Some(rung.name), refused }),
            Err(reason) => refused.push(Refused { probe: rung.name, reason }),
        }
    }
    if job.required {
        let reasons: Vec<_> = refused.iter().map(|r| format!("{}: {}", r.probe, r.reason)).collect();
        return Err(KernelError::Required { job: job.name, reason: reasons.join("; ") });
    }
    Ok(Covered { probe: None, refused })
}

/// All probes of a rung, or none: what was attached before one was refused is detached again.
fn attach_rung(ebpf: &mut Ebpf, btf: &Btf, rung: &Rung) -> Result<(), String> {
    for (done, probe) in rung.probes.iter().enumerate() {
        if let Err(reason) = attach(ebpf, btf, probe) {
            for probe in rung.probes.iter().take(done) {
                if let Some(program) = ebpf.program_mut(probe.program) {
                    // Unloading detaches; the reason that counts is the one above.
                    let _ = unload(program);
                }
            }
            return Err(reason);
        }
    }
    Ok(())
}

fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::CgroupSockAddr(program) => program.unload(),
        Program::CgroupSock(program) => program.unload(),
        Program::CgroupSkb(program) => program.unload(),
        _ => Ok(()),
    }
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, probe: &Probe) -> Result<(), String> {
    let program = ebpf.program_mut(probe.program).ok_or("not in the object file")?;
    match probe.hook {
        Hook::TypedTracepoint(name) => typed_tracepoint(program, btf, name),
        Hook::Syscall(name) => syscall(program, name),
        Hook::CgroupRoot => cgroup_root(program),
        Hook::CgroupIngress => cgroup_packets(program, CgroupSkbAttachType::Ingress),
        Hook::CgroupEgress => cgroup_packets(program, CgroupSkbAttachType::Egress),
    }
}

fn typed_tracepoint(program: &mut Program, btf: &Btf, name: &str) -> Result<(), String> {
    let program: &mut BtfTracePoint = program.try_into().map_err(said)?;
    program.load(name, btf).map_err(said)?;
    program.attach().map_err(said)?;
    Ok(())
}

fn syscall(program: &mut Program, name: &str) -> Result<(), String> {
    let program: &mut TracePoint = program.try_into().map_err(said)?;
    program.load().map_err(said)?;
    mounts::with_tracefs(|| program.attach("syscalls", name).map(drop).map_err(said))
}

/// A link takes no flags (`kernel/bpf/cgroup.c`, cgroup_bpf_link_attach), and others may attach beside it.
const BESIDE_OTHERS: CgroupAttachMode = CgroupAttachMode::Single;

fn cgroup_root(program: &mut Program) -> Result<(), String> {
    let root = mounts::cgroup2_root()?;
    match program {
        Program::CgroupSockAddr(program) => {
            program.load().map_err(said)?;
            program.attach(root, BESIDE_OTHERS).map_err(said)?;
        }
        Program::CgroupSock(program) => {
            program.load().map_err(said)?;
            program.attach(root, BESIDE_OTHERS).map_err(said)?;
        }
        _ => return Err("not a program for the cgroup tree".into()),
    }
    Ok(())
}

fn cgroup_packets(program: &mut Program, direction: CgroupSkbAttachType) -> Result<(), String> {
    let program: &mut CgroupSkb = program.try_into().map_err(said)?;
    program.load().map_err(said)?;
    program.attach(mounts::cgroup2_root()?, direction, BESIDE_OTHERS).map_err(said)?;
    Ok(())
}

/// What the kernel said, in one line.
fn said(error: ProgramError) -> String {
    match error {
        ProgramError::TracePointError(trace_point::TracePointError::FileError { filename, io_error }) => {
            format!("{}: {io_error}", filename.display())
        }
        other => chain(&other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_are_missing_are_named() {
        assert!(missing_capabilities(u64::MAX).is_empty());
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(1 << CAP_SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(1 << CAP_BPF | 1 << CAP_NET_ADMIN), ["CAP_PERFMON"]);
    }
}
