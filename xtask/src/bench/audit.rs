//! An audit of many listeners: without a store, and with one that has their connections.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::crowd::{Crowd, apart};
use super::store::Recorder;
use super::table::{Goal, Table, median};

/// Issue 7: audited in under a second.
const LISTENERS: usize = 1_000;

/// Median of so many: there is no peer to take turns with.
const ROUNDS: usize = 5;

/// Exit status of an audit with findings. There are some here, since the listening program belongs to no package.
const FINDINGS: i32 = 3;

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    apart(|| {
        let place = tempfile::tempdir()?;
        let [store, none] = ["netwatch.db", "none.db"].map(|name| place.path().join(name));
        // An empty store, so that no round uses that of the machine.
        Recorder::start(&bench.netwatch, &none)?.finish()?;
        let recorder = Recorder::start(&bench.netwatch, &store)?;
        let _crowd = Crowd::listening(LISTENERS, bench.verbose)?;
        // Events in flight are written within the time of a batch.
        std::thread::sleep(Duration::from_secs(2));
        recorder.finish()?;
        for (what, store) in [("audit", &none), ("audit with a store", &store)] {
            let times = (0..ROUNDS).map(|_| milliseconds(&bench.netwatch, store)).collect::<Result<_>>()?;
            table.goal(format!("{what}, {LISTENERS} listeners"), median(times), "ms", Goal::AtMost(1000.0));
        }
        Ok(())
    })
}

/// Audits the whole host.
fn milliseconds(netwatch: &Path, store: &Path) -> Result<f64> {
    let mut command = Command::new(netwatch);
    command.args(["audit", "--store"]).arg(store).stdin(Stdio::null()).stderr(Stdio::inherit());
    let begun = Instant::now();
    let output = command.output().context("cannot start netwatch")?;
    let took = begun.elapsed();
    let status = output.status;
    if !matches!(status.code(), Some(0 | FINDINGS)) {
        bail!("netwatch audit failed ({status})");
    }
    // The output begins with the number of ports.
    let text = String::from_utf8_lossy(&output.stdout);
    let ports = text.split(' ').next().and_then(|count| count.parse::<usize>().ok());
    if ports.is_none_or(|ports| ports < LISTENERS) {
        bail!(
            "netwatch audit does not report {LISTENERS} listeners: {}",
            text.lines().next().unwrap_or_default()
        );
    }
    Ok(took.as_secs_f64() * 1000.0)
}
