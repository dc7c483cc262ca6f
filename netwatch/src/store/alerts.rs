//! Alerts as rows, and back.

use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::value::RawValue;

use super::StoreError;
use super::batch::Batch;
use super::chain::{ALERT_COLUMNS, Table};
use super::grouped::text;
use super::intern::Interner;
use super::rebuild::Processes;
use super::search::Segment;
use super::words::Word;
use crate::alert::{About, Alert, Level, Rule};
use crate::clock::BootClock;
use crate::model::{BootTime, Cookie, Family, NetnsId, Proto, SockAddr, Socket};
use crate::origin::{Basis, Confidence, Side, Verdict};
use crate::tracker::EndpointId;

fn number(value: Option<i64>) -> ValueRef<'static> {
    value.map_or(ValueRef::Null, ValueRef::Integer)
}

/// Writes a row. `clock`: of the segment; `now`: when processes were first seen that are not there yet.
pub(super) fn write(
    alert: &Alert,
    clock: BootClock,
    now: i64,
    interner: &mut Interner,
    batch: &mut Batch<'_>,
) -> Result<(), StoreError> {
    let process = match &alert.process {
        Some((actor, status)) => Some(interner.actor(actor, Some(*status), now, batch)?),
        None => None,
    };
    let boot = i128::from(clock.boot().unwrap_or(0));
    let ts = (boot + i128::from(alert.at.nanos())).try_into().unwrap_or(i64::MAX);
    let rule = &alert.rule;
    let tags = serde_json::to_string(&rule.tags).map_err(StoreError::Json)?;
    let about = alert.about.as_ref();
    let (local, remote) =
        (about.map(|about| about.socket.local), about.and_then(|about| about.socket.remote));
    let ip = |address: Option<SockAddr>| address.map(|address| address.ip.to_string());
    let port = |address: Option<SockAddr>| address.map(|address| i64::from(address.port));
    let (local_ip, remote_ip) = (ip(local), ip(remote));
    let of = |value: &dyn Fn(&About) -> i64| number(about.map(value));
    batch.insert(
        Table::Alert,
        &[
            ValueRef::Integer(batch.next_id(Table::Alert)),
            ValueRef::Integer(batch.segment()),
            ValueRef::Integer(ts),
            text(Some(&rule.id)),
            text(Some(&rule.title)),
            text(Some(rule.level.name())),
            text(Some(&tags)),
            text(rule.code.as_deref()),
            text(Some(&alert.detail)),
            of(&|about| about.id.cookie.cast_signed()),
            of(&|about| about.id.began.nanos().cast_signed()),
            of(&|about| about.socket.proto.code().into()),
            of(&|about| about.socket.netns.number().into()),
            text(local_ip.as_deref()),
            number(port(local)),
            text(remote_ip.as_deref()),
            number(port(remote)),
            of(&|about| about.verdict.side.code().into()),
            of(&|about| about.verdict.basis.code().into()),
            of(&|about| about.verdict.confidence.code().into()),
            number(process),
            ValueRef::Integer(alert.suppressed.cast_signed()),
            text(alert.trace.as_deref().map(RawValue::get)),
        ],
    )
}

/// The alerts of a segment in these rows.
pub(super) fn read(
    segment: &Segment,
    (from, to): (i64, i64),
    processes: &Processes,
    db: &Connection,
) -> Result<Vec<Alert>, StoreError> {
    if from > to {
        return Ok(Vec::new());
    }
    let select = format!(
        "SELECT {} FROM alert NOT INDEXED WHERE id BETWEEN ? AND ? AND segment = ? ORDER BY id",
        ALERT_COLUMNS.join(",")
    );
    let mut select = db.prepare_cached(&select)?;
    let mut rows = select.query([from, to, segment.id])?;
    let mut alerts = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let damaged = |what: &str| StoreError::Damaged(format!("alert {id}: {what}"));
        let level: String = row.get(5)?;
        let tags: String = row.get(6)?;
        let word = |column| row.get::<_, Option<String>>(column).map(|text| text.map(Arc::<str>::from));
        let rule = Rule {
            id: row.get::<_, String>(3)?.into(),
            title: row.get::<_, String>(4)?.into(),
            level: Level::from_name(&level).ok_or_else(|| damaged("level"))?,
            tags: serde_json::from_str(&tags).map_err(|_| damaged("tags"))?,
            code: word(7)?,
        };
        let process = match row.get::<_, Option<i64>>(20)? {
            Some(process) => Some(processes.actor(process, db)?),
            None => None,
        };
        let trace = row.get::<_, Option<String>>(22)?.map(RawValue::from_string).transpose();
        let trace = trace.map_err(|_| damaged("trace"))?.map(Arc::from);
        let since_boot = i128::from(row.get::<_, i64>(2)?) - i128::from(segment.clock.boot().unwrap_or(0));
        alerts.push(Alert {
            at: BootTime::from_nanos(since_boot.try_into().unwrap_or(0)),
            rule: rule.into(),
            detail: row.get::<_, String>(8)?.into(),
            about: about(row).map_err(|what| match what {
                Wrong::Sql(error) => error.into(),
                Wrong::Value => damaged("addresses"),
            })?,
            process: process.map(|actor| {
                let status = actor.process.exe_status();
                (actor, status)
            }),
            suppressed: row.get::<_, i64>(21)?.cast_unsigned(),
            trace,
        });
    }
    Ok(alerts)
}

enum Wrong {
    Sql(rusqlite::Error),
    Value,
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn about(row: &Row<'_>) -> Result<Option<About>, Wrong> {
    let maybe = |column| row.get::<_, Option<i64>>(column);
    let (Some(cookie), Some(began)) = (maybe(9)?, maybe(10)?) else { return Ok(None) };
    let address = |column| -> Result<Option<SockAddr>, Wrong> {
        let ip: Option<String> = row.get(column)?;
        let Some(ip) = ip else { return Ok(None) };
        let ip: IpAddr = ip.parse().map_err(|_| Wrong::Value)?;
        let port = maybe(column + 1)?.and_then(|port| port.try_into().ok()).ok_or(Wrong::Value)?;
        Ok(Some(SockAddr { ip, port }))
    };
    fn coded<T: Word>(code: Option<i64>) -> Result<T, Wrong> {
        code.and_then(T::from_code).ok_or(Wrong::Value)
    }
    let local = address(13)?.ok_or(Wrong::Value)?;
    let netns: u32 = maybe(12)?.and_then(|netns| netns.try_into().ok()).ok_or(Wrong::Value)?;
    let cookie = cookie.cast_unsigned();
    Ok(Some(About {
        id: EndpointId { cookie, began: BootTime::from_nanos(began.cast_unsigned()) },
        socket: Socket {
            cookie: Cookie::new(cookie),
            inode: 0,
            netns: NetnsId::new(netns),
            proto: coded::<Proto>(maybe(11)?)?,
            family: Family::of(local.ip),
            mapped: false,
            via: None,
            device: None,
            local,
            remote: address(15)?,
        },
        verdict: Verdict {
            side: coded::<Side>(maybe(17)?)?,
            basis: coded::<Basis>(maybe(18)?)?,
            confidence: coded::<Confidence>(maybe(19)?)?,
        },
    }))
}
