//! `netwatch audit`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use super::kernel::KernelArgs;
use super::values::{FormatArgs, duration, namespaces};
use crate::audit::Severity;
use crate::audit::baseline::Baseline;
#[cfg(any(test, feature = "test-equipment"))]
use crate::commands::audit::Hidden;
use crate::commands::audit::{AuditOptions, Watch};
use crate::commands::list::Namespaces;
use crate::{blocking, limits};

#[derive(Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Read the history of listeners from this store [default: the standard store, if it exists]
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// Accept the ports and findings listed in this baseline; report new and changed ones
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the current ports and findings to FILE as a baseline, for review
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    write_baseline: Option<PathBuf>,
    /// Exit with status 3 if a finding has at least this severity: info, low, medium, high or critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity, default_value = "medium")]
    fail_on: Severity,
    /// Network namespaces to audit: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "all")]
    netns: Namespaces,
    /// Keep running and report each unexplained listener as soon as it appears
    #[arg(long)]
    watch: bool,
    /// With --watch: stop after this time
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "watch")]
    duration: Option<Duration>,
    /// With --watch: audit the whole host again at this interval
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s", requires = "watch")]
    every: Duration,
    /// Hide an entry from one view of the host, to test that the audit detects it
    #[cfg(any(test, feature = "test-equipment"))]
    #[arg(long, hide = true, value_parser = Hidden::parse)]
    hide: Vec<Hidden>,
    #[command(flatten)]
    kernel: KernelArgs,
}

fn severity(text: &str) -> Result<Severity, &'static str> {
    Severity::ALL.into_iter().find(|known| known.name() == text).ok_or("info, low, medium, high or critical")
}

impl AuditArgs {
    pub(super) fn options(self) -> Result<AuditOptions> {
        Ok(AuditOptions {
            json: self.format.is_json(),
            colour: self.format.colour(),
            store: self.store,
            baseline: self.baseline.as_deref().map(read).transpose()?,
            write_baseline: self.write_baseline,
            fail_on: self.fail_on,
            namespaces: self.netns,
            #[cfg(any(test, feature = "test-equipment"))]
            hidden: self.hide,
            #[cfg(not(any(test, feature = "test-equipment")))]
            hidden: Vec::new(),
            watch: self.watch.then(|| Watch {
                kernel: self.kernel.options(false, None),
                duration: self.duration,
                every: self.every,
            }),
        })
    }
}

fn read(path: &Path) -> Result<Baseline> {
    let text = blocking::text(path, limits::BASELINE_FILE, limits::READ_WAIT)
        .with_context(|| format!("cannot read the baseline {}", path.display()))?;
    Baseline::read(&text).map_err(|what| anyhow!("{}:{what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_over_the_limit_is_an_error() {
        let error = format!("{:#}", read(Path::new("/dev/zero")).unwrap_err());
        assert_eq!(error, "cannot read the baseline /dev/zero: larger than 16 MiB");
    }
}
