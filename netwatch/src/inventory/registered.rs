//! Queries the portmapper of each network namespace that has one for the registered RPC programs.

use std::time::Duration;

use super::portmap::{self, Mapping};
use crate::hash::Map;
use crate::model::{NetnsId, SocketRow};
use crate::snapshot::netns::{self, Netns};

/// Timeout of a query.
const PORTMAPPER: Duration = Duration::from_secs(2);

/// The port of the portmapper (RFC 1833, section 3).
const PORTMAPPER_PORT: u16 = 111;

/// Maximum number of namespaces that are queried; each takes a thread.
const MOST_PORTMAPPERS: usize = 64;

/// Registered programs by namespace. Namespaces without a listener on the portmapper's port are not queried.
pub(super) fn registered(rows: &[&SocketRow], notes: &mut Vec<String>) -> Map<NetnsId, Vec<Mapping>> {
    let mut wanted: Vec<NetnsId> = rows
        .iter()
        .filter(|row| row.is_server() && row.local.port == PORTMAPPER_PORT)
        .map(|row| row.netns)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.len() > MOST_PORTMAPPERS {
        notes.push(format!(
            "{} network namespaces have a portmapper; only {MOST_PORTMAPPERS} of them were queried",
            wanted.len()
        ));
        wanted.truncate(MOST_PORTMAPPERS);
    }
    let Ok(all) = netns::all() else { return Map::default() };
    let named: Vec<&Netns> = all.iter().filter(|namespace| wanted.contains(&namespace.inum)).collect();
    let answers: Vec<(NetnsId, Result<Vec<Mapping>, String>)> = std::thread::scope(|scope| {
        let ask = |namespace: &Netns| {
            let inside = |_: &Netns, entered: std::io::Result<()>| {
                entered.map_err(|error| error.to_string())?;
                portmap::dump(PORTMAPPER).map_err(|error| error.to_string())
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
