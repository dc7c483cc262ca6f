//! Servers from Debian's packages, started as their units do it, without systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::User;
use tests::{Debian, Running, binary, until};

/// The path of netwatch in that root.
const NETWATCH: &str = "/usr/local/bin/netwatch";

/// The running servers, in their own Debian.
pub(super) struct Servers {
    // Declared before `debian`, so dropped first: their children are killed with the namespace.
    running: Vec<(&'static str, Running)>,
    pub(super) debian: Debian,
}

/// A way to start one: its name, and its command line.
type Start = fn() -> (&'static str, Vec<String>);

impl Servers {
    /// No server runs yet. `None` as in [`Debian::of_this_run`].
    pub(super) fn none(test: &str) -> Option<Self> {
        Some(Self { running: Vec::new(), debian: Debian::of_this_run(test)? })
    }

    /// All servers, each listening.
    pub(super) fn all(test: &str) -> Option<Self> {
        let mut servers = Self::none(test)?;
        servers.start_all();
        Some(servers)
    }

    pub(super) fn start_all(&mut self) {
        let all: [(Start, u16); 5] =
            [(sshd, 22), (rpcbind, 111), (nginx, 80), (postgresql, 5432), (redis, 6379)];
        all.into_iter().for_each(|(start, port)| self.start(start, port));
    }

    /// Starts one, and waits until it listens.
    pub(super) fn start(&mut self, start: Start, port: u16) {
        let (name, running) = self.debian.inside(|| {
            let (name, words) = start();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            (name, Running::start(&mut command))
        });
        self.running.push((name, running));
        until(&format!("{name} listens on {port}"), || listens("tcp", port) && listens("tcp6", port));
    }

    pub(super) fn pid(&self, name: &str) -> u32 {
        self.running.iter().find(|(other, _)| *other == name).expect("it was started").1.pid()
    }

    /// A command for netwatch that is started in that root.
    pub(super) fn netwatch(&self) -> Command {
        let program = fs::read(binary()).unwrap();
        self.debian.inside(|| {
            fs::write(NETWATCH, program).unwrap();
            fs::set_permissions(NETWATCH, fs::Permissions::from_mode(0o755)).unwrap();
        });
        Command::new(NETWATCH)
    }
}

/// Whether a socket listens in the calling thread's namespace: read from `/proc`, since a connection would be counted.
fn listens(file: &str, port: u16) -> bool {
    /// `TCP_LISTEN` of include/net/tcp_states.h, as these files have it.
    const LISTEN: &str = "0A";
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    text.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_at = words.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        is_at && words.nth(1) == Some(LISTEN)
    })
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(Into::into).collect()
}

/// As `User=` has it. With supplementary groups: PostgreSQL's key is readable for one.
fn by(user: &str, line: &str) -> Vec<String> {
    words(&format!("setpriv --reuid {user} --regid {user} --init-groups {line}"))
}

/// As `RuntimeDirectory=` has it.
fn runtime(name: &str, user: &str) {
    let folder = Path::new("/run").join(name);
    // Some packages create theirs when they are installed.
    fs::create_dir_all(&folder).unwrap();
    let user = User::from_name(user).unwrap().expect("a user that its package made");
    chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

fn sshd() -> (&'static str, Vec<String>) {
    runtime("sshd", "root");
    ("sshd", words("/usr/sbin/sshd -D"))
}

fn rpcbind() -> (&'static str, Vec<String>) {
    ("rpcbind", words("/sbin/rpcbind -f -w"))
}

fn nginx() -> (&'static str, Vec<String>) {
    let mut words = words("/usr/sbin/nginx -g");
    words.push("daemon off;".into());
    ("nginx", words)
}

/// The cluster that the package created.
fn postgresql() -> (&'static str, Vec<String>) {
    runtime("postgresql", "postgres");
    let only = |folder: &str| -> PathBuf {
        let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    };
    let version = only("/usr/lib/postgresql");
    let version = version.file_name().unwrap().to_str().unwrap();
    let line = format!(
        "/usr/lib/postgresql/{version}/bin/postgres -D /var/lib/postgresql/{version}/main \
         -c config_file=/etc/postgresql/{version}/main/postgresql.conf"
    );
    ("postgres", by("postgres", &line))
}

fn redis() -> (&'static str, Vec<String>) {
    runtime("redis", "redis");
    ("redis", by("redis", "/usr/bin/redis-server /etc/redis/redis.conf --daemonize no"))
}

/// From an rpm package that is installed beside Debian's own.
pub(super) fn of_rpm() -> (&'static str, Vec<String>) {
    let install =
        "rpm --force-debian --dbpath /var/lib/rpm --nodeps --install /var/cache/netwatch/sample.rpm";
    let installed = tests::output(Command::new("/usr/bin/env").args(words(install)));
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    ("valkey", words("/opt/netwatch-sample/valkey-server --bind 127.0.0.1 ::1 --save"))
}
