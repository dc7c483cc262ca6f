//! The history for `forensics`, read from a store.

use std::sync::Arc;

use super::{Query, Reader, Run, StoreError, StoredConnection};
use crate::clock::BootClock;
use crate::forensics::{Gap, Life, Past, Selector};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::tracker::EndpointId;

/// Recorded history.
pub struct History {
    reader: Reader,
    runs: Vec<Run>,
}

/// Maximum number of endpoints of a process, the newest before the time: a server may have had a million.
const MOST_OF_PROCESS: usize = 256;

impl History {
    /// Uses a store.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(reader: Reader) -> Result<Self, StoreError> {
        // Many small queries on one consistent state.
        reader.stand_still()?;
        let runs = reader.runs()?;
        Ok(Self { reader, runs })
    }

    /// Asks the history of a store in memory, which is returned.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn borrowing<T>(
        reader: Reader,
        question: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<(Reader, Result<T, StoreError>), StoreError> {
        let runs = reader.runs()?;
        let history = Self { reader, runs };
        let answer = question(&history);
        Ok((history.reader, answer))
    }

    fn of_boot(&self, boot: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| *run.boot == *boot)
    }

    /// Nanoseconds since the epoch.
    fn epoch(&self, boot: &str, at: BootTime) -> i64 {
        let clock = self.of_boot(boot).last().map(|run| run.clock);
        let boot = clock.and_then(|clock| clock.boot()).unwrap_or(0);
        boot.saturating_add(at.nanos().try_into().unwrap_or(i64::MAX))
    }
}

/// The time since boot of a time of day in nanoseconds since the epoch.
fn since_boot(clock: &BootClock, epoch: i64) -> BootTime {
    let since_boot = epoch.saturating_sub(clock.boot().unwrap_or(0));
    BootTime::from_nanos(since_boot.try_into().unwrap_or(0))
}

fn life(recorded: StoredConnection) -> Option<Life> {
    Life::new(recorded.boot, recorded.clock, recorded.events)
}

fn query(selector: &Selector) -> Query {
    let mut query = Query { newest_first: true, ..Query::default() };
    match selector {
        Selector::Port(port) => query.port = Some(*port),
        Selector::Ip(ip) => query.ip = Some(*ip),
        Selector::SockAddr(endpoint) => {
            query.port = Some(endpoint.port);
            query.ip = Some(endpoint.ip);
        }
        Selector::Pid(pid) => query.pid = Some(*pid),
        Selector::Exe(exe) => query.exe = Some(exe.clone()),
        Selector::Comm(comm) => query.comm = Some(comm.clone()),
        Selector::Name(name) => query.name = Some(name.clone()),
        Selector::Id(boot, id) => {
            query.boot = Some(boot.clone());
            (query.cookie, query.began) = (Some(id.cookie), Some(id.began));
        }
    }
    query
}

impl Past for History {
    type Error = StoreError;

    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), StoreError> {
        let mut limit = most.saturating_mul(2).max(16);
        loop {
            let found = self.reader.connections(&Query { limit: Some(limit), ..query(selector) })?;
            let all = found.len() < limit;
            // Excludes listeners, and matches of the address on one side and the port on the other.
            let mut lives: Vec<Life> =
                found.into_iter().filter_map(life).filter(|life| selector.means(life)).collect();
            if all || lives.len() > most {
                let more = lives.len() > most;
                lives.truncate(most);
                return Ok((lives, more));
            }
            limit = limit.saturating_mul(4);
        }
    }

    fn end(&self, boot: &Arc<str>, id: EndpointId) -> Result<Option<Life>, StoreError> {
        Ok(self.reader.end(boot, id)?.and_then(life))
    }

    fn of_socket(&self, boot: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, StoreError> {
        let query = Query { boot: Some(boot.to_string()), cookie: Some(cookie.get()), ..Query::default() };
        let mut lives: Vec<Life> = self.reader.connections(&query)?.into_iter().filter_map(life).collect();
        lives.sort_by_key(Life::began);
        Ok(lives)
    }

    fn of_process(&self, boot: &Arc<str>, key: ProcessKey, at: BootTime) -> Result<Vec<Life>, StoreError> {
        let query = Query {
            boot: Some(boot.to_string()),
            process: Some(key),
            until: Some(self.epoch(boot, at)),
            newest_first: true,
            limit: Some(MOST_OF_PROCESS),
            ..Query::default()
        };
        let lives = self.reader.connections(&query)?.into_iter().filter_map(life);
        Ok(lives.filter(|life| life.used_by(key).is_some()).collect())
    }

    fn began(&self, boot: &Arc<str>) -> Result<Option<BootTime>, StoreError> {
        Ok(self.of_boot(boot).map(|run| since_boot(&run.clock, run.began)).min())
    }

    fn gaps(&self, boot: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, StoreError> {
        let (first, last) = (self.epoch(boot, from), self.epoch(boot, to));
        let losses = self.reader.losses(first, last)?.into_iter().filter(|missing| *missing.boot == **boot);
        let mut gaps: Vec<Gap> = losses
            .map(|missing| Gap { from: missing.at, to: missing.at, records: missing.loss.count() })
            .collect();
        // A gap between two runs.
        let runs: Vec<&Run> = self.of_boot(boot).collect();
        for pair in runs.windows(2) {
            if let [before, after] = pair {
                let gap = Gap {
                    from: since_boot(&before.clock, before.last),
                    to: since_boot(&after.clock, after.began),
                    records: 0,
                };
                if gap.from <= to && gap.to >= from {
                    gaps.push(gap);
                }
            }
        }
        Ok(gaps)
    }
}
