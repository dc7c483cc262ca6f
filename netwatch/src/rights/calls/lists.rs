//! Numbers of system calls.

use libc::*;

/// What output takes: open files, memory, threads, time, and the socket to the helper.
pub(super) const OUTPUT: &[i64] = &[
    // Files. Which ones can be opened is up to Landlock; without it they can be written to as well.
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_close,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_lseek,
    SYS_ioctl,
    SYS_fcntl,
    SYS_openat,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_fstatfs,
    SYS_statfs,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_ppoll,
    SYS_pselect6,
    // The shared memory of a store grows with its log.
    SYS_ftruncate,
    SYS_fallocate,
    // Memory.
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_brk,
    // Threads.
    SYS_clone,
    SYS_clone3,
    SYS_futex,
    SYS_exit,
    SYS_exit_group,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_prctl,
    SYS_set_tid_address,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_membarrier,
    SYS_prlimit64,
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_wait4,
    SYS_waitid,
    // Signals. To others: tgkill(2) of abort(3).
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_tgkill,
    SYS_restart_syscall,
    // Time, random numbers, and the kernel's version.
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_uname,
    SYS_sysinfo,
    SYS_getrusage,
    // The socket to the helper, which is open. No other can be had.
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendto,
    SYS_recvfrom,
    SYS_shutdown,
    // The runtime of a command that repeats, and of probes that are closed.
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    #[cfg(target_arch = "x86_64")]
    SYS_open,
    #[cfg(target_arch = "x86_64")]
    SYS_stat,
    #[cfg(target_arch = "x86_64")]
    SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    SYS_access,
    #[cfg(target_arch = "x86_64")]
    SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    SYS_arch_prctl,
];

/// What nothing takes once the start is over.
pub(super) const DENIED: &[i64] = &[
    // Other programs and processes.
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_pidfd_getfd,
    SYS_personality,
    SYS_userfaultfd,
    // Modules, and other kernels.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    #[cfg(target_arch = "x86_64")]
    SYS_kexec_file_load,
    // Mounts. A procfs without a path is had by fsopen(2) and fsmount(2).
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_mount_setattr,
    SYS_unshare,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    // Devices.
    SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    // Time, names, accounting, keys and logs.
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_acct,
    SYS_syslog,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    // Users and capabilities.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_capset,
    // Probes are attached at the start.
    SYS_perf_event_open,
    SYS_fanotify_init,
];

/// What takes clients.
pub(super) const ACCEPTS: &[i64] = &[SYS_accept, SYS_accept4];

/// What makes connections and listeners; those that are there can be used.
pub(super) const CONNECTS: &[i64] = &[SYS_socket, SYS_connect, SYS_bind, SYS_listen];

/// What only snapshots of the host take.
pub(super) const LOOKS: &[i64] =
    &[SYS_bpf, SYS_setns, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_kcmp, SYS_open_by_handle_at];
