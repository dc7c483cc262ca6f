//! Filters: what each condition selects, and expressions.

use proptest::prelude::*;

use super::*;
use crate::model::tests::at;
use crate::process::{Actor, ExeStatus, Process};
use crate::store::any_event;
use crate::tracker::tests::event;

const LOOKUP: Lookup<'static> = Lookup {
    user: &|name| match name {
        "alice" => Ok(5),
        "root" => Ok(0),
        number => number.parse().map_err(|_| "no such user".into()),
    },
    own_netns: &|| Ok(NetnsId::new(1)),
};

fn parse(text: &str) -> Result<Filter, String> {
    Expression::parse(text, LOOKUP).map(|expression| expression.filter)
}

fn fits(pattern: &str, endpoint: &str) -> bool {
    pattern.parse::<AddressPattern>().unwrap().fits(at(endpoint))
}

#[test]
fn address_patterns() {
    assert!(fits("10.0.0.0/8", "10.1.2.3:5"));
    assert!(!fits("10.0.0.0/8", "11.1.2.3:5"));
    assert!(fits("10.0.0.0/8:443", "10.1.2.3:443"));
    assert!(!fits("10.0.0.0/8:443", "10.1.2.3:80"));
    assert!(fits("10.1.2.3", "10.1.2.3:1") && !fits("10.1.2.3", "10.1.2.4:1"));
    assert!(fits("10.1.2.3:1", "10.1.2.3:1") && !fits("10.1.2.3:1", "10.1.2.3:2"));
    assert!(fits("::1", "[::1]:9") && fits("fe80::/10", "[fe80::5]:9"));
    assert!(fits("[::1]", "[::1]:9") && fits("[::1]:9", "[::1]:9") && !fits("[::1]:8", "[::1]:9"));
    assert!(fits("[fe80::]/10:9", "[fe80::5]:9") && fits("[fe80::/10]:9", "[fe80::5]:9"));
    assert!(fits("::ffff:10.1.2.3", "10.1.2.3:1"));
    assert!(fits("0.0.0.0/0", "10.1.2.3:1") && !fits("0.0.0.0/0", "[::1]:1"));
    for bad in
        ["", "x", "10.0.0.0/33", "10.0.0.1:", "10.0.0.1:99999", "[::1", "[::1]:", "[::1]x", ":80", "::1/129"]
    {
        assert!(bad.parse::<AddressPattern>().is_err(), "{bad}");
    }
}

/// A connection of a process with everything, and a listener without one.
fn subjects() -> [ConnectionEvent; 2] {
    let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:443"));
    open.endpoint.verdict = Verdict::CONNECT;
    let mut process = Process::clone(&crate::process::tests::process(77, None));
    process.uid = 5;
    process.cgroup = format!("/docker/{}", "a1".repeat(32)).into();
    let mut image = crate::model::Image::clone(&process.image);
    image.exe = Some("/usr/bin/Web Content".into());
    process.image = image.into();
    open.endpoint.process = Some(Actor::leader(process.into()));
    let state = crate::model::ExeState::Deleted;
    open.facts.device = Some(DeviceName::new("eth0"));
    open.facts.exe.process = Some(ExeStatus { state, world_writable: false });
    [open, event(EventKind::Listen, "0.0.0.0:443", None)]
}

#[test]
fn each_condition_selects() {
    let subjects = subjects();
    for (expression, expected) in [
        ("", [true, true]),
        ("  ", [true, true]),
        ("pid:77", [true, false]),
        ("pid:1,77", [true, false]),
        ("!pid:77", [false, true]),
        ("!!pid:77", [true, false]),
        ("process:p7*", [true, false]),
        ("process:\"*/Web Content\"", [true, false]),
        ("process:q*", [false, false]),
        ("process:q*,p*", [true, false]),
        ("process:\"{p77,q}\"", [true, false]),
        ("!process:p*", [false, true]),
        ("exe:Web?Content", [true, false]),
        ("exe:/usr/bin/*", [true, false]),
        ("exe:p77", [false, false]),
        ("user:alice", [true, false]),
        ("user:5", [true, false]),
        ("user:root", [false, false]),
        ("port:443", [true, true]),
        ("port:1,40000", [true, false]),
        ("!port:53", [true, true]),
        ("!port:53,443", [false, false]),
        ("local:10.0.0.1", [true, false]),
        ("local:0.0.0.0", [false, true]),
        ("remote:10.0.0.0/24:443", [true, false]),
        ("remote:::1,10.0.0.2", [true, false]),
        ("!remote:10.0.0.2", [false, true]),
        ("origin:local", [true, false]),
        ("origin:unknown", [false, false]),
        ("!origin:remote", [true, true]),
        ("basis:connect", [true, false]),
        ("basis:accept,handshake", [false, false]),
        ("confidence:observed", [true, false]),
        ("!confidence:observed", [false, true]),
        ("event:open,close", [true, false]),
        ("!event:open", [false, true]),
        ("proto:tcp", [true, true]),
        ("proto:udp", [false, false]),
        ("family:4", [true, true]),
        ("6", [false, false]),
        ("!6", [true, true]),
        ("container:a1a1a1a1a1a1", [true, false]),
        ("container:a1a1a1a1a1", [false, false]),
        ("netns:1", [true, true]),
        ("netns:self", [true, true]),
        ("netns:2", [false, false]),
        ("device:eth0,lo", [true, false]),
        ("device:2", [false, false]),
        ("!device:eth0", [false, true]),
        ("sign:exe-deleted", [true, false]),
        ("sign:exe-memfd", [false, false]),
        ("P77", [true, false]),
        ("content", [true, false]),
        ("alice", [true, false]),
        ("A1A1", [true, false]),
        ("10.0.0.2:443", [true, false]),
        ("0.0.0", [true, true]),
        (":443", [true, true]),
        ("\"web content\"", [true, false]),
        ("nothing", [false, false]),
        ("nothing,p7", [true, false]),
        ("!nothing", [true, true]),
        ("process:p77 origin:local !port:53", [true, false]),
        ("process:p77 port:1", [false, false]),
    ] {
        let filter = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(subjects.each_ref().map(|subject| filter.shows(subject)), expected, "{expression}");
    }
}

#[test]
fn errors_name_the_term_and_what_is_expected() {
    for (expression, expected) in [
        ("port:http", "`port:http`: expected a port number up to 65535"),
        ("pid:1 port:70000", "`port:70000`: expected a port number up to 65535"),
        ("port:", "`port:`: expected a port number up to 65535"),
        ("port:1,", "`port:1,`: expected a port number up to 65535"),
        ("!origin:here", "`!origin:here`: expected local, remote, both or unknown"),
        ("origin:", "`origin:`: expected local, remote, both or unknown"),
        ("family:5", "`family:5`: expected 4 or 6"),
        ("user:nobody-of-that-name", "`user:nobody-of-that-name`: no such user"),
        ("local:10.0.0.0/99", "`local:10.0.0.0/99`: expected ADDRESS, CIDR or CIDR:PORT"),
        ("netns:here", "`netns:here`: expected an inode number or `self`"),
        ("process:", "`process:`: expected a pattern of its name or path"),
        ("!", "`!`: expected text or KEY:VALUE"),
        ("a,,b", "`a,,b`: expected text or KEY:VALUE"),
        ("\"curl", "`curl`: the quote is not closed"),
    ] {
        assert_eq!(parse(expression).unwrap_err(), expected);
    }
    let unknown = parse("proces:curl").unwrap_err();
    assert!(unknown.starts_with("`proces:curl`: no key `proces`; keys are pid, process, exe, "), "{unknown}");
    assert!(parse("process:[").unwrap_err().starts_with("`process:[`: "));
}

#[test]
fn text_in_quotes_is_no_key_and_no_address_is_a_key() {
    let shown = |text| parse(text).unwrap().to_string();
    assert_eq!(shown("\"proces:curl\" 4 \"4\""), "\"proces:curl\" family:4 \"4\"");
    assert_eq!(shown("fe80::1 dead:: ::1"), "\"fe80::1\" \"dead::\" \"::1\"");
    assert_eq!(shown("process:a\" \"b,\"c,d\" \"\\\"\\\\\""), "process:\"a b\",\"c,d\" \"\\\"\\\\\"");
    assert_eq!(shown("!user:alice"), "!user:5");
}

#[test]
fn conditions_on_processes_decide_about_a_process() {
    let process = crate::process::tests::process(77, None);
    for (expression, expected) in [
        ("", true),
        ("pid:77", true),
        ("!pid:77", false),
        ("process:p77,q", true),
        ("process:q", false),
        ("port:1", true),
        ("!port:1 text event:close", true),
        ("pid:77 user:5", false),
    ] {
        assert_eq!(parse(expression).unwrap().shows_process(&process), expected, "{expression}");
    }
}

#[test]
fn values_of_what_passes() {
    let proto = |text| parse(text).unwrap().proto();
    assert_eq!((proto("proto:tcp"), proto("port:1 proto:udp")), (Some(Proto::Tcp), Some(Proto::Udp)));
    assert_eq!((proto("proto:tcp,udp"), proto("!proto:tcp"), proto("")), (None, None, None));
    let ports = |text| {
        let filter = parse(text).unwrap();
        filter.one_of(|one| if let Condition::Port(port) = one { Some(*port) } else { None })
    };
    assert_eq!(ports("pid:1 port:2,3"), Some(vec![2, 3]));
    assert_eq!((ports("!port:2"), ports("port")), (None, None));
    let of_events = |text| parse(text).unwrap().of_events().map(Condition::key);
    assert_eq!(of_events("port:1 !event:open"), Some("event"));
    assert_eq!(of_events("port:1 open"), None);
}

/// Expressions, and what looks like one.
fn any_expression() -> impl Strategy<Value = String> {
    let keys = "pid|process|exe|user|container|port|local|remote|origin|basis|confidence|event|proto|family|netns|device|sign";
    let values = "curl|443|10\\.0\\.0\\.0/8|::1|local|connect|observed|open|tcp|4|self|exe-deleted|[*?{}\\[\\]a,]{0,4}";
    let term = format!("(!{{0,2}}({keys}|[a-z]{{1,3}}|)(:|)({values}|\"[^\"]{{0,3}}\"|\"|\\\\|,){{0,3}} ?)");
    let terms = proptest::string::string_regex(&format!("{term}{{0,4}}")).unwrap();
    prop_oneof![terms, any::<String>()]
}

/// Terms, each of which some events match.
fn any_term() -> impl Strategy<Value = &'static str> {
    let terms =
        ["pid:0,1,2,3", "process:p1*", "port:40000,65535", "local:10.0.0.0/8", "remote:::/0", "origin:local"];
    let more =
        ["basis:connect,peer", "confidence:observed", "event:open,close", "proto:tcp", "6", "p1", "2001:"];
    prop::sample::select([&terms[..], &more[..]].concat())
}

proptest! {
    #[test]
    fn no_pattern_panics(text in r"[\[\]0-9a-f:./]{0,24}") {
        if let Ok(pattern) = text.parse::<AddressPattern>() {
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
    }

    #[test]
    fn any_text_is_a_filter_or_one_error(text in any_expression(), event in any_event()) {
        match parse(&text) {
            Ok(filter) => {
                let again = filter.to_string();
                let same = parse(&again).unwrap();
                prop_assert_eq!(same.to_string(), again);
                prop_assert_eq!(filter.shows(&event), same.shows(&event));
            }
            Err(error) => prop_assert!(error.starts_with('`') && error.contains("`: "), "{}", error),
        }
    }

    #[test]
    fn a_negated_term_selects_the_rest(term in any_term(), event in any_event()) {
        let shows = |text: &str| parse(text).unwrap().shows(&event);
        prop_assert!(shows(term) != shows(&format!("!{term}")), "{}", term);
    }
}

#[test]
fn an_alert_passes_by_its_endpoint_and_process() {
    use crate::alert::{Alert, Level, Rule};
    let [open, _] = subjects();
    let (id, title) = ("a".into(), "A".into());
    let rule = std::sync::Arc::new(Rule { id, title, level: Level::Low, tags: Vec::new(), code: None });
    let of_event = Alert::of_event(&rule, &open, "");
    let of_process = Alert { about: None, ..of_event.clone() };
    for (text, event, process) in [
        ("event:alert", true, true),
        ("!event:alert", false, false),
        ("event:alert,open port:443", true, false),
        ("event:open", false, false),
        ("port:444", false, false),
        ("user:5", true, true),
        ("user:6", false, false),
        ("origin:local remote:10.0.0.2", true, false),
        ("10.0.0.2", true, false),
    ] {
        let filter = parse(text).unwrap();
        assert_eq!(
            (filter.shows_alert(&of_event), filter.shows_alert(&of_process)),
            (event, process),
            "{text}"
        );
    }
    assert!(!parse("event:alert").unwrap().shows(&open) && parse("!event:alert").unwrap().shows(&open));
    assert_eq!(parse("event:alert,open").unwrap().to_string(), "event:alert,open");
}

#[test]
fn expression_without_the_host_has_numbers() {
    for (text, part) in [("port:70000", "port:70000"), ("user:root", "by id"), ("netns:self", "by number")] {
        let error = by_numbers(text).err().unwrap();
        assert!(error.contains(part), "{text}: {error}");
    }
}
