//! Evidence that a connection caused what a process did:
//!
//! - the process had read from it or accepted it, and had not slept since, when it acted;
//! - the process was started with it as stdin, stdout or stderr;
//! - the process was forked while the connection was open, and used it;
//! - a login began with the process, and it is its only connection;
//! - the process passes on what it receives, by a message or as the other end of a pipe or terminal, and it had just read
//!   from the connection, or has no other. This also holds for connections that it began itself.
//!
//! An open connection alone is no evidence: a daemon that runs scheduled jobs may have many. Those are reported as
//! possible causes and not followed.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Life, Past, ending, name};
use crate::model::{BootTime, Cookie, Proto};
use crate::origin::Confidence;
use crate::process::{Cause, Process};
use crate::tracker::{EndpointId, ProcessBasis};

/// A connection that caused what a process did.
#[derive(Clone, Debug)]
pub struct Tie {
    /// The connection.
    pub life: Life,
    /// The evidence, one sentence.
    pub why: String,
    /// Confidence.
    pub confidence: Confidence,
}

pub(super) struct Ties {
    pub(super) tie: Option<Tie>,
    pub(super) possible: Vec<Life>,
}

/// A process that did something.
pub(super) struct Deed<'a> {
    pub(super) process: &'a Process,
    pub(super) at: BootTime,
    /// The socket that its thread had just read from or accepted.
    pub(super) cause: Option<Cookie>,
    /// It passed something on: it wrote a message, or has the other end of the standard input of its child.
    pub(super) passes_on: bool,
}

/// Finds the connection that caused what a process did.
pub(super) fn find<P: Past>(
    past: &P,
    boot: &Arc<str>,
    Deed { process, at, cause, passes_on }: Deed<'_>,
    visited: &HashSet<EndpointId>,
) -> Result<Ties, P::Error> {
    let is_new = |life: &Life| !visited.contains(&life.id());
    let (held, began): (Vec<Life>, Vec<Life>) = past
        .of_process(boot, process.key, at)?
        .into_iter()
        .filter(|life| is_new(life) && life.end().remote.is_some())
        .partition(Life::is_inbound);
    let open: Vec<&Life> = held.iter().filter(|life| life.was_there(at)).collect();
    let tied =
        |life: Life, why, confidence| Ties { tie: Some(Tie { life, why, confidence }), possible: Vec::new() };

    // A child inherits the cause of its parent; unless it uses the connection itself, the parent is nearer to it.
    let birth = process.birth.as_ref();
    let inherited = |cause: &Cookie| birth.is_some_and(|birth| birth.cause == Cause::of_socket(Some(*cause)));
    let uses = |cause: &Cookie| held.iter().any(|life| life.end().cookie == Some(*cause));
    if let Some(cause) = cause.filter(|cause| !inherited(cause) || uses(cause)) {
        let read = past.of_socket(boot, cause)?;
        if let Some(life) = only(
            read.into_iter()
                .filter(|life| life.was_there(at) && (passes_on || life.is_inbound()) && is_new(life)),
        ) {
            let why = format!("{} had just accepted it or read from it", name(process));
            // With several open connections, this one may have been read on behalf of another.
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
    if let Some(birth) = birth {
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
        let why = format!("the only connection of {}, where the login began", name(process));
        return Ok(tied(Life::clone(life), why, Confidence::Inferred));
    }
    let mut possible: Vec<Life> = open.into_iter().cloned().collect();
    if passes_on {
        possible.extend(began.into_iter().filter(|life| life.was_there(at)));
        // A name is often looked up before the connection is made.
        let tcp: Vec<&Life> = possible.iter().filter(|life| life.end().proto == Proto::Tcp).collect();
        let life = match (&tcp[..], &possible[..]) {
            ([life], _) => Some(Life::clone(life)),
            ([], [life]) => Some(life.clone()),
            _ => None,
        };
        if let Some(life) = life {
            let why = format!("the only connection of {} then", name(process));
            return Ok(tied(life, why, Confidence::Inferred));
        }
    } else if let Some(cause) = cause {
        // It was read from, but what the process did may have had another reason: a worker asks a queue for its jobs.
        let read = |life: &Life| life.end().cookie == Some(cause) && life.was_there(at);
        possible.extend(began.into_iter().filter(read));
    }
    Ok(Ties { tie: None, possible })
}

/// The item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}
