//! `netwatch doctor`: which probe does each job on this kernel, what is therefore not seen, and a
//! connection to prove it.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::agent::{Agent, SelfTest};
use crate::kernel::{Covered, DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
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

#[derive(Serialize)]
struct Report<'a> {
    kind: &'static str,
    kernel: &'a str,
    jobs: Vec<JobView<'a>>,
    unseen: Vec<&'static str>,
    self_test: SelfTestView<'a>,
}

#[derive(Serialize)]
struct JobView<'a> {
    job: &'a str,
    #[serde(flatten)]
    covered: &'a Covered,
}

#[derive(Default, Serialize)]
struct SelfTestView<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    came: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    misread: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    not_done: Option<&'a str>,
}

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
    let report = Report {
        kind: "doctor",
        kernel: &kernel,
        jobs: agent.coverage().jobs.iter().map(|(job, covered)| JobView { job, covered }).collect(),
        unseen: agent.coverage().unseen(),
        self_test,
    };
    let mut out = BufWriter::new(out);
    if options.json {
        serde_json::to_writer(&mut out, &report)?;
        out.write_all(b"\n")?;
    } else {
        text(&report, &mut out)?;
    }
    out.flush()?;
    Ok(if report.self_test.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report<'_>, out: &mut impl Write) -> Result<()> {
    writeln!(out, "kernel      {}", report.kernel)?;
    for JobView { job, covered } in &report.jobs {
        let rung = covered.rung.map(|rung| format!("{rung}: ")).unwrap_or_default();
        writeln!(out, "{job:<11} {rung}{}", covered.probe.unwrap_or("no probe can be had"))?;
        for refused in &covered.refused {
            writeln!(out, "            refused: {}: {}", refused.probe, refused.reason)?;
        }
    }
    for (i, unseen) in report.unseen.iter().enumerate() {
        writeln!(out, "{:<11} {unseen}", if i == 0 { "not seen" } else { "" })?;
    }
    let test = &report.self_test;
    let result = match (test.ok, test.not_done) {
        (true, _) => {
            format!("passed: a connection of netwatch's own came through ({})", test.came.join(", "))
        }
        (false, Some(why)) => format!("not done, the connection could not be made (is loopback up?): {why}"),
        (false, None) if !test.misread.is_empty() => {
            format!("FAILED: the kernel side reads what is not there: {}", test.misread.join(", "))
        }
        (false, None) => format!("FAILED: no record came of: {}", test.missing.join(", ")),
    };
    writeln!(out, "{:<11} {result}", "self-test")?;
    Ok(())
}
