//! A guest: QEMU with a kernel and an initramfs. It reports over its second serial port.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::report::Report;
use super::rungs::Rung;
use super::table::Row;
use super::{emulator, fetch};
use crate::exec::step;

/// Time limit for the first report of a guest: seconds as a rule, up to a minute on a busy machine.
const BOOT: Duration = Duration::from_secs(90);

/// Time limit for all rungs of a guest.
const DEADLINE: Duration = Duration::from_secs(45 * 60);

/// The first serial port has the console, which is shown if a guest fails; the second has the report.
const MACHINE: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-machine",
    "q35",
    // With several threads of the emulator a kernel panicked occasionally, with one it never did.
    "-accel",
    "tcg,thread=single",
    // `max` took 30 s of processor time where this takes 28; rdrand because the kernel waits for randomness otherwise.
    "-cpu",
    "Nehalem,+rdrand",
    // As fast as one, and tests run on two CPUs.
    "-smp",
    "2",
    // /tmp and all files are in memory, and each netwatch has a ring of 16 MiB: with 1024 MiB one was killed by the OOM
    // killer.
    "-m",
    "2048",
];

/// From the second line on: mitigations are disabled, since they only take time. String instructions (clearcpuid) are
/// slow to emulate, and attaching waits for RCU: in total one second less of 25, in three pairs of runs side by side.
const CONSOLE: &str = "console=ttyS0 panic=-1 oops=panic reboot=t quiet tsc=reliable random.trust_cpu=on \
mitigations=off nokaslr init_on_alloc=0 randomize_kstack_offset=off apparmor=0 audit=0 \
clearcpuid=112 rcupdate.rcu_expedited=1";

/// Number of console lines that are shown if a guest fails.
const TAIL: usize = 20;

/// Boots a kernel and reads its report; a guest that never reported is tried once more.
///
/// Everything that it sends is written to `output`.
pub(super) fn run(
    image: &Path,
    initramfs: &Path,
    rungs: &[&Rung],
    output: &mut File,
    on_row: &dyn Fn(&Row),
) -> Result<Report> {
    let report = attempt(image, initramfs, rungs, output, on_row)?;
    if report.release.is_some() {
        return Ok(report);
    }
    step("a guest never reported; trying once more");
    attempt(image, initramfs, rungs, output, on_row)
}

fn attempt(
    image: &Path,
    initramfs: &Path,
    rungs: &[&Rung],
    output: &mut File,
    on_row: &dyn Fn(&Row),
) -> Result<Report> {
    let guest = Guest::start(image, initramfs)?;
    let mut report = Report::default();
    let why = loop {
        let limit = if report.release.is_some() { DEADLINE } else { BOOT };
        match guest.lines.recv_timeout(limit.saturating_sub(guest.begun.elapsed())) {
            Ok((at, line)) => {
                output.write_all(line.as_bytes()).context("cannot keep a guest's output")?;
                if let Some(row) = report.line(&line, at) {
                    on_row(row);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break format!("nothing more came within {} s", limit.as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => break "the guest ended".to_owned(),
        }
        if report.is_over {
            if let Some(why) = report.broken.clone() {
                report.give_up(rungs.iter().map(|rung| rung.name), &why).iter().for_each(on_row);
            }
            return Ok(report);
        }
    };
    show_tail(&guest.console, output)?;
    if report.release.is_some() {
        for row in report.give_up(rungs.iter().map(|rung| rung.name), &why) {
            on_row(row);
        }
    }
    Ok(report)
}

/// A running guest, killed when dropped.
struct Guest {
    child: Child,
    begun: Instant,
    lines: Receiver<(Duration, String)>,
    console: PathBuf,
}

impl Guest {
    fn start(image: &Path, initramfs: &Path) -> Result<Self> {
        let console = initramfs.with_extension("console");
        let mut command = emulator::command(&fetch::cache()?).context("there is no emulator")?;
        command.args(MACHINE).arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-serial", "stdio", "-append", CONSOLE]);
        command.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the emulator")?;
        let output = child.stdout.take().context("a guest has no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || read(output, |line| sender.send((begun.elapsed(), line)).is_ok()));
        Ok(Self { child, begun, lines, console })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // After a panic it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: impl Read, mut each: impl FnMut(String) -> bool) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if !each(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
        line.clear();
    }
}

/// Prints the end of the console output and saves all of it.
fn show_tail(console: &Path, output: &mut File) -> Result<()> {
    let text = fs::read(console).unwrap_or_default();
    output.write_all(&text).context("cannot keep a guest's output")?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    for line in lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default() {
        eprintln!("    {}", line.trim_end());
    }
    Ok(())
}
