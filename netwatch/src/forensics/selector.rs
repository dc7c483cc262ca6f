//! What to trace.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Life;
use crate::model::{BootTime, SockAddr, unmap};
use crate::process::Actor;
use crate::tracker::EndpointId;

/// Selects connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `:PORT`, on either side.
    Port(u16),
    /// `IP`, on either side.
    Ip(IpAddr),
    /// `IP:PORT` or `[IP6]:PORT`, on either side.
    SockAddr(SockAddr),
    /// `pid:N`: a process with this pid had or originated it.
    Pid(u32),
    /// `exe:PATH`: a process with this executable had or originated it.
    Exe(String),
    /// `comm:NAME`: a process with this name had or originated it.
    Comm(String),
    /// `NAME` with a dot, or `name:NAME`: a host of that name, on either side.
    Name(String),
    /// `id:CONN`, the id of an event: boot and endpoint.
    Id(String, EndpointId),
}

/// Valid forms, for error messages.
const FORM: &str = ":PORT, IP, IP:PORT, [IP6]:PORT, pid:N, exe:PATH, comm:NAME, a host name with a dot, name:NAME or id:CONN (the id of an event)";

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| format!("{what}; expected {FORM}");
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(unmap(ip).0));
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Port).map_err(|_| wrong("the port is not a number up to 65535"));
        }
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self::SockAddr(SockAddr { ip: unmap(address.ip()).0, port: address.port() }));
        }
        match text.split_once(':') {
            Some(("pid", pid)) => pid.parse().map(Self::Pid).map_err(|_| wrong("the pid is not a number")),
            Some(("exe", exe)) if !exe.is_empty() => Ok(Self::Exe(exe.into())),
            Some(("comm", comm)) if !comm.is_empty() => Ok(Self::Comm(comm.into())),
            Some(("name", name)) => host(name).map(Self::Name).ok_or_else(|| wrong("not the name of a host")),
            Some(("id", id)) => {
                self::id(id).map(|(boot, id)| Self::Id(boot, id)).ok_or_else(|| wrong("not an id"))
            }
            None if text.contains('.') => {
                host(text).map(Self::Name).ok_or_else(|| wrong("not the name of a host"))
            }
            _ => Err(wrong("not a selector")),
        }
    }
}

/// A name as [`crate::names::HostName`] has it.
fn host(text: &str) -> Option<String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "-_.\\".contains(c);
    let name = text.strip_suffix('.').unwrap_or(text);
    let has_labels = name.split('.').all(|label| !label.is_empty());
    // An address that is not valid is no name.
    let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    (has_labels && !is_number && name.chars().all(is_valid)).then(|| name.to_ascii_lowercase())
}

/// `BOOT-COOKIE-BEGAN`
fn id(text: &str) -> Option<(String, EndpointId)> {
    let mut parts = text.split('-');
    let boot = parts.next()?.to_owned();
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let id = EndpointId { cookie: number()?, began: BootTime::from_nanos(number()?) };
    parts.next().is_none().then_some((boot, id))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, ":{port}"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::SockAddr(endpoint) => write!(f, "{endpoint}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Exe(exe) => write!(f, "exe:{exe}"),
            Self::Comm(comm) => write!(f, "comm:{comm}"),
            Self::Name(name) if name.contains('.') => f.write_str(name),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Id(boot, id) => write!(f, "id:{boot}-{id}"),
        }
    }
}

impl Selector {
    /// Whether the selector matches. It never matches a listener.
    #[must_use]
    pub fn means(&self, life: &Life) -> bool {
        let end = life.end();
        let Some(remote) = end.remote else { return false };
        let either = |is: &dyn Fn(SockAddr) -> bool| is(end.local) || is(remote);
        let process = |is: &dyn Fn(&Actor) -> bool| {
            life.uses().any(|used| is(used.actor)) || end.originator.as_ref().is_some_and(is)
        };
        match self {
            Self::Port(port) => either(&|at| at.port == *port),
            Self::Ip(ip) => either(&|at| at.ip == *ip),
            Self::SockAddr(endpoint) => either(&|at| at == *endpoint),
            Self::Pid(pid) => process(&|actor| actor.process.key.pid == *pid),
            Self::Exe(exe) => process(&|actor| actor.process.image.exe.as_deref() == Some(exe)),
            Self::Comm(comm) => process(&|actor| *actor.process.comm == **comm),
            Self::Name(name) => end.names.iter().any(|known| *known.name == **name),
            Self::Id(boot, id) => *life.boot == **boot && end.id == *id,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_are_read_and_spelled() {
        for text in [
            ":443",
            "10.0.0.1",
            "10.0.0.1:443",
            "::1",
            "[::1]:443",
            "pid:7",
            "exe:/usr/bin/curl",
            "comm:a:b",
            "www.example.org",
            "name:db1",
            "id:0123abcd-2a-ff",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        assert_eq!("::ffff:10.0.0.1".parse(), Ok(Selector::Ip([10, 0, 0, 1].into())));
        assert_eq!("WWW.Example.org.".parse(), Ok(Selector::Name("www.example.org".into())));
        for bad in [
            "1.2.3",
            "1.2.3.4.5",
            "a..b",
            ".",
            "a.b/c",
            "name:",
            "name:a b",
            "",
            ":",
            ":70000",
            "pid:x",
            "exe:",
            "id:1-2",
            "id:a-b-c-d",
            "id:a-x-1",
            "443",
            "host:443",
        ] {
            let error = bad.parse::<Selector>().unwrap_err();
            assert!(error.contains("IP:PORT"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"[:\[\]0-9a-fidpx./-]{0,24}") {
            let _ = text.parse::<Selector>();
        }
    }
}
