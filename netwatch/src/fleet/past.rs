//! The history of one store of a host, for the walk: its rows are brought when the walk asks for them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use super::dialect::{Dialect, quoted};
use super::mirror::{Key, MirrorError, Mirrors};
use super::narrow::address;
use crate::forensics::{Gap, Life, Past, Selector};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::store::{History, StoreError};
use crate::tracker::EndpointId;

/// Ends of a process that are considered, the newest, as in a store.
const OF_PROCESS: usize = 256;

/// One store of a host.
pub(super) struct FleetPast<'s> {
    mirrors: &'s Mirrors<'s>,
    key: Key,
    dialect: Dialect,
    /// Conditions whose rows were brought.
    asked: RefCell<HashSet<String>>,
}

impl<'s> FleetPast<'s> {
    /// Brings what is needed in any case: the segments, the losses and the ends of runs.
    ///
    /// # Errors
    /// If the server does not give them.
    pub(super) fn new(mirrors: &'s Mirrors<'s>, key: Key) -> Result<Self, MirrorError> {
        let dialect = mirrors.server().dialect()?;
        let condition = key.condition();
        for table in ["segments", "losses", "stops"] {
            mirrors.bring(table, &condition)?;
        }
        mirrors.complete()?;
        Ok(Self { mirrors, key, dialect, asked: RefCell::default() })
    }

    /// The store.
    #[must_use]
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// The name of the host.
    #[must_use]
    pub(super) fn host(&self) -> String {
        self.mirrors.host(&self.key)
    }

    fn bring(&self, condition: &str) -> Result<(), MirrorError> {
        if !self.asked.borrow_mut().insert(condition.to_owned()) {
            return Ok(());
        }
        self.mirrors.bring("ends", &format!("{} AND ({condition})", self.key.condition()))?;
        self.mirrors.complete()
    }

    /// Brings all rows of the ends that have a row like this.
    fn bring_ends(&self, condition: &str) -> Result<(), MirrorError> {
        let database = &self.mirrors.server().url().database;
        let own = self.key.condition();
        self.bring(&format!(
            "(boot, cookie, began) IN (SELECT boot, cookie, began FROM {database}.ends WHERE {own} AND ({condition}))"
        ))
    }

    fn ask<T>(&self, question: impl FnOnce(&History) -> Result<T, StoreError>) -> Result<T, MirrorError> {
        self.mirrors.history(&self.key, question)
    }

    /// The condition on rows of ends that a selector means.
    fn selected(&self, selector: &Selector) -> String {
        let ip = |ip| {
            let ip = address(ip, self.dialect);
            format!("(local_ip = {ip} OR remote_ip = {ip})")
        };
        let port = |port: u16| format!("(local_port = {port} OR remote_port = {port})");
        // A process may be that of the end, or one that had it before.
        let of_process = |condition: String| {
            let database = &self.mirrors.server().url().database;
            let rows = format!(
                "(SELECT row FROM {database}.processes WHERE {} AND {condition})",
                self.key.condition()
            );
            format!("process IN {rows} OR originator IN {rows} OR listener_process IN {rows} OR odd != ''")
        };
        match selector {
            Selector::Port(wanted) => port(*wanted),
            Selector::Ip(wanted) => ip(*wanted),
            Selector::SockAddr(at) => format!("{} AND {}", port(at.port), ip(at.ip)),
            Selector::Pid(pid) => of_process(format!("pid = {pid}")),
            Selector::Exe(exe) => of_process(format!("exe = {}", quoted(exe))),
            Selector::Comm(comm) => of_process(format!("comm = {}", quoted(comm))),
            Selector::Name(name) => format!("remote_host = {0} OR local_host = {0}", quoted(name)),
            Selector::Id(boot, id) => {
                format!("boot = {} AND cookie = {} AND began = {}", quoted(boot), id.cookie, id.began.nanos())
            }
        }
    }

    /// The newest ends that a condition means.
    fn newest(&self, condition: &str, most: usize) -> String {
        let database = &self.mirrors.server().url().database;
        format!(
            "(boot, cookie, began) IN (SELECT boot, cookie, began FROM {database}.ends WHERE {} AND ({condition}) \
             ORDER BY ts DESC LIMIT {})",
            self.key.condition(),
            // An end has few rows.
            most.saturating_mul(4)
        )
    }
}

impl Past for FleetPast<'_> {
    type Error = MirrorError;

    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), MirrorError> {
        let all = most.saturating_mul(2).saturating_add(1);
        self.bring(&self.newest(&self.selected(selector), all))?;
        self.ask(|history| history.select(selector, most))
    }

    fn end(&self, boot: &Arc<str>, id: EndpointId) -> Result<Option<Life>, MirrorError> {
        self.bring(&format!(
            "boot = {} AND cookie = {} AND began = {}",
            quoted(boot),
            id.cookie,
            id.began.nanos()
        ))?;
        self.ask(|history| history.end(boot, id))
    }

    fn of_socket(&self, boot: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, MirrorError> {
        let cookie_of = cookie.get();
        self.bring_ends(&format!(
            "boot = {} AND (cookie = {cookie_of} OR socket = {cookie_of})",
            quoted(boot)
        ))?;
        self.ask(|history| history.of_socket(boot, cookie))
    }

    fn of_process(&self, boot: &Arc<str>, key: ProcessKey, at: BootTime) -> Result<Vec<Life>, MirrorError> {
        let (first, last) = key.starts();
        let database = &self.mirrors.server().url().database;
        let rows = format!(
            "(SELECT row FROM {database}.processes WHERE {} AND boot = {} AND pid = {} AND start >= {} AND start <= {})",
            self.key.condition(),
            quoted(boot),
            key.pid,
            first.nanos(),
            last.nanos()
        );
        let condition = format!(
            "boot = {} AND began <= {} AND (process IN {rows} OR listener_process IN {rows})",
            quoted(boot),
            at.nanos()
        );
        self.bring(&self.newest(&condition, OF_PROCESS))?;
        self.ask(|history| history.of_process(boot, key, at))
    }

    fn began(&self, boot: &Arc<str>) -> Result<Option<BootTime>, MirrorError> {
        self.ask(|history| history.began(boot))
    }

    fn gaps(&self, boot: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, MirrorError> {
        self.ask(|history| history.gaps(boot, from, to))
    }
}
