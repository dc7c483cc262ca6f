//! Many hosts, on a real ClickHouse server: that of Debian bookworm.

mod ship;
mod walk;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Debian, Recorder, Running, Store, netwatch, until};

/// The server as the agents have it.
const URL: &str = "http://127.0.0.1:8123/fleet";

const CONFIG: &str = "<yandex>
<logger><level>warning</level><console>1</console></logger>
<http_port>8123</http_port><listen_host>127.0.0.1</listen_host>
<path>/run/clickhouse/</path><tmp_path>/run/clickhouse-tmp/</tmp_path>
<users_config>/run/users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database>
<mark_cache_size>67108864</mark_cache_size>
</yandex>";

/// Without a password, with one, and one who may only read.
const USERS: &str = "<yandex>
<profiles><default/><reading><readonly>1</readonly></reading></profiles>
<quotas><default/></quotas>
<users>
<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
<agent><password>secret</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></agent>
<reader><password></password><networks><ip>127.0.0.1</ip></networks><profile>reading</profile><quota>default</quota></reader>
</users>
</yandex>";

/// A server in the calling thread's network namespace.
struct ClickHouse {
    // Dropped first: the namespace is left to it.
    running: Option<Running>,
    debian: Debian,
}

impl ClickHouse {
    /// With the tables of netwatch. `None`: it is not installed, which is reported as a skip of `test`.
    fn start(test: &str) -> Option<Self> {
        let mut server = Self::installed(test)?;
        server.starts();
        let output = netwatch(&["fleet", "setup", URL]);
        assert!(output.status.success(), "{output:?}");
        Some(server)
    }

    /// It does not run yet.
    fn installed(test: &str) -> Option<Self> {
        let debian = Debian::with_clickhouse(test)?;
        debian.inside(|| {
            fs::create_dir_all("/run/clickhouse-tmp").unwrap();
            fs::write("/run/config.xml", CONFIG).unwrap();
            fs::write("/run/users.xml", USERS).unwrap();
        });
        Some(Self { running: None, debian })
    }

    /// With what an earlier run has stored.
    fn starts(&mut self) {
        let running = self.debian.inside(|| {
            let mut command = Command::new("/usr/sbin/clickhouse-server");
            command.arg("--config-file=/run/config.xml").env_clear();
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        });
        self.running = Some(running);
        until("the server answers", || ask("SELECT 1").is_ok_and(|answer| answer == "1"));
    }

    /// As by a power failure.
    fn is_killed(&mut self) {
        let mut running = self.running.take().expect("a running server");
        running.signal(Signal::SIGKILL);
        running.ended("the server ends");
    }
}

/// What the server answers to a statement, as text.
fn ask(statement: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:8123")?;
    let length = statement.len();
    write!(stream, "POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{statement}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.contains(" 200 ") {
        true => Ok(body.trim_end().to_owned()),
        false => Err(std::io::Error::other(body.to_owned())),
    }
}

fn number(query: &str) -> u64 {
    ask(query).unwrap_or_default().parse().unwrap_or(u64::MAX)
}

/// Objects that a command of `fleet` prints.
fn objects(arguments: &[&str]) -> Vec<Value> {
    let output = netwatch(&[&["fleet"], arguments, &["--server", URL, "--json"]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Ships a store to the end, under the name of a host.
fn ship(store: &Path, host: &str) {
    let recorder = Recorder::start(store, &["--ship", URL, "--ship-name", host]);
    until("it is shipped", || {
        objects(&["hosts", "--host", host]).first().is_some_and(|host| host["waiting"] == 0)
    });
    recorder.signal(Signal::SIGTERM);
    let (status, said) = recorder.ended();
    assert_eq!((status.code(), said.len()), (Some(0), 1), "{said:?}");
}

/// The events of a store as `fleet log` has them of a host.
fn events(host: &str, arguments: &[&str]) -> Vec<Value> {
    let mut events = objects(&[&["log", "--host", host], arguments].concat());
    for event in &mut events {
        let event = event.as_object_mut().unwrap();
        assert_eq!(event.remove("host"), Some(host.into()));
        event.remove("seq");
    }
    events
}

/// The same of the store itself.
fn recorded(store: &Store, arguments: &[&str]) -> Vec<Value> {
    let mut events = store.log(arguments);
    events.iter_mut().for_each(|event| _ = event.as_object_mut().unwrap().remove("seq"));
    events
}
