//! The plan: which job is done by which probes, and what is not seen without them. Its table is in `jobs`: the one
//! that `doctor`, `ready` and the loader read.

mod jobs;

use std::collections::HashSet;

pub(super) use jobs::{JOBS, LIST_FILES, LIST_TCP, LIST_UDP, SNAPSHOT, STATE_PROBES};

/// When a job's probes are attached. Processes come first, so that the look at `/proc` that follows
/// leaves no process unnamed once sockets are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before processes are read from `/proc`.
    Processes,
    /// After that, before sockets are read.
    Sockets,
}

/// How one program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// A typed tracepoint of this name.
    TypedTracepoint(&'static str),
    /// The entry of this function of the kernel.
    Entry(&'static str),
    /// Its exit.
    Exit(&'static str),
    /// A kprobe or kretprobe, by what the program is, on this function.
    Kprobe(&'static str),
    /// `syscalls:sys_…`
    Syscall(&'static str),
    /// The root of the cgroup v2 tree.
    CgroupRoot,
    /// Likewise, for packets that come in.
    CgroupIngress,
    /// For packets that go out.
    CgroupEgress,
    /// Nowhere: whoever reads has it run on each object of this kind.
    Iterator(&'static str),
}

/// One program of a rung.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The function in the object file.
    pub program: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// The second at the same place: see `netwatch-ebpf/src/twice.rs`. Not attached where the kernel leaves none out.
    pub again: bool,
}

/// What the kernel lets programs of the tracing types do with a socket: see
/// [`netwatch_common::Knobs::socket_helpers`]. The object is loaded for the one or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sockets {
    /// Keep storage with it, and ask for its cookie.
    Helpers,
    /// Neither.
    Plain,
}

/// One way to do a job: all its probes, or it is not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    /// As `--probe` has it.
    pub key: &'static str,
    /// As `doctor` prints it.
    pub name: &'static str,
    /// What it attaches.
    pub probes: &'static [Probe],
    /// What it attaches as well where the kernel has it.
    pub beside: &'static [Probe],
    /// Where it works in one of the two ways only.
    pub only: Option<Sockets>,
    /// What even this rung does not see.
    pub unseen: &'static [&'static str],
}

/// Something that has to be observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// As `doctor`, `coverage` and `--probe` name it.
    pub name: &'static str,
    /// When it is attached.
    pub phase: Phase,
    /// The best rung first.
    pub rungs: &'static [Rung],
    /// netwatch does not run without it.
    pub required: bool,
    /// What is not seen when no rung can be had.
    pub without: &'static str,
}

const fn typed(tracepoint: &'static str) -> Probe {
    named(tracepoint, Hook::TypedTracepoint(tracepoint))
}

const fn exit(function: &'static str) -> Probe {
    named(function, Hook::Exit(function))
}

/// The second at the same place. Of those at one function the kernel calls the one that was attached last first
/// (`kernel/bpf/trampoline.c`, __bpf_trampoline_link_prog): so there it stands before the first.
const fn again(program: &'static str, hook: Hook) -> Probe {
    Probe { program, hook, again: true }
}

const fn syscall(tracepoint: &'static str) -> Probe {
    named(tracepoint, Hook::Syscall(tracepoint))
}

const fn cgroup(program: &'static str) -> Probe {
    named(program, Hook::CgroupRoot)
}

const fn named(program: &'static str, hook: Hook) -> Probe {
    Probe { program, hook, again: false }
}

const fn iterator(program: &'static str, of: &'static str) -> Probe {
    named(program, Hook::Iterator(of))
}

/// A rung to fill in.
const RUNG: Rung = Rung { key: "", name: "", probes: &[], beside: &[], only: None, unseen: &[] };

/// What of the kernel's types the plan's programs are attached to, by name (`kernel/bpf/verifier.c`,
/// bpf_check_attach_target, and `kernel/bpf/bpf_iter.c`): functions, and of a tracepoint the type of its function.
pub(super) fn attached_to() -> HashSet<String> {
    let rungs = JOBS.iter().flat_map(|job| job.rungs);
    let probes = rungs.flat_map(|rung| rung.probes.iter().chain(rung.beside));
    probes
        .filter_map(|probe| match probe.hook {
            Hook::TypedTracepoint(name) => Some(format!("btf_trace_{name}")),
            Hook::Entry(function) | Hook::Exit(function) => Some(function.to_owned()),
            Hook::Iterator(of) => Some(format!("bpf_iter_{of}")),
            _ => None,
        })
        .collect()
}

/// Where the system call that a task is in cannot be told (before 5.15).
pub(super) const NO_REGISTERS: &str = "whether a call came by io_uring or 32-bit socketcall (`via`)";

/// Where MPTCP sockets have no counts (before 6.5).
pub(super) const NO_MPTCP_COUNTS: &str = "how many bytes an MPTCP connection carried";

/// What no probe here sees, whatever the kernel.
pub(super) const NEVER_SEEN: &[&str] = &["raw and packet sockets"];

#[cfg(test)]
mod tests {
    use super::super::forced::NONE;
    use super::*;

    /// Of those at one function the last that is attached is called first, at a tracepoint the first is.
    #[test]
    fn a_second_is_called_right_after_its_first() {
        let mut seconds = 0;
        for probes in JOBS.iter().flat_map(|job| job.rungs).flat_map(|rung| [rung.probes, rung.beside]) {
            for (nth, second) in probes.iter().enumerate().filter(|(_, probe)| probe.again) {
                let first = match second.hook {
                    Hook::TypedTracepoint(_) => &probes[nth - 1],
                    _ => &probes[nth + 1],
                };
                assert_eq!(Some(first.program), second.program.strip_suffix("_again"));
                assert_eq!(first.hook, second.hook);
                seconds += 1;
            }
        }
        assert!(seconds > 0);
    }

    #[test]
    fn names_are_unique_and_every_job_has_a_rung() {
        for (i, job) in JOBS.iter().enumerate() {
            assert!(!job.rungs.is_empty(), "{}", job.name);
            for (nth, rung) in job.rungs.iter().enumerate() {
                assert!(!rung.name.is_empty() && rung.key != NONE);
                assert!(job.name == SNAPSHOT.name || !rung.probes.is_empty(), "{}", rung.key);
                assert!(job.rungs.iter().skip(nth + 1).all(|other| other.key != rung.key), "{}", rung.key);
            }
            assert!(JOBS.iter().skip(i + 1).all(|other| other.name != job.name), "{}", job.name);
        }
    }
}
