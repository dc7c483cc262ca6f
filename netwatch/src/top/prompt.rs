//! One line of text that is typed.

use super::keys::Key;

/// Text, and the place of the cursor in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Prompt {
    pub(super) text: String,
    /// In bytes, at the beginning of a character.
    cursor: usize,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// Maximum length in characters: more than any screen shows. Test: `top::prompt::tests::length_is_bounded`.
const MOST_TYPED: usize = 1024;

impl Prompt {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), cursor: text.len(), error: None }
    }

    /// The text before and after the cursor.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.text.split_at(self.cursor)
    }

    /// Changes the text by a key. Returns whether it was changed.
    pub(super) fn press(&mut self, key: Key) -> bool {
        let before = self.text.get(..self.cursor).unwrap_or_default();
        let last = before.chars().next_back().map_or(0, char::len_utf8);
        let next =
            self.text.get(self.cursor..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        match key {
            Key::Char(c) if !c.is_control() && self.text.chars().count() < MOST_TYPED => {
                self.text.insert(self.cursor, c);
                self.cursor += c.len_utf8();
            }
            Key::Backspace if last > 0 => {
                self.cursor -= last;
                self.text.remove(self.cursor);
            }
            Key::Delete if next > 0 => _ = self.text.remove(self.cursor),
            Key::Ctrl('u') => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Key::Ctrl('w') => {
                let kept = before.trim_end().rfind(' ').map_or(0, |space| space + 1);
                self.text.drain(kept..self.cursor);
                self.cursor = kept;
            }
            Key::Left => {
                self.cursor -= last;
                return false;
            }
            Key::Right => {
                self.cursor += next;
                return false;
            }
            Key::Home => {
                self.cursor = 0;
                return false;
            }
            Key::End => {
                self.cursor = self.text.len();
                return false;
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_edited() {
        let mut prompt = Prompt::new("ab");
        for (key, text) in [
            (Key::Char('ü'), "abü"),
            (Key::Left, "abü"),
            (Key::Backspace, "aü"),
            (Key::Delete, "a"),
            (Key::Home, "a"),
            (Key::Char(' '), " a"),
            (Key::End, " a"),
            (Key::Char(' '), " a "),
            (Key::Char('b'), " a b"),
            (Key::Ctrl('w'), " a "),
            (Key::Ctrl('u'), ""),
            (Key::Backspace, ""),
        ] {
            prompt.press(key);
            assert_eq!(prompt.text, text, "{key:?}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let mut prompt = Prompt::default();
        for _ in 0..MOST_TYPED + 5 {
            prompt.press(Key::Char('x'));
        }
        assert_eq!(prompt.text.len(), MOST_TYPED);
    }

    proptest! {
        #[test]
        fn no_keys_panic(text in any::<String>(), keys in prop::collection::vec(0_usize..9, 0..40)) {
            let mut prompt = Prompt::new(&text);
            let all = [
                Key::Char('ß'), Key::Left, Key::Right, Key::Home, Key::End, Key::Backspace, Key::Delete,
                Key::Ctrl('w'), Key::Ctrl('u'),
            ];
            for key in keys {
                prompt.press(all[key]);
                let (before, after) = prompt.parts();
                prop_assert_eq!(before.len() + after.len(), prompt.text.len());
            }
        }
    }
}
