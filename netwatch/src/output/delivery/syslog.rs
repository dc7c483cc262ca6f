//! Messages of syslog, RFC 5424, with structured data: the keys are those of `--filter`.

use std::fmt::Display;
use std::io::{self, Write as _};

use super::{Line, Severity};
use crate::escape;
use crate::output::{LogOptions, time_of};
use crate::stream::{Context, Item};
use crate::tracker::ConnectionEvent;
use crate::{errno, where_it_runs};

/// The number that RFC 5612 reserves for documentation: netwatch has none of its own.
const ENTERPRISE: u32 = 32473;

/// A facility, RFC 5424, section 6.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// System daemons.
    pub const DAEMON: Self = Self(3);

    /// Names, with numbers.
    const NAMES: [(&str, u8); 12] = [
        ("user", 1),
        ("daemon", 3),
        ("auth", 4),
        ("authpriv", 10),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
    ];

    /// The facility with this name.
    ///
    /// # Errors
    /// Lists the names.
    pub fn parse(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        let names = || Self::NAMES.map(|(name, _)| name).join(", ");
        known.map(|(_, number)| Self(*number)).ok_or_else(|| format!("one of {}", names()))
    }
}

/// Renders messages.
pub struct Syslog {
    line: Line,
    facility: Facility,
    /// The host and the process, as in each header.
    header: String,
    run: String,
}

impl Syslog {
    /// `run` names this run of netwatch, of which each message has a number.
    #[must_use]
    pub fn new(options: &LogOptions, facility: Facility, host: &str, run: &str) -> Self {
        let is_printable = |c: char| c.is_ascii_graphic();
        let host: String = host.chars().filter(|c| is_printable(*c)).take(255).collect();
        let host = if host.is_empty() { "-" } else { &*host };
        let header = format!("{host} netwatch {}", std::process::id());
        Self { line: Line::new(options), facility, header, run: run.to_owned() }
    }

    /// Appends the message of an item. Returns whether there is one.
    ///
    /// # Errors
    /// If it cannot be rendered.
    pub fn item(&mut self, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some((seq, text)) = self.line.of(item, context)? else { return Ok(false) };
        let priority = self.facility.0 * 8 + Severity::of(item) as u8;
        let time = time_of(item, context);
        write!(out, "<{priority}>1 {time:.6} {} {} ", self.header, item.kind())?;
        // Section 7.3.1: from 1 to 2147483647, and then from 1 again.
        write!(out, "[meta sequenceId=\"{}\"]", (seq - 1) % 2_147_483_647 + 1)?;
        write!(out, "[netwatch@{ENTERPRISE}")?;
        let mut data = Data(out);
        data.param("run", &self.run)?;
        data.param("seq", seq)?;
        match item {
            Item::Event(event) => data.event(event, context)?,
            Item::Loss(_, loss) => {
                data.param("reason", loss.reason.name())?;
                data.param("count", loss.count())?;
            }
            Item::Alert(alert) => {
                data.param("rule", &alert.rule.id)?;
                data.param("level", alert.rule.level.name())?;
                if let Some(about) = &alert.about {
                    data.param("connection", format_args!("{}-{}", context.boot, about.id))?;
                }
            }
            Item::Ready(_) | Item::Process(..) | Item::Exec(..) | Item::Table(_) => {}
        }
        out.extend_from_slice(b"] ");
        out.extend_from_slice(text);
        Ok(true)
    }
}

/// The parameters of an element.
struct Data<'a>(&'a mut Vec<u8>);

impl Data<'_> {
    fn event(&mut self, event: &ConnectionEvent, context: &Context) -> io::Result<()> {
        let endpoint = &event.endpoint;
        self.param("id", format_args!("{}-{}", context.boot, endpoint.id))?;
        self.param("flow", format_args!("{}-{}", context.boot, endpoint.flow))?;
        self.param("proto", endpoint.proto.name())?;
        self.param("netns", endpoint.netns)?;
        self.param("local", endpoint.local)?;
        self.option("remote", endpoint.remote)?;
        if endpoint.remote.is_some() {
            let verdict = endpoint.verdict;
            self.param("origin", verdict.side.name())?;
            self.param("basis", verdict.basis.name())?;
            self.param("confidence", verdict.confidence.name())?;
        }
        if let Some(process) = endpoint.process.as_ref().map(|actor| &actor.process) {
            self.param("pid", process.key.pid)?;
            self.param("process", &process.comm)?;
            self.option("exe", process.image.exe.as_deref())?;
            self.param("uid", process.uid)?;
            self.option("user", context.users.get(&process.uid).and_then(Option::as_deref))?;
            let place = where_it_runs::of_cgroup(&process.cgroup);
            self.option("container", place.container)?;
            self.option("unit", place.unit)?;
        }
        self.option("errno", event.outcome.errno.map(errno::name))?;
        self.option("closed_by", event.outcome.closed_by.map(|by| by.name()))
    }

    fn option(&mut self, name: &str, value: Option<impl Display>) -> io::Result<()> {
        value.map_or(Ok(()), |value| self.param(name, value))
    }

    /// Section 6.3.3: these three are escaped. Controls are, too, since receivers end a message at a newline.
    fn param(&mut self, name: &str, value: impl Display) -> io::Result<()> {
        write!(self.0, " {name}=\"")?;
        for c in escape::terminal(&value.to_string()).chars() {
            if matches!(c, '"' | '\\' | ']') {
                self.0.push(b'\\');
            }
            write!(self.0, "{c}")?;
        }
        self.0.push(b'"');
        Ok(())
    }
}
