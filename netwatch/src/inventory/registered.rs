//! Queries the portmapper of each network namespace that has one for the registered RPC programs.

use super::portmap::{self, Mapping};
use crate::hash::Map;
use crate::limits;
use crate::model::{NetnsId, SocketRow};
use crate::snapshot::netns::{self, Netns};

/// The port of the portmapper (RFC 1833, section 3).
const PORTMAPPER_PORT: u16 = 111;

/// Registered programs by namespace. Namespaces without a listener on the portmapper's port are not queried.
pub(super) fn registered(rows: &[&SocketRow], notes: &mut Vec<String>) -> Map<NetnsId, Vec<Mapping>> {
    let wanted = queried(rows, notes);
    let Ok(all) = netns::all() else { return Map::default() };
    let named: Vec<&Netns> = all.iter().filter(|namespace| wanted.contains(&namespace.inum)).collect();
    let answers: Vec<(NetnsId, Result<Vec<Mapping>, String>)> = std::thread::scope(|scope| {
        let ask = |namespace: &Netns| {
            let inside = |_: &Netns, entered: std::io::Result<()>| {
                entered.map_err(|error| error.to_string())?;
                portmap::dump(limits::PORTMAP_WAIT).map_err(|error| error.to_string())
            };
            let asked = netns::inside_each(std::slice::from_ref(namespace), inside);
            let asked = asked
                .map_err(|error| error.to_string())
                .and_then(|mut asked| asked.pop().unwrap_or(Ok(Vec::new())));
            (namespace.inum, asked)
        };
        let threads: Vec<_> =
            named.into_iter().map(|namespace| scope.spawn(move || ask(namespace))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut registered = Map::default();
    for (netns, answer) in answers {
        match answer {
            Ok(mappings) => _ = registered.insert(netns, mappings),
            Err(error) => notes.push(format!("network namespace {netns}: {error}")),
        }
    }
    registered
}

/// Namespaces with a portmapper, within the limit.
fn queried(rows: &[&SocketRow], notes: &mut Vec<String>) -> Vec<NetnsId> {
    let mut wanted: Vec<NetnsId> = rows
        .iter()
        .filter(|row| row.is_server() && row.local.port == PORTMAPPER_PORT)
        .map(|row| row.netns)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.len() > limits::MOST_PORTMAPPERS {
        notes.push(format!(
            "{} network namespaces have a portmapper; only {} of them were queried",
            wanted.len(),
            limits::MOST_PORTMAPPERS
        ));
        wanted.truncate(limits::MOST_PORTMAPPERS);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::example;
    use crate::model::{SockAddr, Socket};

    #[test]
    fn portmappers_beyond_the_limit_are_not_queried() {
        let listener = |netns: u32| {
            let local = SockAddr { port: PORTMAPPER_PORT, ..example().local };
            let netns = NetnsId::new(netns);
            SocketRow { socket: Socket { netns, local, remote: None, ..example().socket }, ..example() }
        };
        let most: u32 = limits::MOST_PORTMAPPERS.try_into().unwrap();
        let rows: Vec<_> = (1..=most + 1).chain([1]).map(listener).collect();
        let rows: Vec<_> = rows.iter().collect();
        let mut notes = Vec::new();
        assert_eq!(queried(&rows, &mut notes).len(), limits::MOST_PORTMAPPERS);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with(&format!("{} network namespaces have a portmapper", most + 1)));
        notes.clear();
        assert_eq!(
            (queried(&rows[..limits::MOST_PORTMAPPERS], &mut notes).len(), notes.len()),
            (limits::MOST_PORTMAPPERS, 0)
        );
    }
}
