//! `netwatch doctor`: reports which probe does each job on this kernel, what is not seen, and limits, and tests the
//! probes with a connection of its own.

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use netwatch_common::SOCKET_FLOWS_MAX;

use crate::agent::{Agent, SelfTest};
use crate::conntrack;
use crate::engine::report_missing;
use crate::kernel::{Coverage, DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
use crate::limits;
use crate::output::doctor::{Limit, Report, SelfTestView};
use crate::rights;
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
    report_missing("doctor")?;
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
    let coverage = agent.coverage().clone();
    drop(agent);
    let nat = conntrack::check().err();
    let given = rights::give_up(&rights::PRINTING, &rights::names(), None);
    let report = Report::new(&kernel, &coverage, limits(&coverage), self_test, &given).with_nat(nat.as_ref());
    let mut out = BufWriter::new(out);
    if options.json {
        report.write_json(&mut out)?;
    } else {
        report.write_text(&mut out)?;
    }
    out.flush()?;
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The limits of `watch` and `record` with default options that a busy or attacked host reaches first. Those of UDP
/// only if it is observed.
fn limits(coverage: &Coverage) -> Vec<Limit> {
    let limit = |what, value: String, at_limit| Limit { what, value, at_limit };
    let udp = [
        limit(
            "UDP flows (--udp-flows)",
            DEFAULT_UDP_FLOWS.to_string(),
            "datagrams of others are counted (loss, reason limit)",
        ),
        limit(
            "UDP flows of one socket",
            SOCKET_FLOWS_MAX.to_string(),
            "datagrams of others are counted (loss, reason limit)",
        ),
    ];
    let mut limits = vec![limit(
        "ring (--ring)",
        format!("{} MiB", limits::RING_BYTES >> 20),
        "records are lost and counted (loss, reason ring), and a snapshot repairs the tables",
    )];
    limits.extend(udp.into_iter().filter(|_| coverage.has("udp")));
    limits.extend([
        limit(
            "arguments of a process",
            format!("{} KiB, {} arguments", limits::ARGS_BYTES >> 10, limits::ARGS_COUNT),
            "those in the middle are left out (args_truncated)",
        ),
        limit(
            "wait for a file system or name service",
            format!("{} ms", limits::LIVE_WAIT.as_millis()),
            "exe_state is unknown, user is null",
        ),
        limit(
            "events that wait for stdout",
            limits::STDOUT_ITEMS.to_string(),
            "further ones are dropped and counted (loss, reason stdout)",
        ),
        limit(
            "events that wait for the store",
            limits::STORE_ITEMS.to_string(),
            "further ones are dropped and counted (loss, reason store)",
        ),
        limit(
            "lines that wait for stderr",
            limits::STDERR_LINES.to_string(),
            "further ones are dropped and counted on stderr",
        ),
    ]);
    limits
}
