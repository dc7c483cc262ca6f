//! Programs of the communities of other formats, which judge what netwatch prints. `cargo xtask test` installs them.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lines::Lines;
use crate::program::Running;
use crate::wait::{PATIENCE, skip};

/// A script, and how many lines it has to print for its verdict.
#[derive(Clone, Copy, Debug)]
pub enum Judge {
    /// Validates lines of OCSF. Prints how many there were.
    Ocsf,
    /// Reads a conn.log. Prints its records as JSON.
    Zeek,
}

impl Judge {
    const fn script(self) -> &'static str {
        match self {
            Self::Ocsf => include_str!("judges/ocsf.py"),
            Self::Zeek => include_str!("judges/zeek.py"),
        }
    }

    /// What it prints about `text`. `None` if it is not installed, which is reported as a skip of `test`.
    ///
    /// # Panics
    /// If it finds an error.
    #[must_use]
    pub fn reads(self, test: &str, text: &str) -> Option<Vec<Value>> {
        let Some(python) = std::env::var_os("NETWATCH_JUDGES") else {
            let why = std::env::var("NETWATCH_NO_JUDGES");
            skip(test, why.as_deref().unwrap_or("no judges of formats were installed for this run"));
            return None;
        };
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("room for it");
        let mut command = Command::new(python);
        command.args(["-c", self.script()]).stdin(file.reopen().expect("the file")).stdout(Stdio::piped());
        let mut running = Running::start(command.stderr(Stdio::piped()));
        let (lines, complaints) = (Lines::of(running.stdout()), Lines::of(running.stderr()));
        let all = |lines: Lines| std::iter::from_fn(|| lines.next(PATIENCE)).collect::<Vec<_>>();
        let (lines, complaints) = (all(lines), all(complaints));
        let status = running.ended("the judge has read everything");
        assert!(status.success(), "{self:?}: {}", complaints.join("\n"));
        Some(lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect())
    }
}
