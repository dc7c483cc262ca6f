//! MPTCP sockets.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::AddressFamily;

/// A new one; nix does not know the protocol.
///
/// # Errors
/// `EPROTONOSUPPORT` if the kernel has no MPTCP.
pub fn mptcp_socket(family: AddressFamily) -> Result<OwnedFd> {
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: three integers go in, and a new descriptor comes out.
    let fd = Errno::result(unsafe { libc::socket(family as libc::c_int, stream, libc::IPPROTO_MPTCP) })?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
