//! Follows packets through the translations of one or more network namespaces. Pure.

use crate::model::{NetnsId, Tuple};

/// Maximum number of namespaces that translate one connection: a container, the host, and routers between.
pub(super) const MOST_TRANSLATIONS: usize = 8;

/// The addresses that the other endpoint has for the packets that leave as `tuple` in namespace `own`. `others` are
/// namespaces that may be on the way; `find` has what the packets with these addresses are translated to in a namespace.
///
/// Nothing says which namespaces are on the way, and other networks may have the same addresses. So if two of them
/// translate the same packets in different ways, what is known before that is returned.
pub(super) fn follow(
    own: NetnsId,
    tuple: Tuple,
    others: &[NetnsId],
    mut find: impl FnMut(NetnsId, &Tuple) -> Option<Tuple>,
) -> Tuple {
    let mut seen = find(own, &tuple).unwrap_or(tuple);
    let mut passed = vec![own];
    while passed.len() < MOST_TRANSLATIONS && !seen.is_loopback() {
        let mut next: Option<(NetnsId, Tuple)> = None;
        for netns in others.iter().copied().filter(|netns| !passed.contains(netns)) {
            let Some(translated) = find(netns, &seen).filter(|translated| *translated != seen) else {
                continue;
            };
            match next {
                Some((_, other)) if other != translated => return seen,
                _ => next = Some((netns, translated)),
            }
        }
        let Some((netns, translated)) = next else { break };
        passed.push(netns);
        seen = translated;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Map;
    use crate::model::tests::at;
    use crate::model::{Proto, SockAddr};

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple { proto: Proto::Tcp, source: at(source), destination: at(destination) }
    }

    type Rule<'a> = (u32, (&'a str, &'a str), (&'a str, &'a str));

    /// Translations in a namespace: source and destination before and after.
    fn followed(own: u32, from: (&str, &str), table: &[Rule]) -> Tuple {
        let table: Map<_, _> = table
            .iter()
            .map(|(netns, a, b)| ((NetnsId::new(*netns), tuple(a.0, a.1)), tuple(b.0, b.1)))
            .collect();
        let others = [1, 2, 3].map(NetnsId::new);
        follow(NetnsId::new(own), tuple(from.0, from.1), &others, |netns, tuple| {
            table.get(&(netns, *tuple)).copied()
        })
    }

    #[test]
    fn translations_of_several_namespaces_are_followed() {
        let from = ("10.0.0.2:4000", "192.0.2.1:80");
        assert_eq!(followed(1, from, &[]), tuple(from.0, from.1));
        let own = (1, from, ("10.0.0.2:4000", "10.0.1.2:8080"));
        assert_eq!(followed(1, from, &[own]), tuple("10.0.0.2:4000", "10.0.1.2:8080"));
        // Each namespace once, in any order.
        let other = (3, ("10.0.0.2:4000", "10.0.1.2:8080"), ("10.0.1.1:4000", "10.0.1.2:8080"));
        let third = (2, ("10.0.1.1:4000", "10.0.1.2:8080"), ("10.0.1.1:4000", "10.0.9.9:1"));
        assert_eq!(followed(1, from, &[own, other]), tuple("10.0.1.1:4000", "10.0.1.2:8080"));
        assert_eq!(followed(1, from, &[own, other, third]), tuple("10.0.1.1:4000", "10.0.9.9:1"));
        let back = (2, ("10.0.0.2:4000", "10.0.1.2:8080"), from);
        assert_eq!(followed(1, from, &[own, back]), tuple(from.0, from.1));
    }

    #[test]
    fn number_of_translations_is_bounded() {
        let mut asked = 0;
        let all: Vec<_> = (0..100).map(NetnsId::new).collect();
        let from = tuple("10.0.0.1:1", "10.0.0.2:2");
        follow(NetnsId::new(0), from, &all, |netns, tuple| {
            asked += 1;
            // Each namespace translates what the one before has made.
            let port = u16::try_from(netns.number()).unwrap() + 2;
            let next = SockAddr { port: port + 1, ..tuple.destination };
            (tuple.destination.port == port).then_some(Tuple { destination: next, ..*tuple })
        });
        assert!(asked <= MOST_TRANSLATIONS * all.len(), "{asked}");
    }

    #[test]
    fn two_answers_are_none() {
        let from = ("10.0.0.2:4000", "192.0.2.1:80");
        let one = (2, from, ("10.0.0.2:4000", "10.0.1.2:8080"));
        let same = (3, from, ("10.0.0.2:4000", "10.0.1.2:8080"));
        let other = (3, from, ("10.0.0.2:4000", "10.0.1.3:8080"));
        assert_eq!(followed(1, from, &[one, same]), tuple("10.0.0.2:4000", "10.0.1.2:8080"));
        assert_eq!(followed(1, from, &[one, other]), tuple(from.0, from.1));
    }

    #[test]
    fn loopback_does_not_leave_a_namespace() {
        let from = ("127.0.0.1:4000", "127.0.0.1:80");
        let redirected = ("127.0.0.1:4000", "127.0.0.1:8080");
        assert_eq!(followed(1, from, &[(1, from, redirected)]), tuple(redirected.0, redirected.1));
        assert_eq!(followed(1, from, &[(2, from, redirected)]), tuple(from.0, from.1));
    }
}
