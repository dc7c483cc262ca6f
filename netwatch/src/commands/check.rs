//! `netwatch rules check`: whether rules can match, and what they would have raised in a store.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::log;
use super::verify::FOUND;
use crate::alert::Alert;
use crate::enrich;
use crate::hash::Set;
use crate::model::ProcessKey;
use crate::output::{Log, LogOptions};
use crate::process::Process;
use crate::rights;
use crate::rules::sigma::load::{Category, Pack};
use crate::rules::sigma::{Sigma, check};
use crate::rules::{Evaluator, Setup};
use crate::store::{Narrow, Reader};
use crate::stream::{Batch, Context, Item};
use crate::{escape, limits};

/// Options of `rules check`.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// A store to try the rules on.
    pub against: Option<PathBuf>,
    /// Print alerts with colours.
    pub colour: bool,
}

/// Checks rules, and prints what is wrong with them.
///
/// # Errors
/// If a path or the store cannot be read, or the output fails.
pub fn run(options: &CheckOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let reader = options.against.as_deref().map(Reader::open).transpose()?;
    let mut pack = Pack::read(&options.paths)?;
    let sigma = Sigma::compile(&mut pack);
    let readable = options.against.as_deref().map(log::readable);
    rights::give_up(&rights::READING, &readable.unwrap_or_else(rights::names), None);
    let remarks = check::remarks(&pack);
    for bad in &pack.bad {
        writeln!(out, "{bad}")?;
    }
    for remark in &remarks {
        let fields = remark.unfilled.join(", ");
        let what =
            if remark.is_dead { "can never match: netwatch never fills" } else { "netwatch never fills" };
        let (file, title) = (remark.file.display(), &remark.title);
        let line = format!("{file}:{}: {title}: {what} {fields}", remark.line);
        writeln!(out, "{}", escape::terminal(&line))?;
    }
    let dead = remarks.iter().filter(|remark| remark.is_dead).count();
    let of =
        |category| pack.rules.iter().filter(|loaded| Category::of(&loaded.rule) == Some(category)).count();
    writeln!(
        out,
        "{} rules for netwatch ({} of connections, {} of programs) and {} correlations; {} for other log sources; {} \
         wrong; {dead} can never match",
        pack.rules.len(),
        of(Category::Connection),
        of(Category::Program),
        sigma.count().saturating_sub(pack.rules.len()),
        pack.others.len(),
        pack.bad.len(),
    )?;
    if let Some(reader) = reader {
        hunt(options, sigma, &reader, out)?;
    }
    out.flush()?;
    Ok(if pack.bad.is_empty() && dead == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

/// Prints the alerts that rules would have raised in a store, and how many of each.
fn hunt(options: &CheckOptions, sigma: Sigma, reader: &Reader, out: &mut dyn Write) -> Result<()> {
    let setup = Setup { sigma: Some(sigma), traces: true, ..Setup::default() };
    let mut hunt = Hunt { evaluator: Evaluator::new(setup), seen: Set::default(), found: BTreeMap::new() };
    let mut stages = enrich::recorded();
    let format = LogOptions { colour: options.colour, zone: TimeZone::system(), ..LogOptions::default() };
    let mut log = Log::dated(&format, &mut *out);
    let mut events = reader.events(Narrow::All, None, None, false)?;
    let mut last = None;
    while let Some(mut batch) = events.next_batch()? {
        stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
        let alerts = hunt.take(&batch);
        last = Some(batch.context.clone());
        log.batch(&Batch { context: batch.context, items: alerts })?;
    }
    if let Some(context) = last {
        let mut alerts = Vec::new();
        hunt.evaluator.finish(&context, &mut alerts);
        log.batch(&Batch { items: hunt.items(alerts), context })?;
    }
    log.finish()?;
    drop(log);
    let programs = hunt.seen.len();
    writeln!(out, "{} would have raised an alert", counted(&hunt.found))?;
    writeln!(
        out,
        "rules of programs were tried on {programs} programs: those of which the store has connections"
    )?;
    for (rule, count) in &hunt.found {
        writeln!(out, "{count:>8} {}", escape::terminal(rule))?;
    }
    Ok(())
}

fn counted(found: &BTreeMap<String, u64>) -> String {
    if found.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", found.len()) }
}

struct Hunt {
    evaluator: Evaluator,
    /// Programs that were tried: the process and the path of its executable.
    seen: Set<(ProcessKey, Option<Arc<str>>)>,
    /// Alerts by rule, with those that were held back.
    found: BTreeMap<String, u64>,
}

impl Hunt {
    fn take(&mut self, batch: &Batch) -> Vec<Item> {
        let mut alerts = Vec::new();
        for item in &batch.items {
            if let Item::Event(event) = item {
                let actors = event.endpoint.actors();
                let own = [actors.process, actors.originator];
                for actor in own.into_iter().flatten() {
                    self.program(&actor.process, &batch.context, &mut alerts);
                }
            }
            self.evaluator.take(item, &batch.context, &mut alerts);
        }
        self.items(alerts)
    }

    /// A store has no event of an execution. What it has of a program is tried when it first occurs.
    fn program(&mut self, process: &Arc<Process>, context: &Context, alerts: &mut Vec<Alert>) {
        if self.seen.len() >= limits::RULE_PROGRAMS {
            self.seen.clear();
        }
        if self.seen.insert((process.key, process.image.exe.clone())) {
            self.evaluator.take(&Item::Exec(process.key.start, process.clone()), context, alerts);
        }
    }

    fn items(&mut self, alerts: Vec<Alert>) -> Vec<Item> {
        for alert in &alerts {
            *self.found.entry(alert.rule.title.to_string()).or_default() += 1 + alert.suppressed;
        }
        alerts.into_iter().map(|alert| Item::Alert(Box::new(alert))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::EventKind;
    use crate::tracker::tests::event;

    #[test]
    fn programs_are_tried_once() {
        let mut hunt = Hunt {
            evaluator: Evaluator::new(Setup::default()),
            seen: Set::default(),
            found: BTreeMap::new(),
        };
        let context = Context::of_run("0123abcd").unwrap();
        let with = |pid: u32| {
            let mut open = event(EventKind::Open, "10.0.0.1:1", Some("10.0.0.2:2"));
            open.endpoint.process =
                Some(crate::process::Actor::leader(crate::process::tests::process(pid, None)));
            Item::Event(open)
        };
        let items = vec![with(5), with(5), with(6)];
        assert_eq!(hunt.take(&Batch { context: context.clone(), items }).len(), 0);
        assert_eq!(hunt.seen.len(), 2);
        for pid in 0..limits::RULE_PROGRAMS as u32 {
            let key = ProcessKey::new(pid, crate::model::BootTime::default());
            hunt.seen.insert((key, None));
        }
        hunt.take(&Batch { context, items: vec![with(7)] });
        assert_eq!(hunt.seen.len(), 1);
    }
}
