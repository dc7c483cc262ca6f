//! Starts other programs: with or without their output, or as root.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

/// Prints the current step to stderr.
pub(crate) fn step(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs a tool. Its output is printed only if the tool fails or `--verbose` was given.
pub(crate) fn quietly(command: &mut Command, verbose: bool) -> Result<()> {
    if verbose {
        return loudly(command);
    }
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if output.status.success() {
        return Ok(());
    }
    let mut stderr = io::stderr().lock();
    stderr.write_all(&output.stdout)?;
    stderr.write_all(&output.stderr)?;
    bail!("{} failed ({})", shown(command), output.status)
}

/// Runs a tool with its output on stderr, its stdout included.
pub(crate) fn loudly(command: &mut Command) -> Result<()> {
    let stderr = io::stderr().as_fd().try_clone_to_owned().context("cannot copy stderr")?;
    let status =
        command.stdout(stderr).status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// The stdout of a tool, if it can be started and succeeds. Its stderr is discarded.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a tool can be started and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    answer(command).is_some()
}

/// The path of a program in `PATH`, or in the folders of root's programs and of cargo's, which may not be in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let elsewhere = [crate::cargo::home().join("bin"), "/usr/sbin".into(), "/sbin".into()];
    which::which(program)
        .ok()
        .or_else(|| elsewhere.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file()))
}

/// A command that runs as root, by sudo unless this process is root.
///
/// The variables are set by `env`, since sudo drops those of its caller.
pub(crate) fn as_root(program: impl AsRef<OsStr>, variables: &[(&str, &OsStr)]) -> Result<Command> {
    let mut command = if geteuid().is_root() {
        Command::new("env")
    } else if let Some(sudo) = find("sudo") {
        let mut command = Command::new(sudo);
        command.arg("env");
        command
    } else {
        bail!(
            "{} has to run as root, and there is no sudo: run this as root, or install sudo",
            program.as_ref().display()
        );
    };
    for (name, value) in variables {
        let mut assignment = OsStr::new(name).to_owned();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// Makes sure that [`as_root`] will work, before anything is built for it: sudo asks for its password now, or there is
/// nobody to ask.
pub(crate) fn ensure_root() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let Some(sudo) = find("sudo") else {
        bail!("netwatch has to run as root, and there is no sudo: run this as root, or install sudo");
    };
    if succeeds(Command::new(&sudo).args(["--non-interactive", "true"])) {
        return Ok(());
    }
    if fs::File::open("/dev/tty").is_err() {
        bail!(
            "netwatch has to run as root, and sudo wants a password where there is no terminal: run this as root or in \
             a terminal"
        );
    }
    loudly(Command::new(sudo).arg("--validate")).context("netwatch has to run as root")
}

/// The command line as text for a shell.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_and_its_status() {
        let error = quietly(Command::new("sh").args(["-c", "exit 3"]), false).unwrap_err();
        assert_eq!(error.to_string(), "sh -c exit 3 failed (exit status: 3)");
    }

    #[test]
    fn answer_is_stdout_without_the_line_end_and_none_on_failure() {
        assert_eq!(answer(Command::new("sh").args(["-c", "echo yes; echo no >&2"])).as_deref(), Some("yes"));
        assert_eq!(answer(Command::new("sh").args(["-c", "echo yes; exit 1"])), None);
        assert_eq!(answer(&mut Command::new("/nonexistent")), None);
    }
}
