//! What of the screen is in sight.

use ratatui::layout::Rect;

use super::layout::Parts;
use super::state::{LOUD, State};

impl State {
    /// The parts of the screen at its size.
    pub(super) fn parts(&self) -> Parts {
        let (width, height) = self.size;
        Parts::of(Rect::new(0, 0, width, height), self.is_loud(), self.has_status())
    }

    /// How many lines of a list are in sight.
    pub(super) fn list_height(&self) -> usize {
        self.parts().list.height.max(1).into()
    }

    /// Whether a loss has a line of its own.
    pub(super) fn is_loud(&self) -> bool {
        self.lost_at.is_some_and(|at| self.now.saturating_sub(at) < LOUD)
    }

    /// Whether there is something to say on a screen that has little room.
    pub(super) fn has_status(&self) -> bool {
        self.prompt.is_some()
            || self.message.is_some()
            || self.find.is_some()
            || self.frozen.is_some()
            || self.scope.is_some()
    }

    /// Keeps the selected line on the screen, and the screen full.
    pub(super) fn keep_in_sight(&mut self) {
        let height = self.list_height();
        let count = self.shown.targets.len();
        let list = self.list_mut();
        if let Some(index) = list.index {
            list.offset = list.offset.clamp((index + 1).saturating_sub(height), index);
        } else if list.selected.is_none() {
            // Without a selection the first lines are shown.
            list.offset = 0;
        }
        list.offset = list.offset.min(count.saturating_sub(height));
    }
}
