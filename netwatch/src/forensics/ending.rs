//! Where a walk ends.

use std::sync::Arc;

use super::{Life, Origin, OriginKind, Past, Walk, name};
use crate::origin::Confidence;
use crate::process::{Actor, Process};
use crate::where_it_runs;

/// The first process of all, which adopts orphans.
const INIT: u32 = 1;

/// What begins with this process: it is a kernel thread, or the first in its container or service. `None` where it
/// is one that another process of the same place forked.
pub(super) fn boundary(process: &Process) -> Option<OriginKind> {
    if process.kernel {
        return Some(OriginKind::Kernel);
    }
    if process.key.pid == INIT {
        return Some(OriginKind::Boot);
    }
    let here = where_it_runs::of_cgroup(&process.cgroup);
    let parent = process.parent.as_deref();
    let above = parent.map(|parent| where_it_runs::of_cgroup(&parent.cgroup)).unwrap_or_default();
    if here.container.is_some() && here.container != above.container {
        return Some(OriginKind::Container);
    }
    let is_service = here.unit.is_some_and(|unit| unit.ends_with(".service"));
    (is_service && here.unit != above.unit).then_some(OriginKind::Service)
}

/// Somebody logged in with this process: it has a login user, and who forked it had none.
pub(super) fn is_login(process: &Process) -> bool {
    process.auid.is_some() && process.parent.as_ref().is_none_or(|parent| parent.auid.is_none())
}

/// Whether `parent` may only have adopted the process: `/proc` names it, and it is the one that adopts.
pub(super) fn is_adopted(process: &Process, parent: &Process) -> bool {
    process.birth.is_none() && parent.key.pid == INIT
}

/// A service's process, and not one of a user's own service manager.
fn is_of_service(process: &Process) -> bool {
    let unit = where_it_runs::of_cgroup(&process.cgroup).unit;
    unit.is_some_and(|unit| unit.ends_with(".service") && !unit.starts_with("user@"))
}

impl<P: Past> Walk<'_, P> {
    pub(super) fn remote(&mut self, life: &Life) -> Origin {
        let remote = life.end().remote;
        Origin {
            endpoint: remote.map(|remote| (remote.ip, remote.port)),
            ..self.ended(OriginKind::Remote, None)
        }
    }

    pub(super) fn unknown(&mut self, missing: String) -> Origin {
        self.confidence = Confidence::Unknown;
        Origin { missing: vec![missing], ..self.ended(OriginKind::Unknown, None) }
    }

    /// `first` is where something of this kind begins.
    pub(super) fn started(&mut self, kind: OriginKind, first: Arc<Process>) -> Origin {
        // cron, too, sets a login user; but what it runs stays in its own service.
        let user = self
            .login()
            .filter(|_| self.processes().last().is_some_and(|last| !is_of_service(&last.process)));
        match user.cloned() {
            Some(login) if kind == OriginKind::Service => self.ended(OriginKind::Login, Some(login)),
            _ => self.ended(kind, Some(Actor::leader(first))),
        }
    }

    pub(super) fn ended(&mut self, kind: OriginKind, process: Option<Actor>) -> Origin {
        // What was found in the end needs no others.
        let possible =
            if kind == OriginKind::Remote { Vec::new() } else { std::mem::take(&mut self.possible) };
        let (endpoint, missing) = (None, Vec::new());
        Origin { kind, endpoint, process, confidence: self.confidence, missing, possible }
    }

    /// Nobody is known who forked `top`, or it was forked by the first process.
    pub(super) fn end_of_line(&mut self, boot: &Arc<str>, top: &Arc<Process>) -> Result<Origin, P::Error> {
        if let Some(login) = self.login().cloned() {
            return Ok(self.ended(OriginKind::Login, Some(login)));
        }
        let began = self.past.began(boot)?.unwrap_or_default();
        let mut missing = Vec::new();
        match top.birth {
            None => missing.push(format!("{} was there before recording began", name(top))),
            Some(birth) => {
                missing.push(format!("who forked {} was not seen", name(top)));
                for gap in self.past.gaps(boot, began, birth.at)? {
                    missing.push(match gap.records {
                        0 => "nobody recorded for a while before that".to_owned(),
                        1 => "a record was lost before that".to_owned(),
                        records => format!("{records} records were lost before that"),
                    });
                }
            }
        }
        self.confidence = Confidence::Unknown;
        Ok(Origin { missing, ..self.ended(OriginKind::Unknown, Some(Actor::leader(top.clone()))) })
    }

    /// Where somebody logged in, wherever on the way that was.
    fn login(&self) -> Option<&Actor> {
        self.processes().find(|actor| is_login(&actor.process))
    }

    /// Those on the way so far, the last first.
    fn processes(&self) -> impl Iterator<Item = &Actor> {
        self.chain.iter().rev().filter_map(|step| match &step.what {
            super::What::Process(actor) => Some(actor),
            super::What::Connection(_) => None,
        })
    }
}
