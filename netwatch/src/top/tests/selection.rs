//! The selection stays where it is.

use proptest::prelude::*;

use super::*;
use crate::top::order::Target;

#[derive(Clone, Debug)]
enum Change {
    Event(u64, usize),
    Key(usize),
    Wait(u64),
    Table(Vec<u64>),
    Resize(u16, u16),
    Loss,
}

/// Keys that change the list, but not the selection.
const KEYS: [Key; 8] = [
    Key::Char('s'),
    Key::Char('S'),
    Key::Char('h'),
    Key::Char(' '),
    Key::Char('2'),
    Key::Char('1'),
    Key::Char('?'),
    Key::Char('t'),
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0_u64..40, 0_usize..4).prop_map(|(number, kind)| Change::Event(number, kind)),
        2 => (0..KEYS.len()).prop_map(Change::Key),
        2 => (0_u64..8).prop_map(Change::Wait),
        1 => prop::collection::vec(0_u64..40, 0..20).prop_map(Change::Table),
        1 => (20_u16..120, 5_u16..30).prop_map(|(width, height)| Change::Resize(width, height)),
        1 => Just(Change::Loss),
    ]
}

proptest! {
    // Each case draws some sixty screens.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn selection_stays_on_the_same_connection(
        begin in 1_u64..40,
        down in 0_usize..40,
        changes in prop::collection::vec(change(), 1..60),
    ) {
        let mut screen = Screen::live();
        screen.events((0..begin).map(|number| connection(number, EventKind::Open, "curl")));
        (0..=down).for_each(|_| _ = screen.key(Key::Down));
        let selected = screen.state.list().selected.clone();
        let Some(Target::Row(id)) = selected else { panic!("{selected:?}") };
        let port = format!(":443 curl[{}]", 900 + id.end.cookie - 1);
        for change in changes {
            match change {
                Change::Event(number, kind) => {
                    let kind = [EventKind::Open, EventKind::Accept, EventKind::Close, EventKind::Fail][kind];
                    screen.take(vec![Item::Event(connection(number, kind, "curl"))]);
                }
                Change::Key(key) => _ = screen.key(KEYS[key]),
                Change::Wait(seconds) => screen.wait(seconds),
                Change::Table(numbers) => {
                    let seed = |number| connection(number, EventKind::Seed, "curl");
                    screen.take(vec![Item::Table(numbers.into_iter().map(seed).collect())]);
                }
                Change::Resize(width, height) => screen.state.resize(width, height),
                Change::Loss => screen.take(vec![loss(1)]),
            }
            screen.key(Key::Char('1'));
            prop_assert_eq!(&screen.state.list().selected, &Some(Target::Row(id)));
            // And the line that is drawn as the selected one is its line.
            screen.state.resize(80, 24);
            screen.wait(1);
            let text = screen.text();
            let marked = text.lines().find(|line| line.starts_with('>')).unwrap_or_default().to_owned();
            let words: Vec<_> = marked.split_whitespace().collect();
            prop_assert!(words.join(" ").contains(&port), "{}\n{}", port, text);
        }
    }
}
