//! Host names for `--resolve`. Each address is resolved once, many at a time, and within a deadline in all: a name server
//! that does not answer costs no more than that.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use crate::{escape, limits};

/// `NI_MAXHOST` of <netdb.h>.
const LONGEST: usize = 1025;

/// The name of each address except wildcards; the address itself if it has no name.
pub(super) fn hosts(addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, String> {
    hosts_by(addresses, ask)
}

/// `ask` may block for any time; what it answers after the deadline is not waited for.
fn hosts_by(
    addresses: impl Iterator<Item = IpAddr>,
    ask: fn(IpAddr) -> Option<String>,
) -> HashMap<IpAddr, String> {
    let deadline = Instant::now() + limits::NAMES;
    let addresses: BTreeSet<IpAddr> = addresses.filter(|ip| !ip.is_unspecified()).collect();
    let mut hosts: HashMap<IpAddr, String> = addresses.iter().map(|ip| (*ip, ip.to_string())).collect();
    let open = Arc::new(Mutex::new(addresses.into_iter().collect::<Vec<_>>()));
    let (answers, answered) = mpsc::channel();
    for _ in 0..limits::MOST_RESOLVERS.min(hosts.len()) {
        let (open, answers) = (open.clone(), answers.clone());
        // Where there cannot be more threads, those that there are do the work.
        let _ = thread::Builder::new().name("netwatch-names".into()).spawn(move || {
            loop {
                let next = open.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(ip) = next else { break };
                if answers.send((ip, ask(ip))).is_err() {
                    break;
                }
            }
        });
    }
    drop(answers);
    while let Ok((ip, name)) = answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(name) = name {
            hosts.insert(ip, name);
        }
    }
    hosts
}

/// Resolves an address by the sources of nsswitch.conf(5).
fn ask(ip: IpAddr) -> Option<String> {
    let address = SockaddrStorage::from(SocketAddr::new(ip, 0));
    let mut host = [0u8; LONGEST];
    // SAFETY: both pointers are valid for the lengths passed with them; no service name is requested.
    let status = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            host.as_mut_ptr().cast(),
            libc::socklen_t::try_from(host.len()).ok()?,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    (status == 0).then(|| name_in(&host))?
}

/// The name in a buffer; `None` if there was no room for it.
fn name_in(host: &[u8]) -> Option<String> {
    Some(escape::utf8(CStr::from_bytes_until_nul(host).ok()?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name server that never answers delays only its own addresses, and those no longer than the deadline.
    #[test]
    fn silent_name_server_costs_the_deadline() {
        let began = Instant::now();
        let asked = (0..=255).flat_map(|a| (0..4).map(move |b| IpAddr::from([10, 0, a, b])));
        let hosts = hosts_by(asked, |ip| {
            if ip == IpAddr::from([10, 0, 0, 1]) {
                return Some("named".into());
            }
            loop {
                thread::park();
            }
        });
        assert!(began.elapsed() >= limits::NAMES);
        assert_eq!(hosts.len(), 1024);
        assert_eq!(hosts.get(&IpAddr::from([10, 0, 9, 1])).map(String::as_str), Some("10.0.9.1"));
    }

    #[test]
    fn name_that_is_too_long_is_none() {
        let mut host = [b'x'; LONGEST];
        assert_eq!(name_in(&host), None);
        host[LONGEST - 1] = 0;
        assert_eq!(name_in(&host).map(|name| name.len()), Some(LONGEST - 1));
    }

    #[test]
    fn loopback_has_a_name_and_a_wildcard_has_none() {
        let asked = [[127, 0, 0, 1], [0, 0, 0, 0], [240, 0, 0, 9]].map(IpAddr::from);
        let hosts = hosts(asked.into_iter());
        let [loopback, wildcard, reserved] = asked.map(|ip| hosts.get(&ip).map(String::as_str));
        assert_eq!(loopback, Some("localhost"));
        assert_eq!(wildcard, None);
        // 240/4 is reserved, so it has no names.
        assert_eq!(reserved, Some("240.0.0.9"));
    }
}
