//! The pager for output that may be longer than the terminal.

use std::io::{self, IsTerminal as _, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// Where output goes: to a pager, or else to stdout.
pub(super) struct Pager(Option<Child>);

impl Pager {
    /// Starts the pager if stdout is a terminal: `$PAGER`, else `less` if it is installed. An empty `$PAGER` means none.
    pub(super) fn start() -> Self {
        Self(start())
    }

    /// Prints to the pager and waits until its user has left it, or prints to `out` if there is none.
    ///
    /// # Errors
    /// If `print` fails, or the pager cannot be waited for.
    pub(super) fn show(
        self,
        out: &mut dyn Write,
        print: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let Some(mut pager) = self.0 else { return print(out) };
        let printed = match pager.stdin.take() {
            Some(mut stdin) => print(&mut stdin),
            None => Ok(()),
        };
        pager.wait().context("cannot wait for the pager")?;
        printed
    }
}

fn start() -> Option<Child> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let mut command = match std::env::var_os("PAGER") {
        Some(pager) if pager.is_empty() => return None,
        Some(pager) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(pager);
            shell
        }
        None => {
            let mut less = Command::new("less");
            // Pass colours through, and do not page output that fits on one screen.
            less.arg("-RFX");
            less
        }
    };
    command.stdin(Stdio::piped());
    command.spawn().ok()
}
