//! Names of hosts.

use super::*;
use crate::names::{HostName, NameBasis, Names};
use crate::stream::Item;

fn name(text: &str, basis: NameBasis, asked_by: Option<Arc<Process>>) -> Arc<HostName> {
    Arc::new(HostName { name: text.into(), basis, at: ns(5), asked_by, candidates: 3 })
}

#[test]
fn names_come_back_and_are_found() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let asker = crate::process::tests::process(30, None);
    let asked = name("www.example.org", NameBasis::DnsAnswer, Some(asker));
    let said = name("mail.example.org", NameBasis::TlsSni, None);
    let mut asked_for = story(5, 443);
    for event in &mut asked_for {
        event.endpoint.names = Names::new(Some(asked.clone()), None);
    }
    // A TLS client says it when the connection is open.
    let mut said_in_tls = story(6, 8443);
    for event in said_in_tls.iter_mut().filter(|event| event.kind == EventKind::Close) {
        event.endpoint.names = Names::new(None, Some(said.clone()));
    }
    let expected = [asked_for.clone(), said_in_tls.clone(), story(7, 80)].concat();
    write(&mut writer, &expected.iter().cloned().map(item).collect::<Vec<_>>());

    let reader = place.reader();
    let all = |narrow: Narrow| {
        let mut events = reader.events(narrow, None, None, false).unwrap();
        let mut found = Vec::new();
        while let Some(batch) = events.next_batch().unwrap() {
            found.extend(batch.items.into_iter().filter_map(|item| match item {
                Item::Event(event) => Some((event.endpoint.id, event.kind, event.endpoint.names)),
                _ => None,
            }));
        }
        found.sort_by_key(|(id, kind, _)| (id.cookie, *kind as u8));
        found
    };
    let keys = |events: &[ConnectionEvent]| {
        let mut keys: Vec<_> = events
            .iter()
            .map(|event| (event.endpoint.id, event.kind, event.endpoint.names.clone()))
            .collect();
        keys.sort_by_key(|(id, kind, _)| (id.cookie, *kind as u8));
        keys
    };
    assert_eq!(all(Narrow::All), keys(&expected));
    for (glob, found) in [("www.*", &asked_for), ("mail.example.org", &said_in_tls), ("nobody", &Vec::new())]
    {
        let glob = globset::Glob::new(glob).unwrap().compile_matcher();
        assert_eq!(all(Narrow::Host(glob)), keys(found));
    }
    let checked = place.verified();
    assert_eq!((checked.broken, checked.schema, checked.index), (None, None, None));
}
