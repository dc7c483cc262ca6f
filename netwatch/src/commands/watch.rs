//! `netwatch watch`: the live log.

use std::io;
use std::time::Duration;

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};

use crate::boot;
use crate::engine::{self, Pipeline, Supervisor};
use crate::enrich;
use crate::kernel::Options;
use crate::output::LogOptions;
use crate::sinks::Print;
use crate::stream::Context;

/// What to log, and for how long.
#[derive(Debug)]
pub struct WatchOptions {
    /// For the kernel side.
    pub kernel: Options,
    /// Whether existing sockets are printed too.
    pub seeds: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// What the log shows, and how.
    pub log: LogOptions,
}

/// The largest that any user may ask for by default: `fs.pipe-max-size`.
const PIPE_BYTES: i32 = 1 << 20;

/// Logs until it is told to stop: by a signal, the options, or a reader who closed the pipe.
///
/// # Errors
/// Where the probes cannot be attached, or the output fails.
pub fn run(options: WatchOptions) -> Result<()> {
    let WatchOptions { kernel, seeds, duration, log } = options;
    let pipeline = Pipeline {
        kernel: &kernel,
        seeds,
        duration,
        filter: log.filter.clone(),
        stages: enrich::live(),
        context: Context::of_run(&boot::id())?,
    };
    engine::run(pipeline, |bus| {
        widen_stdout();
        Ok(WatchSupervisor(Print::start(&log, bus, io::stdout())?))
    })
}

/// A larger pipe means fewer switches between writer and reader in a flood.
pub(super) fn widen_stdout() {
    // Refused where stdout is no pipe.
    let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
}

struct WatchSupervisor(Print);

impl Supervisor for WatchSupervisor {
    fn finish(self) -> Result<()> {
        Ok(self.0.finish()?)
    }
}
