//! `netwatch rules`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values;
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
