//! `netwatch doctor`: which probe does each job on this kernel, what is therefore not seen, and a
//! connection to prove it.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, SelfTest};
use crate::kernel::{DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
use crate::output::doctor::{Report, SelfTestView};
use crate::tracker::IDLE;

/// How to print.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// One object in place of text.
    pub json: bool,
    /// Jobs that are to be done in one way and no other.
    pub forced: Vec<Forced>,
    /// Something to do wrong.
    pub sabotage: Option<Sabotage>,
}

/// The self-test needs no more than this.
const RING_BYTES: u32 = 1 << 20;

/// Attaches, tests and prints. The exit status is a failure's where the self-test did not come through.
///
/// # Errors
/// Where the probes cannot be had, and where `out` fails.
pub fn run(options: &DoctorOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let (agent, started) = Agent::start(&Options {
        ring_bytes: RING_BYTES,
        all_states: false,
        udp_flows: DEFAULT_UDP_FLOWS,
        udp_idle: Duration::from_nanos(IDLE),
        forced: options.forced.clone(),
        sabotage: options.sabotage,
    })?;
    let uname = nix::sys::utsname::uname().context("cannot ask for the kernel's version")?;
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
