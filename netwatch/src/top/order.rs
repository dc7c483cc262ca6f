//! The views, and the orders of their lines.

use std::cmp::Reverse;

use super::groups::{Group, Sums};
use super::table::{Row, RowId, Table};
use crate::hash::Map;

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Row(RowId),
    Group(Group),
    Line(u64),
}

/// The lines of a view.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) targets: Vec<Target>,
    pub(super) sums: Map<Group, Sums>,
    /// Open connections of each listener, by its cookie.
    pub(super) clients: Map<u64, u64>,
}

/// A list of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Connections,
    Processes,
    Originators,
    Listening,
    Losses,
}

impl View {
    pub(super) const ALL: [Self; 5] =
        [Self::Connections, Self::Processes, Self::Originators, Self::Listening, Self::Losses];

    pub(super) fn place(self) -> usize {
        self as usize
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Processes => "Processes",
            Self::Originators => "Originators",
            Self::Listening => "Listening",
            Self::Losses => "Signs and losses",
        }
    }

    /// What it can be sorted by; the first is the order at the start.
    pub(super) fn orders(self) -> &'static [Order] {
        match self {
            Self::Connections => {
                &[Order::Began, Order::Origin, Order::Remote, Order::Program, Order::State, Order::Bytes]
            }
            Self::Processes => {
                &[Order::Open, Order::Program, Order::Out, Order::In, Order::Failed, Order::Bytes]
            }
            Self::Originators => {
                &[Order::Open, Order::Total, Order::Origin, Order::Bytes, Order::Began, Order::Last]
            }
            Self::Listening => &[Order::Local, Order::Program, Order::Began],
            Self::Losses => &[Order::Last],
        }
    }
}

/// What lines are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Began,
    Last,
    Origin,
    Local,
    Remote,
    Program,
    State,
    Bytes,
    Open,
    Total,
    Out,
    In,
    Failed,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Last => "last",
            Self::Origin => "origin",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Program => "program",
            Self::State => "state",
            Self::Bytes => "bytes",
            Self::Open => "open",
            Self::Total => "total",
            Self::Out => "out",
            Self::In => "in",
            Self::Failed => "failed",
        }
    }

    /// Whether the largest or newest come first.
    pub(super) fn is_descending(self) -> bool {
        !matches!(self, Self::Origin | Self::Local | Self::Remote | Self::Program | Self::State)
    }
}

/// Sorts rows. Those that are equal come by their start, the newest first.
pub(super) fn sort_rows(mut ids: Vec<RowId>, table: &Table, order: Order, reverse: bool) -> Vec<Target> {
    let began = |id: &RowId| Reverse((id.end.began, id.end.cookie));
    ids.sort_unstable_by_key(began);
    let row = |id: &RowId| table.rows.get(id);
    match order {
        Order::Bytes => ids.sort_by_cached_key(|id| Reverse(row(id).and_then(|row| row.bytes).map(sum))),
        Order::Remote => ids.sort_by_key(|id| row(id).and_then(|row| row.endpoint().remote)),
        Order::Local => {
            ids.sort_by_key(|id| row(id).map(|row| (row.endpoint().local.port, row.endpoint().local.ip)));
        }
        Order::Origin => ids.sort_by_cached_key(|id| row(id).map(origin)),
        Order::Program => ids.sort_by_cached_key(|id| row(id).map(program)),
        Order::State => ids.sort_by_key(|id| row(id).map(super::table::state_word)),
        _ => {}
    }
    if reverse {
        ids.reverse();
    }
    ids.into_iter().map(Target::Row).collect()
}

fn sum(bytes: crate::model::Payload) -> u64 {
    bytes.sent.saturating_add(bytes.received)
}

fn origin(row: &Row) -> super::groups::Originator {
    super::groups::Originator::of(row.endpoint())
}

fn program(row: &Row) -> Option<(std::sync::Arc<str>, u32)> {
    let process = &row.endpoint().process.as_ref()?.process;
    Some((process.comm.clone(), process.key.pid))
}

/// Sorts groups.
pub(super) fn sort_groups(mut groups: Vec<Sums>, order: Order, reverse: bool) -> Shown {
    let name = |sums: &Sums| match &sums.group {
        Group::Process(key) => (
            sums.process.as_ref().map(|process| process.comm.to_string()),
            key.map_or(0, |key| key.pid),
            None,
        ),
        Group::Originator(originator) => (None, 0, Some(originator.clone())),
    };
    groups.sort_by_cached_key(name);
    match order {
        Order::Open => groups.sort_by_key(|sums| Reverse((sums.open, sums.total))),
        Order::Total => groups.sort_by_key(|sums| Reverse(sums.total)),
        Order::Out => groups.sort_by_key(|sums| Reverse(sums.out)),
        Order::In => groups.sort_by_key(|sums| Reverse(sums.inbound)),
        Order::Failed => groups.sort_by_key(|sums| Reverse(sums.failed)),
        Order::Bytes => groups.sort_by_key(|sums| Reverse(sum(sums.bytes))),
        Order::Began => groups.sort_by_key(|sums| Reverse(sums.first)),
        Order::Last => groups.sort_by_key(|sums| Reverse(sums.last)),
        _ => {}
    }
    if reverse {
        groups.reverse();
    }
    let targets = groups.iter().map(|sums| Target::Group(sums.group.clone())).collect();
    let sums = groups.into_iter().map(|sums| (sums.group.clone(), sums)).collect();
    Shown { targets, sums, ..Shown::default() }
}
