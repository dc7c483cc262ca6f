//! Host names for `--resolve`. Each address is resolved once.

use std::collections::HashMap;
use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use crate::escape;

/// `NI_MAXHOST` of <netdb.h>.
const LONGEST: usize = 1025;

/// The name of each address except wildcards; the address itself if it has no name.
pub(super) fn hosts(addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, String> {
    let mut hosts = HashMap::new();
    for ip in addresses.filter(|ip| !ip.is_unspecified()) {
        hosts.entry(ip).or_insert_with(|| ask(ip).unwrap_or_else(|| ip.to_string()));
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
    let name = CStr::from_bytes_until_nul(&host).ok()?;
    (status == 0).then(|| escape::utf8(name.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
