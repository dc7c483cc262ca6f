//! Events as messages of log services, with hostile names.

use jiff::tz::TimeZone;

use super::*;
use crate::output::Format;
use crate::output::formats::tests::scene::{context, scene};

fn syslog(format: Format, items: &[Item]) -> Vec<String> {
    let options = LogOptions { format, zone: TimeZone::UTC, ..LogOptions::default() };
    let mut syslog = Syslog::new(&options, Facility::DAEMON, "ho st\n", "run-1");
    let one = |item: &Item| {
        let mut out = Vec::new();
        let is_one = syslog.item(item, &context(), &mut out).unwrap();
        assert_eq!(is_one, !out.is_empty());
        is_one.then(|| String::from_utf8(out).unwrap())
    };
    items.iter().filter_map(one).collect()
}

/// The names and values of the element of netwatch.
fn params(message: &str) -> Vec<(String, String)> {
    let mut rest = message.split_once("[netwatch@32473").unwrap().1;
    let mut params = Vec::new();
    while let Some(more) = rest.strip_prefix(' ') {
        let (name, more) = more.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), more.char_indices());
        loop {
            match chars.next().unwrap() {
                (at, '"') => break rest = &more[at + 1..],
                (_, '\\') => value.push(chars.next().unwrap().1),
                (_, c) => value.push(c),
            }
        }
        params.push((name.to_owned(), value));
    }
    assert!(rest.starts_with("] "), "{message}");
    params
}

#[test]
fn messages_have_a_header_and_structured_data() {
    let messages = syslog(Format::Text, &scene());
    for (number, message) in messages.iter().enumerate() {
        let pid = std::process::id();
        let [priority, time, host, name, procid, kind, meta] =
            message.splitn(8, ' ').take(7).collect::<Vec<_>>()[..].try_into().unwrap();
        assert!(["<26>1", "<27>1", "<28>1", "<29>1", "<30>1"].contains(&priority), "{message}");
        assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!((host, name, procid), ("host", "netwatch", &*pid.to_string()));
        assert!(kind.chars().all(|c| c.is_ascii_lowercase()) && meta == "[meta");
        assert!(message.contains(&format!("[meta sequenceId=\"{}\"]", number + 1)), "{message}");
        assert!(!message.contains('\n'), "{message}");
        let params = params(message);
        assert_eq!(params[0], ("run".into(), "run-1".into()));
        assert_eq!(params[1], ("seq".into(), (number + 1).to_string()));
    }
    assert!(
        messages.iter().any(|message| message.starts_with("<28>1") && message.contains("reason=\"ring\""))
    );
    assert!(messages.iter().any(|message| message.starts_with("<29>1") && message.contains("errno=\"E")));
}

#[test]
fn hostile_names_stay_within_their_parameter() {
    let mut found = Vec::new();
    for message in syslog(Format::Json, &scene()) {
        let params = params(&message);
        assert!(params.iter().all(|(_, value)| !value.contains(char::is_control)), "{message}");
        assert!(message.contains("] {\"v\":1,"), "{message}");
        found.extend(params.into_iter().filter(|(name, _)| name == "process").map(|(_, value)| value));
    }
    assert!(found.iter().any(|comm| comm == r#"cu\x09"rl\x09\x0a"#), "{found:?}");
}

#[test]
fn an_item_without_a_line_is_no_message() {
    let all = scene();
    let ready = syslog(Format::Sysmon, &all);
    assert!(!ready.is_empty() && ready.len() < all.len());
    assert!(ready.iter().all(|message| message.contains("\"EventID\":")), "{ready:#?}");
}

#[test]
fn facilities_have_names() {
    assert_eq!(Facility::parse("daemon"), Ok(Facility::DAEMON));
    assert!(Facility::parse("sun").unwrap_err().contains("local7"));
}
