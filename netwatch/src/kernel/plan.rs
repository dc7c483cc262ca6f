//! The plan: which job is done by which probes, and what is not seen without them. The one table that
//! `doctor`, `ready` and the loader read.

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
    /// `syscalls:sys_…`
    Syscall(&'static str),
    /// The root of the cgroup v2 tree.
    CgroupRoot,
    /// Likewise, for packets that come in.
    CgroupIngress,
    /// For packets that go out.
    CgroupEgress,
}

/// One program of a rung.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// The function in the object file.
    pub program: &'static str,
    /// Where it goes.
    pub hook: Hook,
}

/// One way to do a job: all its probes, or it is not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    /// As `doctor` prints it.
    pub name: &'static str,
    /// What it attaches.
    pub probes: &'static [Probe],
    /// What even this rung does not see.
    pub unseen: &'static [&'static str],
}

/// Something that has to be observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// As `doctor` and `coverage` name it.
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
    Probe { program: tracepoint, hook: Hook::TypedTracepoint(tracepoint) }
}

const fn syscall(tracepoint: &'static str) -> Probe {
    Probe { program: tracepoint, hook: Hook::Syscall(tracepoint) }
}

/// The plan itself.
pub(super) const JOBS: &[Job] = &[
    Job {
        name: "process",
        phase: Phase::Processes,
        rungs: &[Rung {
            name: "tp_btf/sched_process_{fork,exec,exit}",
            probes: &[typed("sched_process_fork"), typed("sched_process_exec"), typed("sched_process_exit")],
            unseen: &[],
        }],
        required: true,
        without: "processes that end before /proc is read",
    },
    Job {
        name: "cgroup",
        phase: Phase::Processes,
        rungs: &[Rung {
            name: "tp_btf/cgroup_{mkdir,attach_task}",
            probes: &[typed("cgroup_mkdir"), typed("cgroup_attach_task")],
            unseen: &[],
        }],
        required: false,
        without: "the container and unit of a process whose cgroup is gone before /proc is read",
    },
    Job {
        name: "state",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "tp_btf/inet_sock_set_state",
            probes: &[
                typed("inet_sock_set_state"),
                Probe {
                    program: "inet_sock_set_state_nested",
                    hook: Hook::TypedTracepoint("inet_sock_set_state"),
                },
            ],
            unseen: &[
                "half-open inbound connections (request sockets, SYN cookies) before the handshake ends",
            ],
        }],
        required: true,
        without: "connections",
    },
    Job {
        name: "accept",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "tracepoint/sys_exit_accept{,4}",
            probes: &[syscall("sys_exit_accept"), syscall("sys_exit_accept4")],
            unseen: &["accept() by io_uring or 32-bit socketcall, before the socket is used"],
        }],
        required: false,
        without: "accept() itself: the listener's owner is named until the socket is used",
    },
    Job {
        name: "listen",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "tracepoint/sys_exit_listen",
            probes: &[syscall("sys_exit_listen")],
            unseen: &[],
        }],
        required: false,
        without: "the port of a listener that was not bound before",
    },
    Job {
        name: "use",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "tp_btf/sock_{send,recv}_length",
            probes: &[typed("sock_send_length"), typed("sock_recv_length")],
            unseen: &["a process that only reads, and by splice() alone"],
        }],
        required: false,
        without: "a connection that was inherited or passed on: whoever connected or accepted it is named",
    },
    Job {
        name: "connect",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "cgroup/connect{4,6} + tracepoint/sys_{enter,exit}_connect",
            probes: &[
                syscall("sys_enter_connect"),
                Probe { program: "connect4", hook: Hook::CgroupRoot },
                Probe { program: "connect6", hook: Hook::CgroupRoot },
                syscall("sys_exit_connect"),
            ],
            unseen: &["attempts by io_uring that fail before a SYN leaves"],
        }],
        required: false,
        without: "attempts that fail before a SYN leaves (no route, no free port), and their errno",
    },
    Job {
        name: "udp",
        phase: Phase::Sockets,
        rungs: &[Rung {
            name: "cgroup_skb + cgroup/sock_{create,release}",
            probes: &[
                Probe { program: "udp_create", hook: Hook::CgroupRoot },
                Probe { program: "udp_release", hook: Hook::CgroupRoot },
                Probe { program: "udp_ingress", hook: Hook::CgroupIngress },
                Probe { program: "udp_egress", hook: Hook::CgroupEgress },
            ],
            unseen: &["UDP behind IPv6 extension headers"],
        }],
        required: false,
        without: "UDP flows",
    },
];

/// What no probe here sees, whatever the kernel.
pub(super) const NEVER_SEEN: &[&str] = &["raw and packet sockets"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_job_has_a_rung() {
        for (i, job) in JOBS.iter().enumerate() {
            assert!(!job.rungs.is_empty(), "{}", job.name);
            assert!(JOBS.iter().skip(i + 1).all(|other| other.name != job.name), "{}", job.name);
        }
    }
}
