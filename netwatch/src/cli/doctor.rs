//! `netwatch doctor`

use clap::Args;

use super::kernel::ProbeArgs;
use super::values::FormatArgs;
use crate::commands::doctor::DoctorOptions;

#[derive(Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    probes: ProbeArgs,
}

impl DoctorArgs {
    pub(super) fn options(self) -> DoctorOptions {
        let sabotage = self.probes.sabotage();
        DoctorOptions { json: self.format.is_json(), forced: self.probes.probe, sabotage }
    }
}
