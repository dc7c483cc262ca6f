//! Pages over the list: help, details, a trace.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Look, put};
use crate::top::cells::{clean, wrap};
use crate::top::state::{Page, State};
use crate::top::{details, keys};

/// Continued lines are indented by this.
const INDENT: usize = 4;

/// The lines of the page, wrapped to the width of the screen.
pub(in crate::top) fn lines(state: &State) -> Vec<String> {
    let whole = match &state.page {
        None => Vec::new(),
        Some(Page::Help) => keys::help(),
        Some(Page::Details(target)) => details::lines(state, target),
        Some(Page::Trace(id, None)) => vec![format!("tracing {}", clean(id))],
        // The writer has escaped it, but for characters whose width is not certain.
        Some(Page::Trace(_, Some(text))) => text.iter().map(|line| clean(line).into_owned()).collect(),
    };
    let width = usize::from(state.size.0).max(2 * INDENT);
    whole.iter().flat_map(|line| wrapped(line, width)).collect()
}

fn wrapped(line: &str, width: usize) -> Vec<String> {
    let blank = line.len() - line.trim_start().len();
    wrap(line, width, (blank + INDENT).min(width / 2))
}

pub(super) fn draw(state: &State, area: Rect, buffer: &mut Buffer, look: Look) {
    let lines = lines(state);
    let in_sight = lines.iter().skip(state.scroll).take(area.height.into());
    for (y, text) in (area.y..).zip(in_sight) {
        let line = Rect { y, height: 1, ..area };
        let style = if text.starts_with('!') {
            look.suspicious()
        } else if text.starts_with(' ') {
            Style::new()
        } else {
            look.bold()
        };
        put(buffer, line, 0, text, style);
    }
}
