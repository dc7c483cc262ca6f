//! Limits of rules: what raises their alerts is under the control of whoever uses the network.

use std::time::Duration;

/// Items that wait for rules: some 400 bytes each, several seconds of a busy host. Test:
/// `rules::thread::tests::rules_that_are_too_slow_lose_and_hold_up_nothing`.
pub const RULE_ITEMS: usize = 65_536;

/// Endpoints that rules remember, and the walk back with them: some 4 KiB each with their events. Test:
/// `rules::memory::tests::endpoints_are_limited`.
pub const RULE_ENDPOINTS: usize = 8192;

/// Pairs of a rule and a key that are held back. When there are more, what was held back is emitted, and all are forgotten.
/// Test: `rules::suppress::tests::windows_are_limited_and_none_is_silent`.
pub const RULE_WINDOWS: usize = 8192;

/// Shells on sockets that were told of; the oldest are forgotten, and may be told of again. Test:
/// `rules::detect::tests::state_is_limited`.
pub const RULE_PROCESSES: usize = 8192;

/// Remote addresses of which a port scan remembers what they tried. When there are more, those that have rested for a minute
/// are forgotten, and then all. Test: `rules::detect::tests::state_is_limited`.
pub const RULE_REMOTES: usize = 8192;

/// Shells that may be steered over pipes and are looked at; of more, the oldest are not. Test:
/// `rules::detect::tests::state_is_limited`.
pub const RULE_SHELLS: usize = 256;

/// Walks back in a second; each reads the memory of the rules several times. Further alerts have no `trace`. Test:
/// `rules::detect::tests::walks_are_limited`.
pub const RULE_WALKS: u32 = 20;

/// Losses that rules remember, to say so in the walk back. Test: `rules::detect::tests::walks_are_limited`.
pub const RULE_GAPS: usize = 1024;

/// How long the end of a run waits for rules. Test: `rules::thread::tests::end_waits_for_rules_until_the_limit`.
pub const RULE_WAIT: Duration = Duration::from_secs(2);

/// Entries of a baseline. When there are more, nothing new is told of. Test:
/// `rules::baseline::tests::number_and_length_of_entries_are_limited`.
pub const RULE_BASELINE_ENTRIES: usize = 65_536;

/// The length of one in bytes; a path has at most 4096. Test:
/// `rules::baseline::tests::number_and_length_of_entries_are_limited`.
pub const RULE_BASELINE_ENTRY: usize = 8192;

/// The file of a baseline, bytes. Test: `rules::baseline::tests::another_file_is_not_overwritten`.
pub const RULE_BASELINE_FILE: usize = 64 << 20;

/// Files of rules below one path: all of SigmaHQ has 4000. Test: `rules::sigma::tests::files_are_limited`.
pub const RULE_FILES: usize = 16_384;

/// A file of rules, bytes. Test: `rules::sigma::tests::files_are_limited`.
pub const RULE_FILE: usize = 1 << 20;

/// Groups of all correlations that are counted at once. When there are more, the oldest are forgotten. The crate does it:
/// `max_state_entries`. Test: `rules::sigma::tests::groups_of_a_correlation_are_limited`.
pub const RULE_GROUPS: usize = 8192;

/// Events of one group within its time. When there are more, the oldest are forgotten: `max_group_entries`. Test:
/// `rules::sigma::tests::groups_of_a_correlation_are_limited`.
pub const RULE_GROUP_ENTRIES: usize = 8192;

/// Entries of all match lists. Test: `rules::lists::tests::lists_are_limited`.
pub const LIST_ENTRIES: usize = 1_000_000;

/// The file of a match list, bytes. Test: `rules::lists::tests::lists_are_limited`.
pub const LIST_FILE: usize = 64 << 20;

/// Programs of a store on which `rules check` has tried rules. When there are more, all are tried again. Test:
/// `commands::check::tests::programs_are_tried_once`.
pub const RULE_PROGRAMS: usize = 1 << 20;

/// Alerts that wait for the program of `--alert-exec`. Test:
/// `alerts::exec::alerts_beyond_the_limit_are_counted` of the end-to-end tests.
pub const EXEC_ALERTS: usize = 64;

/// Programs of `--alert-exec` that run at once. Test:
/// `commands::alert_exec::tests::programs_that_hang_are_ended_and_few_run_at_once`.
pub const EXEC_AT_ONCE: usize = 4;

/// How long each may run. Test: `commands::alert_exec::tests::programs_that_hang_are_ended_and_few_run_at_once`.
pub const EXEC_TIME: Duration = Duration::from_secs(10);
