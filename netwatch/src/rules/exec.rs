//! Runs a program for each alert, with the alert on its standard input as a line of JSON.
//!
//! After the start netwatch can execute nothing any more, so a process of its own does it (`commands/alert_exec.rs`),
//! which has no privileges. It is told over a pipe; what it cannot keep up with is counted and said.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::alert::Alert;
use crate::output::{Format, Log, LogOptions};
use crate::stream::{Context, Item};
use crate::{limits, stderr};

/// The name of the command that the process is started with.
pub const COMMAND: &str = "alert-exec";

/// How often it is said that alerts were not passed on.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// The process that runs programs.
#[derive(Debug)]
pub struct Exec {
    lines: SyncSender<Vec<u8>>,
    /// Alerts that were not passed on and not told of yet.
    missed: u64,
    told: Option<Instant>,
    _helper: Child,
}

impl Exec {
    /// Starts the process. `program`: with its arguments.
    ///
    /// # Errors
    /// If it cannot be started, or cannot give up its privileges.
    pub fn start(program: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).args(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut helper = command.spawn()?;
        let (input, output) = (helper.stdin.take(), helper.stdout.take());
        let input = input.ok_or_else(|| io::Error::other("no pipe"))?;
        // It says so once it has no privileges any more.
        let mut said = [0];
        let read = output.map(|mut output| output.read_exact(&mut said));
        if !matches!(read, Some(Ok(()))) {
            let why = "it cannot give up its privileges: that needs CAP_SETUID and CAP_SETGID, which the unit does not have";
            return Err(io::Error::other(why));
        }
        let (lines, to_write) = sync_channel(limits::EXEC_ALERTS);
        let thread = std::thread::Builder::new().name("netwatch-exec".into());
        thread.spawn(move || write(&to_write, input))?;
        Ok(Self { lines, missed: 0, told: None, _helper: helper })
    }

    /// Passes an alert on, if there is room.
    pub(super) fn pass(&mut self, alert: &Alert, context: &Context) {
        let mut line = Vec::new();
        let options = LogOptions { format: Format::Json, ..LogOptions::default() };
        let mut log = Log::new(&options, &mut line);
        let rendered = log.item(&Item::Alert(Box::new(alert.clone())), context).and_then(|()| log.flush());
        drop(log);
        if rendered.is_err() || self.lines.try_send(line).is_err() {
            self.missed += 1;
        }
        let is_due = self.told.is_none_or(|told| told.elapsed() >= COMPLAINTS);
        if self.missed > 0 && is_due {
            stderr::print(&format!(
                "netwatch: {} alerts were not passed to the program of --alert-exec, which is too slow or ended",
                self.missed
            ));
            (self.missed, self.told) = (0, Some(Instant::now()));
        }
    }
}

/// Each message is its length and the line.
fn write(lines: &Receiver<Vec<u8>>, mut input: ChildStdin) {
    for line in lines {
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes();
        if input.write_all(&length).and_then(|()| input.write_all(&line)).is_err() {
            return;
        }
    }
}
