//! The tools that netwatch is compared with, from Debian's packages.

use std::path::PathBuf;

use crate::exec::{find, step};
use crate::setup;

/// Programs, and the packages that contain them.
const PEERS: [(&str, &str); 4] =
    [("ss", "iproute2"), ("netstat", "net-tools"), ("tcplife", "libbpf-tools"), ("bpftrace", "bpftrace")];

/// Installs those that are missing, if possible; otherwise their measurements are skipped, which is reported there.
pub(crate) fn install(verbose: bool) {
    for (program, package) in PEERS {
        if find(program).is_none()
            && let Err(error) = setup::install(&[package], "netwatch is compared with it", verbose)
        {
            step(&format!("{program} is not available: {error:#}"));
        }
    }
}

/// Path of a peer.
pub(crate) fn peer(program: &str) -> Option<PathBuf> {
    find(program)
}
