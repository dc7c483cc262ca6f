//! Counts losses: records that did not fit in the ring, and runs of programs that the kernel skipped because the
//! program was running on that CPU already.

use std::collections::HashSet;
use std::error::Error;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
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
    /// Skipped runs that a second program made up for, by kind.
    caught: Counts,
    /// Records that are lost if [`ENTRY_OF_CONNECT`] was skipped as often, by kind.
    unbegun: Counts,
    /// What a limit kept from being followed, by kind of record.
    not_followed: Counts,
    programs: Vec<Watched>,
    left_out: [LeftOut; kind::COUNT as usize],
}

/// The entry program of connect(), which runs for sockets of all families.
const ENTRY_OF_CONNECT: &str = "sys_enter_connect";

/// A program whose skipped runs count.
struct Watched {
    name: &'static str,
    /// Kind of its records.
    kind: u16,
    fd: ProgramFd,
}

impl LostCounter {
    pub(super) fn new(
        ring: &Map,
        caught: &Map,
        unbegun: &Map,
        not_followed: &Map,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            ring: Counts::of(ring)?,
            caught: Counts::of(caught)?,
            unbegun: Counts::of(unbegun)?,
            not_followed: Counts::of(not_followed)?,
            programs: Vec::new(),
            left_out: Default::default(),
        })
    }

    /// What a limit kept from being followed so far, by kind of record: datagrams for `FLOW`, uses for `USE`.
    #[must_use]
    pub fn not_followed(&self) -> Lost {
        self.not_followed.sums()
    }

    /// Starts to count newly attached programs. Runs skipped before this are no loss: the snapshot follows.
    pub(super) fn watch(&mut self, ebpf: &Ebpf, attached: &HashSet<&'static str>) {
        let known = self.programs.len();
        for name in attached {
            let fd = ebpf.program(name).and_then(|program| program.fd().ok()?.try_clone().ok());
            if let (Some(kind), Some(fd)) = (kind_of(name, attached), fd)
                && self.programs.iter().all(|watched| watched.name != *name)
            {
                self.programs.push(Watched { name, kind, fd });
            }
        }
        let counts = self.counts();
        for new in self.programs.iter().skip(known) {
            let kind = usize::from(new.kind);
            if let (Some(left_out), Some(counts)) = (self.left_out.get_mut(kind), counts.get(kind)) {
                *left_out = LeftOut::begin(*counts);
            }
        }
    }

    /// Losses so far. No count is lower than `before`.
    #[must_use]
    pub fn read(&mut self, before: &Lost) -> Lost {
        let mut lost = *before;
        let (counts, ring) = (self.counts(), self.ring.sums());
        let left_out = self.left_out.iter_mut().zip(counts);
        for ((count, ring), (left_out, counts)) in lost.iter_mut().zip(ring).zip(left_out) {
            *count = (*count).max(ring + left_out.lost(counts));
        }
        lost
    }

    /// Counts by kind.
    fn counts(&self) -> [Reading; kind::COUNT as usize] {
        let mut counts = [Reading::default(); kind::COUNT as usize];
        let (caught, unbegun) = (self.caught.sums(), self.unbegun.sums());
        for Watched { name, kind, fd } in &self.programs {
            let kind = usize::from(*kind);
            if let (Some(counts), Some(unbegun)) = (counts.get_mut(kind), unbegun.get(kind)) {
                counts.missed += those_that_count(name, recursion_misses(fd), *unbegun);
            }
        }
        for ((counts, before), after) in counts.iter_mut().zip(caught).zip(self.caught.sums()) {
            (counts.caught_before, counts.caught) = (before, after);
        }
        counts
    }
}

/// Counts by CPU, in memory shared with the kernel side: see `netwatch-ebpf/src/emit.rs`.
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

    /// The sum over all CPUs.
    fn sums(&self) -> Lost {
        let mut sums = Lost::default();
        let first = self.memory.as_ptr().cast::<Lost>();
        for cpu in 0..self.cpus {
            let of_cpu = first.wrapping_add(cpu);
            // SAFETY: the mapping has one entry per CPU and is page aligned; volatile, because the kernel side writes
            // to it.
            let counts = unsafe { of_cpu.read_volatile() };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

/// One reading of the counts of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// Caught runs, read before `missed`.
    caught_before: u64,
    /// Skipped runs.
    missed: u64,
    /// Caught runs, read after `missed`, so that a run that is caught in between does not seem lost.
    caught: u64,
}

/// Skipped runs of the programs of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    /// Skipped runs that are not losses, because they are older than the snapshot.
    healed: u64,
    /// Skipped runs at the previous reading; their second programs have run by now.
    before: u64,
    /// Caught runs without a counted skipped run: the first program was not attached yet, or the loss was repaired.
    surplus: u64,
}

impl LeftOut {
    fn begin(reading: Reading) -> Self {
        Self { healed: reading.missed, before: reading.missed, surplus: reading.caught_before }
    }

    /// Skipped runs that were not caught.
    fn lost(&mut self, reading: Reading) -> u64 {
        if reading.missed == self.healed {
            // No skipped run counts yet, so caught ones do not either.
            *self = Self::begin(reading);
            return 0;
        }
        let due = std::mem::replace(&mut self.before, reading.missed);
        due.saturating_sub(self.healed).saturating_sub(reading.caught.saturating_sub(self.surplus))
    }
}

/// The kind under which a skipped run of a program counts. `None` for second programs, for programs whose records
/// another one of `attached` also sends, and where losses are counted otherwise: of listen() by
/// [`crate::tracker::Tracker::settle`], of connect() by the kernel side. A skipped run of `inet_sock_set_state` may
/// have been any transition.
fn kind_of(program: &str, attached: &HashSet<&str>) -> Option<u16> {
    Some(match program {
        "sys_exit_accept" | "sys_exit_accept4"
            if ["inet_accept", "security_sock_graft"].iter().any(|first| attached.contains(first)) =>
        {
            return None;
        }
        "inet_sock_set_state" => kind::CHANGE,
        "sched_process_fork" => kind::FORK,
        "sched_process_exec" => kind::EXEC,
        "sched_process_exit" => kind::EXIT,
        "cgroup_mkdir" | "cgroup_attach_task" => kind::CGROUP,
        "inet_accept" | "security_sock_graft" | "sys_exit_accept" | "sys_exit_accept4" => kind::ACCEPT,
        "sock_send_length" | "sock_recv_length" => kind::USE,
        "inet_sendmsg" | "inet_recvmsg" | "inet6_sendmsg" | "inet6_recvmsg" | "inet_sendpage" => kind::USE,
        ENTRY_OF_CONNECT
        | "tcp_v4_connect_enter"
        | "tcp_v4_connect_leave"
        | "tcp_v6_connect_enter"
        | "tcp_v6_connect_leave" => kind::FAIL,
        _ => return None,
    })
}

/// The skipped runs of a program that count.
fn those_that_count(program: &str, missed: u64, unbegun: u64) -> u64 {
    if program == ENTRY_OF_CONNECT { missed.min(unbegun) } else { missed }
}

/// Skipped runs, from the program's fdinfo (kernel/trace/bpf_trace.c, __bpf_trace_run(), v6.12); 0 before 5.12, which
/// does not count them.
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
    fn skipped_entries_of_connect_count_only_for_lost_attempts() {
        // Three runs were skipped, and no attempt was lost by that, or one, or also those of io_uring.
        let counts = [0, 1, 9].map(|unbegun| those_that_count("sys_enter_connect", 3, unbegun));
        assert_eq!(counts, [0, 1, 3]);
        assert_eq!(those_that_count("inet_sock_set_state", 3, 0), 3);
    }

    #[test]
    fn run_that_another_program_covers_does_not_count() {
        let alone = HashSet::from(["sys_exit_accept", "sys_exit_accept4"]);
        assert_eq!(kind_of("sys_exit_accept4", &alone), Some(kind::ACCEPT));
        for better in ["inet_accept", "security_sock_graft"] {
            let attached = HashSet::from(["sys_exit_accept", "sys_exit_accept4", better]);
            assert_eq!(kind_of("sys_exit_accept4", &attached), None, "{better}");
            assert_eq!(kind_of(better, &attached), Some(kind::ACCEPT));
        }
        for owed in ["sys_exit_listen", "sys_exit_connect", "tcp_v4_connect_entry", "tcp_v6_connect_return"] {
            assert_eq!(kind_of(owed, &alone), None, "{owed}");
        }
        assert_eq!(kind_of("inet_sock_set_state_again", &alone), None);
    }

    /// A reading without concurrent changes.
    fn reading(missed: u64, caught: u64) -> Reading {
        Reading { caught_before: caught, missed, caught }
    }

    #[test]
    fn caught_run_is_not_lost_and_a_late_one_not_yet() {
        let mut left_out = LeftOut::begin(reading(0, 0));
        // Skipped, and its second program is preempted before it counts.
        assert_eq!(left_out.lost(reading(1, 0)), 0);
        assert_eq!(left_out.lost(reading(1, 1)), 0);
        // Two were skipped, and the second program of one as well.
        assert_eq!(left_out.lost(reading(3, 2)), 0);
        assert_eq!(left_out.lost(reading(3, 2)), 1);
    }

    #[test]
    fn runs_caught_before_the_first_program_do_not_count() {
        let mut left_out = LeftOut::begin(reading(1, 3));
        assert_eq!(left_out.lost(reading(2, 3)), 0);
        assert_eq!(left_out.lost(reading(2, 3)), 1);
    }

    #[test]
    fn run_skipped_before_the_snapshot_is_not_lost() {
        let mut left_out = LeftOut::begin(reading(2, 0));
        assert_eq!(left_out.lost(reading(2, 0)), 0);
        // One of them is caught late, which does not cover any later one.
        assert_eq!(left_out.lost(reading(2, 1)), 0);
        assert_eq!(left_out.lost(reading(3, 1)), 0);
        assert_eq!(left_out.lost(reading(3, 1)), 1);
    }

    #[test]
    fn run_skipped_and_caught_within_a_reading_is_not_lost() {
        let mut left_out = LeftOut::begin(Reading { caught_before: 0, missed: 0, caught: 1 });
        assert_eq!(left_out.lost(reading(1, 1)), 0);
        assert_eq!(left_out.lost(reading(1, 1)), 0);
        let mut left_out = LeftOut::begin(reading(0, 0));
        assert_eq!(left_out.lost(Reading { caught_before: 0, missed: 0, caught: 1 }), 0);
        assert_eq!(left_out.lost(reading(1, 1)), 0);
        assert_eq!(left_out.lost(reading(1, 1)), 0);
    }
}
