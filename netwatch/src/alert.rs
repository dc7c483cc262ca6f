//! An alert: what a rule, a match list or a built-in detection found. A value; `rules` raises it.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::model::{BootTime, Socket};
use crate::origin::Verdict;
use crate::process::{Actor, ExeStatus};
use crate::tracker::{ConnectionEvent, EndpointId};

/// How serious an alert is: the levels of Sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// For information.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

impl Level {
    /// All, the least serious first.
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Name in the output and in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The rule that raised an alert. Its texts may hold any character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its id: of a Sigma rule its own, of a built-in detection the code.
    pub id: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// How serious its alerts are.
    pub level: Level,
    /// Tags, such as `attack.t1059.004`.
    pub tags: Vec<Arc<str>>,
    /// The code of a built-in detection.
    pub code: Option<Arc<str>>,
}

/// The endpoint that an alert is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its id.
    pub id: EndpointId,
    /// Its socket.
    pub socket: Socket,
    /// Who originated it; of no meaning for a listener.
    pub verdict: Verdict,
}

/// An alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Time of what raised it.
    pub at: BootTime,
    /// The rule.
    pub rule: Arc<Rule>,
    /// What was found, as a sentence. Text from outside in it may hold any character.
    pub detail: Arc<str>,
    /// The endpoint that it is about; `None` if it is about a process alone.
    pub about: Option<About>,
    /// The process that it is about, with the status of its executable.
    pub process: Option<(Actor, ExeStatus)>,
    /// Alerts of the same rule and key that were held back before this one.
    pub suppressed: u64,
    /// The walk back from its connection, as `trace --format json` has a match.
    pub trace: Option<Arc<RawValue>>,
}

impl Alert {
    /// An alert about the endpoint and the process of an event.
    #[must_use]
    pub fn of_event(rule: &Arc<Rule>, event: &ConnectionEvent, detail: impl Into<Arc<str>>) -> Self {
        let endpoint = &event.endpoint;
        let process = endpoint.process.clone().map(|actor| {
            let status = event.facts.exe.process.unwrap_or_else(|| actor.process.exe_status());
            (actor, status)
        });
        Self {
            about: Some(About { id: endpoint.id, socket: endpoint.socket, verdict: endpoint.verdict }),
            process,
            ..Self::of_process(rule, event.at, None, detail)
        }
    }

    /// An alert about a process.
    #[must_use]
    pub fn of_process(
        rule: &Arc<Rule>,
        at: BootTime,
        process: Option<(Actor, ExeStatus)>,
        detail: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            at,
            rule: rule.clone(),
            detail: detail.into(),
            about: None,
            process,
            suppressed: 0,
            trace: None,
        }
    }
}
