//! Parses DNS answers.

use std::net::IpAddr;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag};

use super::spelled;
use crate::limits;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The name that was asked for.
    pub(super) name: String,
    /// The addresses that it has, and how long they may be kept.
    pub(super) addresses: Vec<(IpAddr, Duration)>,
}

/// Parses an answer; `None` if it has no addresses of the name that was asked for. Records of other names prove nothing:
/// whoever answers for one name must not say what another one is.
pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let [question] = &packet.questions[..] else { return None };
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut name = &question.qname;
    let mut ttl = u32::MAX;
    for _ in 0..limits::MOST_ALIASES {
        let own = packet.answers.iter().filter(|record| same(&record.name, name));
        let mut alias = None;
        let mut addresses = Vec::new();
        for record in own {
            let address = match &record.rdata {
                RData::A(a) => IpAddr::V4(a.address.into()),
                RData::AAAA(aaaa) => IpAddr::V6(aaaa.address.into()),
                RData::CNAME(to) => {
                    alias = Some((&to.0, record.ttl));
                    continue;
                }
                _ => continue,
            };
            addresses.push((address.to_canonical(), Duration::from_secs(ttl.min(record.ttl).into())));
        }
        if !addresses.is_empty() {
            return Some(Answer { name: spelled(question.qname.as_bytes())?, addresses });
        }
        let (to, its) = alias?;
        (name, ttl) = (to, ttl.min(its));
    }
    None
}

/// DNS ignores the case of letters (RFC 1035, section 2.3.3), and some clients choose it at random.
fn same(one: &Name<'_>, other: &Name<'_>) -> bool {
    let equal = |(one, other): (&[u8], &[u8])| one.eq_ignore_ascii_case(other);
    one.get_labels().len() == other.get_labels().len() && one.as_bytes().zip(other.as_bytes()).all(equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, AAAA, CNAME};
    use simple_dns::{CLASS, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;

    fn name(text: &str) -> Name<'_> {
        Name::new_unchecked(text)
    }

    fn address(of: &'static str, ttl: u32, address: &str) -> ResourceRecord<'static> {
        let rdata = match address.parse().unwrap() {
            IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
            IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
        };
        ResourceRecord::new(name(of), CLASS::IN, ttl, rdata)
    }

    fn alias(of: &'static str, ttl: u32, to: &'static str) -> ResourceRecord<'static> {
        ResourceRecord::new(name(of), CLASS::IN, ttl, RData::CNAME(CNAME(name(to))))
    }

    fn bytes(asked: &'static str, answers: Vec<ResourceRecord<'static>>) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        packet.questions.push(Question::new(
            name(asked),
            QTYPE::TYPE(TYPE::A),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.answers = answers;
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn answer(
        asked: &'static str,
        answers: Vec<ResourceRecord<'static>>,
    ) -> Option<(String, Vec<(String, u64)>)> {
        let answer = parse(&bytes(asked, answers))?;
        let addresses = answer.addresses.iter().map(|(ip, ttl)| (ip.to_string(), ttl.as_secs()));
        Some((answer.name, addresses.collect()))
    }

    #[test]
    fn addresses_belong_to_the_name_that_was_asked_for() {
        let one = answer("Example.ORG", vec![address("example.org", 60, "192.0.2.1")]);
        assert_eq!(one, Some(("example.org".into(), vec![("192.0.2.1".into(), 60)])));
        let chain = vec![
            alias("www.example.org", 20, "cdn.example.net"),
            address("other.example.org", 60, "192.0.2.66"),
            alias("cdn.example.net", 300, "a.example.net"),
            address("a.example.net", 60, "2001:db8::1"),
            address("a.example.net", 10, "::ffff:192.0.2.2"),
        ];
        let expected = vec![("2001:db8::1".to_owned(), 20), ("192.0.2.2".to_owned(), 10)];
        assert_eq!(answer("www.example.org", chain), Some(("www.example.org".into(), expected)));
    }

    #[test]
    fn answer_about_another_name_says_nothing() {
        assert_eq!(answer("example.org", vec![address("bank.example", 60, "192.0.2.1")]), None);
        assert_eq!(answer("example.org", vec![]), None);
        // An alias of itself.
        assert_eq!(answer("example.org", vec![alias("example.org", 1, "example.org")]), None);
        let mut question = Packet::new_query(7);
        question.answers.push(address("example.org", 60, "192.0.2.1"));
        assert_eq!(parse(&question.build_bytes_vec().unwrap()), None);
    }

    #[test]
    fn long_chain_of_aliases_is_not_followed() {
        let names: Vec<&'static str> =
            (0..limits::MOST_ALIASES + 1).map(|n| &*format!("n{n}.example").leak()).collect();
        let chain = |length: usize| {
            let mut chain: Vec<_> =
                names.windows(2).take(length).map(|pair| alias(pair[0], 9, pair[1])).collect();
            chain.push(address(names[length], 9, "192.0.2.1"));
            answer(names[0], chain)
        };
        assert!(chain(limits::MOST_ALIASES - 1).is_some());
        assert!(chain(limits::MOST_ALIASES).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        /// Changed and cut, so that the parser gets far.
        #[test]
        fn any_change_of_an_answer_is_one_or_none(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = bytes("www.example.org", vec![
                alias("www.example.org", 20, "cdn.example.net"),
                address("cdn.example.net", 60, "2001:db8::1"),
            ]);
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let _ = parse(&bytes[..cut.index(bytes.len()) + 1]);
        }
    }
}
