//! The plan: which job is done by which probes, and what is not seen without them. The one table that
//! `doctor`, `ready` and the loader read.

use std::collections::HashSet;

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

const ACCEPT_CALLS: &[Probe] = &[syscall("sys_exit_accept"), syscall("sys_exit_accept4")];

/// What is accepted before its handshake ends (fast open) has no cookie yet on some kernels (6.12), and these
/// rungs' programs may not ask for one.
const COOKIE_OF_CHILD: Probe = cgroup("cookie_of_child");

/// What the job `state` attaches, and what tells whether the kernel has the helpers for sockets.
pub(super) const STATE_PROBES: &[Probe] = &[
    typed("inet_sock_set_state"),
    named("inet_sock_set_state_again", Hook::TypedTracepoint("inet_sock_set_state")),
];

const HALF_OPEN: &str =
    "half-open inbound connections (request sockets, SYN cookies) before the handshake ends";

const FAILS_EARLY_BY_IO_URING: &str = "attempts by io_uring that fail before a SYN leaves";

/// The plan itself.
pub(super) const JOBS: &[Job] = &[
    Job {
        name: "process",
        phase: Phase::Processes,
        rungs: &[Rung {
            key: "tp_btf",
            name: "tp_btf/sched_process_{fork,exec,exit}",
            probes: &[
                // Before forks: of whoever is seen to be born every exec is, or it would keep its parent's program.
                typed("sched_process_exec"),
                again("sched_process_exec_again", Hook::TypedTracepoint("sched_process_exec")),
                typed("sched_process_fork"),
                again("sched_process_fork_again", Hook::TypedTracepoint("sched_process_fork")),
                typed("sched_process_exit"),
                again("sched_process_exit_again", Hook::TypedTracepoint("sched_process_exit")),
            ],
            ..RUNG
        }],
        required: true,
        without: "processes that end before /proc is read",
    },
    Job {
        name: "cgroup",
        phase: Phase::Processes,
        rungs: &[Rung {
            key: "tp_btf",
            name: "tp_btf/cgroup_{mkdir,attach_task}",
            probes: &[typed("cgroup_mkdir"), typed("cgroup_attach_task")],
            ..RUNG
        }],
        required: false,
        without: "the container and unit of a process whose cgroup is gone before /proc is read",
    },
    Job {
        name: "state",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "storage",
                name: "tp_btf/inet_sock_set_state",
                probes: STATE_PROBES,
                only: Some(Sockets::Helpers),
                unseen: &[HALF_OPEN],
                ..RUNG
            },
            Rung {
                key: "address",
                name: "tp_btf/inet_sock_set_state + cgroup/{sock_create,connect4,connect6} + sock_ops, sockets by address",
                probes: &[
                    cgroup("cookie_of_made"),
                    cgroup("cookie_of_connecting4"),
                    cgroup("cookie_of_connecting6"),
                    cgroup("cookie_of_child"),
                    typed("inet_sock_set_state"),
                ],
                only: Some(Sockets::Plain),
                unseen: &[
                    HALF_OPEN,
                    "which of several listeners on one address and port a connection came from",
                    "what more than 65,536 sockets at once do",
                ],
                ..RUNG
            },
        ],
        required: true,
        without: "connections",
    },
    Job {
        name: "accept",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "fexit",
                name: "fexit/inet_accept + tracepoint/sys_exit_accept{,4}",
                probes: &[again("inet_accept_again", Hook::Exit("inet_accept")), exit("inet_accept")],
                beside: ACCEPT_CALLS,
                ..RUNG
            },
            Rung {
                key: "kprobe",
                name: "kprobe/security_sock_graft + tracepoint/sys_exit_accept{,4}",
                probes: &[named("security_sock_graft", Hook::Kprobe("security_sock_graft"))],
                beside: &[syscall("sys_exit_accept"), syscall("sys_exit_accept4"), COOKIE_OF_CHILD],
                ..RUNG
            },
            Rung {
                key: "syscall",
                name: "tracepoint/sys_exit_accept{,4}",
                probes: ACCEPT_CALLS,
                beside: &[COOKIE_OF_CHILD],
                unseen: &["accept() by io_uring or 32-bit socketcall, before the socket is used"],
                ..RUNG
            },
        ],
        required: false,
        without: "accept() itself: the listener's owner is named until the socket is used",
    },
    Job {
        name: "listen",
        phase: Phase::Sockets,
        rungs: &[Rung {
            key: "syscall",
            name: "tracepoint/sys_exit_listen",
            probes: &[syscall("sys_exit_listen")],
            ..RUNG
        }],
        required: false,
        without: "the port of a listener that was not bound before",
    },
    Job {
        name: "use",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "tp_btf",
                name: "tp_btf/sock_{send,recv}_length",
                probes: &[
                    typed("sock_send_length"),
                    again("sock_send_length_again", Hook::TypedTracepoint("sock_send_length")),
                    typed("sock_recv_length"),
                    again("sock_recv_length_again", Hook::TypedTracepoint("sock_recv_length")),
                ],
                unseen: &["a process that only reads, and by splice() alone"],
                ..RUNG
            },
            Rung {
                key: "fexit",
                name: "fexit/inet{,6}_{send,recv}msg",
                probes: &[
                    again("inet_sendmsg_again", Hook::Exit("inet_sendmsg")),
                    exit("inet_sendmsg"),
                    again("inet_recvmsg_again", Hook::Exit("inet_recvmsg")),
                    exit("inet_recvmsg"),
                    again("inet6_sendmsg_again", Hook::Exit("inet6_sendmsg")),
                    exit("inet6_sendmsg"),
                    again("inet6_recvmsg_again", Hook::Exit("inet6_recvmsg")),
                    exit("inet6_recvmsg"),
                ],
                beside: &[again("inet_sendpage_again", Hook::Exit("inet_sendpage")), exit("inet_sendpage")],
                unseen: &["a process that only reads, and by splice() alone"],
                ..RUNG
            },
        ],
        required: false,
        without: "a connection that was inherited or passed on: whoever connected or accepted it is named",
    },
    Job {
        name: "connect",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "fexit",
                name: "fentry + fexit/tcp_v{4,6}_connect",
                probes: &[
                    // Ends first: what begins and does not end is lost.
                    again("tcp_v4_connect_leave_again", Hook::Exit("tcp_v4_connect")),
                    named("tcp_v4_connect_leave", Hook::Exit("tcp_v4_connect")),
                    again("tcp_v6_connect_leave_again", Hook::Exit("tcp_v6_connect")),
                    named("tcp_v6_connect_leave", Hook::Exit("tcp_v6_connect")),
                    again("tcp_v4_connect_enter_again", Hook::Entry("tcp_v4_connect")),
                    named("tcp_v4_connect_enter", Hook::Entry("tcp_v4_connect")),
                    again("tcp_v6_connect_enter_again", Hook::Entry("tcp_v6_connect")),
                    named("tcp_v6_connect_enter", Hook::Entry("tcp_v6_connect")),
                ],
                ..RUNG
            },
            Rung {
                key: "kretprobe",
                name: "kprobe + kretprobe/tcp_v{4,6}_connect",
                probes: &[
                    cgroup("cookie_of_made"),
                    // As above. The last is the one by which they know that whatever ends has begun
                    // (`netwatch-ebpf/src/connect.rs`).
                    named("tcp_v4_connect_return", Hook::Kprobe("tcp_v4_connect")),
                    named("tcp_v6_connect_return", Hook::Kprobe("tcp_v6_connect")),
                    named("tcp_v6_connect_entry", Hook::Kprobe("tcp_v6_connect")),
                    named("tcp_v4_connect_entry", Hook::Kprobe("tcp_v4_connect")),
                ],
                unseen: &["attempts that fail before a SYN leaves, of sockets made before netwatch started"],
                ..RUNG
            },
            Rung {
                key: "cgroup",
                name: "cgroup/connect{4,6} + tracepoint/sys_{enter,exit}_connect",
                probes: &[
                    // As above.
                    syscall("sys_exit_connect"),
                    syscall("sys_enter_connect"),
                    cgroup("connect4"),
                    cgroup("connect6"),
                ],
                unseen: &[FAILS_EARLY_BY_IO_URING],
                ..RUNG
            },
        ],
        required: false,
        without: "attempts that fail before a SYN leaves (no route, no free port), and their errno",
    },
    SNAPSHOT,
    Job {
        name: "udp",
        phase: Phase::Sockets,
        rungs: &[Rung {
            key: "cgroup",
            name: "cgroup_skb + cgroup/sock_{create,release}",
            probes: &[
                cgroup("udp_create"),
                cgroup("udp_release"),
                named("udp_ingress", Hook::CgroupIngress),
                named("udp_egress", Hook::CgroupEgress),
            ],
            unseen: &["UDP behind IPv6 extension headers"],
            ..RUNG
        }],
        required: false,
        without: "UDP flows",
    },
];

/// What lists the sockets of a network namespace, and what the descriptors of all processes.
pub(super) const LIST_TCP: &str = "list_tcp";
pub(super) const LIST_UDP: &str = "list_udp";
pub(super) const LIST_FILES: &str = "list_files";

/// The job of looking at what is there.
pub(super) const SNAPSHOT: Job = Job {
    name: "snapshot",
    phase: Phase::Sockets,
    rungs: &[
        Rung {
            key: "iter",
            name: "iter/{tcp,udp,task_file}",
            probes: &[
                iterator(LIST_TCP, "tcp"),
                iterator(LIST_UDP, "udp"),
                iterator(LIST_FILES, "task_file"),
            ],
            only: Some(Sockets::Helpers),
            ..RUNG
        },
        Rung { key: "proc", name: "/proc + sock_diag", ..RUNG },
    ],
    required: true,
    without: "what is there already",
};

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
