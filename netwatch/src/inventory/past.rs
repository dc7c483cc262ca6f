//! The recorded history of listeners.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use crate::audit::facts::History;
use crate::enrich::Users;
use crate::listeners::Listening;
use crate::model::{Proto, SocketRow};
use crate::origin::Side;
use crate::store::{Query, Reader, StoredConnection, Visited};
use crate::tracker::EventKind;

/// The store, for the current boot only, since cookies are unique only within a boot.
pub(super) struct Past {
    reader: Reader,
    boot: String,
}

/// Maximum number of connections to a port that are counted, the newest.
const MOST_VISITS: usize = 10_000;

/// Maximum number of addresses that are listed, those with the most connections.
const MOST_FROM: usize = 8;

impl Past {
    /// `None` if no store is given and the standard one does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn open(named: Option<&Path>, boot: &str) -> Result<Option<Self>> {
        let Some(reader) = Reader::named_or_usual(named)? else { return Ok(None) };
        // Many small queries on one consistent state.
        reader.stand_still()?;
        Ok(Some(Self { reader, boot: boot.to_owned() }))
    }

    /// The history of a listener; `None` if it has none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn of(&self, row: &SocketRow) -> Result<Option<History>> {
        let recorded = self
            .ends(row)?
            .into_iter()
            .find(|recorded| recorded.events.last().is_some_and(|last| last.endpoint.remote.is_none()));
        let first = recorded.as_ref().and_then(|recorded| recorded.events.first());
        // No record reports bind() of a datagram socket; there are only flows.
        if first.is_none() && row.proto == Proto::Tcp {
            return Ok(None);
        }
        let since = recorded.as_ref().zip(first).and_then(|(recorded, first)| recorded.clock.time(first.at));
        let begun = first.filter(|first| first.kind == EventKind::Listen);
        let listening = Listening::of(row);
        let visited = Visited {
            boot: &self.boot,
            proto: row.proto,
            netns: row.netns,
            port: row.local.port,
            takes: &|local| listening.takes(local),
            since: since.and_then(|since| since.as_nanosecond().try_into().ok()).unwrap_or(0),
            most: MOST_VISITS,
        };
        let mut visits = self.reader.visits(&visited)?;
        keep_most(&mut visits.from);
        if visits.count == 0 && row.proto == Proto::Udp {
            return Ok(None);
        }
        let by = begun.and_then(|first| first.endpoint.process.clone());
        Ok(Some(History {
            since: since.filter(|_| begun.is_some()),
            by: by.map(|actor| {
                let user = Users::patient().name(actor.process.uid);
                (actor, user)
            }),
            connections: visits.count,
            more: visits.more,
            from: visits.from,
            only_local: visits.only_local,
        }))
    }

    /// Whether the originator of a connection was recorded.
    pub(super) fn knows_originator(&self, row: &SocketRow) -> bool {
        let of = |recorded: &StoredConnection| {
            let end = recorded.events.last().map(|last| &last.endpoint);
            end.is_some_and(|end| end.remote == row.remote && end.side() != Some(Side::Unknown))
        };
        // Errors of the store are reported elsewhere.
        self.ends(row).is_ok_and(|ends| ends.iter().any(of))
    }

    fn ends(&self, row: &SocketRow) -> Result<Vec<StoredConnection>> {
        let Some(cookie) = row.cookie else { return Ok(Vec::new()) };
        let query = Query {
            boot: Some(self.boot.clone()),
            cookie: Some(cookie.get()),
            newest_first: true,
            ..Query::default()
        };
        Ok(self.reader.connections(&query)?)
    }
}

/// Keeps the addresses with the most connections.
fn keep_most(from: &mut Vec<(IpAddr, u64)>) {
    from.sort_by_key(|(ip, count)| (std::cmp::Reverse(*count), *ip));
    from.truncate(MOST_FROM);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_most_connections_are_kept() {
        let mut from: Vec<_> = (0..20).map(|n| (IpAddr::from([10, 0, 0, n]), u64::from(n))).collect();
        keep_most(&mut from);
        assert_eq!(
            from.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
            [19, 18, 17, 16, 15, 14, 13, 12]
        );
    }
}
