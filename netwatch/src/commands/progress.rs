//! How far long work is: a bar on stderr if that is a terminal, and its end by SIGINT or SIGTERM.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::store::Progress;

/// A bar for one piece of work. Removed from the screen when dropped.
pub(super) struct Bar {
    bar: ProgressBar,
    is_ended: Arc<AtomicBool>,
}

impl Bar {
    /// From here on SIGINT and SIGTERM end the work instead of the process. `what`: in front of the bar. `is_printing`:
    /// the command prints to stdout meanwhile.
    pub(super) fn new(what: &'static str, is_printing: bool) -> io::Result<Self> {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // What is printed, or a pager, has the screen.
        if io::stderr().is_terminal() && !(is_printing && io::stdout().is_terminal()) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}%, {eta} left");
        bar.set_style(style.map_err(io::Error::other)?);
        bar.set_message(what);
        let is_ended = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            signal_hook::flag::register(signal, is_ended.clone())?;
        }
        Ok(Self { bar, is_ended })
    }

    /// Shows how far it is. `Break` once a signal has come.
    pub(super) fn watch(&self, progress: Progress) -> ControlFlow<()> {
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        if self.is_ended.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
