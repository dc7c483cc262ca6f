//! A trace as one JSON object.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::ProcessForm;
use super::super::json::Json;
use super::Traces;
use crate::forensics::{Life, Trace, What};
use crate::model::{StreamKind, Way};
use crate::origin::Confidence;
use crate::stream::{Context, UserNames};

#[derive(Serialize)]
struct Object {
    selector: String,
    matches: Vec<Match>,
    /// More connections match; absent if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
struct Match {
    connection: Box<RawValue>,
    chain: Vec<Link>,
    origin: OriginView,
}

#[derive(Serialize)]
struct Link {
    kind: &'static str,
    why: String,
    ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Arc<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Box<RawValue>>,
    /// What a message was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<Over>,
}

#[derive(Serialize)]
struct Over {
    /// `unix` or `pipe`.
    kind: &'static str,
    /// Inode number of the writer's end.
    inode: u64,
    /// Name of the UNIX socket.
    path: Option<Arc<str>>,
}

#[derive(Serialize)]
struct OriginView {
    kind: &'static str,
    ip: Option<IpAddr>,
    port: Option<u16>,
    process: Option<Arc<RawValue>>,
    confidence: Confidence,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    /// Connections that were open at the time, without evidence that they were the cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    possible: Vec<Box<RawValue>>,
}

pub(super) fn write(found: Traces<'_>, out: &mut impl Write) -> io::Result<()> {
    let object = Object {
        selector: found.selector.to_string(),
        matches: found.traces.iter().map(|trace| matched(trace, found.users)).collect::<io::Result<_>>()?,
        more: found.more,
    };
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

/// One of the traces.
pub(super) fn value(trace: &Trace, users: &Arc<UserNames>) -> io::Result<Box<RawValue>> {
    Ok(serde_json::value::to_raw_value(&matched(trace, users)?)?)
}

fn matched(trace: &Trace, users: &Arc<UserNames>) -> io::Result<Match> {
    let Life { clock, boot, .. } = &trace.connection;
    let context = Context { boot: boot.clone(), clock: *clock, run_clock: *clock, users: users.clone() };
    let json = &mut Json::new(ProcessForm::Full);
    let chain = trace.chain.iter().map(|step| {
        let (kind, actor) = match &step.what {
            What::Process(actor) => ("process", Some(actor)),
            What::Connection(_) => ("connection", None),
            What::Message { writer, way: Way::Unix, .. } => ("message", Some(writer)),
            What::Message { writer, way: Way::Pipe, .. } => ("pipe", Some(writer)),
            What::Stream { holder, kind } => match kind {
                StreamKind::Pipe => ("pipe", Some(holder)),
                StreamKind::Terminal => ("terminal", Some(holder)),
                StreamKind::Unix => ("message", Some(holder)),
            },
        };
        let process = actor.map(|actor| json.process_object(&context, actor)).transpose()?;
        let connection = match &step.what {
            What::Connection(life) => Some(connection(json, &context, life)?),
            _ => None,
        };
        let over = match &step.what {
            What::Message { way, inode, path, .. } => {
                Some(Over { kind: way.name(), inode: *inode, path: path.clone() })
            }
            _ => None,
        };
        let ts = clock.time(step.at).map(|time| format!("{time:.9}"));
        Ok(Link { kind, why: step.why.clone(), ts, process, connection, over })
    });
    let chain = chain.collect::<io::Result<_>>()?;
    let origin = &trace.origin;
    let origin = OriginView {
        kind: origin.kind.name(),
        ip: origin.endpoint.map(|(ip, _)| ip),
        port: origin.endpoint.map(|(_, port)| port),
        process: origin.process.as_ref().map(|actor| json.process_object(&context, actor)).transpose()?,
        confidence: origin.confidence,
        missing: origin.missing.clone(),
        possible: origin
            .possible
            .iter()
            .map(|life| connection(json, &context, life))
            .collect::<io::Result<_>>()?,
    };
    Ok(Match { connection: connection(json, &context, &trace.connection)?, chain, origin })
}

fn connection(json: &mut Json, context: &Context, life: &Life) -> io::Result<Box<RawValue>> {
    json.object(&Context { clock: life.clock, ..context.clone() }, life.last())
}
