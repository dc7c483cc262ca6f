//! The baseline: what somebody looked at and found to be as it should be. TOML, made to be read, commented and reviewed:
//! one `[[port]]` or `[[finding]]` for each, and what an entry does not say may be anything.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use super::facts::{Program, Server};
use super::{By, Code, Finding, Port, Report};
use crate::model::{Proto, SockAddr};

/// What the baseline says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listed {
    /// It is listed.
    Listed,
    /// Its place is, with another program or user.
    Changed,
    /// It is not.
    New,
}

/// A baseline that was read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    #[serde(default)]
    port: Vec<PortEntry>,
    #[serde(default)]
    finding: Vec<FindingEntry>,
}

/// Where something is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
enum Address {
    Any,
    Is(IpAddr),
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "any" => Ok(Self::Any),
            text => text.parse().map(Self::Is).map_err(|_| format!("{text:?}: an IP address, or \"any\"")),
        }
    }
}

/// A finding's code.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Named(Code);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let code = Code::ALL.into_iter().find(|code| code.name() == text);
        code.map(Self).ok_or_else(|| format!("no finding is called {text:?}"))
    }
}

/// A port, or any.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged, expecting = "a port from 1 to 65535, or \"any\"")]
enum Number {
    Is(std::num::NonZeroU16),
    Any(Any),
}

/// The word.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Any {
    Any,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortEntry {
    proto: Transport,
    address: Address,
    port: Number,
    exe: Option<String>,
    user: Option<String>,
    unit: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingEntry {
    code: Named,
    proto: Option<Transport>,
    address: Option<Address>,
    port: Option<Number>,
    exe: Option<String>,
    user: Option<String>,
    unit: Option<String>,
}

impl Address {
    fn takes(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Any) || *self == Self::Is(ip)
    }
}

impl Number {
    fn takes(&self, port: u16) -> bool {
        match self {
            Self::Any(_) => true,
            Self::Is(number) => number.get() == port,
        }
    }
}

impl Transport {
    const fn is(self, proto: Proto) -> bool {
        matches!((self, proto), (Self::Tcp, Proto::Tcp) | (Self::Udp, Proto::Udp))
    }
}

/// Who it is: each that is said has to fit.
struct Who<'a> {
    exe: Option<&'a str>,
    user: Option<&'a str>,
    unit: Option<&'a str>,
}

impl Who<'_> {
    fn is(&self, program: Option<&Program>) -> bool {
        let fits = |said: Option<&str>, of: &dyn Fn(&Program) -> Option<String>| {
            said.is_none_or(|said| program.and_then(of).as_deref() == Some(said))
        };
        let is_nobody = self.exe == Some(NOBODY) && program.is_none();
        is_nobody
            || fits(self.exe, &|program| program.actor.process.image.exe.as_deref().map(Into::into))
                && fits(self.user, &|program| Some(user(program)))
                && fits(self.unit, &|program| program.unit.clone())
    }
}

/// Stands for an executable where nobody could be seen.
const NOBODY: &str = "none";

/// By name where it has one.
fn user(program: &Program) -> String {
    program.user.as_deref().map_or_else(|| program.actor.process.uid.to_string(), Into::into)
}

impl PortEntry {
    fn is_at(&self, server: &Server) -> bool {
        self.proto.is(server.proto)
            && self.address.takes(server.local.ip)
            && self.port.takes(server.local.port)
    }

    fn who(&self) -> Who<'_> {
        Who { exe: self.exe.as_deref(), user: self.user.as_deref(), unit: self.unit.as_deref() }
    }

    fn is_of(&self, server: &Server) -> bool {
        let program = server.program().map(|program| &**program);
        self.who().is(program)
    }
}

impl FindingEntry {
    fn takes(&self, finding: &Finding) -> bool {
        let place = &finding.place;
        let who = Who { exe: self.exe.as_deref(), user: self.user.as_deref(), unit: self.unit.as_deref() };
        self.code.0 == finding.code
            && self.proto.is_none_or(|proto| place.proto.is_some_and(|of| proto.is(of)))
            && self.address.as_ref().is_none_or(|address| place.local.is_some_and(|at| address.takes(at.ip)))
            && self.port.as_ref().is_none_or(|port| place.local.is_some_and(|at| port.takes(at.port)))
            && who.is(place.program.as_deref())
    }
}

impl fmt::Display for PortEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = if self.proto == Transport::Tcp { "tcp" } else { "udp" };
        match (&self.address, &self.port) {
            (Address::Any, Number::Any(_)) => write!(f, "{proto} on any address and port")?,
            (Address::Any, Number::Is(port)) => write!(f, "{proto} port {port} on any address")?,
            (Address::Is(ip), Number::Any(_)) => write!(f, "{proto} on any port of {ip}")?,
            (Address::Is(ip), Number::Is(port)) => {
                write!(f, "{proto} {}", SockAddr { ip: *ip, port: port.get() })?;
            }
        }
        for (name, said) in [("", &self.exe), ("as ", &self.user), ("in ", &self.unit)] {
            if let Some(said) = said {
                write!(f, " {name}{said}")?;
            }
        }
        Ok(())
    }
}

impl Baseline {
    /// Reads one; what is wrong with it as one line, with its line and key.
    ///
    /// # Errors
    /// Where it is no TOML, or has what no baseline has.
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            format!("{line}: {}", error.message().split_whitespace().collect::<Vec<_>>().join(" "))
        })
    }

    /// How many findings it lists.
    #[cfg(test)]
    pub(super) fn findings(&self) -> usize {
        self.finding.len()
    }

    /// Explains what is listed, and says what is new or changed. Returns what is listed and not there.
    pub(super) fn apply(&self, ports: &mut [Port], findings: &mut [Finding]) -> Vec<String> {
        let mut used = vec![false; self.port.len()];
        for port in ports {
            let here: Vec<_> =
                self.port.iter().enumerate().filter(|(_, entry)| entry.is_at(&port.server)).collect();
            let fits = here.iter().find(|(_, entry)| entry.is_of(&port.server));
            if let Some((nth, _)) = fits.or(here.first())
                && let Some(used) = used.get_mut(*nth)
            {
                *used = true;
            }
            port.listed = Some(match (fits, here.first()) {
                (Some(_), _) => {
                    if !port.is_explained() {
                        port.reasons.clear();
                    }
                    port.by.push(By::Baseline);
                    port.reasons.push("the baseline lists it".into());
                    Listed::Listed
                }
                (None, Some((_, entry))) => {
                    port.reasons.push(format!("changed: the baseline has {entry}"));
                    Listed::Changed
                }
                (None, None) => {
                    port.reasons.push("new: the baseline does not list it".into());
                    Listed::New
                }
            });
        }
        for finding in findings {
            finding.is_listed = self.finding.iter().any(|entry| entry.takes(finding));
        }
        let unused = self.port.iter().zip(used).filter(|(_, used)| !used);
        unused.map(|(entry, _)| format!("the baseline lists {entry}: nothing listens there now")).collect()
    }
}

/// Writes what a report has as a baseline.
#[must_use]
pub fn write(report: &Report, host: &str, time: &str) -> String {
    let mut out = format!(
        "# What listens on {host}, and what was found, as of {time}. Made by netwatch audit --write-baseline.\n\
         # Each entry says that this is as it should be: read them, say why in a comment, and take out what is not.\n\
         # Without exe, user or unit an entry takes any; address and port may be \"any\"; exe = \"none\": nobody is seen to\n\
         # have it open, as of the kernel's own.\n",
        host = one_line(host)
    );
    for port in &report.ports {
        let server = &port.server;
        let why = if port.is_explained() { "explained: " } else { "NOT EXPLAINED: " };
        out.push_str(&format!("\n# {why}{}\n[[port]]\n", one_line(&port.reasons.join("; "))));
        pair(&mut out, "proto", server.proto.name());
        place(&mut out, server.local, server.is_ephemeral);
        who(&mut out, server.program().map(|program| &**program));
    }
    for finding in report.findings.iter() {
        let at = &finding.place;
        let said = one_line(&finding.evidence);
        out.push_str(&format!("\n# {}: {said}\n", finding.severity.name()));
        // Whoever lists it would hide the next.
        if finding.code == Code::ViewsDisagree {
            out.push_str("# no entry is made of this: look into it\n");
            continue;
        }
        out.push_str("[[finding]]\n");
        pair(&mut out, "code", finding.code.name());
        if let Some(proto) = at.proto {
            pair(&mut out, "proto", proto.name());
        }
        if let Some(local) = at.local {
            place(&mut out, local, is_ephemeral(report, finding));
        }
        who(&mut out, at.program.as_deref());
    }
    out
}

/// Whether the port of a finding is one that the kernel gave, so that it is another next time.
fn is_ephemeral(report: &Report, finding: &Finding) -> bool {
    let at = &finding.place;
    let of = |port: &&Port| {
        let server = &port.server;
        (Some(server.proto), Some(server.local), Some(server.netns)) == (at.proto, at.local, at.netns)
    };
    // Of a connection that somebody began the port is always such.
    report.ports.iter().find(of).is_none_or(|port| port.server.is_ephemeral)
}

fn place(out: &mut String, local: SockAddr, is_ephemeral: bool) {
    pair(out, "address", &local.ip.to_string());
    if is_ephemeral {
        out.push_str("port = \"any\" # it changes: the kernel gave it\n");
    } else {
        out.push_str(&format!("port = {}\n", local.port));
    }
}

/// The unit where there is one, which says more than a user.
fn who(out: &mut String, program: Option<&Program>) {
    let Some(program) = program else { return pair(out, "exe", NOBODY) };
    if let Some(exe) = &program.actor.process.image.exe {
        pair(out, "exe", exe);
    }
    match &program.unit {
        Some(unit) => pair(out, "unit", unit),
        None => pair(out, "user", &user(program)),
    }
}

fn pair(out: &mut String, key: &str, value: &str) {
    out.push_str(&format!("{key} = {}\n", toml::Value::String(value.into())));
}

/// A comment ends with its line, so nothing from outside may end it.
fn one_line(text: &str) -> String {
    crate::escape::terminal(text).into_owned()
}
