//! Options of rules, the same for `watch` and `record`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::values::age;
use crate::commands::rules::RulesOptions;
use crate::rules::{Detect, Suppress};

#[derive(Args)]
#[command(next_help_heading = "Alerts")]
pub(super) struct RulesArgs {
    /// Built-in detections: `all`, `default` (those that need nothing else and are rarely wrong), `none`, or codes with
    /// commas between. docs/rules.md lists them. `record` has `default`, `watch` has `none`, unless given
    #[arg(long, value_name = "all|default|none|CODE,…")]
    detect: Option<Detect>,
    /// Sigma rules: a file, or a directory with files *.yml. Those of the categories network_connection and
    /// process_creation of linux are evaluated. May be given several times
    #[arg(long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Raise an alert about connections to and from what this file lists: addresses, networks and names, one a line. May
    /// be given several times
    #[arg(long = "match-list", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// What is usual on this host: programs that connect or listen, and where services connect to. The detections
    /// first-connect, first-listen and new-destination need it. It is made if it does not exist
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// For how long after the baseline was made everything counts as usual
    #[arg(long, value_name = "TIME", value_parser = age, default_value = "7d")]
    learn: Duration,
    /// How long further alerts of one rule about the same are held back and counted; 0: not at all. For one rule:
    /// RULE=TIME, or RULE/KEY=TIME, where KEY says what `the same` is: rule, process, program, remote, pair (of program
    /// and remote address) or connection. May be given several times [default: 10m]
    #[arg(long, value_name = "[RULE[/KEY]=]TIME")]
    suppress: Vec<Suppress>,
    /// Run this program for each alert, without privileges and without a shell, with the alert as a line of JSON on its
    /// standard input; at most 4 at once, each for at most 10 s
    #[arg(long, value_name = "PROGRAM")]
    alert_exec: Option<PathBuf>,
    /// An argument of that program. May be given several times
    #[arg(long, value_name = "ARGUMENT", requires = "alert_exec", allow_hyphen_values = true)]
    alert_exec_arg: Vec<OsString>,
}

impl RulesArgs {
    /// `usual`: the detections without `--detect`.
    pub(super) fn options(self, usual: &str) -> Result<RulesOptions> {
        let is_chosen = self.detect.is_some();
        let usual: Result<Detect, String> = usual.parse();
        let Some(mut detect) = self.detect.or_else(|| usual.ok()) else { bail!("--detect") };
        if self.baseline.is_none() && detect.needs_baseline() {
            if is_chosen && detect.is_by_name() {
                bail!("--detect: first-connect, first-listen and new-destination need --baseline FILE");
            }
            detect = detect.without_baseline();
        }
        let baseline =
            self.baseline.clone().filter(|_| detect.needs_baseline()).map(|path| (path, self.learn));
        let Self { rules, lists, suppress, alert_exec, alert_exec_arg, .. } = self;
        if alert_exec.as_deref().is_some_and(|program| !program.is_absolute()) {
            bail!("--alert-exec: the path of the program has to begin with a slash");
        }
        let program = alert_exec.map(PathBuf::into_os_string);
        let exec = program.into_iter().chain(alert_exec_arg).collect();
        Ok(RulesOptions { detect, rules, lists, baseline, suppress, exec })
    }
}
