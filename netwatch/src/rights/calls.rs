//! Filters of system calls (seccomp(2)). Output needs few calls, so all others are denied. What runs on needs many, and
//! which of them depends on the C library and on what the host does: there the dangerous ones are denied.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

mod lists;

/// System calls that remain possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Reading open files, writing to open ones, memory, threads and time.
    Output,
    /// All but those that execute, trace, mount, load or administrate; no BPF, no namespace.
    Resolve,
    /// The same, taking clients of a listener that is open, but making no connection.
    Serve,
    /// As `Resolve`, with BPF, entering namespaces, and mounting a procfs without a path.
    Live,
}

impl Calls {
    /// A sentence for the user.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Output => "only those that read and write open files, and open files for reading",
            Self::Resolve => "no exec, ptrace, mount, module, bpf, perf_event_open, setns or io_uring",
            Self::Serve => "no exec, ptrace, mount, module, bpf, perf_event_open, setns, io_uring or socket",
            Self::Live => "no exec, ptrace, mount, module, perf_event_open or io_uring",
        }
    }
}

/// Denies all others, in all threads. Needs `no_new_privs`.
pub(super) fn filter(calls: Calls) -> Result<(), Error> {
    for program in programs(calls)? {
        apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// Whether the kernel was built with it.
pub(super) fn are_filtered_by_this_kernel() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one number.
    let has =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    has == 0
}

fn programs(calls: Calls) -> Result<Vec<BpfProgram>, Error> {
    let (errno, nosys) =
        (SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Errno(libc::ENOSYS as u32));
    let allow = SeccompAction::Allow;
    let one = |numbers: Vec<i64>, others: SeccompAction, these: SeccompAction| -> Result<BpfProgram, Error> {
        let rules: BTreeMap<_, _> = numbers.into_iter().map(|number| (number, Vec::new())).collect();
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        Ok(BpfProgram::try_from(SeccompFilter::new(rules, others, these, arch)?)?)
    };
    let denied =
        |more: &[&[i64]]| lists::DENIED.iter().chain(more.iter().copied().flatten()).copied().collect();
    match calls {
        Calls::Output => Ok(vec![one(lists::OUTPUT.to_vec(), errno, allow)?]),
        Calls::Resolve => {
            let denied = denied(&[lists::LOOKS, LISTENS, lists::ACCEPTS]);
            Ok(vec![one(x32(denied), allow.clone(), errno)?, one(io_uring(), allow, nosys)?])
        }
        Calls::Serve => {
            let denied = denied(&[lists::LOOKS, lists::CONNECTS]);
            Ok(vec![one(x32(denied), allow.clone(), errno)?, one(io_uring(), allow, nosys)?])
        }
        Calls::Live => {
            let denied = denied(&[LISTENS, lists::ACCEPTS]);
            Ok(vec![one(x32(denied), allow.clone(), errno)?, one(io_uring(), allow, nosys)?])
        }
    }
}

/// A name service makes sockets, but serves nobody.
const LISTENS: &[i64] = &[libc::SYS_listen];

/// Programs that try it go on without it, as on a kernel that does not have it.
fn io_uring() -> Vec<i64> {
    x32(vec![libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register])
}

/// `__X32_SYSCALL_BIT`: arch/x86/include/uapi/asm/unistd.h. A kernel with that interface has the same calls by other
/// numbers.
const X32: i64 = 0x4000_0000;

fn x32(mut numbers: Vec<i64>) -> Vec<i64> {
    if cfg!(target_arch = "x86_64") {
        numbers.extend_from_within(..);
        let half = numbers.len() / 2;
        numbers.iter_mut().skip(half).for_each(|number| *number |= X32);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_for_this_machine() {
        for calls in [Calls::Output, Calls::Resolve, Calls::Serve, Calls::Live] {
            assert!(programs(calls).unwrap().iter().all(|program| !program.is_empty()));
        }
    }

    #[test]
    fn no_call_is_both_denied_and_needed() {
        assert!(lists::DENIED.iter().chain(lists::LOOKS).all(|number| !lists::OUTPUT.contains(number)));
    }
}
