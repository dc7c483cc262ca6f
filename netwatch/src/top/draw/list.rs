//! The list: its header, and the lines in sight.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr as _;

use super::columns::{self, Column, Placed};
use super::rows::{self, Cells, Tone};
use super::{Look, put};
use crate::top::cells::fit;
use crate::top::state::{Source, State};

/// Cells before the first column: one for the selection, one for signs.
const MARKS: u16 = 2;

pub(super) fn draw(state: &State, header: Option<Rect>, area: Rect, buffer: &mut Buffer, look: Look) {
    let columns = columns::of(state.view);
    let placed = columns::place(columns, area.width.saturating_sub(MARKS));
    if let Some(header) = header {
        let style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        buffer.set_style(header, style);
        for (number, x, width) in &placed {
            let Some(column) = columns.get(*number) else { continue };
            cell(buffer, header, (*x, *width), column.title, column.is_number, style);
        }
    }
    let list = state.list();
    let in_sight = state.shown.targets.iter().enumerate().skip(list.offset).take(area.height.into());
    for (y, (index, target)) in (area.y..).zip(in_sight) {
        let line = Rect { y, height: 1, ..area };
        let Some(cells) = rows::cells(state, target) else { continue };
        let is_selected = list.index == Some(index);
        draw_line(line, &cells, is_selected, columns, &placed, buffer, look);
    }
    if state.shown.targets.is_empty() {
        put(buffer, area, MARKS, nothing(state), look.dim());
    }
}

fn draw_line(
    line: Rect,
    cells: &Cells,
    is_selected: bool,
    columns: &[Column],
    placed: &[Placed],
    buffer: &mut Buffer,
    look: Look,
) {
    let base = match cells.tone {
        Tone::Plain => Style::new(),
        Tone::Ended => look.dim(),
        Tone::Alarm => look.alarm(),
    };
    let base = if is_selected { look.selected() } else { base };
    buffer.set_style(line, base);
    if is_selected {
        put(buffer, line, 0, ">", base);
    }
    if cells.is_suspicious {
        put(buffer, line, 1, "!", base.patch(look.suspicious()));
    }
    for (number, x, width) in placed {
        let (Some(column), Some(text)) = (columns.get(*number), cells.texts.get(*number)) else { continue };
        let style = match text.as_str() {
            "->" => base.patch(look.outbound()),
            "<-" => base.patch(look.inbound()),
            _ => base,
        };
        cell(buffer, line, (*x, *width), text, column.is_number, style);
    }
}

fn cell(buffer: &mut Buffer, line: Rect, (x, width): (u16, u16), text: &str, is_number: bool, style: Style) {
    let text = fit(text, width.into());
    let room = usize::from(width).saturating_sub(text.width());
    let indent = if is_number { u16::try_from(room).unwrap_or(0) } else { 0 };
    buffer.set_stringn(line.x + MARKS + x + indent, line.y, text, width.into(), style);
}

/// What an empty list says.
fn nothing(state: &State) -> &'static str {
    match &state.options.source {
        Source::Live if !state.is_ready => "attaching the probes",
        Source::Polled(_) if !state.is_ready => "taking the first snapshot",
        Source::Store(_) if !state.is_ready => "reading the store",
        _ if state.find.is_some() => "nothing matches the filter",
        _ if state.view == crate::top::order::View::Losses => "no signs, and nothing was lost",
        _ => "nothing",
    }
}
