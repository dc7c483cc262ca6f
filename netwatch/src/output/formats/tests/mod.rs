//! Every kind of event in every format, compared with files; and events of any kind with hostile names.
//! `NETWATCH_WRITE_DOCS=1 cargo test -p netwatch --lib output::formats` writes the files.

pub(in crate::output) mod scene;
mod zeek;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::output::{Format, Log, LogOptions, OcsfVersion};
use crate::store::any_event;
use scene::{context, hostile, scene};

/// The lines of items, without the header that has the time.
fn lines(format: Format, ocsf: OcsfVersion, items: &[Item]) -> String {
    let options = LogOptions { format, ocsf, zone: TimeZone::UTC, ..LogOptions::default() };
    let mut out = Vec::new();
    let mut log = Log::new(&options, &mut out);
    for item in items {
        log.item(item, &context()).unwrap();
    }
    log.finish().unwrap();
    drop(log);
    String::from_utf8(out).unwrap()
}

/// Whether a line has the present time.
fn is_of_now(line: &str) -> bool {
    line.starts_with("#open\t") || line.starts_with("#close\t") || line.contains("\"event\":\"ready\"")
}

#[test]
fn every_kind_of_event_is_as_in_the_file() {
    let (released, next) = (OcsfVersion::V1_8, OcsfVersion::V1_9);
    for (name, format, ocsf) in [
        ("ecs.jsonl", Format::Ecs, released),
        ("ocsf.jsonl", Format::Ocsf, released),
        ("ocsf-1.9.jsonl", Format::Ocsf, next),
        ("zeek.log", Format::Zeek, released),
        ("zeek.jsonl", Format::ZeekJson, released),
        ("sysmon.jsonl", Format::Sysmon, released),
    ] {
        let lines = lines(format, ocsf, &scene());
        let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
        let kept = lines.lines().filter(|line| !is_of_now(line));
        let kept: String = kept.map(|line| line.replace(&version, "\"version\":\"0\"") + "\n").collect();
        let path = format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("NETWATCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, &kept).unwrap();
        }
        assert_eq!(kept, std::fs::read_to_string(&path).unwrap(), "{path}");
    }
}

fn objects(format: Format, items: &[Item]) -> Vec<Value> {
    let lines = lines(format, OcsfVersion::V1_8, items);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What each format says of the direction of a connection.
#[test]
fn unknown_and_guessed_origins_are_no_direction() {
    use crate::origin::Verdict;
    use crate::tracker::{EventKind, tests::event};
    let verdict = |verdict| {
        let mut open = event(EventKind::Open, "10.0.0.1:443", Some("10.0.0.2:40000"));
        open.endpoint.verdict = verdict;
        let mut close = open.clone();
        close.kind = EventKind::Close;
        [Item::Event(open), Item::Event(close)]
    };
    for unknown in [Verdict::UNKNOWN, Verdict::IDLE, Verdict::REPAIR, Verdict::port_range(Side::Remote)] {
        let items = verdict(unknown);
        let ecs = &objects(Format::Ecs, &items)[0];
        assert_eq!(ecs["network"]["direction"], "unknown");
        assert!(ecs["client"].is_null() && ecs["server"].is_null() && ecs["source"]["port"] == 443, "{ecs}");
        let ocsf = &objects(Format::Ocsf, &items)[0];
        assert_eq!(ocsf["is_src_dst_assignment_known"], false);
        assert_eq!(
            (&ocsf["connection_info"]["direction_id"], &ocsf["observation_point_id"]),
            (&0.into(), &0.into())
        );
        let sysmon = &objects(Format::Sysmon, &items)[0];
        assert!(sysmon.get("Initiated").is_none(), "{sysmon}");
        let zeek = &objects(Format::ZeekJson, &items)[0];
        assert_eq!(zeek["conn_state"], "OTH");
        assert!(zeek.get("local_orig").is_none() && zeek["id.orig_p"] == 443, "{zeek}");
    }
    let known = [(Verdict::CONNECT, "egress", 443), (Verdict::LISTENER, "ingress", 40000)];
    for (known, direction, port) in known {
        let ecs = &objects(Format::Ecs, &verdict(known))[0];
        assert_eq!((&ecs["network"]["direction"], &ecs["client"]["port"]), (&direction.into(), &port.into()));
    }
    let both = verdict(Verdict::handshake(Side::Both));
    let ecs = &objects(Format::Ecs, &both)[0];
    assert!(ecs["network"]["direction"] == "unknown" && ecs["client"].is_null(), "{ecs}");
    assert_eq!(objects(Format::Ocsf, &both)[0]["is_src_dst_assignment_known"], false);
}

#[test]
fn what_a_format_has_no_line_for_is_not_counted() {
    let options = LogOptions { format: Format::Sysmon, limit: Some(1), ..LogOptions::default() };
    let mut out = Vec::new();
    let mut log = Log::new(&options, &mut out);
    let before = scene().iter().position(|item| {
        log.item(item, &context()).unwrap();
        log.is_full()
    });
    log.finish().unwrap();
    drop(log);
    assert!(before > Some(2));
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 1);
}

/// Text with what breaks formats.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\t".to_owned()),
        Just("\n".to_owned()),
        Just("\r\u{85}\u{2028}".to_owned()),
        Just("\"\\x09\\".to_owned()),
        Just("-".to_owned()),
        Just("(empty)".to_owned()),
        Just("#close,".to_owned()),
        Just("\u{202e}\u{0}\u{7f}\u{10ffff}".to_owned()),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_event_is_a_line_of_valid_form(event in any_event(), texts in prop::array::uniform4(any_text())) {
        let item = [Item::Event(hostile(event, &texts))];
        for format in [Format::Json, Format::Ecs, Format::Ocsf, Format::ZeekJson, Format::Sysmon] {
            let lines = lines(format, OcsfVersion::V1_8, &item);
            prop_assert!(lines.matches('\n').count() <= 1);
            for line in lines.lines() {
                let object: Value = serde_json::from_str(line).unwrap();
                prop_assert!(object.is_object());
            }
        }
        let log = lines(Format::Zeek, OcsfVersion::V1_8, &item);
        let rows: Vec<_> = log.split('\n').filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        prop_assert!(rows.len() <= 1);
        for row in rows {
            prop_assert_eq!(row.split('\t').count(), 31);
            prop_assert!(row.chars().all(|c| c == '\t' || !c.is_control()));
        }
    }
}
