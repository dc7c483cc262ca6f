//! Events of netwatch with the field names of Sysmon for Linux, which Sigma rules use; as `--format sysmon` prints them.

use std::borrow::Cow;
use std::cell::OnceCell;

use rsigma_eval::{Event, EventValue};
use serde_json::Value;

use crate::origin::Side;
use crate::process::Process;
use crate::stream::UserNames;
use crate::tracker::ConnectionEvent;

/// Fields of a connection that have a value at least sometimes.
pub(super) const OF_CONNECTIONS: [&str; 21] = [
    "CommandLine",
    "DestinationHostname",
    "DestinationIp",
    "DestinationIsIpv6",
    "DestinationPort",
    "DestinationPortName",
    "EventID",
    "Image",
    "Initiated",
    "NetwatchBasis",
    "NetwatchConfidence",
    "ParentCommandLine",
    "ParentImage",
    "ProcessGuid",
    "ProcessId",
    "Protocol",
    "SourceHostname",
    "SourceIp",
    "SourceIsIpv6",
    "SourcePort",
    "User",
];

/// Those of a program that is executed.
pub(super) const OF_PROGRAMS: [&str; 10] = [
    "CommandLine",
    "EventID",
    "Image",
    "ParentCommandLine",
    "ParentImage",
    "ParentProcessGuid",
    "ParentProcessId",
    "ProcessGuid",
    "ProcessId",
    "User",
];

/// `EventID` of Sysmon.
const PROCESS_CREATION: i64 = 1;
const NETWORK_CONNECTION: i64 = 3;

/// An event for rules. Texts that have to be made are made once, and only if a rule asks.
pub(super) struct SigmaEvent<'a> {
    connection: Option<&'a ConnectionEvent>,
    process: Option<&'a Process>,
    users: &'a UserNames,
    command_line: OnceCell<Option<String>>,
    parent_command_line: OnceCell<Option<String>>,
    source: OnceCell<String>,
    destination: OnceCell<String>,
}

impl<'a> SigmaEvent<'a> {
    /// Of a connection.
    pub(super) fn connection(event: &'a ConnectionEvent, users: &'a UserNames) -> Self {
        let process = event.endpoint.process.as_ref().map(|actor| &*actor.process);
        Self { connection: Some(event), ..Self::of(process, users) }
    }

    /// Of a program that is executed.
    pub(super) fn program(process: &'a Process, users: &'a UserNames) -> Self {
        Self::of(Some(process), users)
    }

    fn of(process: Option<&'a Process>, users: &'a UserNames) -> Self {
        Self {
            connection: None,
            process,
            users,
            command_line: OnceCell::new(),
            parent_command_line: OnceCell::new(),
            source: OnceCell::new(),
            destination: OnceCell::new(),
        }
    }

    fn names(&self) -> &'static [&'static str] {
        if self.connection.is_some() { &OF_CONNECTIONS } else { &OF_PROGRAMS }
    }

    fn of_process(&self, name: &str) -> Option<EventValue<'_>> {
        let process = self.process?;
        let parent = process.parent.as_deref();
        Some(match name {
            "Image" => text(process.image.exe.as_deref()?),
            "CommandLine" => text(made(&self.command_line, Some(process))?),
            "ParentImage" => text(parent?.image.exe.as_deref()?),
            "ParentCommandLine" => text(made(&self.parent_command_line, parent)?),
            "User" => text(self.users.get(&process.uid)?.as_deref()?),
            "ProcessId" => EventValue::Int(process.key.pid.into()),
            "ProcessGuid" => owned(process.key.to_string()),
            _ => return None,
        })
    }

    fn of_program(&self, name: &str) -> Option<EventValue<'_>> {
        let process = self.process?;
        Some(match name {
            "EventID" => EventValue::Int(PROCESS_CREATION),
            "ParentProcessId" => EventValue::Int(process.ppid.into()),
            "ParentProcessGuid" => owned(process.parent.as_ref()?.key.to_string()),
            _ => return None,
        })
    }

    fn of_connection(&self, event: &'a ConnectionEvent, name: &str) -> Option<EventValue<'_>> {
        let endpoint = &event.endpoint;
        let remote = endpoint.remote?;
        let side = endpoint.verdict.asserted();
        let is_inbound = side == Some(Side::Remote);
        let (source, destination) =
            if is_inbound { (remote, endpoint.local) } else { (endpoint.local, remote) };
        let flag = |is: bool| text(if is { "true" } else { "false" });
        Some(match name {
            "EventID" => EventValue::Int(NETWORK_CONNECTION),
            "Protocol" => text(endpoint.proto.name()),
            // Without a value neither `true` nor `false` matches.
            "Initiated" => flag(side? != Side::Remote),
            "SourceIp" => text(self.source.get_or_init(|| source.ip.to_string())),
            "SourcePort" => EventValue::Int(source.port.into()),
            "SourceIsIpv6" => flag(source.ip.is_ipv6()),
            "DestinationIp" => text(self.destination.get_or_init(|| destination.ip.to_string())),
            "DestinationPort" => EventValue::Int(destination.port.into()),
            "DestinationIsIpv6" => flag(destination.ip.is_ipv6()),
            "DestinationPortName" => text(event.facts.service.filter(|_| side.is_some())?),
            "DestinationHostname" => text(hostname(event, is_inbound)?),
            "SourceHostname" => text(hostname(event, !is_inbound)?),
            "NetwatchBasis" => text(endpoint.verdict.basis.name()),
            "NetwatchConfidence" => text(endpoint.verdict.confidence.name()),
            _ => return None,
        })
    }
}

/// The name of one of the ends.
fn hostname(event: &ConnectionEvent, is_here: bool) -> Option<&str> {
    let names = &event.endpoint.names;
    let name = if is_here { names.local() } else { names.remote() };
    name.map(|name| &*name.name)
}

fn text(text: &str) -> EventValue<'_> {
    EventValue::Str(Cow::Borrowed(text))
}

fn owned<'a>(text: String) -> EventValue<'a> {
    EventValue::Str(Cow::Owned(text))
}

/// The arguments, separated by spaces.
fn made<'a>(cell: &'a OnceCell<Option<String>>, process: Option<&Process>) -> Option<&'a str> {
    let line = || {
        let args = &process?.image.args;
        (!args.is_empty()).then(|| args.join(" "))
    };
    cell.get_or_init(line).as_deref()
}

impl Event for SigmaEvent<'_> {
    fn get_field(&self, name: &str) -> Option<EventValue<'_>> {
        let specific = match self.connection {
            Some(event) => self.of_connection(event, name),
            None => self.of_program(name),
        };
        specific.or_else(|| self.of_process(name))
    }

    fn any_string_value(&self, holds: &dyn Fn(&str) -> bool) -> bool {
        let values = self.names().iter().filter_map(|name| self.get_field(name));
        values.into_iter().any(|value| value.as_str().is_some_and(|text| holds(&text)))
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let values = self.names().iter().filter_map(|name| self.get_field(name));
        values.filter_map(|value| value.as_str().map(|text| Cow::Owned(text.into_owned()))).collect()
    }

    fn to_json(&self) -> Value {
        let field = |name: &&str| Some(((*name).to_owned(), self.get_field(name)?.to_json()));
        Value::Object(self.names().iter().filter_map(field).collect())
    }

    fn field_keys(&self) -> Vec<Cow<'_, str>> {
        self.names().iter().map(|name| Cow::Borrowed(*name)).collect()
    }

    fn top_level_keys(&self) -> Option<Vec<Cow<'_, str>>> {
        Some(self.field_keys())
    }

    fn visit_top_level_keys(&self, visit: &mut dyn FnMut(&str)) -> bool {
        self.names().iter().for_each(|name| visit(name));
        true
    }
}
