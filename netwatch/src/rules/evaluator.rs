//! Evaluates every rule on every item. Pure but for [`Host`].

use std::time::Duration;

use jiff::Timestamp;

use super::baseline::Baseline;
use super::detect::{Detect, Detections, Found, Given};
use super::sigma::Sigma;
use super::suppress::Suppressor;
use super::{Exec, Host, Key, Lists, Memory, NoHost, Suppress, walk};
use crate::alert::Alert;
use crate::forensics::Gap;
use crate::limits;
use crate::model::BootTime;
use crate::stream::{Context, Item};

/// What is evaluated.
#[derive(Default)]
pub struct Setup {
    /// Built-in detections.
    pub detect: Detect,
    /// Sigma rules.
    pub sigma: Option<Sigma>,
    /// Match lists.
    pub lists: Lists,
    /// What is usual.
    pub baseline: Option<Baseline>,
    /// How long alerts are held back.
    pub suppress: Vec<Suppress>,
    /// Add the walk back to alerts.
    pub traces: bool,
    /// The program that is run for each alert.
    pub exec: Option<Exec>,
    /// What detections ask; `None`: nothing.
    pub host: Option<Box<dyn Host>>,
}

impl Setup {
    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.detect.is_empty()
            && self.lists.is_empty()
            && self.sigma.as_ref().is_none_or(|sigma| sigma.count() == 0)
    }
}

/// How often the baseline is written.
const SAVES: Duration = Duration::from_secs(60);

/// The rules with their state.
pub struct Evaluator {
    memory: Memory,
    detections: Detections,
    sigma: Option<Sigma>,
    lists: Lists,
    baseline: Option<Baseline>,
    /// When the baseline was written.
    saved: BootTime,
    suppressor: Suppressor,
    host: Box<dyn Host>,
    /// Time of the newest item.
    now: BootTime,
    /// Time of the first item.
    began: Option<BootTime>,
    gaps: Vec<Gap>,
    traces: bool,
    /// Walks in the second that `now` is in.
    walks: (u64, u32),
    found: Vec<Found>,
    matched: Vec<Alert>,
}

impl Evaluator {
    /// Begins.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { detect, sigma, lists, baseline, suppress, traces, exec: _, host } = setup;
        Self {
            memory: Memory::default(),
            detections: Detections::new(detect),
            sigma,
            lists,
            baseline,
            saved: BootTime::default(),
            suppressor: Suppressor::new(suppress),
            host: host.unwrap_or_else(|| Box::new(NoHost)),
            now: BootTime::default(),
            began: None,
            gaps: Vec::new(),
            traces,
            walks: (0, 0),
            found: Vec::new(),
            matched: Vec::new(),
        }
    }

    /// Takes an item, and appends the alerts that it raises.
    pub fn take(&mut self, item: &Item, context: &Context, out: &mut Vec<Alert>) {
        let mut found = std::mem::take(&mut self.found);
        match item {
            Item::Event(event) => {
                self.now = self.now.max(event.at);
                self.began.get_or_insert(event.at);
                self.memory.note(event);
                let mut given =
                    Given { memory: &self.memory, host: &mut *self.host, baseline: self.baseline.as_mut() };
                self.detections.event(event, &mut given, &mut found);
                found.extend(self.lists.event(event).map(|alert| (alert, Key::Remote)));
                if let Some(sigma) = self.sigma.as_mut().filter(|_| event.is_the_connection()) {
                    sigma.connection(event, context, &mut self.matched);
                    found.extend(self.matched.drain(..).map(|alert| (alert, Key::Pair)));
                }
            }
            Item::Process(process, status) => {
                self.detections.on_socket(process, *status, self.now, &self.memory, &mut found);
            }
            Item::Exec(at, process) => {
                self.now = self.now.max(*at);
                self.detections.exec(process, *at, &self.memory, &mut found);
                if let Some(sigma) = &mut self.sigma {
                    sigma.program(process, *at, context, &mut self.matched);
                    found.extend(self.matched.drain(..).map(|alert| (alert, Key::Pair)));
                }
            }
            Item::Loss(_, loss) => {
                if self.gaps.len() < limits::RULE_GAPS {
                    self.gaps.push(Gap { from: self.now, to: self.now, records: loss.count() });
                }
            }
            Item::Ready(_) | Item::Alert(_) | Item::Table(_) => {}
        }
        self.raise(&mut found, context, out);
        self.found = found;
    }

    /// Time passes: what was held back is emitted when its time is over.
    pub fn tick(&mut self, now: BootTime, context: &Context, out: &mut Vec<Alert>) {
        self.now = self.now.max(now);
        let mut found = std::mem::take(&mut self.found);
        let mut given =
            Given { memory: &self.memory, host: &mut *self.host, baseline: self.baseline.as_mut() };
        self.detections.tick(now, &mut given, &mut found);
        self.raise(&mut found, context, out);
        self.found = found;
        self.suppressor.tick(now, out);
        let is_due = now.saturating_sub(self.saved) >= u64::try_from(SAVES.as_nanos()).unwrap_or(u64::MAX);
        if let Some(baseline) = &mut self.baseline {
            baseline.tick(context.clock.time(now).unwrap_or_else(Timestamp::now));
            if is_due {
                self.saved = now;
                complain_of(baseline);
            }
        }
    }

    /// The end of the stream.
    pub fn finish(&mut self, context: &Context, out: &mut Vec<Alert>) {
        self.tick(self.now, context, out);
        self.suppressor.finish(out);
        if let Some(baseline) = &mut self.baseline {
            complain_of(baseline);
        }
    }

    fn raise(&mut self, found: &mut Vec<Found>, context: &Context, out: &mut Vec<Alert>) {
        for (alert, key) in found.drain(..) {
            let before = out.len();
            self.suppressor.pass(alert, key, out);
            for alert in out.iter_mut().skip(before) {
                if let Some(about) = alert.about.as_ref().filter(|_| self.traces)
                    && is_within_budget(&mut self.walks, self.now)
                {
                    let began = self.began.unwrap_or_default();
                    alert.trace = walk::back(about.id, &self.memory, context, began, &self.gaps);
                }
            }
        }
    }
}

/// Whether another walk may be made in this second of `now`: each may read the whole memory several times.
fn is_within_budget((second, count): &mut (u64, u32), now: BootTime) -> bool {
    let this = now.nanos() / 1_000_000_000;
    if *second != this {
        (*second, *count) = (this, 0);
    }
    *count += 1;
    *count <= limits::RULE_WALKS
}

fn complain_of(baseline: &mut Baseline) {
    if let Err(error) = baseline.save() {
        crate::stderr::print(&format!("netwatch: {error}"));
    }
}
