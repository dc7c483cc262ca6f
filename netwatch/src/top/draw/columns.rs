//! The columns of each view, and which of them a width has room for.

use crate::top::order::View;

/// A column.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Cells that it takes at least, and at most if there is room.
    min: u16,
    max: u16,
    /// The greatest goes first as the screen gets narrower; 0: never.
    goes: u8,
    /// Numbers stand to the right.
    pub(super) is_number: bool,
}

const fn text(title: &'static str, min: u16, max: u16, goes: u8) -> Column {
    Column { title, min, max, goes, is_number: false }
}

const fn number(title: &'static str, min: u16, goes: u8) -> Column {
    Column { title, min, max: min, goes, is_number: true }
}

const CONNECTIONS: &[Column] = &[
    text("BEGAN", 8, 8, 4),
    text("ORIGIN", 13, 24, 0),
    text("", 2, 2, 0),
    text("HOW", 9, 12, 3),
    text("LOCAL", 21, 47, 5),
    text("REMOTE", 20, 47, 0),
    text("PROGRAM", 13, 24, 1),
    text("STATE", 7, 7, 2),
    text("SERVICE", 9, 14, 9),
    number("SENT", 5, 6),
    number("RECV", 5, 6),
    number("OUT/S", 5, 7),
    number("IN/S", 5, 7),
    text("SIGNS", 12, 60, 8),
];

const PROCESSES: &[Column] = &[
    text("PROCESS", 13, 24, 0),
    number("OPEN", 6, 0),
    number("OUT", 6, 1),
    number("IN", 6, 1),
    number("FAILED", 6, 2),
    number("LISTENS", 7, 3),
    number("SENT", 5, 4),
    number("RECV", 5, 4),
    text("USER", 8, 16, 5),
    text("PARENT", 13, 24, 6),
    text("PROGRAM", 16, 80, 7),
];

const ORIGINATORS: &[Column] = &[
    text("ORIGINATOR", 13, 44, 0),
    text("KIND", 9, 9, 1),
    number("OPEN", 6, 0),
    number("TOTAL", 6, 2),
    number("FAILED", 6, 3),
    number("SENT", 5, 5),
    number("RECV", 5, 5),
    text("FIRST", 8, 8, 6),
    text("LAST", 8, 8, 4),
    text("SURE", 8, 8, 3),
];

const LISTENING: &[Column] = &[
    text("LOCAL", 13, 47, 0),
    text("", 4, 4, 1),
    text("PROGRAM", 13, 24, 0),
    number("CLIENTS", 7, 2),
    text("REACH", 14, 14, 3),
    text("USER", 8, 16, 4),
    text("STATE", 7, 7, 5),
    text("SINCE", 8, 8, 6),
    text("SERVICE", 9, 14, 7),
    text("SIGNS", 12, 60, 8),
];

const LOSSES: &[Column] = &[text("TIME", 8, 8, 1), text("WHAT", 12, u16::MAX, 0)];

pub(super) fn of(view: View) -> &'static [Column] {
    match view {
        View::Connections => CONNECTIONS,
        View::Processes => PROCESSES,
        View::Originators => ORIGINATORS,
        View::Listening => LISTENING,
        View::Losses => LOSSES,
    }
}

/// A column's number, its place, and its width.
pub(super) type Placed = (usize, u16, u16);

/// Chooses columns for a width, and gives the room that is left to those that can use it.
pub(super) fn place(columns: &[Column], width: u16) -> Vec<Placed> {
    let mut chosen: Vec<(usize, u16)> =
        columns.iter().enumerate().map(|(number, column)| (number, column.min)).collect();
    let taken = |chosen: &[(usize, u16)]| {
        let gaps = u16::try_from(chosen.len().saturating_sub(1)).unwrap_or(u16::MAX);
        chosen.iter().map(|(_, width)| width).sum::<u16>().saturating_add(gaps)
    };
    let goes = |number: usize| columns.get(number).map_or(0, |column| column.goes);
    while taken(&chosen) > width {
        let Some(last) = chosen.iter().map(|(number, _)| goes(*number)).max().filter(|goes| *goes > 0) else {
            break;
        };
        chosen.retain(|(number, _)| goes(*number) != last);
    }
    // What never goes gets narrower, the widest first.
    while taken(&chosen) > width {
        let Some((_, widest)) = chosen.iter_mut().max_by_key(|(_, width)| *width).filter(|(_, w)| *w > 1)
        else {
            break;
        };
        *widest -= 1;
    }
    let mut room = width.saturating_sub(taken(&chosen));
    while room > 0 {
        let before = room;
        for (number, width) in &mut chosen {
            let most = columns.get(*number).map_or(0, |column| column.max);
            if room > 0 && *width < most {
                *width += 1;
                room -= 1;
            }
        }
        if room == before {
            break;
        }
    }
    let mut x = 0;
    let mut placed = Vec::new();
    for (number, width) in chosen {
        placed.push((number, x, width));
        x += width + 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(view: View, width: u16) -> Vec<&'static str> {
        place(of(view), width).into_iter().map(|(number, ..)| of(view)[number].title).collect()
    }

    #[test]
    fn columns_go_in_a_fixed_order_and_never_overlap() {
        for view in View::ALL {
            let mut before = usize::MAX;
            for width in (10..300).rev() {
                let placed = place(of(view), width);
                assert!(placed.len() <= before, "{view:?} {width}");
                before = placed.len();
                let end = placed.iter().fold(0, |end, (_, x, wide)| {
                    assert!(*x >= end && *wide > 0, "{view:?} {width}");
                    x + wide + 1
                });
                assert!(end <= width + 1, "{view:?} {width}: {end}");
            }
        }
    }

    #[test]
    fn a_common_terminal_shows_how_it_is_known() {
        assert_eq!(
            titles(View::Connections, 78),
            ["BEGAN", "ORIGIN", "", "HOW", "REMOTE", "PROGRAM", "STATE"]
        );
        assert_eq!(titles(View::Connections, 38), ["ORIGIN", "", "REMOTE"]);
    }
}
