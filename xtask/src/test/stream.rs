//! Shows a test program's output as it comes, and counts in it.

use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::exec::step;
use crate::summary::Summary;

/// Large enough for a burst of test lines, and nothing waits for it to fill.
const CHUNK: usize = 8192;

/// Runs tests into the summary; whatever goes wrong around them is a failure in it too.
pub(super) fn run(command: &mut Command, summary: &mut Summary) {
    run_into(&mut io::stdout(), command, summary);
}

fn run_into(stdout: &mut impl Write, command: &mut Command, summary: &mut Summary) {
    let failures = summary.failures();
    match show(stdout, command, summary) {
        Ok(true) => {}
        // A program that crashed, or did not compile, has printed no result that says so.
        Ok(false) if summary.failures() == failures => summary.failed(),
        Ok(false) => {}
        Err(error) => {
            step(&format!("{error:#}"));
            summary.failed();
        }
    }
}

/// Copies chunks rather than lines, so that the name of a running test is seen before its result.
fn show(stdout: &mut impl Write, command: &mut Command, summary: &mut Summary) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the tests")?;
    let mut output = child.stdout.take().context("the tests have no stdout")?;
    let mut chunk = [0; CHUNK];
    let mut line = Vec::new();
    loop {
        let length = output.read(&mut chunk).context("cannot read from the tests")?;
        let bytes = chunk.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to stdout")?;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                summary.line(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    summary.line(&String::from_utf8_lossy(&line));
    Ok(child.wait().context("cannot wait for the tests")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(script: &str) -> String {
        let mut summary = Summary::default();
        // Not on stdout, where an outer run would count these lines as its own.
        run_into(&mut io::sink(), Command::new("sh").args(["-c", script]), &mut summary);
        summary.to_string()
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_a_failure() {
        assert_eq!(summary_of("kill -9 $$"), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_failure_that_was_counted_is_not_counted_again() {
        let script = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured'; exit 101";
        assert_eq!(summary_of(script), "1 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        assert_eq!(
            summary_of("printf 'test result: ok. 3 passed; 0 failed; 0 ignored'"),
            "3 passed, 0 failed, 0 skipped"
        );
    }
}
