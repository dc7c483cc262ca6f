//! Patterns of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::model::{SockAddr, unmap};

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

    pub(super) fn fits(self, endpoint: SockAddr) -> bool {
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
