//! Selects the events to show. Pure. A filter does not affect tracking: it is applied last.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use globset::GlobMatcher;
use ipnet::IpNet;

use crate::model::{DeviceName, Family, NetnsId, ProcessFacts, Proto, SockAddr, Socket, unmap};
use crate::origin::Side;
use crate::tracker::{ConnectionEvent, EventKind};
use crate::where_it_runs;

/// Conditions, combined with AND; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Pid of the process on this endpoint.
    pub pid: Option<u32>,
    /// Matched against its name and the path of its executable.
    pub process: Option<GlobMatcher>,
    /// Its effective user.
    pub uid: Option<u32>,
    /// Any of these ports, on either side. Empty: any port.
    pub ports: Vec<u16>,
    /// Local address.
    pub local: Option<AddressPattern>,
    /// Remote address.
    pub remote: Option<AddressPattern>,
    /// The originating side.
    pub origin: Option<Side>,
    /// Any of these kinds. Empty: any kind.
    pub kinds: Vec<EventKind>,
    /// Transport.
    pub proto: Option<Proto>,
    /// Only this family; IPv4-mapped is IPv4.
    pub family: Option<Family>,
    /// Container id or a prefix of one, or a name.
    pub container: Option<String>,
    /// Network namespace inode number.
    pub netns: Option<NetnsId>,
    /// Interface that the socket is bound to, or of its link-local addresses: name or index.
    pub device: Option<String>,
}

impl Filter {
    /// Whether an event passes.
    #[must_use]
    pub fn shows(&self, event: &ConnectionEvent) -> bool {
        let endpoint = &event.endpoint;
        let process = endpoint.process.as_ref().map(|actor| &actor.process.facts);
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.netns.is_none_or(|netns| netns == endpoint.netns)
            && self.family.is_none_or(|family| family == endpoint.family)
            && self.shows_device(endpoint, event.facts.device)
            && self.shows_socket(endpoint, endpoint.side(), process)
    }

    /// Whether a socket of a snapshot passes. Kinds of events, namespace and family are not considered. `side`: who
    /// originated it; `process`: who has it open.
    #[must_use]
    pub fn shows_socket(&self, socket: &Socket, side: Option<Side>, process: Option<&ProcessFacts>) -> bool {
        let ports = [Some(socket.local.port), socket.remote.map(|remote| remote.port)];
        self.proto.is_none_or(|proto| proto == socket.proto)
            && self.origin.is_none_or(|origin| side == Some(origin))
            && (self.ports.is_empty() || self.ports.iter().any(|port| ports.contains(&Some(*port))))
            && self.local.is_none_or(|pattern| pattern.fits(socket.local))
            && self.remote.is_none_or(|pattern| socket.remote.is_some_and(|remote| pattern.fits(remote)))
            && (!self.is_about_process() || process.is_some_and(|process| self.shows_process(process)))
    }

    /// Whether a socket with an interface of this name passes.
    #[must_use]
    pub fn shows_device(&self, socket: &Socket, name: Option<DeviceName>) -> bool {
        let is = |wanted: &String| {
            let has_name = name.is_some_and(|name| name.as_str() == wanted);
            has_name || socket.device.is_some_and(|device| device.index().to_string() == *wanted)
        };
        self.device.as_ref().is_none_or(is)
    }

    /// Whether events of a process may pass, by the conditions on processes.
    #[must_use]
    pub fn shows_process(&self, process: &ProcessFacts) -> bool {
        self.pid.is_none_or(|pid| process.key.pid == pid)
            && self.uid.is_none_or(|uid| process.uid == uid)
            && self.process.as_ref().is_none_or(|glob| is_called(process, glob))
            && self.container.as_ref().is_none_or(|id| is_in(process, id))
    }

    fn is_about_process(&self) -> bool {
        self.pid.is_some() || self.uid.is_some() || self.process.is_some() || self.container.is_some()
    }
}

fn is_called(process: &ProcessFacts, glob: &GlobMatcher) -> bool {
    glob.is_match(&*process.comm) || process.image.exe.as_deref().is_some_and(|exe| glob.is_match(exe))
}

/// A prefix of an id matches, since runtimes show ids truncated to twelve digits; a name has to match completely.
fn is_in(process: &ProcessFacts, id: &str) -> bool {
    const SHORTEST: usize = 12;
    let container = where_it_runs::of_cgroup(&process.cgroup).container;
    container.is_some_and(|container| {
        container == id || (id.len() >= SHORTEST && container.len() == 64 && container.starts_with(id))
    })
}

/// `CIDR[:PORT]`: `10.0.0.0/8`, `10.0.0.1:443`, `[fe80::]/10`, `[2001:db8::/32]:443`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    network: IpNet,
    port: Option<u16>,
}

impl AddressPattern {
    /// The address, if the network is a single one.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        (self.network.prefix_len() == self.network.max_prefix_len()).then(|| self.network.addr())
    }

    fn fits(self, endpoint: SockAddr) -> bool {
        self.network.contains(&endpoint.ip) && self.port.is_none_or(|port| port == endpoint.port)
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "[{}]:{port}", self.network),
            None => self.network.fmt(f),
        }
    }
}

/// The form of an address pattern, for error messages.
const FORM: &str = "not an address, CIDR or CIDR:PORT (an IPv6 address with a port stands in brackets)";

impl FromStr for AddressPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `10.0.0.0/8`, `fe80::/10`, `::1`, `10.0.0.1`
        if let Some(network) = network(text) {
            return Ok(Self { network, port: None });
        }
        let (address, port) = match text.strip_prefix('[') {
            // `[ADDRESS]…` or `[ADDRESS/BITS]…`, then `/BITS`, `:PORT`, or both.
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(FORM)?;
                let (bits, port) = match rest.split_once(':') {
                    Some((bits, port)) => (bits, Some(port)),
                    None => (rest, None),
                };
                (format!("{address}{bits}"), port)
            }
            None => {
                let (address, port) = text.rsplit_once(':').ok_or(FORM)?;
                (address.to_owned(), Some(port))
            }
        };
        let port = port.map(str::parse).transpose().map_err(|_| "the port is not a number up to 65535")?;
        Ok(Self { network: network(&address).ok_or(FORM)?, port })
    }
}

fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network),
        // A single address; IPv4-mapped ones are converted to IPv4.
        Err(_) => text.parse::<IpAddr>().ok().map(|ip| IpNet::from(unmap(ip).0)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::at;
    use crate::origin::Verdict;
    use crate::process::{Actor, Process};
    use crate::tracker::tests::event;

    fn fits(pattern: &str, endpoint: &str) -> bool {
        pattern.parse::<AddressPattern>().unwrap().fits(at(endpoint))
    }

    #[test]
    fn address_patterns() {
        assert!(fits("10.0.0.0/8", "10.1.2.3:5"));
        assert!(!fits("10.0.0.0/8", "11.1.2.3:5"));
        assert!(fits("10.0.0.0/8:443", "10.1.2.3:443"));
        assert!(!fits("10.0.0.0/8:443", "10.1.2.3:80"));
        assert!(fits("10.1.2.3", "10.1.2.3:1") && !fits("10.1.2.3", "10.1.2.4:1"));
        assert!(fits("10.1.2.3:1", "10.1.2.3:1") && !fits("10.1.2.3:1", "10.1.2.3:2"));
        assert!(fits("::1", "[::1]:9") && fits("fe80::/10", "[fe80::5]:9"));
        assert!(fits("[::1]", "[::1]:9") && fits("[::1]:9", "[::1]:9") && !fits("[::1]:8", "[::1]:9"));
        assert!(fits("[fe80::]/10:9", "[fe80::5]:9") && fits("[fe80::/10]:9", "[fe80::5]:9"));
        assert!(fits("::ffff:10.1.2.3", "10.1.2.3:1"));
        assert!(fits("0.0.0.0/0", "10.1.2.3:1") && !fits("0.0.0.0/0", "[::1]:1"));
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.1:",
            "10.0.0.1:99999",
            "[::1",
            "[::1]:",
            "[::1]x",
            ":80",
            "::1/129",
        ] {
            assert!(bad.parse::<AddressPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:443"));
        open.endpoint.verdict = Verdict::CONNECT;
        let mut process = Process::clone(&crate::process::tests::process(77, None));
        process.uid = 5;
        process.cgroup = format!("/docker/{}", "a1".repeat(32)).into();
        open.endpoint.process = Some(Actor::leader(process.into()));
        let listen = event(EventKind::Listen, "0.0.0.0:443", None);
        let glob = |text| Some(globset::Glob::new(text).unwrap().compile_matcher());
        let none = Filter::default;
        let cases: Vec<(Filter, [bool; 2])> = vec![
            (none(), [true, true]),
            (Filter { kinds: vec![EventKind::Open, EventKind::Close], ..none() }, [true, false]),
            (Filter { ports: vec![1, 443], ..none() }, [true, true]),
            (Filter { ports: vec![40000], ..none() }, [true, false]),
            (Filter { origin: Some(Side::Local), ..none() }, [true, false]),
            (Filter { origin: Some(Side::Unknown), ..none() }, [false, false]),
            (Filter { pid: Some(77), ..none() }, [true, false]),
            (Filter { uid: Some(5), ..none() }, [true, false]),
            (Filter { uid: Some(6), ..none() }, [false, false]),
            (Filter { process: glob("p7*"), ..none() }, [true, false]),
            (Filter { process: glob("q*"), ..none() }, [false, false]),
            (Filter { container: Some("a1".repeat(6)), ..none() }, [true, false]),
            (Filter { container: Some("a1".repeat(5)), ..none() }, [false, false]),
            (Filter { netns: Some(NetnsId::new(1)), ..none() }, [true, true]),
            (Filter { netns: Some(NetnsId::new(2)), ..none() }, [false, false]),
            (Filter { proto: Some(Proto::Udp), ..none() }, [false, false]),
            (Filter { family: Some(Family::Ipv6), ..none() }, [false, false]),
            (Filter { local: "10.0.0.1".parse().ok(), ..none() }, [true, false]),
            (Filter { remote: "10.0.0.0/24:443".parse().ok(), ..none() }, [true, false]),
            (Filter { pid: Some(77), ports: vec![1], ..none() }, [false, false]),
        ];
        for (filter, expected) in cases {
            assert_eq!([filter.shows(&open), filter.shows(&listen)], expected, "{filter:?}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(text in r"[\[\]0-9a-f:./]{0,24}") {
            if let Ok(pattern) = text.parse::<AddressPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }
    }
}
