//! What each key does.

use super::*;
use crate::top::Request;

/// Two connections, one that failed, and a listener.
fn screen() -> Screen {
    let mut screen = Screen::live();
    let mut fail = connection(3, EventKind::Fail, "nc");
    (fail.endpoint.state, fail.outcome.errno) = (TcpState::Close, Some(libc::ECONNREFUSED));
    let ready = crate::stream::Ready { probes: Vec::new(), unseen: Vec::new(), seeded: 0 };
    screen.take(vec![Item::Ready(ready)]);
    screen.events([
        listener(1, "0.0.0.0:22", "sshd"),
        connection(1, EventKind::Open, "curl"),
        inbound(2),
        fail,
    ]);
    screen
}

#[test]
fn each_key_does_what_the_help_says() {
    use Key::{BackTab, Char, Ctrl, Down, End, Enter, Esc, Home, PageDown, PageUp, Tab, Up};
    for (keys, has, lacks) in [
        (&[Char('2')][..], "[2 Processes]", "[1 Connections]"),
        (&[Char('3')], "[3 Originators]", ""),
        (&[Char('4')], "0.0.0.0:22", "curl"),
        (&[Char('5')], "no signs, and nothing was lost", ""),
        (&[Char('5'), Char('1')], "[1 Connections]", ""),
        (&[Tab], "[2 Processes]", ""),
        (&[BackTab], "[5 Signs and losses]", ""),
        (&[BackTab, Tab], "[1 Connections]", ""),
        (&[Down], "> 12:00:13 nc[903]", ""),
        (&[Down, Down], "> 12:00:12 10.0.0.9", ""),
        (&[Char('j'), Char('j'), Char('k')], "> 12:00:13 nc[903]", ""),
        (&[Down, Down, Up], "> 12:00:13 nc[903]", ""),
        (&[End], "> 12:00:11 curl[901]", ""),
        (&[Char('G')], "> 12:00:11 curl[901]", ""),
        (&[End, Home], "> 12:00:13 nc[903]", ""),
        (&[End, Char('g')], "> 12:00:13 nc[903]", ""),
        (&[Down, PageDown], "> 12:00:11 curl[901]", ""),
        (&[End, PageUp], "> 12:00:13 nc[903]", ""),
        (&[Char('s')], "sorted by origin ^", ""),
        (&[Char('s'), Char('S')], "sorted by origin v", ""),
        (&[Char('S')], "sorted by began ^", ""),
        (&[Char(' ')], "FROZEN, 0 new", ""),
        (&[Char(' '), Char(' ')], "sorted by", "FROZEN"),
        (&[Char('h')], "with ended ones", ""),
        (&[Char('?')], "Trace the selected connection", "curl[901]"),
        (&[Char('?'), Char('q')], "curl[901]", "Trace the selected"),
        (&[Char('?'), Esc], "curl[901]", "Trace the selected"),
        (&[Enter], "> 12:00:13 nc[903]", ""),
        (&[End, Enter], "Known by: curl[901] was seen to call connect() (connect, observed)", ""),
        (&[End, Enter, Enter], "> 12:00:11 curl[901]", "Known by"),
        (&[Down, Enter], "fail ECONNREFUSED", ""),
        (&[Down, Down, Enter], "forked by systemd[1]", ""),
        (&[End, Enter, Char('4')], "[4 Listening]", "Known by"),
        (&[End, Esc], "sorted by", "\n> "),
        (&[End, Char('t')], "tracing id:0123abcd-", ""),
        (&[Char('t')], "select a connection to trace", ""),
        (&[Char('4'), Down, Char('t')], "a listener has no cause", ""),
        (&[Char('y')], "copied: netwatch log", ""),
        (&[Char('/')], "process:curl", ""),
        (&[Char('/'), Char('c'), Char('u'), Enter], "filter: cu", "nc[903]"),
        (&[Char('/'), Char('c'), Char('u'), Enter, Esc], "nc[903]", "filter: cu"),
        (&[Char('/'), Char('c'), Char('u'), Esc], "nc[903]", "filter: "),
        (&[Char('/'), Char('q')], "nothing matches the filter", ""),
        (&[Char('/'), Char('x'), Char(':'), Char('y')], "no key `x`", ""),
        (&[Char('2'), Char('S'), End, Enter], "(Esc: back)", ""),
        (&[Ctrl('l')], "curl[901]", ""),
    ] {
        let mut screen = screen();
        for key in keys {
            screen.key(*key);
        }
        let text = screen.text();
        assert!(text.contains(has), "{keys:?}: {has}\n{text}");
        assert!(lacks.is_empty() || !text.contains(lacks), "{keys:?}: without {lacks}\n{text}");
    }
}

#[test]
fn keys_ask_the_program() {
    let id = "id:0123abcd-2-28fa6ae00";
    let copied = "netwatch log --proto tcp --local 10.0.0.5:40001 --remote 93.184.216.34:443";
    for (keys, request) in [
        ("q", Some(Request::Quit)),
        ("Gt", Some(Request::Trace(id.into()))),
        ("Gy", Some(Request::Copy(copied.into()))),
        ("y", Some(Request::Copy("netwatch log".into()))),
        ("?q", None),
        ("/q", None),
        ("s", None),
    ] {
        assert_eq!(screen().press(keys), request, "{keys}");
    }
    for (key, request) in [
        (Key::Ctrl('c'), Request::Quit),
        (Key::Ctrl('z'), Request::Suspend),
        (Key::Ctrl('l'), Request::Redraw),
    ] {
        assert_eq!(screen().key(key), Some(request.clone()));
        // While a filter is typed as well.
        let mut screen = screen();
        screen.press("/");
        assert_eq!(screen.key(key), Some(request));
    }
    let mut filtered = screen();
    filtered.press("/process:c* port:443 !port:22");
    filtered.key(Key::Enter);
    let Some(Request::Copy(command)) = filtered.press("y") else { panic!() };
    assert_eq!(command, "netwatch log --filter 'process:c* port:443 !port:22'");
}

#[test]
fn a_trace_is_shown_where_it_was_asked_for() {
    let mut screen = screen();
    let Some(Request::Trace(id)) = screen.press("Gt") else { panic!() };
    screen.state.traced("id:other", vec!["not this".into()]);
    assert!(screen.text().contains("tracing"));
    screen.state.traced(&id, vec!["originated in a login".into(), "  └ \u{1b}[2J".into()]);
    let text = screen.text();
    assert!(text.contains("originated in a login") && text.contains("└ \\x1b[2J"), "{text}");
    screen.key(Key::Esc);
    // Too late.
    screen.state.traced(&id, vec!["late".into()]);
    assert!(!screen.text().contains("late"));
}

#[test]
fn the_past_of_the_screen_can_be_traced() {
    let mut screen = screen();
    let Some(Request::Trace(id)) = screen.press("Gt") else { panic!() };
    let past = screen.state.past()();
    let selector: crate::forensics::Selector = id.parse().unwrap();
    let found: Vec<_> = past.lives.iter().filter(|life| selector.means(life)).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].end().local.port, 40_001);
}

#[test]
fn long_pages_scroll_to_their_end() {
    let mut screen = screen();
    screen.size(60, 12);
    screen.press("?");
    assert!(screen.text().contains("This help"));
    screen.press("G");
    assert!(screen.text().contains("suspicious"), "{}", screen.text());
    screen.press("g");
    assert!(screen.text().contains("This help"));
}
