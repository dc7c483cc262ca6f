//! `netwatch generate`: a store of connections that never were, for whoever measures.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock::BootClock;
use crate::store::{Retention, Settings, generate};

/// What to make.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The database.
    pub store: PathBuf,
    /// How many connections.
    pub connections: u64,
}

/// Makes it.
///
/// # Errors
/// Where there is one already, or it cannot be written.
pub fn run(options: &GenerateOptions) -> Result<()> {
    if options.store.exists() {
        bail!(
            "{} is there already: a store of connections that never were is made anew",
            options.store.display()
        );
    }
    // Nothing of it is to go.
    let retention = Retention { age: Duration::from_secs(u64::from(u32::MAX)), size: 1 << 40 };
    let settings = Settings { retention, boot: "00000000".into(), filter: None, clock: BootClock::now()? };
    Ok(generate(&options.store, settings, options.connections)?)
}
