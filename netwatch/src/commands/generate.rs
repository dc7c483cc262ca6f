//! `netwatch generate`: writes a store of synthetic connections, for benchmarks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::BootClock;
use crate::store::{Retention, Settings, generate};

/// Options of `generate`.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Path of the store.
    pub store: PathBuf,
    /// Number of connections.
    pub connections: u64,
}

/// Generates the store.
///
/// # Errors
/// If the store exists, or cannot be written.
pub fn run(options: &GenerateOptions) -> Result<()> {
    if options.store.exists() {
        bail!(
            "{} already exists: a store of synthetic connections is only written to a new file",
            options.store.display()
        );
    }
    // Limits that retention does not reach.
    let retention = Retention { age: Duration::from_secs(u64::from(u32::MAX)), size: 1 << 40 };
    let (boot, clock) = ("00000000".into(), BootClock::now()?);
    let settings = Settings { retention, boot, filter: None, clock, seal: false };
    Ok(generate(&options.store, settings, options.connections)?)
}
