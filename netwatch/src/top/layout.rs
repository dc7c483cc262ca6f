//! Where the parts of the screen are.

use ratatui::layout::Rect;

/// From this height on the screen has a line of keys, a header, and a line about the list.
const ROOMY: u16 = 8;

/// The parts of a screen, from top to bottom.
pub(super) struct Parts {
    pub(super) title: Rect,
    /// A loss.
    pub(super) loud: Option<Rect>,
    /// The filter, the order, and what was answered to a key.
    pub(super) status: Option<Rect>,
    pub(super) header: Option<Rect>,
    pub(super) list: Rect,
    /// Keys.
    pub(super) foot: Option<Rect>,
}

impl Parts {
    /// The parts of an area. `is_loud`: there was a loss; `has_status`: there is something to say that a small screen has
    /// no line for otherwise.
    pub(super) fn of(area: Rect, is_loud: bool, has_status: bool) -> Self {
        let is_roomy = area.height >= ROOMY;
        let mut next = area.y;
        let mut line = |is_there: bool| {
            let line = Rect { y: next, height: 1, ..area };
            next += u16::from(is_there);
            is_there.then_some(line)
        };
        let title = line(true).unwrap_or(area);
        let loud = line(is_loud);
        let status = line(is_roomy || has_status);
        let header = line(is_roomy);
        let foot = is_roomy.then(|| Rect { y: area.bottom().saturating_sub(1), height: 1, ..area });
        let end = foot.map_or(area.bottom(), |foot| foot.y);
        let list = Rect { y: next, height: end.saturating_sub(next), ..area };
        Self { title, loud, status, header, list, foot }
    }

    /// Where a page is: over the list and its header.
    pub(super) fn page(&self) -> Rect {
        let top = self.header.map_or(self.list.y, |header| header.y);
        Rect { y: top, height: self.list.bottom().saturating_sub(top), ..self.list }
    }
}
