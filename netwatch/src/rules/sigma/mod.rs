//! Sigma rules: categories `network_connection` and `process_creation` of the product `linux`, with correlations and
//! filters, evaluated by the crate `rsigma-eval` on the events themselves.

pub mod check;
mod event;
pub mod load;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rsigma_eval::{CorrelationConfig, CorrelationEngine, EvaluationResult, ResultBody};
use rsigma_parser::{LogSource, SigmaCollection};

use crate::alert::{Alert, Level, Rule};
use crate::hash::Map;
use crate::limits;
use crate::model::BootTime;
use crate::process::{Actor, Process};
use crate::stream::Context;
use crate::tracker::ConnectionEvent;

use event::SigmaEvent;
use load::{Bad, Category, Pack};

/// Compiled rules.
pub struct Sigma {
    engine: CorrelationEngine,
    connections: LogSource,
    programs: LogSource,
    /// Rules that have raised an alert.
    raised: Map<String, Arc<Rule>>,
    /// Number of rules and correlations.
    count: usize,
}

impl std::fmt::Debug for Sigma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sigma").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Sigma {
    /// Compiles the rules of a pack. Those that cannot be compiled are added to its `bad`.
    #[must_use]
    pub fn compile(pack: &mut Pack) -> Self {
        let config = CorrelationConfig {
            // Rules that only serve a correlation raise nothing themselves.
            emit_detections: false,
            max_state_entries: limits::RULE_GROUPS,
            max_group_entries: Some(limits::RULE_GROUP_ENTRIES),
            ..CorrelationConfig::default()
        };
        // Each by itself first, so that a bad one is found.
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for loaded in std::mem::take(&mut pack.rules) {
            match tried(|| rsigma_eval::compile_rule(&loaded.rule)) {
                Ok(_) => good.push(loaded),
                Err(why) => bad.push(Bad { file: loaded.file, line: loaded.line, why }),
            }
        }
        let mut collection = SigmaCollection::new();
        collection.rules = good.iter().map(|loaded| loaded.rule.clone()).collect();
        let mut whole = collection.clone();
        whole.filters.extend(pack.filters.iter().map(|(.., filter)| filter.clone()));
        whole.correlations.extend(pack.correlations.iter().map(|(.., correlation)| correlation.clone()));
        let (collection, engine) = match built(&whole, &config) {
            Ok(engine) => (whole, engine),
            Err(_) => one_by_one(collection, pack, &config, &mut bad),
        };
        pack.rules = good;
        pack.bad.append(&mut bad);
        Self {
            count: collection.rules.len() + collection.correlations.len(),
            engine,
            connections: Category::Connection.log_source(),
            programs: Category::Program.log_source(),
            raised: Map::default(),
        }
    }

    /// Number of rules and correlations.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Evaluates the rules on a connection.
    pub(super) fn connection(&mut self, event: &ConnectionEvent, context: &Context, out: &mut Vec<Alert>) {
        let seen = SigmaEvent::connection(event, &context.users);
        let found = self.engine.engine().evaluate_with_logsource(&seen, &self.connections);
        let second = second(event.at, context);
        for result in self.engine.process_with_detections(&seen, found, second) {
            out.push(Alert::of_event(&self.rule(&result), event, detail(&result)));
        }
    }

    /// Evaluates the rules on a program that is executed.
    pub(super) fn program(
        &mut self,
        process: &Arc<Process>,
        at: BootTime,
        context: &Context,
        out: &mut Vec<Alert>,
    ) {
        let seen = SigmaEvent::program(process, &context.users);
        let found = self.engine.engine().evaluate_with_logsource(&seen, &self.programs);
        let second = second(at, context);
        for result in self.engine.process_with_detections(&seen, found, second) {
            let actor = Some((Actor::leader(process.clone()), process.exe_status()));
            out.push(Alert::of_process(&self.rule(&result), at, actor, detail(&result)));
        }
    }

    fn rule(&mut self, result: &EvaluationResult) -> Arc<Rule> {
        let header = &result.header;
        let id = header.rule_id.as_ref().unwrap_or(&header.rule_title);
        if let Some(known) = self.raised.get(id) {
            return known.clone();
        }
        let level = header.level.map(|level| level.as_str());
        let rule = Arc::new(Rule {
            id: id.as_str().into(),
            title: header.rule_title.as_str().into(),
            // As Sigma reads a rule without one.
            level: level.and_then(Level::from_name).unwrap_or(Level::Medium),
            tags: header.tags.iter().map(|tag| tag.as_str().into()).collect(),
            code: None,
        });
        self.raised.insert(id.clone(), rule.clone());
        rule
    }
}

fn built(collection: &SigmaCollection, config: &CorrelationConfig) -> Result<CorrelationEngine, String> {
    let mut engine = CorrelationEngine::new(config.clone());
    tried(|| engine.add_collection(collection))?;
    Ok(engine)
}

/// Adds filters and correlations one by one: one may refer to what is not there. What is refused is in `bad`.
fn one_by_one(
    mut collection: SigmaCollection,
    pack: &Pack,
    config: &CorrelationConfig,
    bad: &mut Vec<Bad>,
) -> (SigmaCollection, CorrelationEngine) {
    for (file, line, filter) in &pack.filters {
        collection.filters.push(filter.clone());
        if let Err(why) = built(&collection, config) {
            collection.filters.pop();
            bad.push(Bad { file: file.clone(), line: *line, why });
        }
    }
    // One may refer to another: they are tried until none fits any more.
    let mut left: Vec<_> = pack.correlations.iter().collect();
    loop {
        let (before, mut refused) = (left.len(), Vec::new());
        for place in left {
            collection.correlations.push(place.2.clone());
            if let Err(why) = built(&collection, config) {
                collection.correlations.pop();
                refused.push((place, why));
            }
        }
        if refused.is_empty() || refused.len() == before {
            bad.extend(refused.into_iter().map(|((file, line, _), why)| Bad {
                file: file.clone(),
                line: *line,
                why,
            }));
            break;
        }
        left = refused.into_iter().map(|(place, _)| place).collect();
    }
    let engine = built(&collection, config).unwrap_or_else(|why| {
        let file = pack.rules.first().map(|loaded| loaded.file.clone()).unwrap_or_default();
        bad.push(Bad { file, line: 1, why });
        CorrelationEngine::new(config.clone())
    });
    (collection, engine)
}

/// The result, or what is wrong. A panic of the crate is a bug of it, and costs one rule.
fn tried<T, E: std::fmt::Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the rule engine failed, which is a bug of it".into()),
    }
}

/// Seconds since the epoch.
fn second(at: BootTime, context: &Context) -> i64 {
    context.clock.time(at).map_or(0, |time| time.as_second())
}

/// How much of a value is told.
const SHOWN: usize = 200;

/// What matched.
fn detail(result: &EvaluationResult) -> String {
    match &result.body {
        ResultBody::Detection(body) => {
            let shown = |value: &serde_json::Value| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.chars().take(SHOWN).collect::<String>()
            };
            let fields = body.matched_fields.iter().take(8);
            let fields: Vec<_> =
                fields.map(|field| format!("{}: {}", field.field, shown(&field.value))).collect();
            fields.join(", ")
        }
        ResultBody::Correlation(body) => {
            let group = body.group_key.iter().take(8).map(|(field, value)| format!("{field}: {value}"));
            let group: Vec<String> = group.collect();
            let of = if group.is_empty() { String::new() } else { format!(" of {}", group.join(", ")) };
            format!("{} within {} s{of}", body.aggregated_value, body.timespan_secs)
        }
    }
}
