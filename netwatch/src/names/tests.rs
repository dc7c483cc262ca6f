//! The table of answers.

use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::*;
use crate::model::tests::ns;
use crate::process::tests::process;

const NETNS: NetnsId = NetnsId::new(7);

/// An answer to a question for `name`.
fn answer(name: &str, ttl: u32, addresses: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let name = Name::new_unchecked(name);
    let mut packet = Packet::new_reply(1);
    let question = Question::new(name.clone(), QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.answers = addresses
        .into_iter()
        .map(|address| ResourceRecord::new(name.clone(), CLASS::IN, ttl, RData::A(A { address })))
        .collect();
    packet.build_bytes_vec_compressed().unwrap()
}

fn ip(address: u32) -> IpAddr {
    IpAddr::V4(address.into())
}

fn seconds(seconds: u64) -> BootTime {
    ns(seconds * 1_000_000_000)
}

fn named(table: &mut AnswerTable, address: u32, pid: u32, began: u64) -> Option<(String, u32)> {
    let name = table.name_of(NETNS, ip(address), Some(process(pid, None).key), seconds(began))?;
    Some((name.name.to_string(), name.candidates))
}

#[test]
fn own_answer_comes_before_a_newer_one_of_another_process() {
    let (mut table, own, other) = (AnswerTable::default(), process(5, None), process(6, None));
    table.note(seconds(1), NETNS, &answer("a.example", 300, [1]), Some(&own));
    table.note(seconds(2), NETNS, &answer("b.example", 300, [1]), Some(&other));
    table.note(seconds(3), NETNS, &answer("c.example", 300, [1]), None);
    assert_eq!(named(&mut table, 1, 5, 4), Some(("a.example".into(), 3)));
    assert_eq!(named(&mut table, 1, 6, 4), Some(("b.example".into(), 3)));
    assert_eq!(named(&mut table, 1, 7, 4), Some(("c.example".into(), 3)));
    // Answers that came later do not count, and neither do those of another network namespace or address.
    assert_eq!(named(&mut table, 1, 7, 2), Some(("b.example".into(), 2)));
    assert_eq!(named(&mut table, 1, 7, 0), None);
    assert_eq!(named(&mut table, 2, 5, 4), None);
    assert_eq!(table.name_of(NetnsId::new(8), ip(1), None, seconds(4)), None);
    // The same name again is no further candidate.
    table.note(seconds(5), NETNS, &answer("a.example", 300, [1]), Some(&own));
    assert_eq!(named(&mut table, 1, 7, 6), Some(("a.example".into(), 3)));
}

#[test]
fn name_is_kept_as_long_as_its_answer_says() {
    let mut table = AnswerTable::default();
    let least = limits::NAME_KEPT_AT_LEAST.as_secs();
    let most = limits::NAME_KEPT_AT_MOST.as_secs();
    for (address, ttl, kept) in [(1, 0, least), (2, least as u32 + 9, least + 9), (3, u32::MAX, most)] {
        table.note(seconds(1), NETNS, &answer("a.example", ttl, [address]), None);
        assert!(named(&mut table, address, 5, kept).is_some(), "{ttl}");
        assert!(named(&mut table, address, 5, kept + 1).is_none(), "{ttl}");
    }
}

#[test]
fn names_of_a_namespace_that_is_gone_are_forgotten() {
    let mut table = AnswerTable::default();
    table.note(seconds(1), NETNS, &answer("a.example", 300, [1]), None);
    table.forget(NETNS);
    assert_eq!(named(&mut table, 1, 5, 2), None);
    table.note(seconds(2), NETNS, &answer("b.example", 300, [1]), None);
    assert_eq!(named(&mut table, 1, 5, 3), Some(("b.example".into(), 1)));
    table.forget(NetnsId::new(9));
    assert!(named(&mut table, 1, 5, 3).is_some());
}

#[test]
fn namespaces_are_bounded() {
    let mut table = AnswerTable::default();
    table.note(seconds(1), NETNS, &answer("a.example", 300, [1]), None);
    for number in 0..limits::MOST_NAMED_NAMESPACES as u32 {
        table.forget(NetnsId::new(100 + number));
    }
    assert!(named(&mut table, 1, 5, 2).is_some());
    table.forget(NetnsId::new(8));
    assert_eq!((table.before.len(), named(&mut table, 1, 5, 2)), (1, None));
}

#[test]
fn number_of_addresses_and_names_is_bounded() {
    let mut table = AnswerTable::default();
    let per_answer = limits::MOST_ADDRESSES_OF_ANSWER as u32;
    table.note(seconds(1), NETNS, &answer("a.example", 300, 0..per_answer + 1), None);
    assert_eq!(table.by_address.len(), limits::MOST_ADDRESSES_OF_ANSWER);
    for n in 0..=limits::MOST_NAMES_OF_ADDRESS {
        table.note(seconds(2), NETNS, &answer(&format!("n{n}.example"), 300, [0]), None);
    }
    // The first is forgotten.
    assert_eq!(named(&mut table, 0, 5, 3).unwrap().1 as usize, limits::MOST_NAMES_OF_ADDRESS);
    for first in (0..limits::MOST_NAMED_ADDRESSES as u32 + per_answer).step_by(per_answer as usize) {
        table.note(seconds(3), NETNS, &answer("a.example", 300, first..first + per_answer), None);
        assert!(table.by_address.len() <= limits::MOST_NAMED_ADDRESSES);
    }
    assert_eq!(table.by_address.len(), limits::MOST_NAMED_ADDRESSES);
    assert!(Duration::from_secs(300) > limits::NAME_KEPT_AT_LEAST);
}

#[test]
fn names_are_spelled_without_surprises() {
    let spelled = |labels: &[&[u8]]| spelled(labels.iter().copied());
    assert_eq!(spelled(&[b"WWW", b"Example", b"org"]).as_deref(), Some("www.example.org"));
    assert_eq!(spelled(&[b"_sip", b"a.b\x1b", b"\xff"]).as_deref(), Some("_sip.a\\046b\\027.\\255"));
    assert_eq!(spelled(&[]), None);
    assert_eq!(spelled(&[b"a", b""]), None);
    assert_eq!(spelled(&[&[b'a'; 63][..]; 5]), None);
}
