//! One file per command. Only commands compose rooms.

use std::io;

pub mod alert_exec;
pub mod audit;
pub mod check;
pub mod doctor;
pub mod fleet;
#[cfg(any(test, feature = "test-equipment"))]
pub mod generate;
pub mod list;
pub mod log;
mod pager;
mod progress;
pub mod record;
pub mod rules;
pub mod serve;
pub mod top;
pub mod trace;
pub mod verify;
pub mod watch;

/// Whether a command ended because the reader closed the pipe, which is not a failure.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        cause == Some(io::ErrorKind::BrokenPipe)
    })
}
