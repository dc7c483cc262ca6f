//! Whether the kernel may preempt a task while it runs a BPF program. Only then may it skip a run of the same program
//! in another task (`netwatch-ebpf/src/twice.rs`).

use std::fs;

use nix::sys::utsname::uname;

use super::mounts;

/// Preemption modes, with the current one in parentheses (kernel/sched/debug.c, sched_dynamic_show(), v6.12).
const MODES: &str = "/sys/kernel/debug/sched/preempt";

/// A later change of the mode is not noticed; skipped runs are then counted as lost.
pub(super) fn stops_tasks() -> bool {
    let Ok(uname) = uname() else { return true };
    let modes = || {
        let read = || fs::read_to_string(MODES).map_err(|error| format!("{MODES}: {error}"));
        mounts::with_debugfs(read).inspect_err(|error| log::info!("{error}")).ok()
    };
    may_stop(&uname.version().to_string_lossy(), modes)
}

/// By the build flags in the version (init/Makefile, preempt-flag-y, v6.12) and, if preemption is dynamic, by the mode.
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
    fn preemption_follows_from_the_build_and_the_mode() {
        let unasked = || unreachable!("the mode cannot be changed");
        assert!(!may_stop("#1 SMP Debian 5.10.259-1 (2026-07-01)", unasked));
        assert!(may_stop("#1 SMP PREEMPT Debian 5.10.259-1", unasked));
        assert!(may_stop("#1 SMP PREEMPT_RT Debian 6.12.1-1", unasked));
        let dynamic = |modes: Option<&str>| {
            may_stop("#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1", || modes.map(str::to_owned))
        };
        assert!(!dynamic(Some("none (voluntary) full\n")));
        assert!(!dynamic(Some("(none) voluntary full lazy\n")));
        assert!(dynamic(Some("none voluntary (full)\n")));
        assert!(dynamic(Some("full (lazy)\n")));
        assert!(dynamic(Some("(none")));
        assert!(dynamic(None));
    }
}
