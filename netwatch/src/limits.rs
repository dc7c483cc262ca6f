//! Limits on what netwatch reads from the host, and on what it keeps of it. Whoever attacks the host chooses the size of
//! most of it, often at no cost of his own, and netwatch runs as root: what is read has a limit, and what is over it is left
//! out and said to be. docs/limits.md says for each, and for those of the kernel side and the store, what happens at it.
//!
//! Links in `/proc` need no limit here: the kernel writes their text into one page (`do_proc_readlink` in fs/proc/base.c).
//!
//! The same holds for time: a file system or a name service answers when its server does, and a reader of stderr reads when
//! he likes.

use std::time::Duration;

mod fleet;
mod outputs;
mod rules;

pub use {fleet::*, outputs::*, rules::*};

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

/// What is kept of the arguments of each process beyond [`ARGS_ALL`]. Test:
/// `snapshot::processes::tests::arguments_of_all_processes_are_limited`.
pub const ARGS_SHORT: usize = 1 << 10;

/// In how many network namespaces other than a connection's own its translation is looked for. Each takes a system call
/// for each connection. Test: `conntrack::tests::number_of_namespaces_is_bounded`.
pub const MOST_TRACKING: usize = 32;

/// How many translated connections of a network namespace a snapshot takes in; `nf_conntrack_max` is 262,144 on a host
/// with some memory. Test: `conntrack::netlink::tests::number_of_translations_is_bounded`.
pub const MOST_TRANSLATED: usize = 262_144;

/// How many connections wait to be asked about in the connection tracking tables, when many begin at once. Test:
/// `agent::translate::tests::number_of_waiting_connections_is_bounded`.
pub const MOST_UNTRANSLATED: usize = 4096;

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

/// How long the wall clock must have been ahead or behind before that counts for the age of records: longer than it takes
/// to notice a wrong clock, or for a time server to answer. Test: `store::steady::tests::a_jump_and_back_does_not_count`.
pub const CLOCK_SETTLES: Duration = Duration::from_secs(6 * 3600);

/// How much of the time between two observations counts for that: the recorder looks every few seconds, unless the host
/// was suspended. Test: `store::steady::tests::time_that_nobody_observed_does_not_settle_a_step`.
pub const CLOCK_OBSERVED: Duration = Duration::from_secs(60);

/// How far the wall clock may be off without being followed. A difference that is not followed makes ages wrong by no
/// more. Test: `store::steady::tests::a_step_that_lasts_counts`.
pub const CLOCK_DRIFT: Duration = Duration::from_secs(300);

/// The part of `--max-size` that the links of deleted batches may take, 32 bytes each: the oldest are deleted then, and
/// anchors of that time are not found any more. Test: `store::pruned::tests::links_are_limited`.
pub const LINKS_PART: u64 = 32;

/// How long a sealing key is used. Who steals the key can alter what was recorded since, and nothing before. Test:
/// `store::tests::sealing::a_chain_that_is_hashed_again_is_found_by_its_seals`.
pub const SEAL_EPOCH: Duration = Duration::from_secs(60);

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

/// How long each process is waited for whose user has used up the time for his processes that hold their memory maps, such
/// that their arguments cannot be read: that takes microseconds. Test: `blocked::held::held_memory_map_holds_up_nothing` of the
/// end-to-end tests.
pub const LEAST_WAIT: Duration = Duration::from_millis(5);

/// Processes of a user whose memory maps are waited for, each of which occupies a thread. When there are more, the arguments
/// of none of his are read until one returns. Test: `blocking::memory::tests::threads_that_are_stuck_are_limited`.
pub const MOST_STUCK_OF_USER: usize = 16;

/// The same of all users. Test: `blocking::memory::tests::threads_that_are_stuck_are_limited`.
pub const MOST_STUCK_READS: usize = 64;

/// Addresses whose names are remembered, by network namespace. When there are more, those that were not used for longest
/// are forgotten: some 10 MB. Test: `names::tests::number_of_addresses_and_names_is_bounded`.
pub const MOST_NAMED_ADDRESSES: usize = 16_384;

/// Network namespaces whose numbers are followed; the kernel gives the lowest free one, so that there are as many as there
/// were at once. When there are more, all names are forgotten. Test: `names::tests::namespaces_are_bounded`.
pub const MOST_NAMED_NAMESPACES: usize = 65_536;

/// Names of one address. When there are more, the oldest is forgotten: servers of many sites have one address. Test:
/// `names::tests::number_of_addresses_and_names_is_bounded`.
pub const MOST_NAMES_OF_ADDRESS: usize = 16;

/// Addresses of one DNS answer that are noted; an answer of the longest that is read has 127. Test:
/// `names::tests::number_of_addresses_and_names_is_bounded`.
pub const MOST_ADDRESSES_OF_ANSWER: usize = 64;

/// Aliases (CNAME) that lead from a name to its addresses. Resolvers follow some 10 to 20. Test:
/// `names::answer::tests::long_chain_of_aliases_is_not_followed`.
pub const MOST_ALIASES: usize = 16;

/// How long a name is kept though its answer allows less: a program connects a moment after it asked. Test:
/// `names::tests::name_is_kept_as_long_as_its_answer_says`.
pub const NAME_KEPT_AT_LEAST: Duration = Duration::from_secs(60);

/// How long a name is kept though its answer allows more. Test: `names::tests::name_is_kept_as_long_as_its_answer_says`.
pub const NAME_KEPT_AT_MOST: Duration = Duration::from_secs(86_400);

/// The files of users and of their sources, bytes: some 10,000 users. Of a longer one the names come from the name service.
/// Test: `blocking::tests::fifo_without_a_writer_is_not_waited_for`.
pub const USERS_FILE: usize = 1 << 20;

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

/// Size of the ring of records in bytes if `--ring` does not set it: a third of a second of records at 28,000 connections
/// a second. When it is full, records are lost and counted, and a snapshot repairs the tables. Test:
/// `loss::lost_records_are_counted_and_repaired` of the end-to-end tests.
pub const RING_BYTES: u32 = 16 << 20;

/// Ancestors of a process: a program that forks and exits forever would create an endless chain. When there are more, the
/// nearer half is kept. Test: `process::tests::a_line_without_end_keeps_its_near_half`.
pub const MOST_ANCESTORS: u32 = 128;

/// Descriptors that are looked at to find what steers a shell, of all processes. A relay among later ones is not found. Test:
/// `snapshot::streams::tests::number_of_descriptors_is_bounded`.
pub const MOST_STREAMS: usize = 200_000;

/// Processes that are looked at on the way from a shell to what steers it. Test:
/// `relays::tests::number_of_processes_on_the_way_is_bounded`.
pub const MOST_RELAYS: usize = 64;

/// Time for the names of all hosts of a list. Test: `commands::list::resolve::tests::silent_name_server_costs_the_deadline`.
pub const NAMES: Duration = Duration::from_secs(2);

/// Names of hosts that are asked for at once. Test: `commands::list::resolve::tests::silent_name_server_costs_the_deadline`.
pub const MOST_RESOLVERS: usize = 64;

/// Pairs of processes for which the name of the UNIX socket between them is kept. Test:
/// `process::table::messages::tests::number_of_paths_and_of_announced_messages_is_bounded`.
pub const MOST_MESSAGE_PATHS: usize = 8192;

/// Ended processes that are kept: the last record of a connection may arrive after the exit of its process. Test:
/// `process::table::tests::number_of_exited_processes_is_bounded`.
pub const MOST_ENDED_PROCESSES: usize = 8192;

/// Cgroups whose paths are remembered. If there are more, all are forgotten, and looked up again when a process in them is
/// seen. Test: `process::table::tests::number_of_cgroups_is_bounded`.
pub const MOST_CGROUPS: usize = 8192;

/// Programs that were started with a socket as stdin, stdout or stderr and that the caller has not taken yet, in case it
/// never does. Test: `agent::tables::tests::number_of_programs_started_on_sockets_is_bounded`.
pub const MOST_STARTED: usize = 4096;

/// Connections that closed before they were accepted: the queues of a few busy listeners (`net.core.somaxconn` is 4096).
/// The oldest is evicted; its accept then gets a new id. Test: `tracker::late::tests::number_is_bounded`.
pub const MOST_UNACCEPTED: usize = 16384;

/// Remote addresses of ended UDP flows that are remembered for a socket. After more, each flow of the socket counts as one
/// that was idle. Test: `tracker::udp::sockets::tests::a_limited_number_of_idle_flows_is_remembered`.
pub const MOST_IDLE_REMOTES: usize = 256;

/// Items that wait to be printed: some 400 bytes each, several seconds of a busy host. Test:
/// `loss::events_missed_by_a_stuck_reader_are_reported_as_a_loss` of the end-to-end tests.
pub const STDOUT_ITEMS: usize = 40_960;

/// How many connections and listeners that ended `top` keeps, the newest: some 4 KiB each with their events. Test:
/// `top::tests::number_of_ended_connections_is_bounded`.
pub const TOP_ENDED: usize = 10_000;

/// How many events `top --store` shows, the newest. Test: `top::tests::stored_events_fit_into_the_table`.
pub const TOP_STORED: usize = 20_000;

/// How long the end of a run waits for the reader of stdout. Test: `loss::signal_ends_watch_although_nobody_reads` of the
/// end-to-end tests.
pub const STDOUT_WAIT: Duration = Duration::from_secs(2);

/// Items that wait to be written to the store: some 400 bytes each, more than a second of the highest rate. More than
/// there are UDP flows, all of which end at once if their sockets are closed together. Test:
/// `record::failures::full_disk_is_reported_and_recording_resumes` of the end-to-end tests.
pub const STORE_ITEMS: usize = 98_304;

/// Processes of which `--processes once` remembers that they were printed. When there are more, all are printed again.
/// Test: `output::json::tests::processes_are_printed_again_after_the_limit`.
pub const MOST_PRINTED: usize = 65_536;

/// Flows with both endpoints on this host of which conn.log has a line already, and of which the other endpoint is still
/// open or hidden by the filter. When there are more, the oldest is forgotten, and may get a second line. Test:
/// `output::formats::tests::zeek::a_flow_within_the_host_is_one_line`.
pub const MOST_HALVES: usize = 4096;

/// Events of listeners that wait for `audit --watch`. Test:
/// `bus::tests::missed_items_are_reported_in_order_once_half_of_the_queue_is_free`.
pub const AUDIT_ITEMS: usize = 65_536;

/// New listeners that wait to be judged by `audit --watch`. Judging one takes some ten milliseconds. Test:
/// `commands::audit::beside::tests::listeners_beyond_the_limit_wait_for_the_next_pass`.
pub const AUDIT_LISTENERS: usize = 1024;

/// How long the end of `audit --watch` waits for a running pass, and for listeners to be judged: a portmapper and a disk
/// may take some seconds. Test: `commands::audit::beside::tests::end_does_not_wait_longer_than_the_limit`.
pub const AUDIT_WAIT: Duration = Duration::from_secs(10);

/// A file of `/proc/net`, bytes: some seven million sockets, of 150 bytes each. Test:
/// `bounded::tests::text_over_the_limit_is_an_error`.
pub const NET_FILE: usize = 1 << 30;

/// Names of users that came too late and that are kept for the next caller. Test:
/// `blocking::client::tests::late_names_are_limited`.
pub const MOST_LATE_NAMES: usize = 4096;

/// File systems, directories and name services of which it is remembered how long they were waited for. When there are
/// more, those that have rested are forgotten, and then all. Test:
/// `blocking::accounts::tests::remembered_subjects_are_limited`.
pub const MOST_SUBJECTS: usize = 1024;

/// Steps of a trace, which bounds chains of processes that connect to each other. Test:
/// `forensics::tests::an_endless_chain_ends`.
pub const MOST_STEPS: usize = 512;

/// Network namespaces whose portmapper is queried; each takes a thread. Test:
/// `inventory::registered::tests::portmappers_beyond_the_limit_are_not_queried`.
pub const MOST_PORTMAPPERS: usize = 64;

/// How long a portmapper may take to answer. Test: `inventory::portmap::tests::the_time_is_for_the_whole_exchange`.
pub const PORTMAP_WAIT: Duration = Duration::from_secs(2);

/// An answer of a portmapper, bytes, including fragment headers. A mapping has 20. Test:
/// `inventory::portmap::tests::endless_answer_is_cut_off`.
pub const PORTMAP_BYTES: usize = 1 << 20;

/// Registrations in an answer of a portmapper; a host with NFS has some sixty. Test:
/// `inventory::portmap::tests::endless_answer_is_cut_off`.
pub const PORTMAP_ENTRIES: usize = 4096;

/// A list of the files of a package in dpkg's database, bytes. The longest ones in Debian (kernel sources, icons) are below
/// 10 MiB. Test: `inventory::packages::tests::dpkg_damage_is_reported_and_the_rest_is_read`.
pub const DPKG_LIST: u64 = 32 << 20;

/// All lists of one dpkg database, bytes; a package has 10 KiB. Test:
/// `inventory::packages::dpkg::tests::lists_are_read_up_to_the_limit`.
pub const DPKG_LISTS: usize = 256 << 20;

/// Names in the directory of those lists; a package has about five. Test:
/// `inventory::packages::tests::folder_is_listed_up_to_the_limit`.
pub const DPKG_NAMES: usize = 1 << 17;

/// Unreadable lists that are named; the others are counted. Test:
/// `inventory::packages::tests::dpkg_damage_is_reported_and_the_rest_is_read`.
pub const DPKG_NAMED: usize = 8;

/// `status` and `diversions` of dpkg, bytes; a thousand packages have 1 MiB. Test:
/// `inventory::packages::tests::dpkg_status_over_the_limit_is_reported`.
pub const DPKG_STATUS: u64 = 128 << 20;

/// The rpm database of the host, bytes: about 10,000 packages of 100 KiB. Test:
/// `inventory::packages::rpm::tests::database_over_the_limit_is_not_read`.
pub const RPM_DATABASE: u64 = 1 << 30;

/// The rpm database of a container, bytes. Its content is not trusted, so it must not use much memory. Test:
/// `inventory::packages::tests::rpm_damage_is_reported`.
pub const RPM_FOREIGN_DATABASE: u64 = 192 << 20;

/// A header in an rpm database, bytes. The limit of rpm is 256 MiB (lib/header.c); the largest in Fedora have a few MiB.
/// Test: `inventory::packages::rpm::tests::header_over_the_limit_is_not_read`.
pub const RPM_HEADER: i32 = 64 << 20;

/// Packages that have a file with the same name. `README` is in thousands, an executable in a few. Test:
/// `inventory::packages::rpm::tests::packages_with_one_name_are_limited`.
pub const RPM_PACKAGES: u32 = 4096;

/// How long all queries of an rpm database may take. With an index they take a millisecond; a forged database may have
/// none. Test: `inventory::packages::rpm::tests::queries_have_a_time_limit`.
pub const RPM_WAIT: Duration = Duration::from_secs(2);

/// A unit file of systemd, bytes. Test: `bounded::tests::text_over_the_limit_is_an_error`.
pub const UNIT_FILE: usize = 1 << 20;

/// Interfaces of a network namespace that are listed; hosts with many containers have thousands. Test:
/// `snapshot::links::tests::interfaces_are_listed_up_to_the_limit`.
pub const MOST_LINKS: usize = 65_536;

/// Network namespaces of which the names of interfaces are remembered. Test:
/// `enrich::devices::tests::namespaces_are_remembered_up_to_the_limit`.
pub const MOST_DEVICE_NETNS: usize = 1024;

/// How long a name of an interface is used before it is read again. Test:
/// `enrich::devices::tests::names_are_read_once_and_again_when_they_are_old`.
pub const DEVICE_AGE: Duration = Duration::from_secs(10);

/// The same of an index without a name: an interface that came since, or another network namespace with the number. Test:
/// `enrich::devices::tests::names_are_read_once_and_again_when_they_are_old`.
pub const NO_DEVICE_AGE: Duration = Duration::from_millis(20);

/// WireGuard devices of a network namespace that are asked for their port, and ports of a kind of tunnel. Test:
/// `snapshot::tunnels::tests::tunnels_are_read_up_to_the_limit`.
pub const MOST_TUNNELS: usize = 4096;

/// Drop-ins of a unit that are read. Test: `inventory::units::tests::drop_ins_count_in_their_order`.
pub const DROP_INS: usize = 256;
