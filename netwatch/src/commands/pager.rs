//! The pager for output that may be longer than the terminal.

use std::io::{self, IsTerminal as _};
use std::process::{Child, Command, Stdio};

/// Starts the pager if stdout is a terminal: `$PAGER`, else `less` if it is installed. An empty `$PAGER` means none.
pub(super) fn start() -> Option<Child> {
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
