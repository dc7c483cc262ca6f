//! Makes the screen from a state and a size. Pure. Only the lines that are in sight are formatted.

mod columns;
mod head;
mod list;
mod page;
mod rows;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::cells;
use super::keys;
use super::state::State;

pub(super) use page::lines as page_lines;

/// Below this size there is nothing to see.
const LEAST: (u16, u16) = (20, 5);

/// Draws the screen.
pub fn render(state: &State, area: Rect, buffer: &mut Buffer) {
    buffer.reset();
    let look = Look { colour: state.options.colour };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        put(buffer, area, 0, &format!("too small: {}x{}", area.width, area.height), Style::new());
        return;
    }
    let parts = state.parts();
    head::title(state, parts.title, buffer, look);
    if let Some(area) = parts.loud {
        head::loud(state, area, buffer, look);
    }
    if let Some(area) = parts.status {
        head::status(state, area, buffer, look);
    }
    if state.page.is_some() {
        page::draw(state, parts.page(), buffer, look);
    } else {
        list::draw(state, parts.header, parts.list, buffer, look);
    }
    if let Some(area) = parts.foot {
        foot(state, area, buffer, look);
    }
}

/// Styles. Colours only repeat what words and arrows say.
#[derive(Clone, Copy)]
struct Look {
    colour: bool,
}

impl Look {
    fn with(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }

    /// What nobody may miss.
    fn alarm(self) -> Style {
        self.with(Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED), Color::Red)
    }

    fn suspicious(self) -> Style {
        self.with(Style::new().add_modifier(Modifier::BOLD), Color::Red)
    }

    fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What has ended.
    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn outbound(self) -> Style {
        self.with(Style::new(), Color::Green)
    }

    fn inbound(self) -> Style {
        self.with(Style::new(), Color::Cyan)
    }
}

/// Writes one line of text, cut to the area. Returns how many cells it took.
fn put(buffer: &mut Buffer, area: Rect, x: u16, text: &str, style: Style) -> u16 {
    if x >= area.width {
        return 0;
    }
    let room = usize::from(area.width - x);
    let text = cells::fit(text, room);
    let (end, _) = buffer.set_stringn(area.x + x, area.y, text, room, style);
    end - area.x - x
}

/// The keys, as many as fit.
fn foot(state: &State, area: Rect, buffer: &mut Buffer, look: Look) {
    let mut x = 0;
    let is_typing = state.prompt.is_some();
    let labels: Vec<(&str, &str)> = if is_typing {
        vec![("Enter", "keep"), ("Esc", "clear"), ("process:curl origin:local !port:53", "")]
    } else if state.page.is_some() {
        vec![("Esc", "back"), ("t", "trace"), ("y", "copy"), ("Up, Down", "scroll"), ("q", "quit")]
    } else {
        let shown = keys::KEYS.iter().filter(|binding| !binding.label.is_empty());
        shown.map(|binding| (binding.shown.split(',').next().unwrap_or_default(), binding.label)).collect()
    };
    for (key, label) in labels {
        let wide = u16::try_from(key.len() + 1 + label.len()).unwrap_or(u16::MAX);
        if x + wide > area.width {
            break;
        }
        x += put(buffer, area, x, key, look.bold()) + 1;
        x += put(buffer, area, x, label, Style::new()) + 2;
    }
}
