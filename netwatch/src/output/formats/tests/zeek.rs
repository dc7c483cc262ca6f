//! conn.log.

use super::super::zeek::escaped;
use super::*;
use crate::limits;
use crate::model::Payload;
use crate::model::tests::ns;
use crate::origin::Verdict;
use crate::tracker::{ClosedBy, ConnectionEvent, EventKind, Outcome, Party, tests::event};

#[test]
fn text_is_escaped_as_zeek_does() {
    for (text, expected) in [
        ("curl", "curl"),
        ("", "(empty)"),
        ("-", "\\x2d"),
        ("(empty)", "\\x28empty)"),
        ("a\tb\nc", "a\\x09b\\x0ac"),
        ("a\\x09b", "a\\\\x09b"),
        ("\\", "\\\\"),
        ("grün", "grün"),
        ("a\u{202e}b", "a\\xe2\\x80\\xaeb"),
        ("--", "--"),
    ] {
        assert_eq!(escaped(text), expected, "{text:?}");
    }
}

fn close(flow: u64, by: ClosedBy, verdict: Verdict) -> ConnectionEvent {
    let mut close = event(EventKind::Close, "10.0.0.1:40000", Some("10.0.0.2:443"));
    close.endpoint.verdict = verdict;
    close.endpoint.flow.cookie = flow;
    close.outcome = Outcome { duration: Some(1), closed_by: Some(by), ..Outcome::default() };
    close
}

fn rows(events: impl IntoIterator<Item = ConnectionEvent>) -> Vec<Value> {
    objects(Format::ZeekJson, &events.into_iter().map(Item::Event).collect::<Vec<_>>())
}

#[test]
fn states_are_what_zeek_would_have_seen() {
    let handshake = Verdict::handshake(Side::Remote);
    for (by, verdict, expected) in [
        (ClosedBy::Local, Verdict::CONNECT, Some("SF")),
        (ClosedBy::Remote, Verdict::ACCEPT, Some("SF")),
        (ClosedBy::ResetLocal, Verdict::CONNECT, Some("RSTO")),
        (ClosedBy::ResetRemote, Verdict::CONNECT, Some("RSTR")),
        (ClosedBy::ResetLocal, handshake, Some("RSTR")),
        (ClosedBy::ResetRemote, handshake, Some("RSTO")),
        (ClosedBy::Timeout, Verdict::CONNECT, Some("S1")),
        (ClosedBy::Unknown, Verdict::CONNECT, None),
        (ClosedBy::Local, Verdict::LISTENER, Some("OTH")),
        (ClosedBy::ResetLocal, Verdict::UNKNOWN, Some("OTH")),
    ] {
        let row = &rows([close(1, by, verdict)])[0];
        assert_eq!(row.get("conn_state").and_then(Value::as_str), expected, "{by:?} {verdict:?}");
    }
    for (sent, received, expected) in [(1, 1, "SF"), (1, 0, "S0"), (0, 1, "SHR"), (0, 0, "OTH")] {
        let mut datagrams = close(1, ClosedBy::Unknown, Verdict::CONNECT);
        datagrams.endpoint.proto = Proto::Udp;
        datagrams.outcome.bytes = Some(Payload { sent, received });
        assert_eq!(rows([datagrams])[0]["conn_state"], expected);
    }
}

#[test]
fn a_flow_within_the_host_is_one_line() {
    let half = |flow: u64| {
        let mut close = close(flow, ClosedBy::Local, Verdict::CONNECT);
        let id = EndpointId { cookie: flow, began: ns(3) };
        close.endpoint.peer = Some(Party { id, process: None });
        close
    };
    assert_eq!(rows([half(1), half(2), half(1), half(2), half(1)]).len(), 3);
    // The other endpoint of each is hidden.
    let most = limits::MOST_HALVES as u64;
    assert_eq!(rows((0..most).chain([0]).map(half)).len(), limits::MOST_HALVES);
    assert_eq!(rows((0..=most).chain([0]).map(half)).len(), limits::MOST_HALVES + 2);
}

#[test]
fn a_log_without_connections_has_a_header_and_an_end() {
    let log = lines(Format::Zeek, OcsfVersion::V1_8, &[]);
    let names: Vec<_> = log.lines().map(|line| line.split(['\t', ' ']).next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "#separator",
            "#set_separator",
            "#empty_field",
            "#unset_field",
            "#path",
            "#open",
            "#fields",
            "#types",
            "#close"
        ]
    );
    assert_eq!(lines(Format::ZeekJson, OcsfVersion::V1_8, &[]), "");
}
