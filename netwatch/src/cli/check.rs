//! `netwatch rules`

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values;
use crate::commands::alert_exec::AlertExecOptions;
use crate::commands::check::CheckOptions;

#[derive(Args)]
pub(super) struct RulesCommand {
    #[command(subcommand)]
    command: RulesSub,
}

#[derive(Subcommand)]
enum RulesSub {
    /// Check Sigma rules: which are wrong, which name fields that netwatch never fills, and which can never match
    ///
    /// Exit status 3 if a rule is wrong or can never match.
    Check(CheckArgs),
}

/// What [`crate::rules::Exec`] starts.
#[derive(Args)]
pub(super) struct AlertExecArgs {
    #[arg(required = true, last = true)]
    program: Vec<OsString>,
}

impl AlertExecArgs {
    pub(super) fn options(self) -> AlertExecOptions {
        AlertExecOptions { program: self.program }
    }
}

#[derive(Args)]
struct CheckArgs {
    /// Files of rules, and directories with files *.yml
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Show the alerts that the rules would have raised in this store
    #[arg(long, value_name = "STORE")]
    against: Option<PathBuf>,
}

impl RulesCommand {
    pub(super) fn options(self) -> CheckOptions {
        let RulesSub::Check(CheckArgs { paths, against }) = self.command;
        CheckOptions { paths, against, colour: values::colour() }
    }
}
