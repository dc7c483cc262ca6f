//! The table of keys, from which they are looked up, the help is made, and the last line of the screen.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A character.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Up.
    Up,
    /// Down.
    Down,
    /// Left.
    Left,
    /// Right.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character at the cursor.
    Delete,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    View(usize),
    NextView,
    LastView,
    Move(Step),
    Open,
    Back,
    Filter,
    Sort,
    Reverse,
    Freeze,
    History,
    Trace,
    Copy,
    Help,
    Redraw,
    Suspend,
    Quit,
}

/// How far the selection moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// A row of the table.
pub(super) struct Binding {
    pub(super) keys: &'static [Key],
    pub(super) act: Act,
    /// The keys in the help. Empty: the help has it with the row before.
    pub(super) shown: &'static str,
    /// A word for the last line; empty: not there.
    pub(super) label: &'static str,
    /// What it does.
    pub(super) help: &'static str,
}

const fn binding(
    keys: &'static [Key],
    act: Act,
    shown: &'static str,
    label: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, act, shown, label, help }
}

use Key::{Char, Ctrl};

/// The keys, in the order of the help; the last line leaves out labels from its end as the screen gets narrower.
pub(super) const KEYS: &[Binding] = &[
    binding(&[Char('?')], Act::Help, "?", "help", "This help"),
    binding(&[Char('q'), Ctrl('c')], Act::Quit, "q, Ctrl-C", "quit", "Quit"),
    binding(&[Char('/')], Act::Filter, "/", "filter", "Filter: words that all have to match; see below"),
    binding(
        &[Key::Enter],
        Act::Open,
        "Enter",
        "details",
        "All that is known of the selected line; of a group, its connections",
    ),
    binding(
        &[Char(' ')],
        Act::Freeze,
        "Space",
        "freeze",
        "Freeze the list, or go on; what happens meanwhile is counted",
    ),
    binding(&[Char('t')], Act::Trace, "t", "trace", "Trace the selected connection back to its cause"),
    binding(&[Char('s')], Act::Sort, "s", "sort", "Sort by the next column"),
    binding(&[Char('h')], Act::History, "h", "history", "Show connections that ended, or hide them"),
    binding(
        &[Char('y')],
        Act::Copy,
        "y",
        "copy",
        "Copy the equal `netwatch log` command: of the selected connection, else of the filter",
    ),
    binding(&[Char('S')], Act::Reverse, "S", "", "Reverse the order"),
    binding(&[Char('1')], Act::View(0), "1", "", "Connections"),
    binding(&[Char('2')], Act::View(1), "2", "", "Processes, with the sums of their connections"),
    binding(
        &[Char('3')],
        Act::View(2),
        "3",
        "",
        "Originators: hosts, logins, services, containers, programs",
    ),
    binding(&[Char('4')], Act::View(3), "4", "", "Listening sockets"),
    binding(&[Char('5')], Act::View(4), "5", "", "Suspicious processes, and losses"),
    binding(&[Key::Tab], Act::NextView, "Tab, Shift-Tab", "", "The next view, or the one before"),
    binding(&[Key::BackTab], Act::LastView, "", "", ""),
    binding(&[Key::Up, Char('k')], Act::Move(Step::Up), "Up, Down, k, j", "", "Select a line"),
    binding(&[Key::Down, Char('j')], Act::Move(Step::Down), "", "", ""),
    binding(&[Key::PageUp], Act::Move(Step::PageUp), "PgUp, PgDn", "", "Move by a page"),
    binding(&[Key::PageDown], Act::Move(Step::PageDown), "", "", ""),
    binding(
        &[Key::Home, Char('g')],
        Act::Move(Step::First),
        "Home, End, g, G",
        "",
        "The first line, or the last",
    ),
    binding(&[Key::End, Char('G')], Act::Move(Step::Last), "", "", ""),
    binding(
        &[Key::Esc],
        Act::Back,
        "Esc",
        "",
        "Back: close a page, leave a group, clear the selection, then the filter",
    ),
    binding(&[Ctrl('l')], Act::Redraw, "Ctrl-L", "", "Draw the screen anew"),
    binding(&[Ctrl('z')], Act::Suspend, "Ctrl-Z", "", "Suspend"),
];

/// What a key does; `None`: nothing.
pub(super) fn act(key: Key) -> Option<Act> {
    KEYS.iter().find(|binding| binding.keys.contains(&key)).map(|binding| binding.act)
}

/// The help, made from the table.
pub(super) fn help() -> Vec<String> {
    let rows = KEYS.iter().filter(|binding| !binding.shown.is_empty());
    let mut lines: Vec<_> = rows.map(|row| format!("  {:<16}{}", row.shown, row.help)).collect();
    lines.extend(["", "Filter"].map(String::from));
    for (word, what) in [
        ("process:curl", "name or executable of the process, with * and ?"),
        ("origin:local", "the side that originated: local, remote, both, unknown"),
        ("port:53,443", "a port on either side; pid:, proto:, family:, container:, device: alike"),
        ("remote:10.0.0.0/8", "network of the remote address, with :PORT if wanted; local: alike"),
        ("!port:53", "not this"),
        ("text", "in the name, path or container of the process, or in an address"),
    ] {
        lines.push(format!("  {word:<20}{what}"));
    }
    lines.extend(["", "Marks"].map(String::from));
    for (mark, what) in [
        ("->  <-  <>  --", "originated here, by the other side, by both, not known"),
        ("connect", "how that is known: observed. With ~: inferred. With ?: guessed from ports"),
        ("!", "the process or listener is suspicious; the details say why"),
    ] {
        lines.push(format!("  {mark:<16}{what}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Set;

    #[test]
    fn no_key_does_two_things_and_each_is_in_the_help() {
        let mut keys = Set::default();
        for binding in KEYS {
            assert!(binding.keys.iter().all(|key| keys.insert(*key)), "{:?}", binding.act);
            assert_eq!(binding.shown.is_empty(), binding.help.is_empty(), "{:?}", binding.act);
        }
        let help = help().join("\n");
        for binding in KEYS.iter().filter(|binding| !binding.shown.is_empty()) {
            assert!(help.contains(binding.help), "{}", binding.help);
        }
    }
}
