//! `netwatch watch`: the live log.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use nix::fcntl::{FcntlArg, fcntl};

use super::follow::{self, FinishError, Listener};
use crate::agent::Agent;
use crate::kernel::Options;
use crate::loss::Loss;
use crate::output::{Log, LogOptions, Ready, SinkError};
use crate::process::Process;
use crate::tracker::ConnectionEvent;

/// What to log, and for how long.
#[derive(Debug)]
pub struct WatchOptions {
    /// For the kernel side.
    pub kernel: Options,
    /// What was there before is told too.
    pub seeds: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// What the log shows, and how.
    pub log: LogOptions,
}

/// What anybody may ask for: `fs.pipe-max-size`.
const PIPE_BYTES: i32 = 1 << 20;

/// Logs until it is told to stop: by a signal, the options, or a reader who closed the pipe.
///
/// # Errors
/// Where the probes cannot be had, or the output fails.
pub fn run(options: WatchOptions) -> Result<ExitCode> {
    let WatchOptions { kernel, seeds, duration, log } = options;
    follow::run(&kernel, seeds, duration, || {
        widen_stdout();
        Ok(Log::new(log, io::stdout())?)
    })
}

/// A flood needs fewer changes between writer and reader.
pub(super) fn widen_stdout() {
    // Refused where stdout is no pipe.
    let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
}

impl Listener for Log {
    fn ready(&mut self, agent: &Agent, seeded: usize) -> Result<()> {
        Self::ready(self, Ready { coverage: agent.coverage(), seeded })?;
        self.flush();
        Ok(())
    }

    fn tell(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<()> {
        self.begin();
        for event in events.drain(..) {
            self.connection(&event)?;
        }
        self.flush();
        Ok(())
    }

    fn started(&mut self, _: Vec<Arc<Process>>) {}

    fn lost(&mut self, losses: &[Loss]) -> Result<()> {
        losses.iter().try_for_each(|loss| self.loss(Timestamp::now(), loss))?;
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        self.tell_missed()?;
        self.follow_clock()?;
        self.flush();
        Ok(())
    }

    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    async fn attend(&mut self) -> SinkError {
        self.sink().attend().await
    }

    fn finish(self) -> Result<(), FinishError> {
        Self::finish(self).map_err(FinishError::Sink)
    }
}
