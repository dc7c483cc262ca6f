//! The walk over hosts: where the walk on one host ends with a connection from another host, it goes on there.

use std::net::IpAddr;
use std::sync::Arc;

use globset::GlobMatcher;

use super::binary::Bytes;
use super::column::Kind;
use super::dialect::quoted;
use super::mirror::{Key, MirrorError, Mirrors};
use super::narrow::{self, address};
use super::past::FleetPast;
use super::tuple::tuple;
use crate::forensics::{self, Life, OriginKind, Past as _, Selector, Trace, What};
use crate::limits;
use crate::model::{BootTime, SockAddr};
use crate::origin::Confidence;
use crate::store::Words;
use crate::tracker::EndpointId;

/// The walk on one host.
#[derive(Debug)]
pub struct Hop {
    /// The name of the host.
    pub host: String,
    /// What was found there.
    pub trace: Trace,
    /// How the connection was found that leads here from the host after it; `None` for the first one.
    pub link: Option<Link>,
}

/// Other ends with the addresses of a connection that are compared.
const CANDIDATES: usize = 64;

/// Hosts of a walk.
const HOPS: usize = 64;

/// How the other end of a connection was found.
#[derive(Clone, Debug)]
pub struct Link {
    /// How much the clock of that host is ahead of that of the one before, in milliseconds; `None`: not known.
    pub clock_ahead_ms: Option<i64>,
    /// Connections of the two hosts by which that is known.
    pub compared: u64,
    /// Other ends with the same addresses at about that time.
    pub others: usize,
}

/// The walk over hosts, from the connection that was asked about.
#[derive(Debug)]
pub struct Walk {
    /// From that connection backwards.
    pub hops: Vec<Hop>,
    /// The lowest confidence of all hops and links.
    pub confidence: Confidence,
    /// Why the walk ends at another host, if it does.
    pub missing: Option<String>,
}

/// Walks back from the newest connections of some hosts that a selector means. Returns also whether there are more.
///
/// # Errors
/// If the server does not give what is asked for.
pub fn walks(
    mirrors: &Mirrors<'_>,
    hosts: &GlobMatcher,
    selector: &Selector,
    most: usize,
) -> Result<(Vec<Walk>, bool), MirrorError> {
    let server = mirrors.server();
    server.dialect()?;
    let database = &server.url().database;
    let query = format!(
        "SELECT host_id, store FROM {database}.segments WHERE match(host, {}) GROUP BY host_id, store ORDER BY max(ts) DESC",
        narrow::pattern(hosts)
    );
    let bytes = server.fetch(&query)?;
    let (mut bytes, mut walks, mut more) = (Bytes(&bytes), Vec::new(), false);
    while let Some((host_id, store)) = bytes.text().zip(bytes.number(Kind::Int64)) {
        let past = FleetPast::new(mirrors, Key { host_id, store: store.cast_unsigned() })?;
        let left = most.saturating_sub(walks.len());
        let (lives, is_more) = past.select(selector, left.max(1))?;
        more |= is_more || (left == 0 && !lives.is_empty());
        for life in forensics::originators(lives).into_iter().take(left) {
            walks.push(walk(mirrors, &past, life)?);
        }
    }
    Ok((walks, more))
}

fn walk(mirrors: &Mirrors<'_>, first: &FleetPast<'_>, life: Life) -> Result<Walk, MirrorError> {
    let mut hops = Vec::new();
    let mut confidence = Confidence::Observed;
    let mut key = first.key().clone();
    let (mut host, mut trace, mut link) = (first.host(), forensics::trace(first, life)?, None);
    let mut visited: Vec<(Key, Arc<str>, EndpointId)> = Vec::new();
    let missing = loop {
        confidence = confidence.max(trace.origin.confidence);
        let from_elsewhere =
            (trace.origin.kind == OriginKind::Remote).then(|| last_inbound(&trace)).flatten();
        hops.push(Hop { host: host.clone(), trace, link: link.take() });
        let Some(inbound) = from_elsewhere else { break None };
        let place = (key.clone(), inbound.boot.clone(), inbound.id());
        if visited.contains(&place) || hops.len() >= HOPS {
            break Some("the chain of hosts has a cycle or is too long".to_owned());
        }
        visited.push(place);
        let (other, found) = match other_end(mirrors, &key, &inbound)? {
            Ok(found) => found,
            Err(why) => break Some(why),
        };
        if found.others > 0 {
            confidence = confidence.max(Confidence::Guessed);
        }
        let past = FleetPast::new(mirrors, other.key.clone())?;
        let Some(life) = past.end(&other.boot, other.id)? else {
            break Some(format!("what {} recorded of the connection is incomplete", past.host()));
        };
        (host, trace, link) = (past.host(), forensics::trace(&past, life)?, Some(found));
        key = other.key;
    };
    Ok(Walk { hops, confidence, missing })
}

/// The connection from another host with which a walk ended.
fn last_inbound(trace: &Trace) -> Option<Life> {
    let last = trace.chain.iter().rev().find_map(|step| match &step.what {
        What::Connection(life) => Some((**life).clone()),
        _ => None,
    });
    Some(last.unwrap_or_else(|| trace.connection.clone())).filter(Life::is_inbound)
}

/// The end of a connection at its originator.
struct Other {
    key: Key,
    boot: Arc<str>,
    id: EndpointId,
    opened: i64,
}

fn other_end(
    mirrors: &Mirrors<'_>,
    key: &Key,
    inbound: &Life,
) -> Result<Result<(Other, Link), String>, MirrorError> {
    let end = inbound.end();
    let Some(remote) = end.remote else { return Ok(Err("the connection has no other end".into())) };
    let (local, remote) = match end.nat.translation() {
        Some(seen) => (seen.local, seen.remote),
        None => (end.local, remote),
    };
    let opened = nanos_of(inbound, inbound.began());
    let proto = Words::Proto.code(end.proto.name()).and_then(|code| u8::try_from(code).ok()).unwrap_or(0);
    let Some(hash) = tuple(proto, local, remote) else {
        return Ok(Err(format!("{} is an address that many hosts have", remote.ip)));
    };
    let server = mirrors.server();
    let database = &server.url().database;
    let clock = server.nanos("opened");
    let at_most: i64 = limits::FLEET_APART_AT_MOST.as_nanos().try_into().unwrap_or(i64::MAX);
    let (from, to) = (opened.saturating_sub(at_most), opened.saturating_add(at_most));
    let query = format!(
        "SELECT host_id, store, boot, cookie, began, min({clock}) FROM {database}.ends WHERE tuple = {hash} AND \
         side IN ('local', 'both') AND host_id != {} AND opened >= {} AND opened <= {} \
         GROUP BY host_id, store, boot, cookie, began ORDER BY abs(min({clock}) - toInt64({opened})) LIMIT {}",
        quoted(&key.host_id),
        server.time(from),
        server.time(to),
        CANDIDATES
    );
    let bytes = server.fetch(&query)?;
    let (mut bytes, mut found) = (Bytes(&bytes), Vec::new());
    while let Some((host_id, store)) = bytes.text().zip(bytes.number(Kind::Int64)) {
        let Some((boot, (cookie, began))) = bytes.text().zip(bytes.pair()) else { break };
        let Some(opened) = bytes.number(Kind::Int64) else { break };
        let id =
            EndpointId { cookie: cookie.cast_unsigned(), began: BootTime::from_nanos(began.cast_unsigned()) };
        found.push(Other {
            key: Key { host_id, store: store.cast_unsigned() },
            boot: boot.into(),
            id,
            opened,
        });
    }
    let mut close = Vec::new();
    for other in found {
        let (ahead, compared) = clock_ahead(mirrors, &other.key, key, hash, opened)?;
        let allowed = if ahead.is_some() { limits::FLEET_APART } else { limits::FLEET_APART_AT_MOST };
        let apart = (other.opened - opened - ahead.unwrap_or(0)).unsigned_abs();
        if u128::from(apart) <= allowed.as_nanos() {
            close.push((
                apart,
                other,
                Link { clock_ahead_ms: ahead.map(|ahead| ahead / 1_000_000), compared, others: 0 },
            ));
        }
    }
    close.sort_by_key(|(apart, ..)| *apart);
    let others = close.len().saturating_sub(1);
    match close.into_iter().next() {
        Some((_, other, link)) => Ok(Ok((other, Link { others, ..link }))),
        None => Ok(Err(why_nobody(mirrors, remote, opened)?)),
    }
}

fn nanos_of(life: &Life, at: BootTime) -> i64 {
    life.clock.time(at).and_then(|time| time.as_nanosecond().try_into().ok()).unwrap_or(0)
}

/// How much the clock of one host is ahead of that of another, in nanoseconds: the median over the other connections of
/// the two within a day, and how many these are.
fn clock_ahead(
    mirrors: &Mirrors<'_>,
    one: &Key,
    other: &Key,
    but: u64,
    at: i64,
) -> Result<(Option<i64>, u64), MirrorError> {
    const DAY: i64 = 86_400_000_000_000;
    let server = mirrors.server();
    let database = &server.url().database;
    let (one, other) = (quoted(&one.host_id), quoted(&other.host_id));
    let clock = server.nanos("opened");
    let (from, to) = (server.time(at.saturating_sub(DAY)), server.time(at.saturating_add(DAY)));
    // A tuple that a host has twice was used again: which two belong together is what is to be found out.
    let query = format!(
        "SELECT toInt64(quantileExact(0.5)(ahead)), count() FROM (SELECT tuple, \
         toInt64(minIf({clock}, host_id = {one})) - toInt64(minIf({clock}, host_id = {other})) AS ahead FROM {database}.ends \
         WHERE tuple != 0 AND tuple != {but} AND host_id IN ({one}, {other}) AND ts >= {from} AND ts <= {to} GROUP BY tuple \
         HAVING uniqExact(host_id) = 2 AND uniqExact(host_id, boot, cookie, began) = 2)"
    );
    let bytes = server.fetch(&query)?;
    Ok(match Bytes(&bytes).pair() {
        Some((ahead, count)) if count > 0 => (Some(ahead), count.cast_unsigned()),
        _ => (None, 0),
    })
}

/// Why no host recorded the other end.
fn why_nobody(mirrors: &Mirrors<'_>, remote: SockAddr, at: i64) -> Result<String, MirrorError> {
    let server = mirrors.server();
    let database = &server.url().database;
    let dialect = server.dialect()?;
    let ip: IpAddr = remote.ip;
    let query = format!(
        "SELECT any(host), host_id FROM {database}.ends WHERE local_ip = {} GROUP BY host_id LIMIT 1",
        address(ip, dialect)
    );
    let bytes = server.fetch(&query)?;
    let mut bytes = Bytes(&bytes);
    let Some((host, host_id)) = bytes.text().zip(bytes.text()) else {
        return Ok(format!(
            "no host of the fleet has the address {ip}: there is no recorder, or it is outside"
        ));
    };
    let (ts, id) = (server.nanos("ts"), quoted(&host_id));
    let near = format!(
        "SELECT toInt64(countIf({ts} <= {at})), toInt64(countIf({ts} >= {at})) FROM {database}.batches WHERE host_id = {id}"
    );
    let bytes = server.fetch(&near)?;
    let (before, after) = Bytes(&bytes).pair().unwrap_or((0, 0));
    let around = 60_000_000_000_i64;
    let lost = format!(
        "SELECT toInt64(sum(count)), toInt64(0) FROM {database}.losses WHERE host_id = {id} AND {ts} >= {} AND {ts} <= {}",
        at.saturating_sub(around),
        at.saturating_add(around)
    );
    let bytes = server.fetch(&lost)?;
    let (lost, _) = Bytes(&bytes).pair().unwrap_or((0, 0));
    Ok(match (before, after) {
        (0, _) => format!("{host} has the address {ip}, and what it shipped begins later"),
        (_, 0) => format!(
            "{host} has the address {ip}, and has shipped nothing since: its recorder is down, or is behind"
        ),
        _ if lost > 0 => format!("{host} has the address {ip}, and lost {lost} records within a minute"),
        _ => format!(
            "{host} has the address {ip} and recorded then, but not this connection: its recorder was interrupted, has a \
             filter, or the address was another host's"
        ),
    })
}
