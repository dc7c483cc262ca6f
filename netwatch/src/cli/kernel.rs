//! For whatever attaches probes.

use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::kernel::{DEFAULT_RING_BYTES, DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
use crate::model::Proto;

#[derive(Args)]
pub(super) struct ProbeArgs {
    /// Do a job by this probe and no other, or by `none`: `netwatch doctor` has the names
    #[arg(long, value_name = "JOB=RUNG", value_parser = Forced::parse)]
    pub(super) probe: Vec<Forced>,
    /// What to do wrong, so that a test sees it noticed
    #[cfg(any(test, feature = "test-equipment"))]
    #[arg(long, hide = true, value_parser = Sabotage::parse)]
    sabotage: Option<Sabotage>,
}

impl ProbeArgs {
    pub(super) fn sabotage(&self) -> Option<Sabotage> {
        #[cfg(any(test, feature = "test-equipment"))]
        let chosen = self.sabotage;
        #[cfg(not(any(test, feature = "test-equipment")))]
        let chosen = None;
        chosen
    }
}

/// The same on every command that runs as long as it is let.
#[derive(Args)]
pub(super) struct KernelArgs {
    /// Size of the ring buffer, for very busy hosts; taken up to a power of two
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_RING_BYTES, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    ring: u32,
    /// A UDP flow without a datagram for so long is over
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    udp_idle: Duration,
    /// UDP flows to follow at once; that there were more is told as a loss
    #[arg(long, value_name = "N", default_value_t = DEFAULT_UDP_FLOWS, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    udp_flows: u32,
    #[command(flatten)]
    probes: ProbeArgs,
}

impl KernelArgs {
    /// `shown`: of this protocol alone.
    pub(super) fn options(self, all_states: bool, shown: Option<Proto>) -> Options {
        // Whatever the caller wants goes before it.
        let unwanted = (shown == Some(Proto::Tcp)).then_some(Forced::NO_UDP);
        let sabotage = self.probes.sabotage();
        Options {
            ring_bytes: self.ring,
            all_states,
            udp_flows: self.udp_flows,
            udp_idle: self.udp_idle,
            forced: unwanted.into_iter().chain(self.probes.probe).collect(),
            sabotage,
        }
    }
}
