//! What did not come through: records that found no room in the ring, and runs of a program that the
//! kernel left out because the same program was running on that CPU already.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use aya::programs::ProgramFd;
use netwatch_common::kind;

/// Losses since the start, by kind of record.
pub type Lost = [u64; kind::COUNT as usize];

/// Reads the counts.
pub struct LostCounter {
    ring: PerCpuArray<MapData, u64>,
    /// Runs that were left out and done by another program, by kind.
    caught: PerCpuArray<MapData, u64>,
    programs: Vec<(u16, ProgramFd)>,
}

impl LostCounter {
    pub(super) fn new(ring: Map, caught: Map, programs: Vec<(u16, ProgramFd)>) -> Result<Self, MapError> {
        Ok(Self { ring: PerCpuArray::try_from(ring)?, caught: PerCpuArray::try_from(caught)?, programs })
    }

    /// Losses so far. A count that cannot be read is as it was: it is read again soon.
    #[must_use]
    pub fn read(&self, before: &Lost) -> Lost {
        let mut lost = *before;
        for (kind, count) in lost.iter_mut().enumerate() {
            let Ok(kind) = u16::try_from(kind) else { continue };
            let Ok(cpus) = self.ring.get(&u32::from(kind), 0) else { continue };
            // Before the runs that were left out: one that is counted in between is told next time, and
            // never as less than nothing.
            let Ok(caught) = self.caught.get(&u32::from(kind), 0) else { continue };
            let caught = caught.iter().sum::<u64>();
            let programs = self.programs.iter().filter(|(of, _)| *of == kind);
            let missed: u64 = programs.map(|(_, program)| recursion_misses(program)).sum();
            *count = (*count).max(cpus.iter().sum::<u64>() + missed.saturating_sub(caught));
        }
        lost
    }
}

/// The kind under which a left-out run of a program counts; none of the program that takes another's place,
/// which is left out only where the other ran, and none of those beside which another tells the same. A run of `inet_sock_set_state` may have
/// been any transition.
pub(super) fn kind_of(program: &str) -> Option<u16> {
    Some(match program {
        "inet_sock_set_state" => kind::CHANGE,
        "sched_process_fork" => kind::FORK,
        "sched_process_exec" => kind::EXEC,
        "sched_process_exit" => kind::EXIT,
        "cgroup_mkdir" | "cgroup_attach_task" => kind::CGROUP,
        "sys_exit_accept" | "sys_exit_accept4" => kind::ACCEPT,
        "sock_send_length" | "sock_recv_length" => kind::USE,
        "sys_exit_listen" => kind::LISTEN,
        "inet_sendmsg" | "inet_recvmsg" | "inet6_sendmsg" | "inet6_recvmsg" | "inet_sendpage" => kind::USE,
        "sys_enter_connect"
        | "sys_exit_connect"
        | "tcp_v4_connect_enter"
        | "tcp_v4_connect_leave"
        | "tcp_v6_connect_enter"
        | "tcp_v6_connect_leave"
        | "tcp_v4_connect_entry"
        | "tcp_v4_connect_return"
        | "tcp_v6_connect_entry"
        | "tcp_v6_connect_return" => kind::REFUSED,
        _ => return None,
    })
}

/// Runs left out (`kernel/trace/bpf_trace.c`, __bpf_trace_run), from the program's fdinfo; 0 before
/// 5.12, which does not count them.
fn recursion_misses(program: &ProgramFd) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    let Ok(text) = std::fs::read_to_string(path) else { return 0 };
    text.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
