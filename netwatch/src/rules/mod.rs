//! Rules: what raises alerts. Built-in detections, Sigma rules and match lists take the items of the stream, before any
//! filter, and return alerts; pure but for what they are given ([`Host`]).
//!
//! They run on a thread of their own behind a bounded queue ([`Rules`]). What they cannot keep up with is counted as a
//! loss with the reason `rules`, and holds up nothing.

mod baseline;
mod detect;
mod evaluator;
mod exec;
mod lists;
mod memory;
pub mod sigma;
mod suppress;
mod thread;
mod walk;

pub use baseline::{Baseline, BaselineError};
pub use detect::{CODES, Code, Detect};
pub use evaluator::{Evaluator, Setup};
pub use exec::{COMMAND as EXEC_COMMAND, Exec};
pub use lists::{ListError, Lists};
pub use memory::Memory;
pub use suppress::{Key, Suppress};
pub use thread::Rules;

use crate::relays::Relayed;
use crate::tracker::{Endpoint, EndpointId};

/// What detections ask about the host. Answers may take long; they are asked on the thread of the rules.
pub trait Host: Send {
    /// What steers each of these shells. `holds`: whether a process has a network connection.
    fn relayed(&mut self, shells: &[u32], holds: &dyn Fn(u32) -> bool) -> Vec<Relayed>;

    /// Has a listener judged, as `netwatch audit` does. Returns false if too many wait.
    fn judge(&mut self, endpoint: &Endpoint) -> bool;

    /// The listeners that were judged since the last call and are not explained, with the reasons.
    fn unexplained(&mut self) -> Vec<(EndpointId, Vec<String>)>;
}

/// Knows nothing of the host: for recorded events.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn relayed(&mut self, _: &[u32], _: &dyn Fn(u32) -> bool) -> Vec<Relayed> {
        Vec::new()
    }

    fn judge(&mut self, _: &Endpoint) -> bool {
        true
    }

    fn unexplained(&mut self) -> Vec<(EndpointId, Vec<String>)> {
        Vec::new()
    }
}
