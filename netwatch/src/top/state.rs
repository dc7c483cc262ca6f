//! The state of the screen. It takes items of the stream, keys, and nothing else, each with the time.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::groups::{self, Group};
use super::losses::{Losses, What};
use super::order::{self, Order, Shown, Target, View};
use super::prompt::Prompt;
use super::table::{Row, RowId, Table};
use crate::filter::Expression;
use crate::hash::Map;
use crate::model::BootTime;
use crate::stream::{Batch, Item};

/// Where the items come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Probes.
    Live,
    /// Snapshots, without probes, and why.
    Polled(String),
    /// A store, by its path, escaped.
    Store(String),
}

/// What does not change while the screen is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the host.
    pub host: String,
    /// Where the items come from.
    pub source: Source,
    /// What is left out from the start, as options; `None`: nothing.
    pub only: Option<String>,
    /// Time zone of times.
    pub zone: TimeZone,
    /// Use colours.
    pub colour: bool,
}

/// What a key asks of the program around the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// End.
    Quit,
    /// Stop until SIGCONT.
    Suspend,
    /// Draw every cell again.
    Redraw,
    /// Trace the connection with this id, and answer by [`State::traced`].
    Trace(String),
    /// Copy this text.
    Copy(String),
}

/// How a view is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) selected: Option<Target>,
    /// Where the selected line is.
    pub(super) index: Option<usize>,
    /// The first line on the screen.
    pub(super) offset: usize,
    /// Number of the order.
    pub(super) order: usize,
    pub(super) reverse: bool,
}

/// A page over the list.
#[derive(Clone, Debug)]
pub(super) enum Page {
    Help,
    Details(Target),
    /// A trace; `None`: not there yet.
    Trace(String, Option<Vec<String>>),
}

/// The list as it was when it was frozen.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    table: Table,
    pub(super) at: BootTime,
}

/// How long a connection that ended is still shown, in nanoseconds.
const LINGER: u64 = 5_000_000_000;

/// Nanoseconds between two times at which the lines are put in order, at least, and for each row: it may take a part of
/// the time only, however many rows there are.
const ORDER_PAUSE: u64 = 100_000_000;
const ORDER_PAUSE_OF_ROW: u64 = 10_000;

/// How long a loss has a line of its own, in nanoseconds.
pub(super) const LOUD: u64 = 10_000_000_000;

/// The state.
pub struct State {
    pub(super) options: Options,
    pub(super) table: Table,
    pub(super) losses: Losses,
    pub(super) lost_at: Option<BootTime>,
    pub(super) view: View,
    pub(super) lists: [List; 5],
    pub(super) shown: Shown,
    /// The group whose connections are shown, and the view that it is from.
    pub(super) scope: Option<(View, Group)>,
    pub(super) find: Option<Expression>,
    pub(super) prompt: Option<Prompt>,
    pub(super) history: bool,
    pub(super) frozen: Option<Box<Frozen>>,
    pub(super) page: Option<Page>,
    pub(super) scroll: usize,
    pub(super) message: Option<String>,
    pub(super) size: (u16, u16),
    /// What is not seen, by the source.
    pub(super) unseen: Vec<&'static str>,
    pub(super) is_ready: bool,
    pub(super) began: BootTime,
    pub(super) now: BootTime,
    is_stale: bool,
    ordered: BootTime,
}

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(options: Options, now: BootTime) -> Self {
        // What is in a store has ended, or is not known to go on.
        let history = matches!(options.source, Source::Store(_));
        Self {
            options,
            table: Table::default(),
            losses: Losses::default(),
            lost_at: None,
            view: View::Connections,
            lists: Default::default(),
            shown: Shown::default(),
            scope: None,
            find: None,
            prompt: None,
            history,
            frozen: None,
            page: None,
            scroll: 0,
            message: None,
            size: (80, 24),
            unseen: Vec::new(),
            is_ready: false,
            began: now,
            now,
            is_stale: true,
            ordered: BootTime::default(),
        }
    }

    /// Takes in the items of a batch.
    pub fn take(&mut self, batch: &Batch, now: BootTime) {
        self.now = now;
        self.table.users = batch.context.users.clone();
        let selected = self.selected_row();
        for item in &batch.items {
            match item {
                Item::Ready(ready) => {
                    self.is_ready = true;
                    self.unseen.clone_from(&ready.unseen);
                    for unseen in &ready.unseen {
                        self.losses.push(Timestamp::UNIX_EPOCH, What::Note(format!("not seen: {unseen}")));
                    }
                }
                Item::Event(event) => self.table.event(event, &batch.context, now, selected),
                Item::Loss(at, loss) => {
                    self.losses.push(*at, What::Loss(loss.clone()));
                    self.lost_at = Some(now);
                }
                Item::Table(table) => {
                    self.is_ready = true;
                    self.table.replace(table, &batch.context, now, selected);
                }
                // Its connections are events of their own.
                Item::Process(..) | Item::Exec(..) | Item::Alert(_) => {}
            }
        }
        self.is_stale |= !batch.items.is_empty();
    }

    /// Everything that the source had is taken in.
    pub fn complete(&mut self, now: BootTime) {
        (self.now, self.is_ready, self.is_stale) = (now, true, true);
    }

    /// Takes in a sentence about the run.
    pub fn note(&mut self, text: String, at: Timestamp, now: BootTime) {
        self.losses.push(at, What::Note(text));
        (self.now, self.is_stale) = (now, true);
    }

    /// The lines of a trace that was asked for.
    pub fn traced(&mut self, id: &str, lines: Vec<String>) {
        if let Some(Page::Trace(asked, text)) = &mut self.page
            && asked == id
        {
            *text = Some(lines);
            (self.scroll, self.is_stale) = (0, true);
        }
    }

    /// The screen has this size.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.keep_in_sight();
    }

    /// The time of day of the newest event.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.table.newest
    }

    /// Time goes on. Returns whether the screen is to be drawn again.
    pub fn tick(&mut self, now: BootTime) -> bool {
        self.now = now;
        // What lingers goes away without an event.
        let ordered = self.ordered;
        let may_change = self.table.last_end().is_some_and(|at| ordered.saturating_sub(at) < LINGER)
            || self.lost_at.is_some_and(|at| ordered.saturating_sub(at) < LOUD);
        let second = 1_000_000_000;
        let elapsed = now.saturating_sub(self.ordered);
        self.is_stale |= may_change && elapsed >= second;
        let rows = self.table.rows.len() as u64;
        if !self.is_stale || elapsed < ORDER_PAUSE.max(rows.saturating_mul(ORDER_PAUSE_OF_ROW)) {
            return false;
        }
        self.arrange();
        true
    }

    /// The time zone of times.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        self.options.zone.clone()
    }

    /// The rows that are shown: those of now, or as they were.
    pub(super) fn rows(&self) -> &Table {
        self.frozen.as_ref().map_or(&self.table, |frozen| &frozen.table)
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(Box::new(Frozen { table: self.table.clone(), at: self.now })),
        };
    }

    /// How many events came since the list was frozen.
    pub(super) fn came_since(&self) -> Option<u64> {
        Some(self.table.events - self.frozen.as_ref()?.table.events)
    }

    pub(super) fn list(&self) -> &List {
        // There is one for each view.
        self.lists.get(self.view.place()).unwrap_or(&self.lists[0])
    }

    pub(super) fn list_mut(&mut self) -> &mut List {
        let place = self.view.place().min(self.lists.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "in bounds by the line before")]
        &mut self.lists[place]
    }

    pub(super) fn order(&self) -> (Order, bool) {
        let list = self.list();
        let orders = self.view.orders();
        let order = orders.get(list.order % orders.len()).copied().unwrap_or(Order::Began);
        (order, list.reverse)
    }

    pub(super) fn selected_row(&self) -> Option<RowId> {
        match &self.list().selected {
            Some(Target::Row(id)) => Some(*id),
            _ => None,
        }
    }

    /// The row that the page or the selection is about.
    pub(super) fn row_in_question(&self) -> Option<(RowId, &Row)> {
        let id = match &self.page {
            Some(Page::Details(Target::Row(id))) => Some(*id),
            _ => self.selected_row(),
        }?;
        self.rows().rows.get(&id).map(|row| (id, row))
    }

    /// Makes the lines of the view, and finds the selected one among them.
    pub(super) fn arrange(&mut self) {
        (self.is_stale, self.ordered) = (false, self.now);
        let (order, reverse) = self.order();
        let selected = self.selected_row();
        let rows = self.rows();
        let passes = |id: &RowId, row: &Row| {
            let is_selected = selected == Some(*id);
            let now = self.frozen.as_ref().map_or(self.now, |frozen| frozen.at);
            let is_there =
                self.history || is_selected || row.gone.is_none_or(|at| now.saturating_sub(at) < LINGER);
            is_there
                && self.find.as_ref().is_none_or(|find| find.filter.shows(&row.last))
                && self
                    .scope
                    .as_ref()
                    .is_none_or(|(_, group)| self.view != View::Connections || group.has(row))
        };
        let all = rows.rows.iter().filter(|(id, row)| passes(id, row));
        // Sums are of all that is kept, not of what lingers.
        let kept = rows
            .rows
            .iter()
            .filter(|(_, row)| self.find.as_ref().is_none_or(|find| find.filter.shows(&row.last)));
        self.shown = match self.view {
            View::Connections => {
                let ids = all.filter(|(_, row)| !row.is_listener()).map(|(id, _)| *id).collect();
                let targets = order::sort_rows(ids, rows, order, reverse);
                Shown { targets, ..Shown::default() }
            }
            View::Processes => order::sort_groups(groups::by_process(kept), order, reverse),
            View::Originators => order::sort_groups(groups::by_originator(kept), order, reverse),
            View::Listening => {
                let ids = all.filter(|(_, row)| row.is_listener()).map(|(id, _)| *id).collect();
                let targets = order::sort_rows(ids, rows, order, reverse);
                let mut clients: Map<u64, u64> = Map::default();
                for row in rows.rows.values().filter(|row| row.gone.is_none()) {
                    if let Some(listener) = &row.endpoint().listener {
                        *clients.entry(listener.id.cookie).or_default() += 1;
                    }
                }
                Shown { targets, clients, ..Shown::default() }
            }
            View::Losses => {
                let suspicious = all.filter(|(_, row)| row.signs().next().is_some()).map(|(id, _)| *id);
                let mut targets = order::sort_rows(suspicious.collect(), rows, Order::Began, false);
                targets.extend(self.losses.lines.iter().rev().map(|line| Target::Line(line.number)));
                Shown { targets, ..Shown::default() }
            }
        };
        self.find_selected();
    }

    /// Finds the selected line again, and keeps it at its place on the screen.
    fn find_selected(&mut self) {
        let list = self.list();
        let before = list.index;
        let index = list
            .selected
            .as_ref()
            .and_then(|selected| self.shown.targets.iter().position(|target| target == selected));
        let list = self.list_mut();
        if let (Some(before), Some(now)) = (before, index) {
            list.offset = (list.offset + now).saturating_sub(before);
        }
        // It may be left out by the filter. Then it is selected again when it comes back.
        list.index = index;
        self.keep_in_sight();
    }
}
