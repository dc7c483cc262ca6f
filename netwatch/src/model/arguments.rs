//! The arguments of a program.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::{escape, limits};

/// The arguments of a program, safe to print in JSON (see [`crate::escape`]). One allocation holds all of them, since a
/// process may have hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Each followed by a NUL, which none contains.
    text: Arc<str>,
    cut: Option<Cut>,
}

/// Arguments are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Length of all arguments in memory, bytes, with the NUL after each; `None` if not known.
    pub bytes: Option<u64>,
}

impl Arguments {
    /// Arguments as they lie in memory, each with a NUL at its end; a last one may lack it, if it was cut or somebody
    /// overwrote it. Of more than [`limits::ARGS_COUNT`] those in the middle are left out.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if count(bytes) <= limits::ARGS_COUNT {
            return Self::join_ends(bytes, b"", None);
        }
        let half = limits::ARGS_COUNT / 2;
        Self::join_ends(first(bytes, half), last(bytes, half), Some(Cut { bytes: Some(bytes.len() as u64) }))
    }

    /// Beginning and end of arguments of which the middle is missing, or the end if `tail` is empty. The arguments in
    /// which they were cut are kept as they are. `length`: of all, bytes, if it is known.
    #[must_use]
    pub fn of_ends(head: &[u8], tail: &[u8], length: Option<u64>) -> Self {
        let cut = Some(Cut { bytes: length });
        if count(head) + count(tail) <= limits::ARGS_COUNT {
            return Self::join_ends(head, tail, cut);
        }
        let half = limits::ARGS_COUNT / 2;
        Self::join_ends(first(head, half), last(tail, half), cut)
    }

    fn join_ends(head: &[u8], tail: &[u8], cut: Option<Cut>) -> Self {
        let mut text = String::with_capacity(head.len() + tail.len() + 2);
        for end in [head, tail] {
            escape::push_utf8(end, &mut text);
            if end.last().is_some_and(|last| *last != 0) {
                text.push('\0');
            }
        }
        Self { text: text.into(), cut }
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.text.split_terminator('\0')
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        count(self.text.as_bytes())
    }

    /// How much memory they take, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// All in one string.
    #[must_use]
    pub fn join(&self, separator: &str) -> String {
        let whole = self.text.strip_suffix('\0').unwrap_or(&self.text);
        whole.replace('\0', separator)
    }

    /// What is missing; `None`: nothing.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }
}

impl Arguments {
    /// Whether these may be the whole of `cut`, which has only their beginning: all complete arguments of `cut` come
    /// first.
    #[must_use]
    pub fn complete(&self, cut: &Self) -> bool {
        let text = cut.text.strip_suffix('\0').unwrap_or(&cut.text);
        let complete = text.rfind('\0').and_then(|end| text.get(..=end)).unwrap_or_default();
        // There are none if they could not be read.
        cut.cut.is_some() && !self.is_empty() && self.text.starts_with(complete)
    }
}

/// Strings that were arguments before. A NUL in one, which no argument has, makes two of it.
impl<S: AsRef<str>> FromIterator<S> for Arguments {
    fn from_iter<I: IntoIterator<Item = S>>(arguments: I) -> Self {
        let mut text = String::new();
        for argument in arguments {
            text.push_str(argument.as_ref());
            text.push('\0');
        }
        Self { text: text.into(), cut: None }
    }
}

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

fn count(bytes: &[u8]) -> usize {
    let ended = bytes.iter().filter(|byte| **byte == 0).count();
    ended + usize::from(bytes.last().is_some_and(|last| *last != 0))
}

/// The first `most` arguments.
fn first(bytes: &[u8], most: usize) -> &[u8] {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0);
    let end = most.checked_sub(1).and_then(|nth| ends.nth(nth)).map_or(bytes.len(), |(at, _)| at + 1);
    bytes.get(..end).unwrap_or(bytes)
}

/// The last `most` arguments.
fn last(bytes: &[u8], most: usize) -> &[u8] {
    let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let mut ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == 0);
    let begin = most.checked_sub(1).and_then(|nth| ends.nth(nth)).map_or(0, |(at, _)| at + 1);
    bytes.get(begin..).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(arguments: &Arguments) -> Vec<&str> {
        arguments.iter().collect()
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(read(&Arguments::of(b"a\0\0b\0")), ["a", "", "b"]);
        assert_eq!(read(&Arguments::of(b"title without an end")), ["title without an end"]);
        assert_eq!(read(&Arguments::of(b"\xff\0")), ["\\xff"]);
        assert_eq!(read(&Arguments::of(b"\0")), [""]);
        assert!(Arguments::of(b"").is_empty());
    }

    #[test]
    fn many_arguments_are_cut() {
        let bytes: Vec<u8> =
            (0..limits::ARGS_COUNT).flat_map(|nth| format!("{nth}\0").into_bytes()).collect();
        assert_eq!(Arguments::of(&bytes).cut(), None);
        assert_eq!(Arguments::of(&bytes).len(), limits::ARGS_COUNT);
        let bytes = [&bytes[..], b"end"].concat();
        let arguments = Arguments::of(&bytes);
        assert_eq!(arguments.cut(), Some(Cut { bytes: Some(bytes.len() as u64) }));
        let kept = read(&arguments);
        assert_eq!(kept.len(), limits::ARGS_COUNT);
        assert_eq!((kept[0], kept[2047], kept[2048], kept[4095]), ("0", "2047", "2049", "end"));
        let ends = Arguments::of_ends(&[0; 3000], &[0; 3000], None);
        assert_eq!((ends.len(), ends.cut()), (limits::ARGS_COUNT, Some(Cut { bytes: None })));
    }

    #[test]
    fn an_argument_that_was_cut_is_kept() {
        let arguments = Arguments::of_ends(b"sh\0-c\0some", b"thing\0last\0", Some(99));
        assert_eq!(read(&arguments), ["sh", "-c", "some", "thing", "last"]);
        assert_eq!(arguments.cut(), Some(Cut { bytes: Some(99) }));
        assert_eq!(arguments.join(" "), "sh -c some thing last");
    }

    proptest! {
        #[test]
        fn the_arguments_are_what_lies_between_nuls(bytes in prop::collection::vec(0_u8..3, 0..40)) {
            let whole = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
            let mut expected: Vec<_> = whole.split(|byte| *byte == 0).map(escape::utf8).collect();
            if bytes.is_empty() {
                expected.clear();
            }
            let arguments = Arguments::of(&bytes);
            prop_assert_eq!(read(&arguments), expected.clone());
            prop_assert_eq!(arguments.len(), expected.len());
            prop_assert_eq!(arguments.join("+"), expected.join("+"));
            prop_assert_eq!(expected.iter().collect::<Arguments>(), arguments);
        }

        #[test]
        fn any_bytes_are_bounded_and_keep_their_ends(
            head in prop::collection::vec(any::<u8>(), 0..200),
            tail in prop::collection::vec(any::<u8>(), 0..200),
            nuls in 0_usize..9000,
        ) {
            let head = [&head[..], &vec![0; nuls]].concat();
            let arguments = Arguments::of_ends(&head, &tail, None);
            prop_assert!(arguments.len() <= limits::ARGS_COUNT);
            prop_assert!(arguments.text.len() <= 4 * (head.len() + tail.len()) + 2);
            // Cut within a character, whose bytes are then escaped.
            let first = escape::utf8(head.split(|byte| *byte == 0).next().unwrap_or_default());
            prop_assert!(arguments.text.starts_with(&first));
            let last = tail.strip_suffix(b"\0").unwrap_or(&tail).rsplit(|byte| *byte == 0).next().map(escape::utf8);
            if !tail.is_empty() {
                prop_assert_eq!(arguments.iter().last().map(str::to_owned), last);
            }
        }
    }

    #[test]
    fn whole_arguments_begin_with_those_that_were_cut() {
        let cut = Arguments::of_ends(b"java\0-Xmx1g\0-cp\0a.jar:b.j", b"", Some(99));
        let whole = Arguments::of(b"java\0-Xmx1g\0-cp\0a.jar:b.jar\0Main\0");
        assert!(whole.complete(&cut));
        // The process has overwritten them.
        assert!(!Arguments::of(b"java\0-Xmx2g\0-cp\0a.jar:b.jar\0Main\0").complete(&cut));
        assert!(!Arguments::of(b"[kworker/0:1]\0").complete(&cut));
        // Nothing is missing.
        assert!(!whole.complete(&whole));
        // They could not be read.
        let cut = Arguments::of_ends(b"java", b"", Some(99));
        assert!(!Arguments::of_ends(b"", b"", Some(99)).complete(&cut));
    }
}
