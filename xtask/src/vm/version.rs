//! Compares versions as Debian sorts them.

use std::cmp::Ordering;

/// Compares versions without an epoch: text and numbers alternate; `~` sorts before everything, even the end.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    while !one.is_empty() || !other.is_empty() {
        let (text, rest) = split(one, |character| !character.is_ascii_digit());
        let (other_text, other_rest) = split(other, |character| !character.is_ascii_digit());
        let (number, rest) = split(rest, |character| character.is_ascii_digit());
        let (other_number, other_rest) = split(other_rest, |character| character.is_ascii_digit());
        let order = compare_text(text, other_text).then_with(|| compare_number(number, other_number));
        if order.is_ne() {
            return order;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

/// Splits off the prefix whose characters all satisfy `belongs`.
fn split(version: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    version.split_at(version.find(|character| !belongs(character)).unwrap_or(version.len()))
}

/// `~` sorts first, then the end, then letters, then the rest.
fn compare_text(one: &str, other: &str) -> Ordering {
    let rank = |character: char| match character {
        '~' => 0,
        letter if letter.is_ascii_alphabetic() => u32::from(letter) + 1,
        sign => u32::from(sign) + 0x100,
    };
    let ranks = |text: &str| text.chars().map(rank).chain([1]).collect::<Vec<_>>();
    ranks(one).cmp(&ranks(other))
}

/// Compares numbers of any length.
fn compare_number(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_as_debian_sorts_them() {
        // The order of `dpkg --compare-versions`.
        let ascending = [
            "5.10.0-9",
            "5.10.0-43",
            "6.1.0-0.deb11.50",
            "6.1.0-50",
            "6.12.9+deb13",
            "6.12.117+deb13",
            "7.2.12+deb13",
            "7.2.12+deb14",
            "7.2.13+deb14",
            "7.3~rc1",
            "7.3",
            "7.3a",
            "7.3+deb13",
            "7.3.4~bpo13",
            "7.3.4",
            "7.10",
        ];
        for (index, one) in ascending.iter().enumerate() {
            for (other_index, other) in ascending.iter().enumerate() {
                assert_eq!(compare(one, other), index.cmp(&other_index), "{one} {other}");
            }
        }
    }

    #[test]
    fn leading_zeros_do_not_count() {
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare("6.1", "6.1.0"), Ordering::Less);
    }
}
