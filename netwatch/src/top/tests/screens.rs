//! Whole screens.

use super::*;

/// A host with some of everything.
fn host(source: Source) -> Screen {
    let mut screen = Screen::of(source, false);
    let mut shell = connection(4, EventKind::Open, "sh");
    let mut process = Process::clone(&process(904, "sh", None));
    process.stdio = [crate::model::Cookie::new(9); 3];
    shell.endpoint.process = Some(Actor::leader(Arc::new(process)));
    shell.endpoint.remote = Some(crate::model::tests::at("[2001:db8::7]:4444"));
    let mut unknown = connection(5, EventKind::Seed, "java");
    (unknown.endpoint.verdict, unknown.endpoint.originator) = (Verdict::UNKNOWN, None);
    let mut failed = connection(6, EventKind::Fail, "nc");
    failed.outcome.errno = Some(libc::ECONNREFUSED);
    screen.take(vec![Item::Ready(crate::stream::Ready {
        probes: vec![],
        unseen: vec!["raw sockets"],
        seeded: 3,
    })]);
    screen.events([
        listener(1, "0.0.0.0:22", "sshd"),
        listener(2, "127.0.0.1:5432", "postgres"),
        listener(3, "[::]:4444", "bash"),
        connection(1, EventKind::Open, "curl"),
        connection(3, EventKind::Open, "a name of 15 ch"),
        inbound(2),
        shell,
        unknown,
        failed,
    ]);
    screen.events([connection(1, EventKind::Close, "curl")]);
    screen
}

fn check(name: &str, screen: &Screen) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name.to_owned(), screen.text());
    });
}

#[test]
fn views_at_every_size() {
    for (width, height) in [(80, 24), (200, 60), (40, 12), (20, 5)] {
        let mut screen = host(Source::Live);
        screen.size(width, height);
        for (key, name) in [
            ("1", "connections"),
            ("2", "processes"),
            ("3", "originators"),
            ("4", "listening"),
            ("5", "losses"),
        ] {
            screen.press(key);
            check(&format!("{name}-{width}x{height}"), &screen);
        }
    }
}

#[test]
fn selection_loss_and_filter() {
    let mut screen = host(Source::Live);
    screen.press("jj");
    screen.take(vec![loss(120)]);
    screen.press("/port:443");
    check("typing-80x24", &screen);
    screen.key(Key::Enter);
    screen.press(" ");
    check("loss-80x24", &screen);
    screen.size(20, 5);
    check("loss-20x5", &screen);
    screen.size(19, 5);
    assert_eq!(screen.text().trim_end(), "too small: 19x5");
}

#[test]
fn pages() {
    let mut screen = host(Source::Live);
    screen.press("?");
    screen.size(80, 60);
    check("help-80x60", &screen);
    screen.size(80, 24).press("?");
    screen.key(Key::Esc);
    screen.press("jjj");
    screen.key(Key::Enter);
    check("details-80x24", &screen);
    screen.size(40, 12);
    check("details-40x12", &screen);
}

#[test]
fn sources_are_named_in_the_first_line() {
    for (source, name) in [
        (Source::Polled("CAP_BPF".into()), "POLLING, NO PROBES"),
        (Source::Store("/tmp/x.db".into()), "store /tmp/x.db"),
        (Source::Live, "live"),
    ] {
        let screen = host(source);
        let first = lines(&screen.buffer())[0].clone();
        assert!(first.contains(name), "{first}");
    }
}

#[test]
fn hostile_names() {
    let mut screen = Screen::live();
    let all = (1..).zip(HOSTILE).map(|(number, name)| connection(number, EventKind::Open, name));
    screen.events(all.collect::<Vec<_>>());
    check("hostile-80x24", &screen);
    screen.size(40, 12);
    check("hostile-40x12", &screen);
}
