//! `netwatch doctor`: reports which probe does each job on this kernel and what is not seen, and tests the probes with
//! a connection of its own.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, SelfTest};
use crate::kernel::{DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
use crate::output::doctor::{Report, SelfTestView};
use crate::tracker::IDLE;

/// Options of `doctor`.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// Print one JSON object.
    pub json: bool,
    /// Jobs for which the user chose the rung.
    pub forced: Vec<Forced>,
    /// A fault to introduce (test equipment).
    pub sabotage: Option<Sabotage>,
}

/// Size of the ring in bytes; enough for the self-test.
const RING_BYTES: u32 = 1 << 20;

/// Attaches the probes, runs the self-test and prints the report. The exit status is 1 if the self-test did not pass.
///
/// # Errors
/// If the probes cannot be loaded or attached, or `out` fails.
pub fn run(options: &DoctorOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let (agent, started) = Agent::start(&Options {
        ring_bytes: RING_BYTES,
        all_states: false,
        udp_flows: DEFAULT_UDP_FLOWS,
        udp_idle: Duration::from_nanos(IDLE),
        forced: options.forced.clone(),
        sabotage: options.sabotage,
    })?;
    let uname = nix::sys::utsname::uname().context("cannot read the kernel version")?;
    let kernel = uname.release().to_string_lossy();
    let self_test = match &started.self_test {
        SelfTest::Passed(came) => SelfTestView { ok: true, came, ..SelfTestView::default() },
        SelfTest::Missing(missing) => SelfTestView { missing, ..SelfTestView::default() },
        SelfTest::Misread(misread) => SelfTestView { misread, ..SelfTestView::default() },
        SelfTest::NotDone(why) => SelfTestView { not_done: Some(why), ..SelfTestView::default() },
    };
    let is_ok = self_test.ok;
    let report = Report::new(&kernel, agent.coverage(), self_test);
    let mut out = BufWriter::new(out);
    if options.json {
        report.write_json(&mut out)?;
    } else {
        report.write_text(&mut out)?;
    }
    out.flush()?;
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
