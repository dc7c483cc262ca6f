//! Network namespaces. A namespace belongs to a thread here: what the thread starts is in there too.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Addresses for a wire, which nobody else on the host uses: netwatch sees every namespace, and where the
/// same addresses are in several it cannot always tell which ends belong together.
#[derive(Debug)]
pub struct Wire {
    /// Of the first namespace.
    pub a: String,
    /// Of the second.
    pub b: String,
    /// What is sent there gets lost.
    pub lost: String,
    /// Nobody has it.
    pub nobody: String,
}

/// Of a wire's ends.
const A_MAC: &str = "02:00:00:00:00:0a";
const B_MAC: &str = "02:00:00:00:00:0b";

/// Nobody's.
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
    /// Connects two namespaces by a pair of interfaces, both called `veth`, up, with new addresses. They
    /// speak to nobody unasked (no IPv6 on them) and know each other without asking (no ARP), so that what
    /// a test sends is all that passes.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn between(a: &Netns, b: &Netns) -> Self {
        let wire = Self::default();
        wire.connects(a, b);
        wire
    }

    /// Connects two more by a wire with the same addresses.
    ///
    /// # Panics
    /// When that fails.
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
    /// What the two send each other gets there again, after [`loses`].
    ///
    /// # Panics
    /// When there is no such wire.
    pub fn mends(&self, a: &Netns, b: &Netns) {
        self.mends_one_way(a);
        b.inside(|| ip(&format!("neigh replace {} lladdr {A_MAC} dev veth", self.a)));
    }

    /// What the first, `a`, sends the second gets there again; what comes the other way is lost as before.
    ///
    /// # Panics
    /// When there is no such wire.
    pub fn mends_one_way(&self, a: &Netns) {
        a.inside(|| ip(&format!("neigh replace {} lladdr {B_MAC} dev veth", self.b)));
    }
}

/// What the calling thread's namespace sends to `address` by its wire gets lost from now on.
///
/// # Panics
/// When there is no wire.
pub fn loses(address: &str) {
    ip(&format!("neigh replace {address} lladdr {LOST_MAC} dev veth"));
}

/// Sets what is under `/proc/sys`, which for `net` is the calling thread's namespace's: it goes with it.
///
/// # Panics
/// When there is no such setting.
pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// A counter of the calling thread's namespace, as in `/proc/net/netstat`: `TcpExt`, `TCPFastOpenActive`.
///
/// # Panics
/// When there is no such counter.
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
