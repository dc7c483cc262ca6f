//! The tools that netwatch is compared with, from Debian's packages.

use std::path::PathBuf;

use crate::exec::{find, step};
use crate::setup;

/// Programs, and the packages that they come in.
const PEERS: [(&str, &str); 4] =
    [("ss", "iproute2"), ("netstat", "net-tools"), ("tcplife", "libbpf-tools"), ("bpftrace", "bpftrace")];

/// Installs what is missing and can be had; what cannot is skipped, and said where it would be measured.
pub(crate) fn install(verbose: bool) {
    for (program, package) in PEERS {
        if find(program).is_none()
            && let Err(error) = setup::install(&[package], "netwatch is measured beside it", verbose)
        {
            step(&format!("{program} is not to be had: {error:#}"));
        }
    }
}

/// Path of a peer.
pub(crate) fn peer(program: &str) -> Option<PathBuf> {
    find(program)
}
