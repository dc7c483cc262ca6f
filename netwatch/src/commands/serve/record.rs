//! Answers the questions of pages from a store, each with a reader of its own and a deadline.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::log::narrow;
use crate::commands::trace::{Completion, traced};
use crate::enrich::{self, Stage};
use crate::forensics::Selector;
use crate::output::trace::matched;
use crate::output::{Format, Log, LogOptions};
use crate::serve::{Found, Histogram, IsGone, Question, Record, Refusal, State, limits};
use crate::store::{self, History, Reader, StoreError};
use crate::stream::{Batch, Context, Item};
use crate::tracker::EndpointId;
use crate::{filter, hash};

/// A store.
pub(super) struct Store {
    path: PathBuf,
    /// Names of users and services are asked for once: for events, and for walks.
    stages: Mutex<Vec<Box<dyn Stage>>>,
    completion: Mutex<Completion>,
}

/// When an answer is late: at a time, or when nobody waits for it any more.
struct Deadline(IsGone);

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        let completion = Completion { programs: None, users: enrich::Users::of_host() };
        Self { path, stages: Mutex::new(enrich::recorded()), completion: Mutex::new(completion) }
    }

    fn open(&self, is_gone: IsGone) -> Result<(Reader, Deadline), Refusal> {
        let until = Instant::now() + limits::SERVED_ANSWER;
        let is_late: IsGone = Arc::new(move || is_gone() || Instant::now() >= until);
        let failed = |error: StoreError| Refusal::Failed(error.to_string());
        let mut reader = Reader::open(&self.path).map_err(failed)?;
        let own = is_late.clone();
        reader.end_when(Box::new(move || own())).map_err(failed)?;
        Ok((reader, Deadline(is_late)))
    }

    /// Events as JSON.
    fn lines(&self, found: Vec<(Context, Item)>) -> Result<Vec<Value>, Refusal> {
        let mut text = Vec::new();
        let mut log = Log::dated(&LogOptions { format: Format::Json, ..LogOptions::default() }, &mut text);
        let failed = |error: std::io::Error| Refusal::Failed(error.to_string());
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        for (context, item) in found {
            let mut batch = Batch { context, items: vec![item] };
            stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
            log.batch(&batch).map_err(failed)?;
        }
        log.finish().map_err(failed)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let values: Result<_, _> = lines.map(serde_json::from_slice).collect();
        values.map_err(|error| Refusal::Failed(error.to_string()))
    }
}

impl Deadline {
    fn refusal(&self, error: &StoreError) -> Refusal {
        if (self.0)() {
            let most = limits::SERVED_ANSWER.as_secs();
            return Refusal::Busy(format!(
                "the answer took longer than {most} s: ask for less time or fewer events"
            ));
        }
        Refusal::Failed(error.to_string())
    }
}

fn none() -> Refusal {
    Refusal::Missing("the record has no such connection".into())
}

fn nanoseconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(|time| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

fn id_of(text: &str) -> Result<(String, EndpointId), Refusal> {
    match format!("id:{text}").parse() {
        Ok(Selector::Id(boot, id)) => Ok((boot, id)),
        _ => Err(Refusal::Wrong("not the id of a connection".into())),
    }
}

impl Record for Store {
    fn search(&self, question: &Question, is_gone: IsGone) -> Result<Found, Refusal> {
        let filter = filter::by_numbers(&question.filter).map_err(Refusal::Wrong)?.filter;
        let (reader, deadline) = self.open(is_gone)?;
        let refused = |error: StoreError| deadline.refusal(&error);
        let (since, until) = (nanoseconds(question.since), nanoseconds(question.until));
        let mut events = reader.events(narrow(&filter), since, until, true).map_err(refused)?;
        let (mut found, mut seen) = (Vec::new(), hash::Set::default());
        'pages: while let Some(batch) = events.next_batch().map_err(refused)? {
            for item in batch.items.into_iter().rev() {
                let Item::Event(event) = &item else { continue };
                if event.endpoint.remote.is_none() && question.filter.is_empty() || !filter.shows(event) {
                    continue;
                }
                if seen.insert((batch.context.boot.clone(), event.endpoint.id)) {
                    if found.len() == question.rows {
                        break 'pages;
                    }
                    found.push((batch.context.clone(), item));
                }
            }
        }
        let is_whole = seen.len() <= found.len();
        let events = self.lines(found)?;
        let last = events.last().and_then(|event| event.get("ts")?.as_str().map(str::to_owned));
        Ok(Found { more: last.filter(|_| !is_whole), events })
    }

    fn histogram(&self, question: &Question, is_gone: IsGone) -> Result<Histogram, Refusal> {
        let (reader, deadline) = self.open(is_gone)?;
        let span = (nanoseconds(question.since), nanoseconds(question.until));
        let counted = reader.counts(span, limits::SERVED_BARS);
        let (span, counts) = counted.map_err(|error| deadline.refusal(&error))?;
        Ok(Histogram { span, counts })
    }

    fn connection(&self, id: &str, is_gone: IsGone) -> Result<Vec<Value>, Refusal> {
        let (boot, id) = id_of(id)?;
        let (reader, deadline) = self.open(is_gone)?;
        let refused = |error: StoreError| deadline.refusal(&error);
        let own = reader.end(&boot, id).map_err(refused)?.ok_or_else(none)?;
        let peer = own.events.iter().rev().find_map(|event| event.endpoint.peer.as_ref());
        let peer = peer.map(|peer| reader.end(&boot, peer.id)).transpose().map_err(refused)?.flatten();
        let mut events: Vec<_> = std::iter::once(own)
            .chain(peer)
            .flat_map(|end| {
                let context = Context {
                    boot: end.boot.clone(),
                    clock: end.clock,
                    run_clock: end.clock,
                    users: Arc::default(),
                };
                end.events.into_iter().map(move |event| (context.clone(), event))
            })
            .collect();
        events.sort_by_key(|(_, event)| event.at);
        // A server has as many events as it likes to make.
        events.truncate(limits::SERVED_ROWS);
        self.lines(events.into_iter().map(|(context, event)| (context, Item::Event(event))).collect())
    }

    fn walk(&self, id: &str, is_gone: IsGone) -> Result<Value, Refusal> {
        let (boot, id) = id_of(id)?;
        let (reader, deadline) = self.open(is_gone)?;
        let walked = History::new(reader).and_then(|past| traced(&past, &Selector::Id(boot, id), 1));
        let (traces, _) = walked.map_err(|error| deadline.refusal(&error))?;
        let mut trace = traces.into_iter().next().ok_or_else(none)?;
        let mut completion = self.completion.lock().unwrap_or_else(PoisonError::into_inner);
        trace.complete(&mut *completion);
        let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
        let text = matched(&trace, &completion.users.names()).map_err(|error| failed(&error))?;
        serde_json::from_str(text.get()).map_err(|error| failed(&error))
    }

    fn state(&self, is_gone: IsGone) -> Result<State, Refusal> {
        let (reader, deadline) = self.open(is_gone)?;
        let refused = |error: StoreError| deadline.refusal(&error);
        let newest = store::newest(&reader).map_err(refused)?;
        let mut losses = reader.losses(i64::MIN, i64::MAX).map_err(refused)?;
        losses.reverse();
        losses.truncate(limits::SERVED_ROWS);
        let losses = losses.into_iter().map(|missing| {
            let context = Context {
                boot: missing.boot,
                clock: crate::clock::BootClock::of_boot(0),
                run_clock: crate::clock::BootClock::of_boot(0),
                users: Arc::default(),
            };
            (context, Item::Loss(missing.time, missing.loss))
        });
        Ok(State {
            store: self.path.display().to_string(),
            link: newest.map(|(link, ..)| link.to_string()),
            losses: self.lines(losses.collect())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::generate::GenerateOptions;

    /// A store with many connections.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let options = GenerateOptions { store: path.clone(), connections: 5000 };
        crate::commands::generate::run(&options).unwrap();
        (folder, Store::new(path))
    }

    #[test]
    fn late_answer_is_refused() {
        let (_folder, record) = store();
        let question = Question { rows: 10, ..Question::default() };
        let never: IsGone = Arc::new(|| false);
        assert_eq!(record.search(&question, never.clone()).unwrap().events.len(), 10);
        // Whoever asked has left; the search notices that before it ends.
        let none = Question { filter: "exe:/nobody".into(), ..question };
        assert!(matches!(record.search(&none, Arc::new(|| true)), Err(Refusal::Busy(_))));
        assert!(record.search(&none, never).unwrap().events.is_empty());
    }

    #[test]
    fn pages_of_a_search_follow_each_other() {
        let (_folder, record) = store();
        let never: IsGone = Arc::new(|| false);
        let mut question = Question { rows: 700, ..Question::default() };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            let found = record.search(&question, never.clone()).unwrap();
            seen.extend(found.events.iter().map(|event| event["id"].to_string()));
            question.until = found.more.as_deref().and_then(crate::serve::moment);
            if question.until.is_none() {
                break;
            }
        }
        assert_eq!(question.until, None);
        let all = Reader::open(&record.path).unwrap().connections(&store::Query::default()).unwrap();
        assert_eq!(seen.len(), all.len());
    }
}
