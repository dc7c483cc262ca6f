//! The screen, by items and keys: no terminal, no kernel. Snapshots of whole screens have a file, and so have keys.

mod keys;
mod screens;
mod selection;

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr as _;

use super::{Key, Options, Source, State, render};
use crate::clock::BootClock;
use crate::limits;
use crate::loss::{Loss, LossReason};
use crate::model::tests::ns;
use crate::model::{BootTime, Payload, State as TcpState};
use crate::origin::{Side, Verdict};
use crate::process::{Actor, Process};
use crate::stream::{Batch, Context, Item};
use crate::tracker::tests::event;
use crate::tracker::{ClosedBy, ConnectionEvent, EndpointId, EventKind, ProcessBasis};

const SECOND: u64 = 1_000_000_000;

/// 2026-11-30T12:00:00Z, when the host of the tests booted.
const BOOT: i64 = 1_796_040_000_000_000_000;

/// A state, and its time.
struct Screen {
    state: State,
    now: BootTime,
}

impl Screen {
    fn of(source: Source, colour: bool) -> Self {
        let options = Options { host: "db1".into(), source, only: None, zone: TimeZone::UTC, colour };
        let now = ns(100 * SECOND);
        let mut screen = Self { state: State::new(options, now), now };
        screen.state.resize(80, 24);
        screen
    }

    fn live() -> Self {
        Self::of(Source::Live, false)
    }

    fn take(&mut self, items: Vec<Item>) {
        let clock = BootClock::of_boot(BOOT);
        let users = [(0, Some("root".into())), (1000, Some("alice".into()))].into_iter().collect();
        let context = Context { boot: "0123abcd".into(), clock, run_clock: clock, users: Arc::new(users) };
        self.now = self.now.saturating_add(1_000_000);
        self.state.take(&Batch { context, items }, self.now);
    }

    fn events(&mut self, events: impl IntoIterator<Item = ConnectionEvent>) {
        self.take(events.into_iter().map(Item::Event).collect());
        self.wait(1);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.saturating_add(seconds * SECOND);
        self.state.tick(self.now);
    }

    fn press(&mut self, keys: &str) -> Option<super::Request> {
        keys.chars().filter_map(|c| self.key(Key::Char(c))).last()
    }

    fn key(&mut self, key: Key) -> Option<super::Request> {
        self.state.press(key, self.now)
    }

    fn size(&mut self, width: u16, height: u16) -> &mut Self {
        self.state.resize(width, height);
        self
    }

    fn buffer(&self) -> Buffer {
        let (width, height) = self.state.size;
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        render(&self.state, area, &mut buffer);
        buffer
    }

    fn text(&self) -> String {
        lines(&self.buffer()).join("\n")
    }
}

/// The lines of a screen, without spaces at their ends.
fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let (mut out, mut hidden) = (String::new(), 0);
        for cell in cells {
            if hidden == 0 {
                out.push_str(cell.symbol());
                hidden = cell.symbol().width().max(1);
            }
            hidden -= 1;
        }
        out.trim_end().to_owned()
    };
    buffer.content.chunks(width).map(line).collect()
}

fn process(pid: u32, comm: &str, parent: Option<&Arc<Process>>) -> Arc<Process> {
    let mut process = Process::clone(&crate::process::tests::process(pid, parent));
    process.comm = comm.into();
    let mut image = crate::model::Image::clone(&crate::model::Image::unknown());
    image.exe = Some(format!("/usr/bin/{comm}").into());
    image.args = crate::model::Arguments::of(format!("{comm}\0-v\0").as_bytes());
    process.image = Arc::new(image);
    Arc::new(process)
}

/// A connection from port 40000 + `number`, `number` seconds after the start.
fn connection(number: u64, kind: EventKind, comm: &str) -> ConnectionEvent {
    let mut event = event(kind, &format!("10.0.0.5:{}", 40_000 + number), Some("93.184.216.34:443"));
    let began = ns((10 + number) * SECOND);
    event.endpoint.id = EndpointId { cookie: number + 1, began };
    event.endpoint.flow = event.endpoint.id;
    event.endpoint.verdict = Verdict::CONNECT;
    let actor = Actor::leader(process(900 + u32::try_from(number).unwrap(), comm, None));
    (event.endpoint.process, event.endpoint.originator) = (Some(actor.clone()), Some(actor));
    event.endpoint.process_basis = Some(ProcessBasis::Connect);
    event.at = began.saturating_add(SECOND / 2);
    event.facts.service = Some("https");
    if kind == EventKind::Close {
        event.at = began.saturating_add(3 * SECOND);
        event.endpoint.state = TcpState::Close;
        event.outcome.bytes = Some(Payload { sent: 1200, received: 8200 });
        event.outcome.duration = Some(2 * SECOND);
        event.outcome.closed_by = Some(ClosedBy::Local);
    }
    event
}

/// A connection that another host made to port 22.
fn inbound(number: u64) -> ConnectionEvent {
    let mut accept = event(EventKind::Accept, "10.0.0.5:22", Some(&format!("10.0.0.9:{}", 51_000 + number)));
    let began = ns((10 + number) * SECOND);
    accept.endpoint.id = EndpointId { cookie: 1000 + number, began };
    accept.at = began;
    accept.endpoint.verdict = Verdict::ACCEPT;
    let systemd = process(1, "systemd", None);
    let sshd = process(600, "sshd", Some(&systemd));
    accept.endpoint.process = Some(Actor::leader(process(642, "sshd", Some(&sshd))));
    accept.endpoint.process_basis = Some(ProcessBasis::Accept);
    accept.facts.service = Some("ssh");
    accept
}

fn listener(number: u64, local: &str, comm: &str) -> ConnectionEvent {
    let mut listen = event(EventKind::Listen, local, None);
    let began = ns((5 + number) * SECOND);
    listen.endpoint.id = EndpointId { cookie: 2000 + number, began };
    (listen.at, listen.endpoint.state) = (began, TcpState::Listen);
    listen.endpoint.process = Some(Actor::leader(process(600 + u32::try_from(number).unwrap(), comm, None)));
    listen
}

fn loss(count: u64) -> Item {
    let at = Timestamp::from_nanosecond(i128::from(BOOT) + 50 * i128::from(SECOND)).unwrap();
    Item::Loss(at, Loss::new(LossReason::Ring, [("connect", count)].into()))
}

#[test]
fn ended_connections_linger_and_are_kept() {
    let mut screen = Screen::live();
    screen.events([connection(1, EventKind::Open, "curl"), connection(2, EventKind::Open, "wget")]);
    screen.events([connection(1, EventKind::Close, "curl")]);
    assert!(screen.text().contains("curl[901]") && screen.text().contains("closed"));
    assert!(screen.text().contains("1 open"));
    screen.wait(6);
    assert!(!screen.text().contains("curl[901]"), "{}", screen.text());
    screen.size(200, 24).press("h");
    assert!(screen.text().contains("curl[901]") && screen.text().contains("1.1K"), "{}", screen.text());
}

#[test]
fn number_of_ended_connections_is_bounded() {
    let mut screen = Screen::live();
    screen.events([connection(0, EventKind::Close, "kept")]);
    screen.key(Key::Down);
    let more = limits::TOP_ENDED as u64 + 50;
    let closed = |number| {
        let mut close = connection(number % 1000, EventKind::Close, "curl");
        close.endpoint.id.cookie = 10_000 + number;
        close
    };
    screen.events((0..more).map(closed));
    assert_eq!(screen.state.table.rows.len(), limits::TOP_ENDED);
    // The selected one is not forgotten.
    assert!(screen.text().contains("kept[900]"), "{}", screen.text());
    assert_eq!(screen.state.table.forgotten, 51);
}

#[test]
fn events_of_a_connection_are_bounded() {
    let mut screen = Screen::live();
    screen.events((0..100).map(|n| {
        let mut event = connection(1, EventKind::Handover, "curl");
        event.at = ns(20 * SECOND + n);
        event
    }));
    let row = screen.state.table.rows.values().next().unwrap();
    let times: Vec<_> = row.events().map(|event| event.at.nanos() - 20 * SECOND).collect();
    assert_eq!((times.len(), times[0], times[31]), (32, 0, 99));
}

#[test]
fn stored_events_fit_into_the_table() {
    // A connection that was observed has two events at least.
    const { assert!(limits::TOP_STORED <= 2 * limits::TOP_ENDED) }
}

#[test]
fn a_table_replaces_what_is_open() {
    let mut screen = Screen::of(Source::Polled("no".into()), false);
    let seed = |number, began: u64, sent| {
        let mut seed = connection(number, EventKind::Seed, "curl");
        seed.endpoint.id.began = ns(began);
        seed.outcome.bytes = Some(Payload { sent, received: 0 });
        seed
    };
    screen.take(vec![Item::Table(vec![seed(1, 5, 0), seed(2, 5, 0)])]);
    screen.wait(1);
    screen.press("G");
    let selected = screen.state.list().selected.clone();
    screen.take(vec![Item::Table(vec![seed(1, 7, 5000), seed(3, 7, 0)])]);
    screen.wait(1);
    assert_eq!(screen.state.list().selected, selected);
    let table = &screen.state.table;
    assert_eq!((table.open, table.rows.len()), (2, 3));
    let rates: Vec<_> = table.rows.values().filter_map(|row| row.rate).collect();
    assert!(rates.iter().any(|rate| (4900..=5000).contains(&rate.sent)), "{rates:?}");
}

#[test]
fn frozen_list_stands_and_counts_what_comes() {
    let mut screen = Screen::live();
    screen.events([connection(1, EventKind::Open, "curl")]);
    screen.press(" ");
    let before = screen.buffer();
    screen.events((2..7).map(|number| connection(number, EventKind::Open, "wget")));
    screen.events([connection(1, EventKind::Close, "curl")]);
    let text = screen.text();
    assert!(text.contains("FROZEN, 6 new") && !text.contains("wget") && !text.contains("closed"), "{text}");
    assert_eq!(lines(&before)[3], lines(&screen.buffer())[3]);
    screen.press(" ");
    assert!(screen.text().contains("wget[906]"));
}

#[test]
fn losses_are_loud_and_stay() {
    let mut screen = Screen::live();
    screen.take(vec![loss(7)]);
    screen.wait(1);
    assert!(screen.text().contains("! lost 7 (the ring was full): 7 connect"), "{}", screen.text());
    screen.wait(20);
    assert!(!screen.text().contains("ring was full") && screen.text().contains("LOST 7"));
    screen.press("5");
    assert!(screen.text().contains("12:00:50 lost 7 (the ring was full)"), "{}", screen.text());
}

#[test]
fn only_lines_in_sight_are_formatted_and_all_can_be_reached() {
    let mut screen = Screen::live();
    screen.events((0..500).map(|number| connection(number, EventKind::Open, "curl")));
    assert!(screen.text().contains(&format!("curl[{}]", 900 + 499)));
    screen.press("G");
    assert!(screen.text().contains("curl[900]"));
    screen.key(Key::PageUp);
    screen.press("g");
    assert!(lines(&screen.buffer())[3].starts_with("> ") && screen.text().contains("curl[1399]"));
}

/// Names that try to get out of their cell.
const HOSTILE: [&str; 9] = [
    "\x1b[2J\x1b[H",
    "a\u{202e}gnp.exe",
    "שלום",
    "日本語日本語日本語日本語",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{1f1e9}\u{1f1ea}",
    "x\r\n\ty\u{9b}1m",
    "\u{feff}\u{3164}\u{e0041}",
];

#[test]
fn hostile_names_shift_no_column() {
    for width in [200, 80, 40, 20] {
        let drawn = |name: &str| {
            let mut screen = Screen::live();
            screen.size(width, 12).events([connection(1, EventKind::Open, name), inbound(2)]);
            screen.buffer()
        };
        let plain = drawn("curl");
        for name in HOSTILE {
            let buffer = drawn(name);
            for (cell, expected) in buffer.content.iter().zip(&plain.content) {
                assert!(!cell.symbol().chars().any(char::is_control), "{name:?}");
                assert!(cell.symbol().width() <= 2 && cell.modifier == expected.modifier, "{name:?}");
            }
            // The columns that have no name of a process, and all of the other line.
            let text = |buffer: &Buffer, y: u16, part: &str| {
                let line: Vec<_> = (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect();
                let places = (0..line.len()).filter(|x| line[*x..].concat().starts_with(part));
                places.map(|x| (x, part.to_owned())).collect::<Vec<_>>()
            };
            for part in ["->", "93.1", "ESTAB", "12:00:11"] {
                for y in 0..12 {
                    assert_eq!(text(&buffer, y, part), text(&plain, y, part), "{name:?} {part} {width}");
                }
            }
        }
    }
}

#[test]
fn colours_repeat_what_is_said_without_them() {
    let drawn = |colour| {
        let mut screen = Screen::of(Source::Live, colour);
        screen.events([
            connection(1, EventKind::Open, "curl"),
            inbound(2),
            listener(1, "0.0.0.0:4444", "bash"),
        ]);
        screen.take(vec![loss(1)]);
        screen.press("G");
        screen.buffer()
    };
    let (plain, coloured) = (drawn(false), drawn(true));
    assert_eq!(lines(&plain), lines(&coloured));
    let has_colour =
        |buffer: &Buffer| buffer.content.iter().any(|cell| (cell.fg, cell.bg) != Default::default());
    assert!(has_colour(&coloured) && !has_colour(&plain));
}

#[test]
fn originators_are_summed_up() {
    let mut screen = Screen::live();
    let mut guessed = inbound(3);
    guessed.endpoint.verdict = Verdict::port_range(Side::Remote);
    let open = connection(1, EventKind::Open, "curl");
    screen.events([open, connection(2, EventKind::Close, "curl"), inbound(2), guessed]);
    screen.press("3");
    let text = screen.text();
    let line = |part: &str| {
        let line = text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let host = line("10.0.0.9");
    assert_eq!(
        (&host[1..4], host.last().unwrap().as_str()),
        (&["remote", "2", "2"].map(String::from)[..], "guessed")
    );
    assert_eq!(line("program")[2..4], ["1", "2"]);
    // Enter lists what it caused, and Esc goes back.
    screen.press("G");
    screen.press("g");
    screen.key(Key::Enter);
    let text = screen.text();
    assert!(text.contains("of remote 10.0.0.9") && !text.contains("curl"), "{text}");
    screen.key(Key::Esc);
    assert!(screen.text().contains("[3 Originators]"));
}
