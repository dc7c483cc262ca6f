//! An address that changes while connect(2) reads it.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;

use crate::{Actor, tcp};

/// The least number of connections, and the most if all of them go the same way: then the other thread was not running.
const LEAST: usize = 100;
const MOST: u16 = 900;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let ["rewrite", first, second, local_port] = words else { return None };
    Some(rewrite(actor, first, second, local_port))
}

/// What the kernel reads: a `struct sockaddr_in` whose family, port and address change all at once.
#[repr(C)]
struct Shared {
    address: AtomicU64,
    zero: u64,
}

fn bits(address: SocketAddrV4) -> u64 {
    let [port_high, port_low] = address.port().to_be_bytes();
    let [a, b, c, d] = address.ip().octets();
    let [family_low, family_high] = 2_u16.to_ne_bytes();
    u64::from_ne_bytes([family_low, family_high, port_high, port_low, a, b, c, d])
}

/// Connects from one port after another while another thread swaps the addresses. Answers with the peer of each
/// according to the kernel, or its errno.
fn rewrite(actor: &mut Actor, first: &str, second: &str, local_port: &str) -> Result<String> {
    let (first, second): (SocketAddrV4, SocketAddrV4) = (first.parse()?, second.parse()?);
    let local_port: u16 = local_port.parse()?;
    let shared = Shared { address: AtomicU64::new(bits(first)), zero: 0 };
    let stop = AtomicBool::new(false);
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                shared.address.store(bits(second), Ordering::Relaxed);
                shared.address.store(bits(first), Ordering::Relaxed);
            }
        });
        let mut all = || -> Result<()> {
            // An emulator runs one thread at a time: more tries are useless.
            let most = if tests::is_emulated() { MOST / 4 } else { MOST };
            for port in local_port..local_port + most {
                let fd = tcp::tcp_socket(Some(format!("0.0.0.0:{port}").parse()?), first.into(), &[])?;
                let (address, length) = ((&raw const shared).cast(), size_of::<Shared>().try_into()?);
                // SAFETY: the pointer is to a whole address of the given length; the other thread writes whole
                // addresses.
                let status = unsafe { libc::connect(fd.as_raw_fd(), address, length) };
                got.push(match Errno::result(status) {
                    Ok(_) => {
                        actor.push(fd);
                        actor.stream()?.peer_addr()?.to_string()
                    }
                    Err(errno) => format!("{errno:?}"),
                });
                if got.len() >= LEAST && got.iter().any(|it| got.first() != Some(it)) {
                    break;
                }
            }
            Ok(())
        };
        let result = all();
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    assert_eq!(shared.zero, 0, "nobody writes there");
    Ok(got.join(" "))
}
