//! What keys do to the state.

use super::draw;
use super::groups::Group;
use super::keys::{self, Act, Key, Step};
use super::order::Target;
use super::order::View;
use super::prompt::Prompt;
use super::shell;
use super::state::{Page, Request, State};
use super::table::Row;
use crate::filter::by_numbers;
use crate::model::{BootTime, SockAddr};

impl State {
    /// A key was pressed. Returns what the program has to do.
    pub fn press(&mut self, key: Key, now: BootTime) -> Option<Request> {
        self.now = now;
        self.message = None;
        if self.prompt.is_some() && !matches!(key, Key::Ctrl('c' | 'z' | 'l')) {
            self.type_filter(key);
            return None;
        }
        let act = keys::act(key)?;
        if self.page.is_some() {
            return self.on_page(act);
        }
        match act {
            Act::Quit => return Some(Request::Quit),
            Act::Suspend => return Some(Request::Suspend),
            Act::Redraw => return Some(Request::Redraw),
            Act::Copy => return self.copy(),
            Act::Trace => return self.trace(),
            Act::View(place) => self.look_at(place),
            Act::NextView => self.look_at(self.view.place() + 1),
            Act::LastView => self.look_at(self.view.place() + View::ALL.len() - 1),
            Act::Move(step) => self.step(step),
            Act::Open => self.open(),
            Act::Back => self.back(),
            Act::Filter => {
                self.prompt = Some(Prompt::new(self.find.as_ref().map_or("", |find| &find.text)));
            }
            Act::Sort => {
                let orders = self.view.orders().len();
                let list = self.list_mut();
                (list.order, list.reverse) = ((list.order + 1) % orders, false);
                self.arrange();
            }
            Act::Reverse => {
                let list = self.list_mut();
                list.reverse = !list.reverse;
                self.arrange();
            }
            Act::Freeze => {
                self.freeze();
                self.arrange();
            }
            Act::History => {
                self.history = !self.history;
                self.arrange();
            }
            Act::Help => self.show(Page::Help),
        }
        None
    }

    /// On a page keys scroll, close, or ask for more about what it shows.
    fn on_page(&mut self, act: Act) -> Option<Request> {
        let height = usize::from(self.parts().page().height).max(1);
        match act {
            Act::Quit if matches!(self.page, Some(Page::Help)) => self.page = None,
            Act::Quit => return Some(Request::Quit),
            Act::Suspend => return Some(Request::Suspend),
            Act::Redraw => return Some(Request::Redraw),
            Act::Copy => return self.copy(),
            Act::Trace => return self.trace(),
            Act::Help => self.show(Page::Help),
            Act::Back | Act::Open => self.page = None,
            Act::Move(step) => {
                self.scroll = match step {
                    Step::Up => self.scroll.saturating_sub(1),
                    Step::Down => self.scroll + 1,
                    Step::PageUp => self.scroll.saturating_sub(height),
                    Step::PageDown => self.scroll + height,
                    Step::First => 0,
                    Step::Last => usize::MAX,
                };
                let lines = draw::page_lines(self).len();
                self.scroll = self.scroll.min(lines.saturating_sub(height));
            }
            Act::View(place) => {
                self.page = None;
                self.look_at(place);
            }
            Act::NextView
            | Act::LastView
            | Act::Filter
            | Act::Sort
            | Act::Reverse
            | Act::Freeze
            | Act::History => {}
        }
        None
    }

    pub(super) fn show(&mut self, page: Page) {
        (self.page, self.scroll) = (Some(page), 0);
    }

    fn look_at(&mut self, place: usize) {
        let view = View::ALL.get(place % View::ALL.len()).copied().unwrap_or(View::Connections);
        if view != View::Connections {
            self.scope = None;
        }
        self.view = view;
        self.arrange();
    }

    fn step(&mut self, step: Step) {
        let (height, count) = (self.list_height(), self.shown.targets.len());
        let Some(last) = count.checked_sub(1) else { return };
        let list = self.list();
        let first = list.offset;
        let index = match (list.index, step) {
            (_, Step::First) => 0,
            (_, Step::Last) => last,
            (None, _) => first,
            (Some(index), Step::Up) => index.saturating_sub(1),
            (Some(index), Step::Down) => index + 1,
            (Some(index), Step::PageUp) => index.saturating_sub(height),
            (Some(index), Step::PageDown) => index + height,
        };
        let index = index.min(last);
        let target = self.shown.targets.get(index).cloned();
        let list = self.list_mut();
        (list.selected, list.index) = (target, Some(index));
        self.keep_in_sight();
    }

    fn open(&mut self) {
        match self.list().selected.clone() {
            Some(Target::Group(group)) => {
                self.scope = Some((self.view, group));
                self.view = View::Connections;
                let list = self.list_mut();
                (list.selected, list.index) = (None, None);
                self.arrange();
            }
            Some(target) => self.show(Page::Details(target)),
            // The first line, so that Enter does something on a screen without a selection.
            None => self.step(Step::First),
        }
    }

    fn back(&mut self) {
        if let Some((view, _)) = self.scope.take() {
            self.view = view;
        } else if self.list().selected.is_some() {
            let list = self.list_mut();
            (list.selected, list.index) = (None, None);
        } else {
            self.find = None;
        }
        self.arrange();
    }

    fn type_filter(&mut self, key: Key) {
        let Some(prompt) = &mut self.prompt else { return };
        match key {
            Key::Enter if prompt.error.is_none() => self.prompt = None,
            Key::Esc => (self.prompt, self.find) = (None, None),
            key => {
                if !prompt.press(key) {
                    return;
                }
                match by_numbers(&prompt.text) {
                    Ok(found) => {
                        prompt.error = None;
                        self.find = Some(found).filter(|found| !found.text.trim().is_empty());
                    }
                    // The last filter that has a meaning stays in force.
                    Err(error) => prompt.error = Some(error),
                }
            }
        }
        self.arrange();
    }

    fn trace(&mut self) -> Option<Request> {
        let Some((_, row)) = self.row_in_question() else {
            self.message = Some("select a connection to trace".into());
            return None;
        };
        if row.is_listener() {
            self.message = Some("a listener has no cause to trace: select a connection".into());
            return None;
        }
        let id = format!("id:{}-{}", row.boot, row.endpoint().id);
        self.show(Page::Trace(id.clone(), None));
        Some(Request::Trace(id))
    }

    fn copy(&mut self) -> Option<Request> {
        let command = self.command();
        self.message = Some(format!("copied: {command}"));
        Some(Request::Copy(command))
    }

    /// The `netwatch log` command that is equal to what is selected, or else to the filter.
    fn command(&self) -> String {
        let mut words = vec!["netwatch log".to_owned()];
        if let super::state::Source::Store(path) = &self.options.source {
            words.push(format!("--store {}", shell::quoted(path)));
        }
        if let Some((_, row)) = self.row_in_question() {
            words.extend(addresses(row));
            return words.join(" ");
        }
        if let Some((_, Group::Process(Some(key)))) = &self.scope {
            words.push(format!("--pid {}", key.pid));
        }
        words.extend(self.find.as_ref().map(|find| format!("--filter {}", shell::quoted(&find.text))));
        words.join(" ")
    }
}

fn addresses(row: &Row) -> Vec<String> {
    let endpoint = row.endpoint();
    let option = |name: &str, address: SockAddr| format!("--{name} {}", shell::quoted(&address.to_string()));
    let proto = format!("--proto {}", endpoint.proto.name());
    let local = Some(option("local", endpoint.local));
    [Some(proto), local, endpoint.remote.map(|remote| option("remote", remote))]
        .into_iter()
        .flatten()
        .collect()
}
