//! The table of jobs, each with its rungs in order of preference.

use super::{
    Hook, Job, Phase, Probe, RUNG, Rung, Sockets, again, cgroup, exit, iterator, named, syscall, typed,
};

const ACCEPT_CALLS: &[Probe] = &[syscall("sys_exit_accept"), syscall("sys_exit_accept4")];

/// A TCP Fast Open connection that is accepted before its handshake ends has no cookie yet on some kernels (6.12), and
/// the programs of these rungs cannot generate one.
const COOKIE_OF_CHILD: Probe = cgroup("cookie_of_child");

/// The probes of the job `state`; whether they load tells whether the kernel has the socket helpers.
pub(in crate::kernel) const STATE_PROBES: &[Probe] = &[
    typed("inet_sock_set_state"),
    named("inet_sock_set_state_again", Hook::TypedTracepoint("inet_sock_set_state")),
];

const HALF_OPEN: &str =
    "half-open inbound connections (request sockets, SYN cookies) before the handshake ends";

const FAILS_EARLY_BY_IO_URING: &str = "connect attempts by io_uring that fail before a SYN is sent";

/// The plan.
pub(in crate::kernel) const JOBS: &[Job] = &[
    Job {
        name: "process",
        phase: Phase::Processes,
        rungs: &[Rung {
            key: "tp_btf",
            name: "tp_btf/sched_process_{fork,exec,exit}",
            probes: &[
                // Before fork: otherwise the exec of a process whose fork was seen could be missed.
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
        without: "the container and unit of a process whose cgroup is removed before /proc is read",
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
                    "which of several listeners on the same address and port received a connection",
                    "sockets beyond 65,536 at once",
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
                unseen: &["accept() by io_uring or 32-bit socketcall, until the socket is used"],
                ..RUNG
            },
        ],
        required: false,
        without: "accept(): the owner of the listener is reported until the socket is used",
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
        without: "the port of a listener that did not call bind()",
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
                unseen: &["a process that only reads, and only with splice()"],
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
                beside: &[
                    again("inet_sendpage_again", Hook::Exit("inet_sendpage")),
                    exit("inet_sendpage"),
                    exit("packet_sendmsg"),
                    exit("packet_recvmsg"),
                ],
                unseen: &["a process that only reads, and only with splice()"],
                ..RUNG
            },
        ],
        required: false,
        without: "inherited and passed connections: the process that connected or accepted is reported",
    },
    Job {
        name: "unix",
        phase: Phase::Processes,
        rungs: &[
            Rung {
                key: "fentry",
                name: "fentry/unix_{stream,dgram}_sendmsg + fexit/unix_{stream,dgram,seqpacket}_recvmsg",
                probes: &[
                    named("unix_stream_sendmsg", Hook::Entry("unix_stream_sendmsg")),
                    named("unix_dgram_sendmsg", Hook::Entry("unix_dgram_sendmsg")),
                    exit("unix_stream_recvmsg"),
                    exit("unix_dgram_recvmsg"),
                    exit("unix_seqpacket_recvmsg"),
                ],
                ..RUNG
            },
            Rung {
                key: "tp_btf",
                name: "tp_btf/sock_{send,recv}_length for UNIX sockets",
                probes: &[
                    named("unix_send_length", Hook::TypedTracepoint("sock_send_length")),
                    named("unix_recv_length", Hook::TypedTracepoint("sock_recv_length")),
                ],
                unseen: &[
                    "the writer of a message over a UNIX socket that is read before the call that wrote it returns",
                ],
                ..RUNG
            },
        ],
        required: false,
        without: "which process acted upon a message that another one sent over a UNIX socket",
    },
    Job {
        name: "pipe",
        phase: Phase::Processes,
        rungs: &[
            Rung {
                key: "anon_pipe",
                name: "fentry/{anon,fifo}_pipe_write + fexit/{anon,fifo}_pipe_read",
                probes: &[
                    named("anon_pipe_write", Hook::Entry("anon_pipe_write")),
                    exit("anon_pipe_read"),
                    named("fifo_pipe_write", Hook::Entry("fifo_pipe_write")),
                    exit("fifo_pipe_read"),
                ],
                ..RUNG
            },
            Rung {
                key: "pipe",
                name: "fentry/pipe_write + fexit/pipe_read",
                probes: &[named("pipe_write", Hook::Entry("pipe_write")), exit("pipe_read")],
                ..RUNG
            },
        ],
        required: false,
        without: "which process acted upon what another one wrote to a pipe; who has the other end at exec remains",
    },
    Job {
        name: "connect",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "fexit",
                name: "fentry + fexit/tcp_v{4,6}_connect",
                probes: &[
                    // Exits first: an entry without an exit would be counted as lost.
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
                    // As above. Once the last one runs, every exit has an entry (`netwatch-ebpf/src/connect.rs`).
                    named("tcp_v4_connect_return", Hook::Kprobe("tcp_v4_connect")),
                    named("tcp_v6_connect_return", Hook::Kprobe("tcp_v6_connect")),
                    named("tcp_v6_connect_entry", Hook::Kprobe("tcp_v6_connect")),
                    named("tcp_v4_connect_entry", Hook::Kprobe("tcp_v4_connect")),
                ],
                unseen: &[
                    "connect attempts that fail before a SYN is sent, on sockets created before netwatch started",
                ],
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
        without: "connect attempts that fail before a SYN is sent (no route, no free port), and their errno",
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
            ..RUNG
        }],
        required: false,
        without: "flows of UDP, UDP-Lite, raw and ping sockets",
    },
    Job {
        name: "packet",
        phase: Phase::Sockets,
        rungs: &[
            Rung {
                key: "fentry",
                name: "fentry/packet_release",
                probes: &[named("packet_release", Hook::Entry("packet_release"))],
                only: Some(Sockets::Helpers),
                ..RUNG
            },
            Rung {
                key: "kprobe",
                name: "kprobe/packet_release",
                probes: &[named("packet_release_kprobe", Hook::Kprobe("packet_release"))],
                only: Some(Sockets::Helpers),
                ..RUNG
            },
        ],
        required: false,
        without: "when a packet socket is closed: its flow ends once it has been idle; before 5.12, its frames",
    },
    Job {
        name: "names",
        phase: Phase::Sockets,
        rungs: &[Rung {
            key: "cgroup",
            name: "cgroup_skb (DNS over UDP, TLS)",
            probes: &[
                // Before the questions: an answer needs one.
                named("name_ingress", Hook::CgroupIngress),
                named("name_egress", Hook::CgroupEgress),
            ],
            unseen: &[
                "names that a program knows otherwise than by DNS over UDP: from files, caches, DNS over TCP, TLS or HTTPS, or from before the start",
            ],
            ..RUNG
        }],
        required: false,
        without: "the names of hosts by which programs connect",
    },
];

/// Programs that list the sockets of a network namespace, the descriptors of all processes, and all processes.
pub(in crate::kernel) const LIST_TCP: &str = "list_tcp";
pub(in crate::kernel) const LIST_UDP: &str = "list_udp";
pub(in crate::kernel) const LIST_FILES: &str = "list_files";
pub(in crate::kernel) const LIST_TASKS: &str = "list_tasks";

/// The job that takes a snapshot of existing sockets.
pub(in crate::kernel) const SNAPSHOT: Job = Job {
    name: "snapshot",
    phase: Phase::Sockets,
    rungs: &[
        Rung {
            key: "iter",
            name: "iter/{tcp,udp,task_file,task}",
            probes: &[
                iterator(LIST_TCP, "tcp"),
                iterator(LIST_UDP, "udp"),
                iterator(LIST_FILES, "task_file"),
                iterator(LIST_TASKS, "task"),
            ],
            only: Some(Sockets::Helpers),
            ..RUNG
        },
        Rung { key: "proc", name: "/proc + sock_diag", ..RUNG },
    ],
    required: true,
    without: "existing sockets",
};
