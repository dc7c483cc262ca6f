//! Whether the kernel may stop a task in the middle of a program of ours: only then does it leave out the same program
//! of another task (`netwatch-ebpf/src/twice.rs`).

use std::fs;

use nix::sys::utsname::uname;

use super::mounts;

/// What can be chosen while the kernel runs, with the one that holds in brackets (`kernel/sched/debug.c`,
/// sched_dynamic_show).
const MODES: &str = "/sys/kernel/debug/sched/preempt";

/// A mode that is chosen later is not seen: what is left out then counts as lost, and is told.
pub(super) fn stops_tasks() -> bool {
    let Ok(uname) = uname() else { return true };
    let modes = || {
        let read = || fs::read_to_string(MODES).map_err(|error| format!("{MODES}: {error}"));
        mounts::with_debugfs(read).inspect_err(|error| log::info!("{error}")).ok()
    };
    may_stop(&uname.version().to_string_lossy(), modes)
}

/// By how the kernel was built (`init/Makefile`, preempt-flag) and, where that leaves a choice, by the mode.
fn may_stop(version: &str, modes: impl FnOnce() -> Option<String>) -> bool {
    let Some(built) = version.split_whitespace().find(|word| word.starts_with("PREEMPT")) else {
        return false;
    };
    let chosen = (built == "PREEMPT_DYNAMIC").then(modes).flatten();
    let mode = chosen.as_deref().and_then(|modes| modes.split_once('(')?.1.split_once(')'));
    !matches!(mode, Some(("none" | "voluntary", _)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_how_the_kernel_was_built_and_by_its_mode() {
        let unasked = || unreachable!("nothing can be chosen");
        assert!(!may_stop("#1 SMP Debian 5.10.259-1 (2026-07-01)", unasked));
        assert!(may_stop("#1 SMP PREEMPT Debian 5.10.259-1", unasked));
        assert!(may_stop("#1 SMP PREEMPT_RT Debian 6.12.1-1", unasked));
        let told = |modes: Option<&str>| {
            may_stop("#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1", || modes.map(str::to_owned))
        };
        assert!(!told(Some("none (voluntary) full\n")));
        assert!(!told(Some("(none) voluntary full lazy\n")));
        assert!(told(Some("none voluntary (full)\n")));
        assert!(told(Some("full (lazy)\n")));
        assert!(told(Some("(none")));
        assert!(told(None));
    }
}
