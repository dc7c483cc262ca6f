//! Text in cells. Names come from outside: a column must not move whatever is in them, and nothing of them may reach the
//! terminal as a control.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::escape;
use crate::model::SockAddr;
use crate::process::Actor;

/// How many combining characters are kept on one base. Written languages need two; more grow over the lines above and
/// below.
const COMBINING: usize = 2;

/// Makes text safe for a cell: controls and bidirectional formatting are escaped as everywhere, and so are characters
/// without a width of which terminals make different things (joiners, variation selectors, tags, fillers), and combining
/// characters beyond the second.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.into();
    }
    let text = escape::terminal(text);
    let mut out = String::with_capacity(text.len());
    // Nothing to combine with at the beginning.
    let mut combining = COMBINING;
    for c in text.chars() {
        let has_width = c.width().unwrap_or(0) > 0;
        combining = if has_width { 0 } else { combining + 1 };
        if is_disputed(c) || combining > COMBINING {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            combining = COMBINING;
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Whether terminals disagree on its width, or on that of what is before it.
fn is_disputed(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1f1e6}'..='\u{1f1ff}' | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Cuts text to a width, with an ellipsis where something is missing.
pub(super) fn fit(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out.into()
}

/// Splits text into lines of at most `width` cells, at spaces where there are some. Further lines are indented.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let width = width.max(4);
    let words = text.trim_start_matches(' ');
    let lead = (text.len() - words.len()).min(width / 2);
    let mut lines = vec![" ".repeat(lead)];
    let next = " ".repeat(indent.min(width / 2));
    for word in words.split(' ') {
        let mut word = word;
        while let Some(line) = lines.last_mut() {
            let used = line.width();
            let gap = usize::from(!line.trim_start_matches(' ').is_empty());
            if used + gap + word.width() <= width {
                line.push_str(if gap == 1 { " " } else { "" });
                line.push_str(word);
                break;
            }
            if gap == 0 {
                // A word that is wider than a line.
                let mut taken = used;
                let end = word.char_indices().find_map(|(at, c)| {
                    taken += c.width().unwrap_or(0);
                    (taken > width).then_some(at)
                });
                let (head, tail) = word.split_at(end.unwrap_or(word.len()));
                line.push_str(head);
                word = tail;
            }
            lines.push(next.clone());
        }
    }
    lines
}

/// `comm[pid]`
pub(super) fn who(actor: &Actor) -> String {
    format!("{}[{}]", clean(&actor.process.comm), actor.process.key.pid)
}

/// An address, which has no character of somebody else's.
pub(super) fn address(address: SockAddr) -> String {
    address.to_string()
}

/// `1.2K`: at most five characters.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if count < 1000 {
        return count.to_string();
    }
    let (mut whole, mut tenths, mut unit) = (count, 0, "");
    for next in UNITS {
        (tenths, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, next);
        if whole < 1000 {
            break;
        }
    }
    if whole < 10 { format!("{whole}.{tenths}{unit}") } else { format!("{whole}{unit}") }
}

/// `850ms`, `12s`, `3m05s`, `2h10m`, `4d06h`.
pub(super) fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_text_has_no_control_and_a_certain_width() {
        for (text, shown) in [
            ("curl", "curl"),
            ("\x1b[2J", "\\x1b[2J"),
            ("a\u{202e}b", "a\\xe2\\x80\\xaeb"),
            ("grün 日本", "grün 日本"),
            ("e\u{301}", "e\u{301}"),
            ("e\u{301}\u{301}\u{301}", "e\u{301}\u{301}\\u{301}"),
            ("\u{301}x", "\\u{301}x"),
            ("a\u{200d}b", "a\\u{200d}b"),
            ("\u{2764}\u{fe0f}", "\u{2764}\\u{fe0f}"),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }

    #[test]
    fn text_is_cut_to_its_width() {
        assert_eq!(fit("12345", 5), "12345");
        assert_eq!(fit("123456", 5), "1234…");
        // A wide character that does not fit is left out.
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (count, shown) in
            [(0, "0"), (999, "999"), (1000, "0.9K"), (1536, "1.5K"), (10 << 20, "10M"), (u64::MAX, "15E")]
        {
            assert_eq!(bytes(count), shown);
        }
        for (seconds, shown) in [(5, "5s"), (65, "1m05s"), (7800, "2h10m"), (367_200, "4d06h")] {
            assert_eq!(lasted(Duration::from_secs(seconds)), shown);
        }
        assert_eq!(lasted(Duration::from_millis(850)), "850ms");
    }

    #[test]
    fn long_lines_are_wrapped() {
        assert_eq!(wrap("one two three", 8, 2), ["one two", "  three"]);
        assert_eq!(wrap("0123456789ab", 8, 2), ["01234567", "  89ab"]);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_cell(text in any::<String>(), width in 0_usize..40) {
            let clean = clean(&text);
            prop_assert!(!clean.chars().any(char::is_control));
            prop_assert!(fit(&clean, width).width() <= width);
            prop_assert!(wrap(&clean, width.max(4), 2).iter().all(|line| line.width() <= width.max(4)));
        }
    }
}
