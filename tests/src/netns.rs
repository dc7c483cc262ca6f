//! Network namespaces. A thread is in a namespace, and so is whatever the thread starts.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns, unshare};

const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `test` on its own thread in a new network namespace with loopback up.
///
/// # Panics
/// If none can be created, and if `test` panics.
pub fn in_fresh_netns(test: impl FnOnce() + Send) {
    Netns::fresh().inside(test);
}

/// Inode number of the calling thread's namespace, as netwatch spells it.
///
/// # Panics
/// If `/proc` is not mounted.
#[must_use]
pub fn netns() -> u64 {
    std::fs::metadata(OWN).expect("/proc is mounted").ino()
}

/// A namespace that lives as long as this does.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// A new one with nothing but loopback, which is up.
    ///
    /// # Panics
    /// If none can be created.
    #[must_use]
    pub fn fresh() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run the end-to-end tests as root");
            ip("link set lo up");
            File::open(OWN).expect("/proc is mounted")
        });
        Self(made.join().expect("a network namespace"))
    }

    /// Runs `work` on a thread in that namespace.
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
    /// Never, as long as it is open.
    #[must_use]
    pub fn inum(&self) -> u64 {
        self.0.metadata().expect("an open file").ino()
    }

    /// A path that refers to it, for `ip`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Addresses for a wire, which nothing else on the host uses: netwatch observes every namespace, and if several have
/// the same addresses it cannot always decide which endpoints belong together.
#[derive(Debug)]
pub struct Wire {
    /// Of the first namespace.
    pub a: String,
    /// Of the second.
    pub b: String,
    /// Packets to it are lost.
    pub lost: String,
    /// No interface has it.
    pub nobody: String,
}

/// MAC addresses of the wire's interfaces.
const A_MAC: &str = "02:00:00:00:00:0a";
const B_MAC: &str = "02:00:00:00:00:0b";

/// The MAC address of no interface.
const LOST_MAC: &str = "02:00:00:00:00:99";

impl Default for Wire {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        // Two bytes for the process, four bits for the wire.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = |host: u32| format!("10.{high}.{low}.{}", nth % 16 * 16 + host);
        Self { a: address(1), b: address(2), lost: address(9), nobody: address(8) }
    }
}

impl Wire {
    /// Connects two namespaces by a pair of interfaces, both named `veth`, up, with new addresses. They send nothing by
    /// themselves (no IPv6) and need no ARP, so that only the packets of the test pass.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn between(a: &Netns, b: &Netns) -> Self {
        let wire = Self::default();
        wire.connects(a, b);
        wire
    }

    /// Connects two more namespaces by a wire with the same addresses.
    ///
    /// # Panics
    /// If that fails.
    pub fn connects(&self, a: &Netns, b: &Netns) {
        a.inside(|| ip(&format!("link add name veth type veth peer name veth netns {}", b.path())));
        for (here, mac, address, there, there_mac) in
            [(a, A_MAC, &self.a, &self.b, B_MAC), (b, B_MAC, &self.b, &self.a, A_MAC)]
        {
            here.inside(|| {
                sysctl("net/ipv6/conf/veth/disable_ipv6", "1");
                ip(&format!("link set veth address {mac} up"));
                ip(&format!("addr add {address}/28 dev veth"));
                ip(&format!("neigh add {there} lladdr {there_mac} dev veth"));
                loses(&self.lost);
            });
        }
    }
}

impl Wire {
    /// Packets between the two arrive again, after [`loses`].
    ///
    /// # Panics
    /// If there is no such wire.
    pub fn mends(&self, a: &Netns, b: &Netns) {
        self.mends_one_way(a);
        b.inside(|| ip(&format!("neigh replace {} lladdr {A_MAC} dev veth", self.a)));
    }

    /// Packets from `a` to `b` arrive again; those in the other direction are still lost.
    ///
    /// # Panics
    /// If there is no such wire.
    pub fn mends_one_way(&self, a: &Netns) {
        a.inside(|| ip(&format!("neigh replace {} lladdr {B_MAC} dev veth", self.b)));
    }
}

/// From now on packets from the calling thread's namespace to `address` are lost.
///
/// # Panics
/// If there is no wire.
pub fn loses(address: &str) {
    ip(&format!("neigh replace {address} lladdr {LOST_MAC} dev veth"));
}

/// Sets a value under `/proc/sys`. Under `net` that of the calling thread's namespace, which is removed with it.
///
/// # Panics
/// If there is no such setting.
pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// A counter of the calling thread's namespace, as in `/proc/net/netstat`: `TcpExt`, `TCPFastOpenActive`.
///
/// # Panics
/// If there is no such counter.
#[must_use]
pub fn counter(group: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("/proc is mounted");
    let prefix = format!("{group}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut counters = names.split(' ').zip(values.split(' '));
    let found = counters.find(|(counter, _)| *counter == name).and_then(|(_, value)| value.parse().ok());
    found.unwrap_or_else(|| panic!("no counter {name} in {group}"))
}

/// `ip`, with its arguments in one string.
///
/// # Panics
/// If it fails.
pub fn ip(arguments: &str) {
    tool("ip", arguments);
}

/// Any program, with its arguments in one string.
///
/// # Panics
/// If it fails.
pub fn tool(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments}");
}
