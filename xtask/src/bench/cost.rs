//! What a process costs: processor time, memory, and the kernel's time in its BPF programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Clock ticks of `/proc` in a second: `USER_HZ`.
const TICKS: f64 = 100.0;

/// Processor time so far, of all its threads.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has exited")?;
    // The name, in parentheses, may contain any character.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime are the 14th and 15th of proc_pid_stat(5), the name being the second.
    Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS))
}

/// Current and maximum resident memory, in MiB.
pub(crate) fn memory(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has exited")?;
    Ok((mebibytes(&status, "VmRSS:").unwrap_or(0.0), mebibytes(&status, "VmHWM:").unwrap_or(0.0)))
}

/// Value of the line that begins with `key`, in KiB.
fn mebibytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// Resident memory in MiB, with a page that is mapped several times counted once (proportional set size): the ring is
/// mapped twice.
pub(crate) fn pages(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process has exited")?;
    mebibytes(&rollup, "Pss:").context("there is no Pss in smaps_rollup")
}

/// While this value exists, the kernel measures the run time of BPF programs.
pub(crate) struct Counting {
    before: String,
}

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    pub(crate) fn begin() -> Result<Self> {
        let before = fs::read_to_string(STATS).with_context(|| format!("cannot read {STATS}"))?;
        fs::write(STATS, "1").with_context(|| format!("cannot set {STATS}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Measuring itself has a cost.
        let _ = fs::write(STATS, &self.before);
    }
}

/// Run time of the BPF programs of a process so far, in nanoseconds, and number of runs. Each program counts once,
/// however many descriptors refer to it.
pub(crate) fn programs(pid: u32) -> Result<(u64, u64)> {
    let mut seen = std::collections::BTreeMap::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(Path::new(&directory)).context("the process has exited")? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        // A link has the id of its program, but no times.
        if let (Some(id), Some(time)) = (value("prog_id:"), value("run_time_ns:")) {
            seen.insert(id, (time, value("run_cnt:").unwrap_or(0)));
        }
    }
    Ok(seen.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
}
