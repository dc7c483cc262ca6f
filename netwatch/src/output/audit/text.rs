//! An audit as text: findings by severity, then unexplained ports, then explained ones. Strings from outside netwatch
//! are escaped.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::audit::facts::{Ownership, Program, Reach, Server};
use crate::audit::{By, Finding, Port, Report, Severity};
use crate::escape;
use crate::model::{NetnsId, Proto};
use crate::output::text::on_device;

/// Writes text.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// Use colours.
    pub(super) colour: bool,
    /// The network namespace that is not named in the output.
    pub(super) own_netns: NetnsId,
    /// Time zone of the times.
    pub(super) zone: TimeZone,
}

const ADDRESS: usize = 22;

impl Text {
    pub(super) fn report(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let (explained, unexplained): (Vec<&Port>, Vec<&Port>) =
            report.ports.iter().partition(|port| port.is_explained());
        let (listed, findings): (Vec<&Finding>, Vec<&Finding>) =
            report.findings.iter().partition(|finding| finding.is_listed);
        let count =
            |n: usize, one: &str, more: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {more}") };
        writeln!(
            out,
            "{}: {} explained, {} not explained; {}",
            count(report.ports.len(), "port", "ports"),
            explained.len(),
            unexplained.len(),
            count(findings.len(), "finding", "findings"),
        )?;
        if !findings.is_empty() {
            self.heading("Findings", out)?;
            findings.iter().try_for_each(|finding| self.finding(finding, out))?;
        }
        if !unexplained.is_empty() {
            self.heading("Not explained", out)?;
            unexplained.iter().try_for_each(|port| self.port(port, out))?;
        }
        if !explained.is_empty() {
            self.heading("Explained", out)?;
            explained.iter().try_for_each(|port| self.port(port, out))?;
        }
        if !listed.is_empty() {
            writeln!(out, "\n{} listed in the baseline", count(listed.len(), "finding", "findings"))?;
        }
        for note in &report.notes {
            writeln!(out, "note: {}", escape::terminal(note))?;
        }
        Ok(())
    }

    /// Writes the time before a port or finding.
    pub(super) fn time(&self, time: Timestamp, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} ", time.to_zoned_datetime(self.zone.clone()).strftime("%T.%3f"))
    }

    pub(super) fn finding(&self, finding: &Finding, out: &mut dyn Write) -> io::Result<()> {
        let style = match finding.severity {
            Severity::Critical | Severity::High => AnsiColor::Red.on_default().bold(),
            Severity::Medium => AnsiColor::Yellow.on_default().bold(),
            Severity::Low | Severity::Info => Style::new().dimmed(),
        };
        let severity = format!("{:<8}", finding.severity.name());
        writeln!(
            out,
            "{} {}: {}{}",
            self.styled(&severity, style),
            finding.code.name(),
            escape::terminal(&finding.evidence),
            self.elsewhere(finding.place.netns)
        )?;
        writeln!(out, "         next: {}", escape::terminal(&finding.next))
    }

    pub(super) fn port(&self, port: &Port, out: &mut dyn Write) -> io::Result<()> {
        let server = &port.server;
        let local = on_device(server.local, server.proto, server.device_name);
        let service = server
            .service
            .as_deref()
            .map_or_else(String::new, |service| format!(" ({})", escape::terminal(service)));
        write!(out, "{} {local:<ADDRESS$} ", server.proto.name())?;
        match server.program() {
            Some(program) => write!(out, "{}", who(program))?,
            None => write!(out, "-")?,
        }
        writeln!(out, "{service}, {}{}", reach(server), self.elsewhere(Some(server.netns)))?;
        let (mark, style) = if port.is_explained() {
            ("by", Style::new())
        } else {
            ("unexplained", AnsiColor::Yellow.on_default().bold())
        };
        let by = port.by.iter().map(By::to_string).collect::<Vec<_>>().join("+");
        let mark = if by.is_empty() { mark.to_owned() } else { format!("{mark} {}", escape::terminal(&by)) };
        writeln!(out, "    {}: {}", self.styled(&mark, style), escape::terminal(&port.reasons.join("; ")))?;
        if let Some(program) = server.program() {
            writeln!(out, "    {}", described(program))?;
        }
        for line in history(server, &self.zone) {
            writeln!(out, "    {line}")?;
        }
        Ok(())
    }

    fn heading(&self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.styled(text, Style::new().bold()))
    }

    fn elsewhere(&self, netns: Option<NetnsId>) -> String {
        netns
            .filter(|netns| *netns != self.own_netns)
            .map_or_else(String::new, |netns| format!(" in network namespace {netns}"))
    }

    fn styled(&self, text: &str, style: Style) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

fn who(program: &Program) -> String {
    let process = &program.actor.process;
    format!("{}[{}]", escape::terminal(&process.comm), process.key.pid)
}

fn reach(server: &Server) -> &'static str {
    match server.reach() {
        Reach::Loopback => "reachable from this host only",
        Reach::Address => "reachable on one address",
        Reach::Device => "reachable on its interface only",
        Reach::All => "reachable on all addresses",
    }
}

/// Executable, package, user, unit, and parent.
fn described(program: &Program) -> String {
    let process = &program.actor.process;
    let mut parts = vec![program.exe().to_owned()];
    match (program.package(), program.answers()) {
        (Some(owner), _) => {
            let version = owner.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
            parts.push(format!("package {}{version}", owner.name));
        }
        (None, Ownership::Unknown) => {}
        (None, _) if program.script.is_some() => parts.push("its script is in no package".into()),
        (None, Ownership::Nobody | Ownership::Package(_)) => parts.push("in no package".into()),
    }
    parts.push(format!(
        "user {}",
        program.user.as_deref().map_or_else(|| process.uid.to_string(), Into::into)
    ));
    parts.extend(program.unit.iter().map(|unit| format!("unit {unit}")));
    parts.extend(program.container.iter().map(|container| format!("container {container}")));
    if let Some(parent) = process.ancestors().next() {
        parts.push(format!("started by {}[{}]", parent.comm, parent.key.pid));
    }
    parts.extend(process.auid.map(|auid| format!("login uid {auid}")));
    escape::terminal(&parts.join(", ")).into_owned()
}

fn history(server: &Server, zone: &TimeZone) -> Vec<String> {
    let Some(history) = &server.history else { return Vec::new() };
    let mut first = match history.since {
        Some(since) => {
            format!("listening since {}", since.to_zoned_datetime(zone.clone()).strftime("%F %T"))
        }
        None => "listening since before recording began".into(),
    };
    if let Some(parent) = history.by.as_ref().and_then(|(by, _)| by.process.ancestors().next()) {
        first.push_str(&format!(", started by {}[{}]", escape::terminal(&parent.comm), parent.key.pid));
    }
    let more = if history.more { "more than " } else { "" };
    let from: Vec<_> = history.from.iter().map(|(ip, count)| format!("{count} from {ip}")).collect();
    let visits = match history.connections {
        0 => "no connections since then".into(),
        1 if !history.more => format!("1 connection: {}", from.join(", ")),
        count => format!("{more}{count} connections: {}", from.join(", ")),
    };
    // No record says when a datagram socket was bound.
    if server.proto == Proto::Udp { vec![visits] } else { vec![first, visits] }
}
