//! Built-in detections: what only who knows the originators can say. One file for each subject.

mod firsts;
mod forwards;
mod listeners;
mod programs;
mod relayed;
mod scans;
mod shells;

use std::str::FromStr;
use std::sync::Arc;

use crate::alert::{Alert, Level, Rule};
use crate::model::BootTime;
use crate::process::{ExeStatus, Process};
use crate::tracker::ConnectionEvent;

use super::baseline::Baseline;
use super::{Host, Key, Memory};

/// A built-in detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A shell or an interpreter has a network socket as stdin or stdout.
    ShellOnSocket,
    /// The same over pipes, a terminal or UNIX sockets.
    ShellRelayed,
    /// A shell is executed because of a connection that was accepted.
    AcceptThenShell,
    /// A program whose file was deleted connects, accepts or listens.
    ExeDeleted,
    /// A program that never had a file does.
    ExeMemfd,
    /// One remote address tries many ports of this host.
    PortScan,
    /// A connection is made for a client on another host.
    ForwardedForRemote,
    /// A listener that `netwatch audit` cannot explain.
    ListenerUnexplained,
    /// A program connects for the first time.
    FirstConnect,
    /// A program listens for the first time.
    FirstListen,
    /// A process of a service connects to where none of it did before.
    NewDestination,
}

/// What is constant about a detection.
struct Facts {
    code: Code,
    name: &'static str,
    title: &'static str,
    level: Level,
    tags: &'static [&'static str],
    key: Key,
    group: Group,
}

/// When a detection is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// With `--detect default` and `all`.
    Usual,
    /// With `all`.
    More,
    /// With `all`, if there is a baseline.
    Baseline,
}

/// In the order of the documentation.
const TABLE: [Facts; 11] = [
    Facts {
        code: Code::ShellOnSocket,
        name: "shell-on-socket",
        title: "Shell on a network socket",
        level: Level::High,
        tags: &["attack.execution", "attack.t1059.004"],
        key: Key::Process,
        group: Group::Usual,
    },
    Facts {
        code: Code::ShellRelayed,
        name: "shell-relayed",
        title: "Shell steered over the network by another process",
        level: Level::High,
        tags: &["attack.execution", "attack.t1059.004"],
        key: Key::Process,
        group: Group::Usual,
    },
    Facts {
        code: Code::AcceptThenShell,
        name: "accept-then-shell",
        title: "Shell executed because of an accepted connection",
        level: Level::Medium,
        tags: &["attack.execution", "attack.initial-access", "attack.t1059.004", "attack.t1190"],
        key: Key::Program,
        group: Group::Usual,
    },
    Facts {
        code: Code::ExeDeleted,
        name: "exe-deleted",
        title: "Program whose file was deleted uses the network",
        level: Level::Medium,
        tags: &["attack.defense-evasion", "attack.t1070.004"],
        key: Key::Process,
        group: Group::Usual,
    },
    Facts {
        code: Code::ExeMemfd,
        name: "exe-memfd",
        title: "Program that exists only in memory uses the network",
        level: Level::High,
        tags: &["attack.defense-evasion", "attack.t1620"],
        key: Key::Process,
        group: Group::Usual,
    },
    Facts {
        code: Code::PortScan,
        name: "port-scan",
        title: "Port scan of this host",
        level: Level::Medium,
        tags: &["attack.discovery", "attack.t1046"],
        key: Key::Remote,
        group: Group::Usual,
    },
    Facts {
        code: Code::ForwardedForRemote,
        name: "forwarded-for-remote",
        title: "Connection made for a client on another host",
        level: Level::Low,
        tags: &["attack.command-and-control", "attack.t1090.001"],
        key: Key::Program,
        group: Group::More,
    },
    Facts {
        code: Code::ListenerUnexplained,
        name: "listener-unexplained",
        title: "Listener that cannot be explained",
        level: Level::Medium,
        tags: &["attack.persistence", "attack.t1571"],
        key: Key::Connection,
        group: Group::More,
    },
    Facts {
        code: Code::FirstConnect,
        name: "first-connect",
        title: "Program connects for the first time",
        level: Level::Low,
        tags: &["attack.command-and-control"],
        key: Key::Program,
        group: Group::Baseline,
    },
    Facts {
        code: Code::FirstListen,
        name: "first-listen",
        title: "Program listens for the first time",
        level: Level::Low,
        tags: &["attack.persistence"],
        key: Key::Program,
        group: Group::Baseline,
    },
    Facts {
        code: Code::NewDestination,
        name: "new-destination",
        title: "Service connects to a new destination",
        level: Level::Medium,
        tags: &["attack.command-and-control"],
        key: Key::Pair,
        group: Group::Baseline,
    },
];

/// Names of all detections, in the order of the documentation.
pub const CODES: fn() -> Vec<&'static str> = || TABLE.iter().map(|facts| facts.name).collect();

/// Which detections are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detect(Vec<Code>);

impl Detect {
    /// Those that need nothing else and are rarely wrong.
    pub const USUAL: &'static str = "default";

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is.
    #[must_use]
    pub fn has(&self, code: Code) -> bool {
        self.0.contains(&code)
    }

    /// Whether one of those that need a baseline is.
    #[must_use]
    pub fn needs_baseline(&self) -> bool {
        let needs = |facts: &&Facts| facts.group == Group::Baseline;
        TABLE.iter().filter(needs).any(|facts| self.has(facts.code))
    }

    /// Whether it has fewer than all detections.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        TABLE.iter().any(|facts| !self.has(facts.code))
    }

    /// Without those that need a baseline.
    #[must_use]
    pub fn without_baseline(mut self) -> Self {
        let needs =
            |code: &Code| TABLE.iter().any(|facts| facts.code == *code && facts.group == Group::Baseline);
        self.0.retain(|code| !needs(code));
        self
    }
}

impl FromStr for Detect {
    type Err = String;

    /// `all`, `default`, `none`, or codes with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let group = |is: fn(Group) -> bool| {
            TABLE.iter().filter(|facts| is(facts.group)).map(|facts| facts.code).collect()
        };
        let mut codes: Vec<Code> = Vec::new();
        for word in text.split(',').map(str::trim) {
            let more: Vec<Code> = match word {
                "all" => group(|_| true),
                Self::USUAL => group(|group| group == Group::Usual),
                "none" => Vec::new(),
                name => match TABLE.iter().find(|facts| facts.name == name) {
                    Some(facts) => vec![facts.code],
                    None => {
                        return Err(format!("`{name}`: one of all, default, none, {}", CODES().join(", ")));
                    }
                },
            };
            codes.extend(more);
        }
        Ok(Self(codes))
    }
}

/// Something that was found: an alert, and what distinguishes it from others of its rule.
pub(super) type Found = (Alert, Key);

/// What a detection is given.
pub(super) struct Given<'a> {
    pub(super) memory: &'a Memory,
    pub(super) host: &'a mut dyn Host,
    pub(super) baseline: Option<&'a mut Baseline>,
}

/// The detections with their state.
pub(super) struct Detections {
    detect: Detect,
    rules: Vec<(Code, Arc<Rule>, Key)>,
    shells: shells::Shells,
    relayed: relayed::Relayed,
    scans: scans::Scans,
    listeners: listeners::Listeners,
}

impl Detections {
    pub(super) fn new(detect: Detect) -> Self {
        let rules = TABLE.iter().map(|facts| {
            let rule = Rule {
                id: facts.name.into(),
                title: facts.title.into(),
                level: facts.level,
                tags: facts.tags.iter().map(|tag| Arc::from(*tag)).collect(),
                code: Some(facts.name.into()),
            };
            (facts.code, Arc::new(rule), facts.key)
        });
        Self {
            rules: rules.collect(),
            detect,
            shells: shells::Shells::default(),
            relayed: relayed::Relayed::default(),
            scans: scans::Scans::default(),
            listeners: listeners::Listeners::default(),
        }
    }

    /// The rule of a detection that is on.
    fn rule(&self, code: Code) -> Option<(Arc<Rule>, Key)> {
        let (_, rule, key) = self.rules.iter().find(|(known, ..)| *known == code)?;
        self.detect.has(code).then(|| (rule.clone(), *key))
    }

    /// An event, which the memory has already.
    pub(super) fn event(&mut self, event: &ConnectionEvent, given: &mut Given<'_>, out: &mut Vec<Found>) {
        if let Some((rule, key)) = self.rule(Code::ShellOnSocket) {
            out.extend(self.shells.of_event(&rule, event).map(|alert| (alert, key)));
        }
        if self.detect.has(Code::ShellRelayed) {
            self.relayed.event(event);
        }
        for (code, find) in [
            (Code::ExeDeleted, programs::deleted as fn(&Arc<Rule>, &ConnectionEvent) -> Option<Alert>),
            (Code::ExeMemfd, programs::memfd),
        ] {
            if let Some((rule, key)) = self.rule(code) {
                out.extend(find(&rule, event).map(|alert| (alert, key)));
            }
        }
        if let Some((rule, key)) = self.rule(Code::PortScan) {
            out.extend(self.scans.event(&rule, event).map(|alert| (alert, key)));
        }
        if let Some((rule, key)) = self.rule(Code::ForwardedForRemote) {
            out.extend(forwards::event(&rule, event, given.memory).map(|alert| (alert, key)));
        }
        if self.detect.has(Code::ListenerUnexplained) {
            self.listeners.event(event, given.host);
        }
        let Some(baseline) = &mut given.baseline else { return };
        for (code, find) in [
            (Code::FirstConnect, firsts::connect as fn(&Arc<Rule>, _, &mut Baseline) -> Option<Alert>),
            (Code::FirstListen, firsts::listen),
            (Code::NewDestination, firsts::destination),
        ] {
            if let Some((rule, key)) = self.rule(code) {
                out.extend(find(&rule, event, baseline).map(|alert| (alert, key)));
            }
        }
    }

    /// A program that was started with a network socket as a standard stream.
    pub(super) fn on_socket(
        &mut self,
        process: &Arc<Process>,
        status: ExeStatus,
        at: BootTime,
        memory: &Memory,
        out: &mut Vec<Found>,
    ) {
        if let Some((rule, key)) = self.rule(Code::ShellOnSocket) {
            out.extend(self.shells.of_process(&rule, process, status, at, memory).map(|alert| (alert, key)));
        }
    }

    /// A program was executed.
    pub(super) fn exec(
        &mut self,
        process: &Arc<Process>,
        at: BootTime,
        memory: &Memory,
        out: &mut Vec<Found>,
    ) {
        if self.detect.has(Code::ShellRelayed) {
            self.relayed.exec(process, at);
        }
        if let Some((rule, key)) = self.rule(Code::AcceptThenShell) {
            out.extend(shells::accepted(&rule, process, at, memory).map(|alert| (alert, key)));
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: BootTime, given: &mut Given<'_>, out: &mut Vec<Found>) {
        if let Some((rule, key)) = self.rule(Code::ShellRelayed) {
            let found = self.relayed.tick(&rule, now, given.memory, given.host);
            out.extend(found.into_iter().map(|alert| (alert, key)));
        }
        if let Some((rule, key)) = self.rule(Code::ListenerUnexplained) {
            let found = listeners::judged(&rule, given.memory, given.host);
            out.extend(found.into_iter().map(|alert| (alert, key)));
        }
    }
}

#[cfg(test)]
mod tests;
