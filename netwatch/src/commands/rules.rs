//! Rules of `watch` and `record`: what they are made of, and what they ask about the host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::audit::beside::Beside;
use crate::bus::Bus;
use crate::engine::complain;
use crate::hash::Map;
use crate::model::{NetnsId, Proto, SockAddr};
use crate::relays::{self, Relayed};
use crate::rules::sigma::Sigma;
use crate::rules::sigma::load::Pack;
use crate::rules::{Baseline, Code, Detect, Exec, Host, Lists, Rules, Setup, Suppress};
use crate::snapshot::streams;
use crate::stream::Context;
use crate::tracker::{Endpoint, EndpointId};

/// Rules that are not used and are said at the start, each in a line.
const MOST_SAID: usize = 20;

/// Options of rules.
#[derive(Clone, Debug, Default)]
pub struct RulesOptions {
    /// Built-in detections.
    pub detect: Detect,
    /// Files and directories of Sigma rules.
    pub rules: Vec<PathBuf>,
    /// Files of match lists.
    pub lists: Vec<PathBuf>,
    /// The file of what is usual, and for how long it learns.
    pub baseline: Option<(PathBuf, Duration)>,
    /// How long alerts are held back.
    pub suppress: Vec<Suppress>,
    /// The program that is run for each alert, with its arguments; empty: none.
    pub exec: Vec<OsString>,
}

impl RulesOptions {
    /// Reads everything that rules need. `None`: there are no rules.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn read(self) -> Result<Option<Setup>> {
        let Self { detect, rules, lists, baseline, suppress, exec } = self;
        let sigma = if rules.is_empty() { None } else { Some(sigma(&rules)?) };
        let lists = Lists::read(&lists)?;
        let baseline =
            baseline.map(|(path, learn)| Baseline::open(&path, learn, Timestamp::now())).transpose()?;
        let judges = detect.has(Code::ListenerUnexplained);
        let setup = Setup { detect, sigma, lists, baseline, suppress, traces: true, exec: None, host: None };
        if setup.is_empty() {
            return Ok(None);
        }
        let exec = if exec.is_empty() {
            None
        } else {
            Some(
                Exec::start(&exec)
                    .context("cannot start the process that runs the program of --alert-exec")?,
            )
        };
        let beside = judges.then(|| Beside::start(Arc::new(None))).transpose()?;
        let host = ThisHost { beside, asked: Map::default() };
        Ok(Some(Setup { exec, host: Some(Box::new(host)), ..setup }))
    }
}

/// Reads and compiles Sigma rules. Those that are wrong are said, and the others are used.
///
/// # Errors
/// If a path cannot be read.
fn sigma(paths: &[PathBuf]) -> Result<Sigma> {
    let mut pack = Pack::read(paths)?;
    let sigma = Sigma::compile(&mut pack);
    for bad in pack.bad.iter().take(MOST_SAID) {
        complain(&format!("a rule is not used: {bad}"));
    }
    if pack.bad.len() > MOST_SAID {
        complain(&format!(
            "{} more rules are not used; see `netwatch rules check`",
            pack.bad.len() - MOST_SAID
        ));
    }
    if sigma.count() == 0 {
        complain("none of the rules is for netwatch: see `netwatch rules check`");
    }
    Ok(sigma)
}

/// Subscribes the rules to a bus.
///
/// # Errors
/// If their thread cannot be started.
pub(super) fn start(setup: Option<Setup>, context: Context, bus: &mut Bus) -> Result<Option<Rules>> {
    Ok(setup.map(|setup| Rules::start(setup, context, bus)).transpose()?)
}

type Listening = (NetnsId, Proto, SockAddr);

/// This host.
struct ThisHost {
    beside: Option<Beside>,
    asked: Map<Listening, EndpointId>,
}

impl Host for ThisHost {
    fn relayed(&mut self, shells: &[u32], holds: &dyn Fn(u32) -> bool) -> Vec<Relayed> {
        let shells: Vec<_> = shells.iter().copied().filter(|shell| streams::leads_away(*shell)).collect();
        if shells.is_empty() {
            return Vec::new();
        }
        relays::find(&shells, &streams::all(), holds)
    }

    fn judge(&mut self, endpoint: &Endpoint) -> bool {
        let Some(beside) = &self.beside else { return true };
        let is_taken = beside.listens(endpoint);
        if is_taken {
            self.asked.insert((endpoint.netns, endpoint.proto, endpoint.local), endpoint.id);
        }
        is_taken
    }

    fn unexplained(&mut self) -> Vec<(EndpointId, Vec<String>)> {
        let Some(beside) = &self.beside else { return Vec::new() };
        let mut found = Vec::new();
        for report in beside.judged() {
            for port in &report.ports {
                let server = &port.server;
                let asked = self.asked.remove(&(server.netns, server.proto, server.local));
                found.extend(asked.filter(|_| !port.is_explained()).map(|id| (id, port.reasons.clone())));
            }
        }
        found
    }
}
