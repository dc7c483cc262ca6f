//! Limits on what netwatch reads from the host. Whoever attacks the host chooses the size of most of it, often at no cost
//! of his own, and netwatch runs as root: what is read has a limit, and what is over it is left out and said to be.
//!
//! Links in `/proc` need no limit here: the kernel writes their text into one page (`do_proc_readlink` in fs/proc/base.c).
//!
//! The same holds for time: a file system or a name service answers when its server does, and a reader of stderr reads when
//! he likes.

use std::time::Duration;

/// A file of `/proc/PID` other than `cmdline`, bytes. The longest is `cgroup`: a path of at most 4096 bytes (`PATH_MAX`,
/// `proc_cgroup_show` in kernel/cgroup/cgroup.c) for each of at most 16 hierarchies. In `status` the user comes before
/// the list of groups, which may be longer. Test: `bounded::tests::no_more_than_the_limit_is_read`.
pub const PROC_FILE: usize = 64 << 10;

/// What is kept of the arguments of a process, bytes before escapes: one half from the beginning, one from the end. The
/// kernel allows 128 KiB for an argument and 6 MiB for all (`MAX_ARG_STRLEN`, `bprm_stack_limits` in fs/exec.c), and
/// `prctl(PR_SET_MM_MAP)`, which needs no privilege, makes them any length. Tests: `limits::long_arguments_are_truncated` and
/// `limits::many_arguments_are_truncated` of the end-to-end tests.
pub const ARGS_BYTES: usize = 64 << 10;

/// How many arguments are kept, one half from the beginning and one from the end. Programs that are given more get them
/// from a shell's `*`, and each costs a reader of the event a word, however short it is. Tests:
/// `model::arguments::tests::many_arguments_are_cut` and `limits::many_arguments_are_truncated` of the end-to-end tests.
pub const ARGS_COUNT: usize = 4096;

/// What is kept of the arguments of all processes in a snapshot, bytes. Of further processes [`ARGS_SHORT`] bytes are
/// kept: a user may have as many processes as `RLIMIT_NPROC` allows, each with long arguments. Test:
/// `snapshot::processes::tests::arguments_of_all_processes_are_limited`.
pub const ARGS_ALL: usize = 64 << 20;

/// See [`ARGS_ALL`].
pub const ARGS_SHORT: usize = 1 << 10;

/// How far `/proc/PID/cmdline` is read in search of its end, bytes, where `/proc/PID/stat` does not say how long it is:
/// to whoever may not trace the process. What execve(2) allows. Test:
/// `bounded::tests::line_end_beyond_the_limit_is_not_searched`.
pub const ARGS_SEARCHED: u64 = 6 << 20;

/// The configuration file, bytes; a file with every option takes some thousand. Test:
/// `cli::config::tests::a_file_over_the_limit_is_an_error`.
pub const CONFIG_FILE: usize = 1 << 20;

/// A baseline of `audit`, bytes: some 300 for each port or finding, so 50,000 of them. Parsed it takes several times as
/// much memory. Test: `cli::audit::tests::a_baseline_over_the_limit_is_an_error`.
pub const BASELINE_FILE: usize = 16 << 20;

/// `/etc/services` and `/etc/rpc`, bytes. With all names that IANA registered it is less than one MiB. Test:
/// `services::tests::a_file_over_the_limit_is_read_in_part`.
pub const NAMES_FILE: usize = 4 << 20;

/// A list of mounts, bytes: a mount namespace has at most 100,000 (`fs.mount-max`), and a line has some 200. Test:
/// `bounded::tests::no_more_than_the_limit_is_read`.
pub const MOUNTS_FILE: usize = 32 << 20;

/// How much of `/proc/locks` is read to name the holder of a lock, bytes, a line at a time. Any process can take any
/// number of locks. Test: `bounded::tests::lines_end_at_the_limit`.
pub const LOCKS_READ: usize = 64 << 20;

/// The file beside a store with what the last run could not record, bytes: one block of most file systems. A line for
/// each reason and kind has some 30, and there are less than 100. Test:
/// `store::unkept::tests::no_more_than_the_limit_is_read_and_nonsense_is_skipped`.
pub const UNKEPT_FILE: usize = 4096;

/// The part of `--max-size` that the log of the store (`-wal`) may take. SQLite cannot write the log back while any
/// program reads the store in a long transaction, so the log grows meanwhile: at this size the recorder stops writing,
/// as on a full disk. Not less than four times the size at which the log is written back. Tests:
/// `store::tests::interference::log_that_a_reader_holds_ends_at_the_limit`, and
/// `record::interference::forgotten_reader_cannot_fill_the_disk` of the end-to-end tests.
pub const LOG_PART: u64 = 8;

/// Batches of a run whose events are counted apart, to know what was in the end of a log that was truncated: a log that is
/// written back has fewer. The oldest are counted together, so the number of lost events may then be too high. Test:
/// `store::keep::tests::oldest_batches_are_counted_together`.
pub const BATCHES_COUNTED: usize = 4096;

/// Notices about the files of the store that wait to be printed, each once. Others are counted: whoever deletes the store
/// in a loop must not fill the memory. Test: `store::thread::tests::notices_beyond_the_limit_are_counted`.
pub const STORE_NOTICES: usize = 16;

/// Rows that `verify` reads in one transaction, at least: it ends with a batch. The log of a recorder grows meanwhile.
/// Test: `store::tests::interference::verify_reads_in_pieces`.
pub const VERIFIED_AT_ONCE: u64 = 1 << 16;

/// How long `trace` and `audit` read one state of the store: the log of a recorder grows meanwhile. Test:
/// `store::tests::interference::readers_do_not_hold_the_log`.
pub const READ_AT_ONCE: Duration = Duration::from_secs(1);

/// How long the event stream waits for an answer about one file system, directory or name service
/// ([`crate::blocking::Subject`]). Path lookups and name services of the host itself take microseconds; a ring of the
/// default size holds the records of several seconds. Test: `blocked::hanging_file_system_holds_up_nothing` of the end-to-end tests.
pub const LIVE_WAIT: Duration = Duration::from_millis(50);

/// How long the event stream waits for all of them together, before [`WAIT_SHARE`] limits it. Test:
/// `blocking::accounts::tests::many_slow_subjects_take_a_tenth_of_the_time`.
pub const LIVE_WAITS: Duration = Duration::from_millis(250);

/// A time that was waited is forgiven after this many times as long, so a file system that answers slowly for ever takes
/// no more than this part of the time. Test: `blocking::accounts::tests::slow_subject_takes_a_tenth_of_the_time`.
pub const WAIT_SHARE: u32 = 10;

/// How long a command or a snapshot waits for one of them. Test: `blocked::commands_end_on_a_hanging_file_system` of the end-to-end tests.
pub const COMMAND_WAIT: Duration = Duration::from_secs(1);

/// How long `audit` reads the package databases of one root directory, or a unit file: some 100 MB. Test:
/// `blocking::tests::read_is_abandoned_at_the_deadline`.
pub const READ_WAIT: Duration = Duration::from_secs(10);

/// Questions without an answer, each of which occupies a thread of the helper. When there are more, nothing is asked until
/// one returns. Test: `blocking::client::tests::stuck_questions_are_limited`.
pub const MOST_STUCK: usize = 8;

/// When the name of a user is asked for again if there was no answer. Test:
/// `enrich::users::tests::late_name_is_used`.
pub const NAME_RETRY: Duration = Duration::from_secs(1);

/// Lines for stderr that wait for its reader. When there are more, the newest are dropped and counted. Test:
/// `stderr::tests::lines_for_a_blocked_reader_are_counted`.
pub const STDERR_LINES: usize = 1024;

/// How long the end of netwatch waits until stderr has taken its last lines. Test: `blocked::blocked_stderr_holds_up_nothing`
/// of the end-to-end tests.
pub const STDERR_WAIT: Duration = Duration::from_secs(2);

/// How long a step of a start may take before it is reported what the start waits for. Test:
/// `run::slow_start_says_what_it_waits_for` of the end-to-end tests.
pub const SLOW_START: Duration = Duration::from_secs(1);

/// How long a start may take. On a host whose processors are all busy, attaching was seen to take 18 s. Test:
/// `agent::progress::tests::start_is_given_up_at_the_limit`.
pub const START_WAIT: Duration = Duration::from_secs(90);
