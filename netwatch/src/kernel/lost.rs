//! What did not come through: records that found no room in the ring, and runs of a program that the
//! kernel left out because the same program was running on that CPU already.

use std::collections::HashSet;
use std::error::Error;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::Map;
use aya::programs::ProgramFd;
use memmap2::{MmapOptions, MmapRaw};
use netwatch_common::kind;

use super::{KernelError, chain};

/// Losses since the start, by kind of record.
pub type Lost = [u64; kind::COUNT as usize];

/// Reads the counts.
pub struct LostCounter {
    ring: Counts,
    /// Runs that were left out and done by another program, by kind.
    caught: Counts,
    programs: Vec<(u16, ProgramFd)>,
    left_out: [LeftOut; kind::COUNT as usize],
}

impl LostCounter {
    pub(super) fn new(
        ring: &Map,
        caught: &Map,
        programs: Vec<(u16, ProgramFd)>,
    ) -> Result<Self, KernelError> {
        let (ring, caught) = (Counts::of(ring)?, Counts::of(caught)?);
        let mut counter = Self { ring, caught, programs, left_out: Default::default() };
        let (missed, caught) = counter.counts();
        for ((left_out, missed), caught) in counter.left_out.iter_mut().zip(missed).zip(caught) {
            *left_out = LeftOut::begin(missed, caught);
        }
        Ok(counter)
    }

    /// Losses so far. No count is lower than `before`.
    #[must_use]
    pub fn read(&mut self, before: &Lost) -> Lost {
        let mut lost = *before;
        let ((missed, caught), ring) = (self.counts(), self.ring.sums());
        let left_out = self.left_out.iter_mut().zip(missed).zip(caught);
        for ((count, ring), ((left_out, missed), caught)) in lost.iter_mut().zip(ring).zip(left_out) {
            *count = (*count).max(ring + left_out.lost(missed, caught));
        }
        lost
    }

    /// How often programs of each kind were left out, and after that how many of these runs were caught: the other
    /// way round one that is caught in between would be missing from these.
    fn counts(&self) -> (Lost, Lost) {
        let mut missed = Lost::default();
        for (kind, program) in &self.programs {
            if let Some(missed) = missed.get_mut(usize::from(*kind)) {
                *missed += recursion_misses(program);
            }
        }
        (missed, self.caught.sums())
    }
}

/// Counts by CPU, in memory that the kernel side writes to: see `netwatch-ebpf/src/emit.rs`.
struct Counts {
    memory: MmapRaw,
    cpus: usize,
}

impl Counts {
    fn of(map: &Map) -> Result<Self, KernelError> {
        let failed =
            |error: &dyn Error| KernelError::Load(format!("the counts of what is lost: {}", chain(error)));
        let Map::Array(map) = map else { return Err(KernelError::Load("no counts of what is lost".into())) };
        let cpus = map.info().map_err(|error| failed(&error))?.max_entries() as usize;
        let fd = map.fd().as_fd().as_raw_fd();
        let memory = MmapOptions::new().len(cpus * size_of::<Lost>()).map_raw_read_only(fd);
        Ok(Self { memory: memory.map_err(|error| failed(&error))?, cpus })
    }

    /// Of all CPUs.
    fn sums(&self) -> Lost {
        let mut sums = Lost::default();
        let first = self.memory.as_ptr().cast::<Lost>();
        for cpu in 0..self.cpus {
            let of_cpu = first.wrapping_add(cpu);
            // SAFETY: one for each CPU is mapped, from the beginning of a page on; volatile, because others write there.
            let counts = unsafe { of_cpu.read_volatile() };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

/// Runs of the programs of a kind that were left out.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    /// As they were at the look before: whoever is to catch one of these has done so by now.
    before: u64,
    /// Runs of second programs for which no first was left out: it was not attached yet.
    surplus: u64,
}

impl LeftOut {
    fn begin(missed: u64, caught: u64) -> Self {
        Self { before: missed, surplus: caught.saturating_sub(missed) }
    }

    /// Those that nobody caught.
    fn lost(&mut self, missed: u64, caught: u64) -> u64 {
        let due = std::mem::replace(&mut self.before, missed);
        due.saturating_sub(caught.saturating_sub(self.surplus))
    }
}

/// The kind under which a left-out run of a program counts; none of the program that takes another's place, and none
/// of those beside which one of the `attached` tells the same. A run of `inet_sock_set_state` may have been any
/// transition.
pub(super) fn kind_of(program: &str, attached: &HashSet<&str>) -> Option<u16> {
    Some(match program {
        "sys_exit_accept" | "sys_exit_accept4" if attached.contains("inet_accept") => return None,
        "inet_sock_set_state" => kind::CHANGE,
        "sched_process_fork" => kind::FORK,
        "sched_process_exec" => kind::EXEC,
        "sched_process_exit" => kind::EXIT,
        "cgroup_mkdir" | "cgroup_attach_task" => kind::CGROUP,
        "inet_accept" | "sys_exit_accept" | "sys_exit_accept4" => kind::ACCEPT,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_caught_is_not_lost_and_what_may_still_be_is_not_yet() {
        let mut left_out = LeftOut::begin(0, 0);
        // Left out, and its second is preempted on its way.
        assert_eq!(left_out.lost(1, 0), 0);
        assert_eq!(left_out.lost(1, 1), 0);
        // Two were left out, and one of them twice.
        assert_eq!(left_out.lost(3, 2), 0);
        assert_eq!(left_out.lost(3, 2), 1);
    }

    #[test]
    fn what_a_second_did_before_there_was_a_first_makes_up_for_nothing() {
        let mut left_out = LeftOut::begin(1, 3);
        assert_eq!(left_out.lost(2, 3), 0);
        assert_eq!(left_out.lost(2, 3), 1);
    }
}
