//! Network namespaces. A namespace belongs to a thread here: what the thread starts is in there too.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `test` on a thread of its own in a fresh network namespace with loopback up.
///
/// # Panics
/// When there is none to be had, and as `test` does.
pub fn in_fresh_netns(test: impl FnOnce() + Send) {
    Netns::fresh().inside(test);
}

/// Inode number of the calling thread's namespace, as netwatch spells it.
///
/// # Panics
/// When `/proc` is not mounted.
#[must_use]
pub fn netns() -> u64 {
    std::fs::metadata(OWN).expect("/proc is mounted").ino()
}

/// A namespace that lives as long as this does.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// One with nothing but loopback, which is up.
    ///
    /// # Panics
    /// When there is none to be had.
    #[must_use]
    pub fn fresh() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run the end-to-end tests as root");
            ip("link set lo up");
            File::open(OWN).expect("/proc is mounted")
        });
        Self(made.join().expect("a network namespace"))
    }

    /// Runs `work` on a thread in there.
    ///
    /// # Panics
    /// As `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("a namespace to enter");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its inode number, as netwatch spells it.
    ///
    /// # Panics
    /// Never, while it is open.
    #[must_use]
    pub fn inum(&self) -> u64 {
        self.0.metadata().expect("an open file").ino()
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Connects two namespaces by a pair of interfaces, both called `veth`, up, with these addresses. They
/// speak to nobody unasked (no IPv6 on them) and know each other without asking (no ARP), so that what a
/// test sends is all that passes.
///
/// # Panics
/// When that fails.
pub fn veth(a: &Netns, a_address: &str, b: &Netns, b_address: &str) {
    const A_MAC: &str = "02:00:00:00:00:0a";
    const B_MAC: &str = "02:00:00:00:00:0b";
    a.inside(|| {
        ip(&format!("link add name veth type veth peer name veth netns {}", b.path()));
    });
    for (here, mac, address, there, there_mac) in
        [(a, A_MAC, a_address, b_address, B_MAC), (b, B_MAC, b_address, a_address, A_MAC)]
    {
        here.inside(|| {
            sysctl("net/ipv6/conf/veth/disable_ipv6", "1");
            ip(&format!("link set veth address {mac} up"));
            ip(&format!("addr add {address}/24 dev veth"));
            ip(&format!("neigh add {there} lladdr {there_mac} dev veth"));
        });
    }
}

/// Sets what is under `/proc/sys`, which for `net` is the calling thread's namespace's: it goes with it.
///
/// # Panics
/// When there is no such setting.
pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// `ip`, with its arguments in one string.
///
/// # Panics
/// When it fails.
pub fn ip(arguments: &str) {
    tool("ip", arguments);
}

/// Any program, with its arguments in one string.
///
/// # Panics
/// When it fails.
pub fn tool(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments}");
}
