//! `audit --watch`: a socket that starts to listen is judged when its event arrives, since it may be gone by the next
//! pass over the whole host.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Watch;
use super::auditor::{Auditor, Scope};
use crate::bus::{Bus, Subscription};
use crate::commands::is_closed_pipe;
use crate::commands::verify::FOUND;
use crate::engine::{self, Pipeline, Supervisor};
use crate::filter::{Condition, Filter, Protos, Term};
use crate::inventory::Inventory;
use crate::loss::LossReason;
use crate::model::Proto;
use crate::output::audit::Writer;
use crate::stream::Context as StreamContext;
use crate::tracker::EventKind;
use crate::{boot, limits};

/// Runs until a signal, the time limit, or until the reader closes the pipe.
///
/// # Errors
/// If the probes cannot be attached, or the output fails.
pub(super) fn run(watch: Watch, inventory: Inventory, writer: Writer, scope: Scope) -> Result<ExitCode> {
    let is_bad = Arc::new(AtomicBool::new(false));
    let Watch { kernel, duration, every } = watch;
    // No enrichment: the inventory gathers the facts that judging needs.
    let (filter, stages, context) = (listening(), Vec::new(), StreamContext::of_run(&boot::id())?);
    let (command, also) = ("audit --watch", None);
    let pipeline = Pipeline {
        kernel: &kernel,
        seeds: true,
        duration,
        filter,
        stages,
        context,
        command,
        also,
        serves: false,
    };
    engine::run(pipeline, |bus| {
        Auditing::start(Auditor::new(inventory, writer, scope, every, is_bad.clone())?, bus)
    })?;
    Ok(if is_bad.load(Ordering::Relaxed) { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// Events of TCP listeners, including those that exist at the start. No event reports that an unconnected datagram
/// socket was bound; the next pass sees it.
fn listening() -> Filter {
    let kinds = [EventKind::Seed, EventKind::Listen, EventKind::Unlisten];
    Filter::new([
        Term::any(kinds.map(Condition::Event)),
        Term::any([Condition::Proto(Protos::One(Proto::Tcp))]),
    ])
}

/// The thread that audits.
struct Auditing(JoinHandle<Result<()>>);

impl Auditing {
    fn start(mut auditor: Auditor, bus: &mut Bus) -> Result<Self> {
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Stdout,
            most_waiting: limits::AUDIT_ITEMS,
            is_announced: false,
            sees_all: false,
        });
        let thread = std::thread::Builder::new().name("netwatch-audit".into());
        Ok(Self(thread.spawn(move || auditor.run(&receiver)).context("cannot start a thread")?))
    }
}

impl Supervisor for Auditing {
    fn finish(self) -> Result<()> {
        let deadline = Instant::now() + 2 * limits::AUDIT_WAIT + Duration::from_secs(2);
        while !self.0.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.0.is_finished() {
            // Blocked in a write; the thread ends with the process.
            return Ok(());
        }
        let audited = self.0.join().unwrap_or_else(|_| bail!("the audit thread panicked"));
        match audited {
            Err(error) if is_closed_pipe(&error) => Ok(()),
            audited => audited,
        }
    }
}
