//! One snapshot of many sockets, with their owners.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::crowd::{Crowd, apart};
use super::peers::peer;
use super::table::{Goal, Table, median};

/// Sockets, both endpoints of each connection counted.
const SIZES: [usize; 3] = [1_000, 10_000, 96_000];

/// Goals: how much faster than which peer.
const GOALS: [(&str, &[&str], f64); 2] = [("netstat", &["-natp"], 20.0), ("ss", &["-tanp"], 30.0)];

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    for sockets in SIZES {
        let is_last = SIZES.last() == Some(&sockets);
        apart(|| {
            let _crowd = Crowd::of(sockets / 2, bench.verbose)?;
            let mut own = Vec::new();
            let mut by_proc = Vec::new();
            let mut others: Vec<Vec<f64>> = GOALS.iter().map(|_| Vec::new()).collect();
            for _ in 0..bench.rounds {
                own.push(milliseconds(&bench.netwatch, &["list", "-tanp"])?);
                by_proc.push(milliseconds(&bench.netwatch, &["list", "-tanp", "--source", "proc"])?);
                for ((program, arguments, _), times) in GOALS.iter().zip(&mut others) {
                    if let Some(path) = peer(program).filter(|_| bench.peers) {
                        times.push(milliseconds(&path, arguments)?);
                    }
                }
            }
            let own = median(own);
            table.figure(format!("list -tanp, {sockets} sockets"), own, "ms");
            table.figure(
                format!("the same by /proc and sock_diag, {sockets} sockets"),
                median(by_proc),
                "ms",
            );
            for ((program, arguments, goal), times) in GOALS.iter().zip(others) {
                let what = format!("{program} {}, {sockets} sockets", arguments.join(" "));
                if times.is_empty() {
                    table.skipped(what, "it is not installed");
                    continue;
                }
                let theirs = median(times);
                table.figure(&what, theirs, "ms");
                let faster = format!("list is faster than {program}, {sockets} sockets");
                if is_last {
                    table.goal(faster, theirs / own, "times", Goal::AtLeast(*goal));
                } else {
                    table.figure(faster, theirs / own, "times");
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn milliseconds(program: &Path, arguments: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    let mut command = Command::new(program);
    let status =
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{} failed ({status})", program.display());
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
