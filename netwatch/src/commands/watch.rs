//! `netwatch watch`: prints events as they happen.

use std::io;
use std::time::Duration;

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};

use super::rules::{self, RulesOptions};
use crate::boot;
use crate::engine::{self, Pipeline, Supervisor, Vitals, complain};
use crate::enrich;
use crate::kernel::Options;
use crate::output::LogOptions;
use crate::rules::Rules;
use crate::sinks::Print;
use crate::sinks::metrics::{Metrics, MetricsAddress};
use crate::sinks::outputs::{self, OutputOptions, Outputs};
use crate::stream::Context;

/// Options of `watch`.
#[derive(Debug)]
pub struct WatchOptions {
    /// Options of the kernel side.
    pub kernel: Options,
    /// Whether to print the sockets that exist at the start.
    pub seeds: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Rules that raise alerts.
    pub rules: RulesOptions,
    /// Filter, format and limit.
    pub log: LogOptions,
    /// Where events are delivered to as well.
    pub outputs: Vec<OutputOptions>,
    /// Where metrics are served.
    pub metrics: Option<MetricsAddress>,
}

/// The default of `fs.pipe-max-size`, the largest pipe that an unprivileged user may request.
const PIPE_BYTES: i32 = 1 << 20;

/// Prints events until a signal, a limit of the options, or until the reader closes the pipe.
///
/// # Errors
/// If the probes cannot be attached, or the output fails.
pub fn run(options: WatchOptions) -> Result<()> {
    let WatchOptions { kernel, seeds, duration, rules, log, outputs, metrics } = options;
    let setup = rules.read()?;
    let context = Context::of_run(&boot::id())?;
    let pipeline = Pipeline {
        kernel: &kernel,
        seeds,
        duration,
        filter: log.filter.clone(),
        stages: enrich::live(),
        context,
        command: "watch",
        also: outputs::needed_to_write(&outputs),
        serves: metrics.is_some(),
    };
    let started = pipeline.context.clone();
    engine::run(pipeline, |bus| {
        widen_stdout();
        let print = Print::start(&log, bus, io::stdout())?;
        let outputs = Outputs::start(&outputs, bus, &started)?;
        let metrics = match &metrics {
            Some(address) => Some(Metrics::start(address, &outputs, bus)?),
            None => None,
        };
        let rules = rules::start(setup, started, bus)?;
        Ok(WatchSupervisor { print, outputs, metrics, rules })
    })
}

/// Enlarges the pipe on stdout, which reduces context switches between writer and reader under load.
pub(super) fn widen_stdout() {
    // Fails if stdout is not a pipe, which is harmless.
    let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
}

struct WatchSupervisor {
    print: Print,
    outputs: Outputs,
    metrics: Option<Metrics>,
    rules: Option<Rules>,
}

impl Supervisor for WatchSupervisor {
    fn rules(&mut self) -> Option<&mut Rules> {
        self.rules.as_mut()
    }

    fn tick(&mut self, vitals: Vitals) {
        if let Some(metrics) = &mut self.metrics {
            metrics.note(vitals.records, vitals.queues, || None);
        }
    }

    fn finish(self) -> Result<()> {
        let printed = self.print.finish();
        self.outputs.finish().iter().for_each(|line| complain(line));
        Ok(printed?)
    }
}
