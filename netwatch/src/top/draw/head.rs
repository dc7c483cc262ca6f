//! The lines above the list.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr as _;

use super::{Look, put};
use crate::filter::Expression;
use crate::top::cells::{clean, fit};
use crate::top::groups::Group;
use crate::top::losses;
use crate::top::order::{Target, View};
use crate::top::state::{Source, State};

/// The views, the source, and the numbers of open connections and of losses.
pub(super) fn title(state: &State, area: Rect, buffer: &mut Buffer, look: Look) {
    let width = usize::from(area.width);
    let open = state.table.open;
    let lost = state.losses.lost;
    let numbers = if lost > 0 { format!("{open} open  LOST {lost}") } else { format!("{open} open  0 lost") };
    let source = match &state.options.source {
        Source::Live if state.is_ready => "live".to_owned(),
        Source::Live => "starting".into(),
        Source::Polled(_) => "POLLING, NO PROBES".into(),
        Source::Store(path) => format!("store {}", clean(path)),
    };
    let host = clean(&state.options.host);
    let rights = [format!("{host}  {source}  {numbers}"), format!("{source}  {numbers}"), numbers.clone()];
    let tabs = |is_long: bool| {
        let tab = |view: &View| {
            let number = view.place() + 1;
            let is_current = *view == state.view;
            match (is_current, is_long) {
                (true, _) => format!("[{number} {}]", view.title()),
                (false, true) => format!(" {number} {} ", view.title()),
                (false, false) => number.to_string(),
            }
        };
        View::ALL.iter().map(tab).collect::<Vec<_>>()
    };
    let lefts = [
        format!("netwatch top {}", tabs(true).concat()),
        tabs(true).concat(),
        format!("netwatch top {}", tabs(false).join(" ")),
        tabs(false).join(" "),
        format!("[{}]", state.view.place() + 1),
        String::new(),
    ];
    // The source before long titles: it may say that there are no probes.
    let fits = |left: &&String, right: &String| left.width() + 2 + right.width() <= width;
    let pairs = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 1), (4, 1), (4, 2), (5, 2)];
    let found = pairs.into_iter().find_map(|(left, right)| {
        let (left, right) = (lefts.get(left)?, rights.get(right)?);
        fits(&left, right).then_some((left, right))
    });
    let (left, right) = found.map_or(("", numbers.as_str()), |(left, right)| (left.as_str(), right.as_str()));
    buffer.set_style(area, look.selected());
    put(buffer, area, 0, left, look.selected());
    let x = width.saturating_sub(right.width());
    let style = if lost > 0 { look.alarm() } else { look.selected() };
    let kept = right.strip_suffix(numbers.as_str()).unwrap_or_default();
    let x = u16::try_from(x).unwrap_or(0);
    let x = x + put(buffer, area, x, kept, look.selected());
    put(buffer, area, x, &numbers, style);
}

/// What was lost.
pub(super) fn loud(state: &State, area: Rect, buffer: &mut Buffer, look: Look) {
    let Some(loss) = state.losses.newest() else { return };
    buffer.set_style(area, look.alarm());
    let sentence = losses::sentence(loss);
    put(
        buffer,
        area,
        0,
        &format!("! {sentence}; what is shown may lack something, 5 has more"),
        look.alarm(),
    );
}

/// The filter and the order.
pub(super) fn status(state: &State, area: Rect, buffer: &mut Buffer, look: Look) {
    if let Some(prompt) = &state.prompt {
        let (before, after) = prompt.parts();
        let (before, after) = (clean(before), clean(after));
        let mut x = put(buffer, area, 0, "/", look.bold());
        // The end of a long text is in sight, where the cursor is.
        let room = usize::from(area.width).saturating_sub(2);
        let excess = before.width().saturating_sub(room);
        let cut: String = before.chars().skip(excess).collect();
        x += put(buffer, area, x, &cut, Style::new());
        let under = after.chars().next().unwrap_or(' ').to_string();
        x += put(buffer, area, x, &under, look.selected());
        x += put(buffer, area, x, after.get(under.len()..).unwrap_or_default(), Style::new());
        if let Some(error) = &prompt.error {
            put(buffer, area, x + 1, &format!("! {}", clean(error)), look.suspicious());
        }
        return;
    }
    if let Some(message) = &state.message {
        put(buffer, area, 0, &clean(message), look.bold());
        return;
    }
    let (order, reverse) = state.order();
    let arrow = if order.is_descending() == reverse { "^" } else { "v" };
    let mut right = format!("sorted by {} {arrow}", order.name());
    if state.history {
        right.push_str("  with ended ones");
    }
    let frozen = state.came_since().map(|came| format!("FROZEN, {came} new  "));
    let mut left = Vec::new();
    if let Some((_, group)) = &state.scope {
        let name = match group {
            Group::Process(key) => {
                let of = |id: &_| state.rows().rows.get(id).and_then(|row| row.endpoint().process.clone());
                let ids = state.shown.targets.iter().filter_map(|target| match target {
                    Target::Row(id) => Some(id),
                    _ => None,
                });
                let actor = ids.take(1).find_map(of);
                actor.map_or_else(
                    || key.map_or("unknown process".into(), |key| format!("process {}", key.pid)),
                    |actor| crate::top::cells::who(&actor),
                )
            }
            Group::Originator(originator) => {
                format!("{} {}", originator.kind(), originator.name(|uid| state.user(uid)))
            }
        };
        left.push(format!("of {name} (Esc: back)"));
    }
    if let Some(only) = &state.options.only {
        left.push(format!("only {}", clean(only)));
    }
    if let Some(Expression { text, .. }) = &state.find {
        left.push(format!("filter: {}", clean(text)));
    }
    let width = usize::from(area.width);
    let mut x = 0;
    if let Some(frozen) = &frozen {
        x = put(buffer, area, 0, frozen, look.alarm());
    }
    let left = left.join("  ");
    let room = width.saturating_sub(usize::from(x));
    let has_room = left.width() + 2 + right.width() <= room;
    put(buffer, area, x, &fit(&left, room), look.bold());
    if has_room {
        let x = u16::try_from(width - right.width()).unwrap_or(0);
        put(buffer, area, x, &right, Style::new());
    }
}
