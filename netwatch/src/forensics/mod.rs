//! The walk from a connection back to its cause. Pure over [`Past`], which is the store or a snapshot.
//!
//! An inbound connection was caused by its peer endpoint: if that is on this host the walk continues there, else it
//! ends. An outbound one was caused by a process, and a process by a connection or by its parent. The link between a
//! process and a connection must be observed; that a connection was open is not enough ([`Tie`]).

mod ending;
mod life;
mod past;
mod selector;
#[cfg(test)]
mod tests;
mod ties;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::limits;
use crate::model::{BootTime, StreamKind, Via, Way};
use crate::origin::{Confidence, Side};
use crate::process::{Actor, Cause, Message, Process};
use crate::tracker::ConnectionEvent;
use crate::tracker::EndpointId;

pub use life::{Life, Use};
pub use past::{Gap, LiveHistory, Past};
pub use selector::Selector;
use ties::Deed;
pub use ties::Tie;

/// The history of one connection.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The connection that was traced: the originator's endpoint if that is on this host and matched.
    pub connection: Life,
    /// From the connection backwards.
    pub chain: Vec<Step>,
    /// The end of the walk.
    pub origin: Origin,
}

impl Trace {
    /// Completes every process and connection in the trace.
    pub fn complete(&mut self, host: &mut dyn Complete) {
        host.event(self.connection.last_mut());
        for step in &mut self.chain {
            match &mut step.what {
                What::Process(actor)
                | What::Message { writer: actor, .. }
                | What::Stream { holder: actor, .. } => {
                    host.actor(actor);
                }
                What::Connection(life) => host.event(life.last_mut()),
            }
        }
        self.origin.process.iter_mut().for_each(|actor| host.actor(actor));
        self.origin.possible.iter_mut().for_each(|life| host.event(life.last_mut()));
    }
}

/// Adds facts about the host, which the walk itself does not need.
pub trait Complete {
    /// Completes a process.
    fn actor(&mut self, actor: &mut Actor);

    /// Completes an event.
    fn event(&mut self, event: &mut ConnectionEvent);
}

/// One step back.
#[derive(Clone, Debug)]
pub struct Step {
    /// Why the walk took this step.
    pub why: String,
    /// When it happened.
    pub at: BootTime,
    /// The process or connection.
    pub what: What,
}

/// What a step leads to.
#[derive(Clone, Debug)]
pub enum What {
    /// A process, as it was at the time of the step.
    Process(Actor),
    /// A connection.
    Connection(Box<Life>),
    /// A message that a process wrote.
    Message {
        /// The process.
        writer: Actor,
        /// What it wrote to.
        way: Way,
        /// Inode number of its end.
        inode: u64,
        /// Name of the UNIX socket.
        path: Option<Arc<str>>,
    },
    /// A pipe, a terminal or a pair of UNIX sockets that is the standard input of a program.
    Stream {
        /// The process that forked the program and has the other end.
        holder: Actor,
        /// Kind of stream.
        kind: StreamKind,
    },
}

/// Kind of the first cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginKind {
    /// Another host.
    Remote,
    /// A login on this host.
    Login,
    /// A service.
    Service,
    /// A container.
    Container,
    /// The kernel.
    Kernel,
    /// The start of the system.
    Boot,
    /// Unknown.
    Unknown,
}

impl OriginKind {
    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Login => "login",
            Self::Service => "service",
            Self::Container => "container",
            Self::Kernel => "kernel",
            Self::Boot => "boot",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of a walk: the first cause.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Kind of cause.
    pub kind: OriginKind,
    /// Address and port, if the kind is `Remote`.
    pub endpoint: Option<(IpAddr, u16)>,
    /// The first process, for all other kinds.
    pub process: Option<Actor>,
    /// The lowest confidence of all steps.
    pub confidence: Confidence,
    /// What is missing to continue, one sentence each.
    pub missing: Vec<String>,
    /// Connections that processes of the chain had open, without evidence that they were the cause: inbound ones, and
    /// those that a process had read from or may have passed on.
    pub possible: Vec<Life>,
}

/// Without the responder's end of connections of which the originator's is there as well.
#[must_use]
pub fn originators(mut lives: Vec<Life>) -> Vec<Life> {
    let begun: Vec<_> = lives
        .iter()
        .filter(|life| !life.is_inbound())
        .map(|life| (life.boot.clone(), life.end().flow))
        .collect();
    lives.retain(|life| !(life.is_inbound() && begun.contains(&(life.boot.clone(), life.end().flow))));
    lives
}

/// Walks back from a connection.
///
/// # Errors
/// If the past cannot be read.
pub fn trace<P: Past>(past: &P, connection: Life) -> Result<Trace, P::Error> {
    let mut walk = Walk {
        past,
        chain: Vec::new(),
        visited: HashSet::new(),
        possible: Vec::new(),
        confidence: Confidence::Observed,
    };
    let origin = walk.from(connection.clone())?;
    Ok(Trace { connection, chain: walk.chain, origin })
}

struct Walk<'a, P> {
    past: &'a P,
    chain: Vec<Step>,
    visited: HashSet<EndpointId>,
    possible: Vec<Life>,
    confidence: Confidence,
}

impl<P: Past> Walk<'_, P> {
    fn from(&mut self, mut life: Life) -> Result<Origin, P::Error> {
        loop {
            let end = life.end();
            let began = end.id.began;
            let is_new = self.visited.insert(end.id);
            if !is_new || self.chain.len() >= limits::MOST_STEPS {
                return Ok(self.unknown("the chain of connections has a cycle or is too long".into()));
            }
            self.trust(end.verdict.confidence);
            match end.verdict.side {
                Side::Unknown => {
                    return Ok(
                        self.unknown(format!("the originator of the connection at {} is unknown", end.local))
                    );
                }
                Side::Remote => match self.other_end(&life)? {
                    Some(other) => {
                        life = other;
                        continue;
                    }
                    None if end.originator.is_none() => return Ok(self.remote(&life)),
                    // The peer endpoint is on this host, but only its process is known.
                    None => {}
                },
                Side::Local | Side::Both => {}
            }
            let Some(actor) = end.originator.clone().or_else(|| life.connector().cloned()) else {
                return Ok(match end.via {
                    Some(Via::Kernel) => self.ended(OriginKind::Kernel, None),
                    _ => self.unknown(format!("the process that connected from {} is unknown", end.local)),
                });
            };
            self.chain.push(Step {
                why: "began the connection".into(),
                at: began,
                what: What::Process(actor.clone()),
            });
            let cause = if end.verdict.side == Side::Remote { Cause::default() } else { end.cause.clone() };
            match self.explain(&life.boot, actor.process, began, cause)? {
                Explained::By(way) => life = *way,
                Explained::Pairs(origin) => return Ok(origin),
            }
        }
    }

    /// The peer endpoint of an inbound connection, if it is on this host and known.
    fn other_end(&mut self, life: &Life) -> Result<Option<Life>, P::Error> {
        let Some(peer) = &life.end().peer else { return Ok(None) };
        let Some(other) = self.past.end(&life.boot, peer.id)? else { return Ok(None) };
        if other.end().verdict.side == Side::Remote {
            // Each says that it was the other: the ends do not belong together.
            return Ok(None);
        }
        self.chain.push(Step {
            why: "its other end, on this host".into(),
            at: other.end().id.began,
            what: What::Connection(Box::new(other.clone())),
        });
        Ok(Some(other))
    }

    /// Walks from a process that acted at `at` through the writers of messages and its ancestors, to a connection that
    /// caused it or to a first cause.
    fn explain(
        &mut self,
        boot: &Arc<str>,
        mut process: Arc<Process>,
        mut at: BootTime,
        mut cause: Cause,
    ) -> Result<Explained, P::Error> {
        let mut passes_on = false;
        while self.chain.len() < limits::MOST_STEPS {
            // A child inherits the cause of its parent, which is nearer to it.
            let inherited = process.birth.as_ref().is_some_and(|birth| birth.cause.is_same(&cause));
            if !inherited && let Some(first) = self.messages(&process, &cause) {
                (process, at, cause) = (first.writer.clone(), first.at, Cause::of_socket(cause.socket));
                passes_on = true;
                continue;
            }
            let deed = Deed { process: &process, at, cause: cause.direct(), passes_on };
            if let Some(tie) = self.tie(boot, deed)? {
                self.trust(tie.confidence);
                self.chain.push(Step {
                    why: tie.why,
                    at: tie.life.began(),
                    what: What::Connection(Box::new(tie.life.clone())),
                });
                return Ok(Explained::By(Box::new(tie.life)));
            }
            if let Some(kind) = ending::boundary(&process)
                && process.birth.as_ref().is_none_or(|birth| birth.cause.is_none())
            {
                return Ok(Explained::Pairs(self.started(kind, process)));
            }
            let known = process.parent.clone().filter(|parent| !ending::is_adopted(&process, parent));
            let Some(parent) = known else { break };
            match &process.birth {
                Some(birth) => (at, cause) = (birth.at, birth.cause.clone()),
                None => {
                    // The parent was read from /proc.
                    self.trust(Confidence::Inferred);
                    (at, cause) = (process.key.start, Cause::default());
                }
            }
            let holder = Actor::leader(parent.clone());
            let (why, what) = match led_by_parent(&process, &cause) {
                Some(kind) => {
                    let why = format!("has the other end of the {} of {}", described(kind), name(&process));
                    (why, What::Stream { holder, kind })
                }
                None => (format!("forked {}", name(&process)), What::Process(holder)),
            };
            passes_on = matches!(what, What::Stream { .. });
            self.chain.push(Step { why, at, what });
            process = parent;
        }
        Ok(Explained::Pairs(self.end_of_line(boot, &process)?))
    }

    /// Adds the messages that led to what a process did, and returns the first one.
    fn messages<'a>(&mut self, process: &Process, cause: &'a Cause) -> Option<&'a Message> {
        let mut reader = name(process);
        for message in cause.messages().iter().rev() {
            let writer = name(&message.writer);
            let over = match (message.way, message.path.as_deref()) {
                (Way::Unix, Some(path)) => path.to_owned(),
                (Way::Unix, None) => "a UNIX socket without a name".to_owned(),
                (Way::Pipe, _) => "a pipe".to_owned(),
            };
            self.chain.push(Step {
                why: format!("{reader} read a message from {writer} over {over}"),
                at: message.at,
                what: What::Message {
                    writer: Actor::leader(message.writer.clone()),
                    way: message.way,
                    inode: message.inode,
                    path: message.path.clone(),
                },
            });
            reader = writer;
        }
        cause.messages().first()
    }

    fn tie(&mut self, boot: &Arc<str>, deed: Deed<'_>) -> Result<Option<Tie>, P::Error> {
        let ties = ties::find(self.past, boot, deed, &self.visited)?;
        for life in ties.possible {
            if self.possible.iter().all(|known| known.id() != life.id()) {
                self.possible.push(life);
            }
        }
        Ok(ties.tie)
    }

    fn trust(&mut self, confidence: Confidence) {
        self.confidence = self.confidence.max(confidence);
    }
}

enum Explained {
    By(Box<Life>),
    Pairs(Origin),
}

/// The kind of stream by which the parent of a program tells it what to do: its standard input, or, if the parent had
/// just read something when it forked, its output, which the parent takes back.
fn led_by_parent(program: &Process, cause_of_fork: &Cause) -> Option<StreamKind> {
    let [stdin, stdout, stderr] = program.streams.map(|stream| stream.filter(|stream| stream.at_parent));
    let output = stdout.or(stderr).filter(|_| !cause_of_fork.is_none());
    Some(stdin.or(output)?.kind)
}

fn described(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Pipe => "pipe",
        StreamKind::Terminal => "terminal",
        StreamKind::Unix => "pair of UNIX sockets",
    }
}

/// `comm[pid]`
fn name(process: &Process) -> String {
    format!("{}[{}]", process.comm, process.key.pid)
}
