//! Field names of Sysmon for Linux, as rules for the category `network_connection` use them: event 3, one for each
//! connection that a process made or accepted, and event 255 for losses. `Source*` is the originator.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Ends, Objects, asserted, command_line, id_of, user_name, without_nulls};
use crate::model::SockAddr;
use crate::origin::Side;
use crate::stream::{Context, Item};
use crate::tracker::ConnectionEvent;

pub(in crate::output) struct Sysmon;

/// `EventID` of a connection, and of an error of the sensor.
const CONNECTION: u64 = 3;
const ERROR: u64 = 255;

impl Objects for Sysmon {
    fn objects(&mut self, _: u64, time: Timestamp, item: &Item, context: &Context) -> Vec<Value> {
        let object = match item {
            Item::Event(event) if event.is_the_connection() => connection(event, time, context),
            Item::Loss(_, loss) => json!({
                "EventID": ERROR,
                "UtcTime": utc(time),
                "ID": loss.reason.name(),
                "Description": format!("{} events were lost", loss.count()),
            }),
            _ => return Vec::new(),
        };
        vec![without_nulls(object)]
    }
}

/// In milliseconds, as Sysmon has it.
fn utc(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::UTC).strftime("%F %H:%M:%S.%3f").to_string()
}

fn connection(event: &ConnectionEvent, time: Timestamp, context: &Context) -> Value {
    let endpoint = &event.endpoint;
    let process = endpoint.process.as_ref().map(|actor| &actor.process);
    let parent = process.and_then(|process| process.parent.as_ref());
    let mut object = json!({
        "EventID": CONNECTION,
        "UtcTime": utc(time),
        "ProcessGuid": process.map(|process| process.key),
        "ProcessId": process.map(|process| process.key.pid.to_string()),
        "Image": process.and_then(|process| process.image.exe.as_deref()),
        "CommandLine": process.and_then(|process| command_line(process)),
        "ParentImage": parent.and_then(|parent| parent.image.exe.as_deref()),
        "ParentCommandLine": parent.and_then(|parent| command_line(parent)),
        "User": process.and_then(|process| user_name(process, context)),
        "Protocol": endpoint.proto.name(),
        // Without a value neither `true` nor `false` matches.
        "Initiated": asserted(endpoint).map(|side| match side {
            Side::Remote => "false",
            Side::Local | Side::Both | Side::Unknown => "true",
        }),
        "NetwatchId": id_of(endpoint.id, context),
        "NetwatchBasis": endpoint.verdict.basis,
        "NetwatchConfidence": endpoint.verdict.confidence,
    });
    let (Some(ends), Value::Object(fields)) = (Ends::of(endpoint), &mut object) else { return object };
    let service = event.facts.service.filter(|_| ends.is_known);
    let (source, destination) = ends.names(endpoint);
    for (role, SockAddr { ip, port }, name) in
        [("Source", ends.source, source), ("Destination", ends.destination, destination)]
    {
        if let Some(name) = name {
            fields.insert(format!("{role}Hostname"), name.into());
        }
        fields.insert(format!("{role}Ip"), json!(ip));
        fields.insert(format!("{role}IsIpv6"), ip.is_ipv6().to_string().into());
        fields.insert(format!("{role}Port"), port.into());
    }
    fields.insert("DestinationPortName".into(), service.into());
    object
}
