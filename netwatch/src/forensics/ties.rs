//! What ties a process to a connection. Only what was seen does:
//!
//! - it had just read from it, or accepted it, and had not slept since, when it did what is to be explained;
//! - it was started on it, as its stdin, stdout or stderr;
//! - it was forked while the connection was there, and used it: so it was forked for it;
//! - it is where somebody logged in, and it is the only one that it has.
//!
//! That a process had a connection open proves nothing: a daemon that runs a job by the clock may have any number of
//! them. Those are told as possible, and never followed.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Life, Past, ending, name};
use crate::model::{BootTime, Cookie};
use crate::origin::Confidence;
use crate::process::Process;
use crate::tracker::{EndpointId, ProcessBasis};

/// A connection that explains what a process did.
#[derive(Clone, Debug)]
pub struct Tie {
    /// Which.
    pub life: Life,
    /// In words.
    pub why: String,
    /// How sure.
    pub confidence: Confidence,
}

pub(super) struct Ties {
    pub(super) tie: Option<Tie>,
    pub(super) possible: Vec<Life>,
}

/// What ties `process`, which did something at `at` when its thread was about the
/// socket `cause`.
pub(super) fn find<P: Past>(
    past: &P,
    boot: &Arc<str>,
    process: &Process,
    at: BootTime,
    cause: Option<Cookie>,
    visited: &HashSet<EndpointId>,
) -> Result<Ties, P::Error> {
    let is_new = |life: &Life| !visited.contains(&life.id());
    let held: Vec<Life> = past
        .of_process(boot, process.key, at)?
        .into_iter()
        .filter(|life| is_new(life) && life.is_inbound())
        .collect();
    let open: Vec<&Life> = held.iter().filter(|life| life.was_there(at)).collect();
    let tied =
        |life: Life, why, confidence| Ties { tie: Some(Tie { life, why, confidence }), possible: Vec::new() };

    // One that was forked because of it, and is as fresh as who forked it: that one is the nearer to it.
    let inherited = |cause: &Cookie| process.birth.is_some_and(|birth| birth.cause == Some(*cause));
    let uses = |cause: &Cookie| held.iter().any(|life| life.end().cookie == Some(*cause));
    if let Some(cause) = cause.filter(|cause| !inherited(cause) || uses(cause)) {
        let read = past.of_socket(boot, cause)?;
        if let Some(life) =
            only(read.into_iter().filter(|life| life.was_there(at) && life.is_inbound() && is_new(life)))
        {
            let why = format!("{} had just taken it or read from it", name(process));
            // Of several one may have been read for another's sake.
            let others = open.iter().any(|other| other.id() != life.id());
            let confidence = if others { Confidence::Inferred } else { Confidence::Observed };
            return Ok(tied(life, why, confidence));
        }
    }
    for (cookie, fd) in process.stdio.iter().zip(["stdin", "stdout", "stderr"]) {
        let Some(cookie) = *cookie else { continue };
        let newest = past
            .of_socket(boot, cookie)?
            .into_iter()
            .rfind(|life| life.end().remote.is_some() && life.began() <= at && is_new(life));
        if let Some(life) = newest {
            return Ok(tied(life, format!("is the {fd} of {}", name(process)), Confidence::Observed));
        }
    }
    if let Some(birth) = process.birth {
        let inherited = held.iter().filter(|life| {
            let used = life
                .used_by(process.key)
                .filter(|used| used.at <= at && used.basis == ProcessBasis::Handover);
            used.is_some() && life.was_there(birth.at)
        });
        if let Some(life) = only(inherited.cloned()) {
            let why = format!("{} was forked while it was open, and used it", name(process));
            return Ok(tied(life, why, Confidence::Observed));
        }
    }
    if ending::is_login(process)
        && let [life] = &open[..]
    {
        let why = format!("the only one that {} had, where the user logged in", name(process));
        return Ok(tied(Life::clone(life), why, Confidence::Inferred));
    }
    Ok(Ties { tie: None, possible: open.into_iter().cloned().collect() })
}

/// The item of which there is but one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}
