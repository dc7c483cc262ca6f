//! The plan: which probes do which job, and what is not seen without them. The table is in `jobs`; the loader, `doctor`
//! and the `ready` event use it.

mod jobs;

use std::collections::HashSet;

pub(super) use jobs::{JOBS, LIST_FILES, LIST_TASKS, LIST_TCP, LIST_UDP, SNAPSHOT, STATE_PROBES};

/// When the probes of a job are attached. Process probes are attached first and `/proc` is read after that, so that
/// every process is known before socket probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before `/proc` is read.
    Processes,
    /// After `/proc` is read, before the snapshot of sockets.
    Sockets,
}

/// How one program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// A typed tracepoint of this name.
    TypedTracepoint(&'static str),
    /// fentry of this kernel function.
    Entry(&'static str),
    /// fexit of this kernel function.
    Exit(&'static str),
    /// A kprobe or kretprobe on this function, by the type of the program.
    Kprobe(&'static str),
    /// `syscalls:sys_…`
    Syscall(&'static str),
    /// The root of the cgroup v2 tree.
    CgroupRoot,
    /// The same, for incoming packets.
    CgroupIngress,
    /// The same, for outgoing packets.
    CgroupEgress,
    /// Not attached: runs on each object of this kind when the iterator is read.
    Iterator(&'static str),
}

/// One program of a rung.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The function in the object file.
    pub program: &'static str,
    /// Where it is attached.
    pub hook: Hook,
    /// A second program on the same hook: see `netwatch-ebpf/src/twice.rs`. Not attached if the kernel skips no runs.
    pub again: bool,
}

/// What tracing programs can do with a socket: see [`netwatch_common::Knobs::socket_helpers`]. The object is loaded for
/// one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sockets {
    /// Use socket storage and read the cookie.
    Helpers,
    /// Neither; state is kept in a map by socket address.
    Plain,
}

/// One way to do a job. It is used only if all its probes attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    /// Name for `--probe`.
    pub key: &'static str,
    /// Name that `doctor` prints.
    pub name: &'static str,
    /// Probes that it needs.
    pub probes: &'static [Probe],
    /// Optional probes.
    pub beside: &'static [Probe],
    /// The mode that it requires, if it does not work in both.
    pub only: Option<Sockets>,
    /// What this rung does not see, as sentences.
    pub unseen: &'static [&'static str],
}

/// Something to observe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Name in `doctor`, `coverage` and `--probe`.
    pub name: &'static str,
    /// When its probes are attached.
    pub phase: Phase,
    /// In order of preference.
    pub rungs: &'static [Rung],
    /// netwatch cannot run without it.
    pub required: bool,
    /// What is not seen if no rung works, as a sentence.
    pub without: &'static str,
}

const fn typed(tracepoint: &'static str) -> Probe {
    named(tracepoint, Hook::TypedTracepoint(tracepoint))
}

const fn exit(function: &'static str) -> Probe {
    named(function, Hook::Exit(function))
}

/// A second program on the same hook, which has to run after the first. Programs on one function run in reverse order
/// of attachment (kernel/bpf/trampoline.c, __bpf_trampoline_link_prog(), v6.12), so there it is listed first.
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

/// Defaults of a rung.
const RUNG: Rung = Rung { key: "", name: "", probes: &[], beside: &[], only: None, unseen: &[] };

/// Names of the BTF types that programs of the plan are attached to (kernel/bpf/verifier.c, bpf_check_attach_target(),
/// and kernel/bpf/bpf_iter.c, v6.12): functions, and for a tracepoint the typedef of its prototype.
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

/// If the registers of the current task, which tell the system call, cannot be read (before 5.15).
pub(super) const NO_REGISTERS: &str = "whether a call was made by io_uring or 32-bit socketcall (`via`)";

/// If MPTCP sockets have no byte counters (before 6.5).
pub(super) const NO_MPTCP_COUNTS: &str = "how many bytes an MPTCP connection carried";

/// What no probe sees on any kernel.
pub(super) const NEVER_SEEN: &[&str] =
    &["frames that a packet socket receives or sends through shared memory (PACKET_MMAP)"];

#[cfg(test)]
mod tests {
    use super::super::forced::NONE;
    use super::*;

    /// Programs on a function run in reverse order of attachment, those on a tracepoint in order.
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
