//! Options of the commands that attach probes.

use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::kernel::{DEFAULT_UDP_FLOWS, Forced, Options, Sabotage};
use crate::limits;
use crate::model::Proto;

#[derive(Args)]
pub(super) struct ProbeArgs {
    /// Use only this probe for a job, or `none`; `netwatch doctor` lists the names
    #[arg(long, value_name = "JOB=RUNG", value_parser = Forced::parse)]
    pub(super) probe: Vec<Forced>,
    /// Introduce a fault, to test that it is detected
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

/// The options of the commands that trace live.
#[derive(Args)]
pub(super) struct KernelArgs {
    /// Size of the ring buffer, rounded up to a power of two; increase it on very busy hosts
    #[arg(long, value_name = "BYTES", default_value_t = limits::RING_BYTES, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    ring: u32,
    /// End a UDP flow after this time without a datagram
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    udp_idle: Duration,
    /// Maximum number of UDP flows tracked at once; flows beyond it are reported as a loss
    #[arg(long, value_name = "N", default_value_t = DEFAULT_UDP_FLOWS, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    udp_flows: u32,
    /// Do not look at DNS answers and TLS ClientHellos for the names of hosts
    #[arg(long)]
    no_names: bool,
    #[command(flatten)]
    probes: ProbeArgs,
}

impl KernelArgs {
    /// `shown`: the only protocol that is shown, if there is one.
    pub(super) fn options(self, all_states: bool, shown: Option<Proto>) -> Options {
        // First, so that a --probe of the user overrides it.
        let no_udp = (shown == Some(Proto::Tcp)).then_some(Forced::NO_UDP);
        let unwanted = no_udp.into_iter().chain(self.no_names.then_some(Forced::NO_NAMES));
        let sabotage = self.probes.sabotage();
        Options {
            ring_bytes: self.ring,
            all_states,
            udp_flows: self.udp_flows,
            udp_idle: self.udp_idle,
            forced: unwanted.chain(self.probes.probe).collect(),
            sabotage,
        }
    }
}
