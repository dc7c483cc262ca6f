//! Determines where a walk ends.

use std::sync::Arc;

use super::{Life, Origin, OriginKind, Past, Walk, name};
use crate::origin::Confidence;
use crate::process::{Actor, Process};
use crate::where_it_runs;

/// The pid of the first process, which adopts orphans.
const INIT: u32 = 1;

/// What this process is the first of: a kernel thread, the system, a container or a service. `None` if its parent is in
/// the same container and service.
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

/// Whether a login began with this process: it has a login uid and its parent has none.
pub(super) fn is_login(process: &Process) -> bool {
    process.auid.is_some() && process.parent.as_ref().is_none_or(|parent| parent.auid.is_none())
}

/// Whether `parent` may have adopted the process: its fork was not seen, and the parent is init.
pub(super) fn is_adopted(process: &Process, parent: &Process) -> bool {
    process.birth.is_none() && parent.key.pid == INIT
}

/// Whether the process belongs to a system service, not to one of a user's service manager.
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

    /// `first`: the first process of the service, container or login.
    pub(super) fn started(&mut self, kind: OriginKind, first: Arc<Process>) -> Origin {
        // cron also sets a login uid, but its jobs stay in the service of cron.
        let user = self
            .login()
            .filter(|_| self.processes().last().is_some_and(|last| !is_of_service(&last.process)));
        match user.cloned() {
            Some(login) if kind == OriginKind::Service => self.ended(OriginKind::Login, Some(login)),
            _ => self.ended(kind, Some(Actor::leader(first))),
        }
    }

    pub(super) fn ended(&mut self, kind: OriginKind, process: Option<Actor>) -> Origin {
        // If the cause was found, candidates are not reported.
        let possible =
            if kind == OriginKind::Remote { Vec::new() } else { std::mem::take(&mut self.possible) };
        let (endpoint, missing) = (None, Vec::new());
        Origin { kind, endpoint, process, confidence: self.confidence, missing, possible }
    }

    /// The parent of `top` is unknown, or `top` was adopted.
    pub(super) fn end_of_line(&mut self, boot: &Arc<str>, top: &Arc<Process>) -> Result<Origin, P::Error> {
        if let Some(login) = self.login().cloned() {
            return Ok(self.ended(OriginKind::Login, Some(login)));
        }
        let began = self.past.began(boot)?.unwrap_or_default();
        let mut missing = Vec::new();
        match &top.birth {
            None => missing.push(format!("{} started before recording began", name(top))),
            Some(birth) => {
                missing.push(format!("the fork of {} was not observed", name(top)));
                for gap in self.past.gaps(boot, began, birth.at)? {
                    missing.push(match gap.records {
                        0 => "recording was interrupted before that".to_owned(),
                        1 => "a record was lost before that".to_owned(),
                        records => format!("{records} records were lost before that"),
                    });
                }
            }
        }
        self.confidence = Confidence::Unknown;
        Ok(Origin { missing, ..self.ended(OriginKind::Unknown, Some(Actor::leader(top.clone()))) })
    }

    /// The login process among the steps so far.
    fn login(&self) -> Option<&Actor> {
        self.processes().find(|actor| is_login(&actor.process))
    }

    /// Processes of the steps so far, the last first.
    fn processes(&self) -> impl Iterator<Item = &Actor> {
        self.chain.iter().rev().filter_map(|step| match &step.what {
            super::What::Process(actor)
            | super::What::Message { writer: actor, .. }
            | super::What::Stream { holder: actor, .. } => Some(actor),
            super::What::Connection(_) => None,
        })
    }
}
