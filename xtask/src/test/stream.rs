//! Prints the output of a program, saves it in a file, and counts the test results in it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anstream::StripStream;
use anyhow::{Context as _, Result, bail};

use crate::exec::step;
use crate::output::Output;
use crate::summary::Summary;

/// Size of the buffer: enough for a burst of test lines. Reads return before it is full.
const CHUNK: usize = 8192;

/// Runs tests and adds the results to the summary; an error of the program is a failure too. `what`: their name in the
/// summary; `name`: the name of the file.
pub(super) fn run(command: &mut Command, summary: &mut Summary, what: &str, output: &Output, name: &str) {
    run_into(&mut io::stdout(), command, summary, what, output, name);
}

fn run_into(
    stdout: &mut impl Write,
    command: &mut Command,
    summary: &mut Summary,
    what: &str,
    output: &Output,
    name: &str,
) {
    let failures = summary.failures();
    let mut line = Vec::new();
    let shown = output.create(name).and_then(|(file, path)| {
        summary.output_in(&path);
        let success = tee(command, file, |bytes| {
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to stdout")?;
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    summary.line(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
            Ok(())
        })?;
        summary.line(&String::from_utf8_lossy(&line));
        Ok(success)
    });
    match shown {
        Ok(true) => {}
        // A program that crashed or did not compile has printed no result.
        Ok(false) if summary.failures() == failures => {
            summary.failed(&format!("{what}: ended without a result"));
        }
        Ok(false) => {}
        Err(error) => {
            step(&format!("{error:#}"));
            summary.failed(what);
        }
    }
}

/// Runs a check, with all its output on stderr.
pub(super) fn check(command: &mut Command, output: &Output, name: &str) -> Result<()> {
    let (file, _) = output.create(name)?;
    let to_stderr = |bytes: &[u8]| io::stderr().write_all(bytes).context("cannot write to stderr");
    if !tee(command, file, to_stderr)? {
        bail!("it failed");
    }
    Ok(())
}

/// Passes the stdout of a program to `each` and its stderr to stderr; both are saved in the file, without colours.
/// Returns whether it succeeded.
///
/// In chunks rather than lines, so that the name of a running test is seen before its result.
fn tee(command: &mut Command, file: File, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
    if io::stderr().is_terminal() {
        // Cargo cannot detect a terminal, since its stderr is a pipe.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut stdout = child.stdout.take().context("it has no stdout")?;
    let mut stderr = child.stderr.take().context("it has no stderr")?;
    let kept = Mutex::new(StripStream::new(file));
    let keep = |bytes: &[u8]| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.write_all(bytes).context("cannot keep the output")
    };
    std::thread::scope(|scope| {
        let complaints = scope.spawn(|| {
            copy(&mut stderr, |bytes| {
                keep(bytes)?;
                io::stderr().write_all(bytes).context("cannot write to stderr")
            })
        });
        copy(&mut stdout, |bytes| {
            keep(bytes)?;
            each(bytes)
        })?;
        complaints.join().unwrap_or_else(|_| bail!("the reader of stderr panicked"))
    })?;
    Ok(child.wait().context("cannot wait for it")?.success())
}

fn copy(from: &mut impl Read, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        let length = from.read(&mut chunk).context("cannot read its output")?;
        let bytes = chunk.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        each(bytes)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The summary, what failed by name, and the file.
    fn of(script: &str) -> (String, String, String) {
        let place = tempfile::tempdir().unwrap();
        let output = Output::at(place.path().join("output")).unwrap();
        let mut summary = Summary::default();
        // Not on stdout, where an outer run would count these lines as its own.
        let mut command = Command::new("sh");
        run_into(&mut io::sink(), command.args(["-c", script]), &mut summary, "tests", &output, "name");
        let names = summary.names().collect::<Vec<_>>().join(" ");
        (summary.to_string(), names, std::fs::read_to_string(output.file("name")).unwrap())
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_a_failure() {
        let (summary, names, _) = of("kill -9 $$");
        assert_eq!(summary, "0 passed, 1 failed, 0 skipped");
        assert_eq!(names, "tests: ended without a result");
    }

    #[test]
    fn a_failure_that_was_counted_is_not_counted_again() {
        let script = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured'; exit 101";
        assert_eq!(of(script).0, "1 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        assert_eq!(
            of("printf 'test result: ok. 3 passed; 0 failed; 0 ignored'").0,
            "3 passed, 0 failed, 0 skipped"
        );
    }

    #[test]
    fn the_file_has_all_that_was_printed_without_colours() {
        let (_, _, file) = of("printf 'one\\n'; printf '\\033[1mtwo\\033[0m\\n' >&2");
        let mut lines: Vec<_> = file.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_check_that_fails_is_an_error_and_its_output_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let output = Output::at(place.path().join("output")).unwrap();
        check(Command::new("sh").args(["-c", "exit 0"]), &output, "good").unwrap();
        check(Command::new("sh").args(["-c", "echo bad; exit 3"]), &output, "bad").unwrap_err();
        assert_eq!(std::fs::read_to_string(output.file("bad")).unwrap(), "bad\n");
    }
}
