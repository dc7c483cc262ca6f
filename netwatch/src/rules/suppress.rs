//! Holds alerts back: after one, further ones of the same rule and key are counted for a while, and the last of them is
//! emitted at the end with the count, so that nothing is silent.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use crate::alert::Alert;
use crate::hash::Map;
use crate::limits;
use crate::model::BootTime;

/// What distinguishes alerts of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Nothing.
    Rule,
    /// The process.
    Process,
    /// The path of its executable, or its name if that is not known.
    Program,
    /// The remote address.
    Remote,
    /// The program and the remote address.
    Pair,
    /// The connection or listener.
    Connection,
}

impl Key {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("rule", Self::Rule),
        ("process", Self::Process),
        ("program", Self::Program),
        ("remote", Self::Remote),
        ("pair", Self::Pair),
        ("connection", Self::Connection),
    ];

    fn of(self, alert: &Alert) -> String {
        let mut key = String::new();
        let process = alert.process.as_ref().map(|(actor, _)| &actor.process);
        let remote = alert.about.as_ref().and_then(|about| about.socket.remote);
        // Writing to a String cannot fail.
        match self {
            Self::Rule => {}
            Self::Process => _ = process.map(|process| write!(key, "{}", process.key)),
            Self::Program | Self::Pair => {
                key.push_str(
                    process.map_or("", |process| process.image.exe.as_deref().unwrap_or(&process.comm)),
                );
            }
            Self::Remote => {}
            Self::Connection => _ = alert.about.as_ref().map(|about| write!(key, "{}", about.id)),
        }
        if matches!(self, Self::Remote | Self::Pair) {
            _ = remote.map(|remote| write!(key, " {}", remote.ip));
        }
        key
    }
}

/// How long alerts of a rule are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppress {
    /// `None`: every rule without a setting of its own.
    rule: Option<String>,
    /// `None`: the key that the rule has.
    key: Option<Key>,
    time: Duration,
}

impl FromStr for Suppress {
    type Err = String;

    /// `[RULE[/KEY]=]TIME`
    fn from_str(text: &str) -> Result<Self, String> {
        let (rule, time) = match text.rsplit_once('=') {
            Some((rule, time)) => (Some(rule), time),
            None => (None, text),
        };
        let seconds = time.parse().map(Duration::from_secs).ok();
        let parsed = || time.parse::<jiff::SignedDuration>().ok()?.try_into().ok();
        let time = seconds.or_else(parsed).ok_or_else(|| format!("`{time}`: a time, like 10m or 1h30m"))?;
        let Some(rule) = rule else { return Ok(Self { rule: None, key: None, time }) };
        let (rule, key) = match rule.rsplit_once('/') {
            Some((rule, word)) => {
                let known = Key::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, key)| key);
                let names = Key::ALL.map(|(name, _)| name).join(", ");
                (rule, Some(known.ok_or_else(|| format!("`{word}`: one of {names}"))?))
            }
            None => (rule, None),
        };
        let rule = Some(rule.to_owned()).filter(|rule| !rule.is_empty() && rule != "*");
        Ok(Self { rule, key, time })
    }
}

/// How long alerts are held back if no option says so.
const USUAL: Duration = Duration::from_secs(600);

/// What is held back now.
#[derive(Debug, Default)]
pub(super) struct Suppressor {
    settings: Vec<Suppress>,
    windows: Map<(std::sync::Arc<str>, String), Window>,
}

#[derive(Debug)]
struct Window {
    until: BootTime,
    time: Duration,
    count: u64,
    /// The last that was held back.
    held: Option<Alert>,
}

impl Window {
    /// The alert that tells how many were held back.
    fn end(self) -> Option<Alert> {
        let mut alert = self.held?;
        alert.suppressed = self.count.saturating_sub(1);
        Some(alert)
    }
}

impl Suppressor {
    pub(super) fn new(settings: Vec<Suppress>) -> Self {
        Self { settings, windows: Map::default() }
    }

    fn setting(&self, rule: &str, usual: Key) -> (Duration, Key) {
        let own = self.settings.iter().rfind(|setting| setting.rule.as_deref() == Some(rule));
        let any = || self.settings.iter().rfind(|setting| setting.rule.is_none());
        match own.or_else(any) {
            Some(setting) => (setting.time, setting.key.unwrap_or(usual)),
            None => (USUAL, usual),
        }
    }

    /// Emits an alert, unless one with the same key was emitted shortly before.
    pub(super) fn pass(&mut self, alert: Alert, usual: Key, out: &mut Vec<Alert>) {
        let (time, key) = self.setting(&alert.rule.id, usual);
        if time.is_zero() {
            out.push(alert);
            return;
        }
        let key = (alert.rule.id.clone(), key.of(&alert));
        let until = alert.at.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if let Some(window) = self.windows.get_mut(&key)
            && alert.at < window.until
        {
            window.count += 1;
            window.held = Some(alert);
            return;
        }
        if self.windows.len() >= limits::RULE_WINDOWS {
            out.extend(self.windows.drain().filter_map(|(_, window)| window.end()));
        }
        let window = Window { until, time, count: 0, held: None };
        if let Some(before) = self.windows.insert(key, window) {
            out.extend(before.end());
        }
        out.push(alert);
    }

    /// Ends the windows whose time is over at `now`.
    pub(super) fn tick(&mut self, now: BootTime, out: &mut Vec<Alert>) {
        let over: Vec<_> = self.windows.extract_if(|_, window| window.until <= now).collect();
        for (key, window) in over {
            let time = window.time;
            let Some(alert) = window.end() else { continue };
            // It stands for a burst that may go on.
            let until = now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            self.windows.insert(key, Window { until, time, count: 0, held: None });
            out.push(alert);
        }
    }

    /// Ends all.
    pub(super) fn finish(&mut self, out: &mut Vec<Alert>) {
        let mut ended: Vec<_> = self.windows.drain().filter_map(|(_, window)| window.end()).collect();
        ended.sort_by_key(|alert| alert.at);
        out.append(&mut ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alert::{Level, Rule};
    use crate::model::tests::ns;
    use crate::process::{Actor, ExeStatus};

    const NONE: [u64; 0] = [];

    fn alert(second: u64, rule: &str, pid: u32) -> Alert {
        let (id, title) = (rule.into(), rule.into());
        let rule = Arc::new(Rule { id, title, level: Level::Low, tags: Vec::new(), code: None });
        let process = Actor::leader(crate::process::tests::process(pid, None));
        let status = ExeStatus { state: crate::model::ExeState::Ok, world_writable: false };
        Alert::of_process(&rule, ns(second * 1_000_000_000), Some((process, status)), "")
    }

    fn passed(suppressor: &mut Suppressor, second: u64, rule: &str, pid: u32) -> Vec<u64> {
        let mut out = Vec::new();
        suppressor.pass(alert(second, rule, pid), Key::Process, &mut out);
        out.iter().map(|alert| alert.suppressed).collect()
    }

    #[test]
    fn alerts_of_one_key_are_counted_and_told() {
        let mut suppressor = Suppressor::new(vec!["60".parse().unwrap()]);
        assert_eq!(passed(&mut suppressor, 1, "a", 1), [0]);
        assert_eq!(passed(&mut suppressor, 2, "a", 1), NONE);
        assert_eq!(passed(&mut suppressor, 3, "a", 2), [0], "another process");
        assert_eq!(passed(&mut suppressor, 3, "b", 1), [0], "another rule");
        assert_eq!(passed(&mut suppressor, 60, "a", 1), NONE);
        let mut out = Vec::new();
        suppressor.tick(ns(60_000_000_000), &mut out);
        assert!(out.is_empty());
        suppressor.tick(ns(61_000_000_000), &mut out);
        // The last of two, with the other.
        assert_eq!(
            out.iter().map(|alert| (alert.at, alert.suppressed)).collect::<Vec<_>>(),
            [(ns(60_000_000_000), 1)]
        );
        // Its own window has begun.
        assert_eq!(passed(&mut suppressor, 62, "a", 1), NONE);
        out.clear();
        suppressor.finish(&mut out);
        assert_eq!(out.iter().map(|alert| alert.suppressed).collect::<Vec<_>>(), [0]);
        suppressor.finish(&mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn settings_are_by_rule_and_key() {
        let of = |texts: &[&str]| Suppressor::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let mut suppressor = of(&["0", "a/rule=1m", "b=1m"]);
        assert_eq!(passed(&mut suppressor, 1, "c", 1), [0]);
        assert_eq!(passed(&mut suppressor, 1, "c", 1), [0], "nothing is held back");
        assert_eq!(passed(&mut suppressor, 1, "a", 1), [0]);
        assert_eq!(passed(&mut suppressor, 1, "a", 2), NONE, "any process");
        assert_eq!(passed(&mut suppressor, 1, "b", 1), [0]);
        assert_eq!(passed(&mut suppressor, 1, "b", 2), [0]);
        for bad in ["", "soon", "a=", "a/x=1m", "-1s"] {
            assert!(bad.parse::<Suppress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn windows_are_limited_and_none_is_silent() {
        let mut suppressor = Suppressor::new(vec!["1h".parse().unwrap()]);
        for pid in 1..=limits::RULE_WINDOWS as u32 {
            assert_eq!(passed(&mut suppressor, 1, "a", pid), [0]);
        }
        assert_eq!(passed(&mut suppressor, 2, "a", 1), NONE);
        let most = limits::RULE_WINDOWS as u32;
        assert_eq!(passed(&mut suppressor, 3, "a", most + 1), [0, 0], "what was held back, and the new one");
        assert_eq!(suppressor.windows.len(), 1);
    }
}
