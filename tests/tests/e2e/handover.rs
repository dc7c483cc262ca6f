//! Sockets that are used by another process than the one that connected or accepted: each user is emitted once, and the
//! originator stays the same.

use serde_json::{Value, json};
use tests::{Actor, Running, Watch, assert_has, in_fresh_netns};

use crate::actor;
use crate::expect::{CONN, Conn, assert_via, used_by};

mod passed;

/// A client and a server that are connected.
struct Pair {
    watch: Watch,
    client: Actor,
    server: Actor,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self { watch: Watch::shared(), client: actor(), server: actor() };
        pair.connect(CONN);
        pair.server.say("accept");
        pair
    }

    fn connect(&mut self, conn: Conn) {
        conn.listens(&mut self.server);
        conn.connects(&mut self.client, "");
    }

    /// Another process uses the client's endpoint, and nothing else changes.
    #[track_caller]
    fn at_client(&mut self, user: &Value) -> Value {
        let open = self.watch.at("open", CONN.client_endpoint());
        let handover = self.watch.expect("a handover of the client's endpoint", |event| {
            tests::kind(event) == "handover"
                && CONN.client_endpoint().of(event)
                && event["process"]["pid"] == user["pid"]
        });
        let client = self.client.object();
        assert_has(&handover, CONN.at_client(&client));
        assert_has(&handover, used_by(user, "handover"));
        same_endpoint(&open, &handover);
        handover
    }

    /// Likewise for the server's.
    #[track_caller]
    fn at_server(&mut self, user: &Value) -> Value {
        let accept = self.watch.at("accept", CONN.server_endpoint());
        let handover = self.watch.expect("a handover of the server's endpoint", |event| {
            tests::kind(event) == "handover"
                && CONN.server_endpoint().of(event)
                && event["process"]["pid"] == user["pid"]
        });
        let (client, server) = (self.client.object(), self.server.object());
        assert_has(&accept, used_by(&server, "accept"));
        assert_has(&handover, CONN.at_server(&client));
        assert_has(&handover, used_by(user, "handover"));
        assert_eq!(handover["listener"], accept["listener"]);
        assert_has(&handover["listener"], json!({"process": server}));
        same_endpoint(&accept, &handover);
        handover
    }

    /// Closes it, and checks that there were no more events: kinds at the client's endpoint and at the server's.
    #[track_caller]
    fn finish(mut self, client: &[&str], server: &[&str]) {
        let (connector, acceptor) = (self.client.object(), self.server.object());
        let closed = CONN.closes(&mut self.watch, &mut self.client, &mut self.server);
        assert_has(&closed[0], CONN.at_client(&connector));
        assert_has(&closed[1], CONN.at_server(&connector));
        assert_has(&closed[1], json!({"listener": {"process": acceptor}}));
        let log = self.watch.finish();
        CONN.kinds(&log, client, server);
    }
}

#[track_caller]
fn same_endpoint(before: &Value, handover: &Value) {
    for key in ["id", "flow", "cookie", "inode", "listener"] {
        assert_eq!(before[key], handover[key], "{key} of {handover:#}");
    }
    assert_eq!(handover["state"], "ESTABLISHED");
    assert_via(handover, None);
}

#[test]
fn use_by_connector_and_acceptor_is_no_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let Pair { client, server, .. } = &mut pair;
        for how in ["", "thread another "] {
            client.say(&format!("{how}send 10"));
            server.say(&format!("{how}recv 10"));
            server.say(&format!("{how}send 10"));
            client.say(&format!("{how}recv 10"));
        }
        pair.finish(&["open", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn child_that_writes_is_one_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let child = pair.client.hire();
        pair.client.say("worker send 10");
        pair.server.say("recv 10");
        let handover = pair.at_client(&child);
        let parent = pair.client.pid();
        assert_has(&handover["process"], json!({"ppid": parent, "kernel": false}));
        assert_eq!(handover["process"]["ancestors"][0]["pid"], parent);
        assert_eq!(handover["process"].get("thread"), None);
        // The child again; the parent; and the child after that.
        for command in ["worker send 10", "send 10", "worker send 10", "send 10"] {
            pair.client.say(command);
            pair.server.say("recv 10");
        }
        pair.server.say("send 10");
        pair.client.say("worker recv 10");
        pair.client.say("dismiss");
        pair.finish(&["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn child_that_only_holds_the_socket_is_no_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        pair.client.hire();
        pair.client.say("worker close");
        pair.server.hire();
        pair.client.say("send 10");
        pair.server.say("recv 10");
        pair.server.say("worker close");
        pair.finish(&["open", "close"], &["open", "accept", "close"]);
    });
}

/// A server that forks for each connection.
#[test]
fn worker_that_reads_is_a_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let child = pair.server.hire();
        pair.client.say("send 10");
        pair.server.say("worker recv 10");
        let handover = pair.at_server(&child);
        assert_eq!(handover["process"]["ancestors"][0]["pid"], pair.server.pid());
        pair.server.say("worker send 10");
        pair.client.say("recv 10");
        pair.server.say("dismiss");
        pair.finish(&["open", "close"], &["open", "accept", "handover", "close"]);
    });
}

#[test]
fn each_process_that_uses_the_socket_is_one_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let first = pair.client.hire();
        pair.client.say("worker send 10");
        pair.at_client(&first);
        // Commands go to the youngest worker; after it is dismissed, to the elder again.
        let second = pair.client.hire();
        pair.client.say("worker send 10");
        pair.at_client(&second);
        assert_ne!(first["pid"], second["pid"]);
        pair.client.say("dismiss");
        pair.client.say("worker send 10");
        pair.client.say("send 10");
        pair.client.say("dismiss");
        pair.server.say("recv 40");
        pair.finish(&["open", "handover", "handover", "close"], &["open", "accept", "close"]);
    });
}

/// Process and thread are named: `comm` of the leader, and the name of the thread that acted.
#[test]
fn handover_to_a_child_names_its_thread() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let mut child = pair.client.hire();
        let tid: u32 = pair.client.say("worker thread a-worker send 10").trim().parse().unwrap();
        child["tid"] = tid.into();
        child["thread"] = "a-worker".into();
        assert_ne!(child["tid"], child["pid"]);
        pair.at_client(&child);
        // A process counts once, whichever of its threads acts.
        pair.client.say("worker send 10");
        pair.client.say("worker thread another send 10");
        pair.server.say("recv 30");
        pair.client.say("dismiss");
        pair.finish(&["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn connecting_and_accepting_threads_are_named() {
    in_fresh_netns(|| {
        let mut pair = Pair { watch: Watch::shared(), client: actor(), server: actor() };
        CONN.listens(&mut pair.server);
        let connect = format!("thread a-connector connect {} {}", CONN.client, CONN.server);
        let thread_of = |answer: &str| answer.split(' ').next().unwrap().parse::<u32>().unwrap();
        let connecting = thread_of(&pair.client.say(&connect));
        let accepting = thread_of(&pair.server.say("thread an-acceptor accept"));
        let (mut connector, mut acceptor) = (pair.client.object(), pair.server.object());
        connector["tid"] = connecting.into();
        connector["thread"] = "a-connector".into();
        acceptor["tid"] = accepting.into();
        acceptor["thread"] = "an-acceptor".into();
        let open = pair.watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&connector));
        assert_has(&open, used_by(&connector, "connect"));
        let accept = pair.watch.at("accept", CONN.server_endpoint());
        assert_has(&accept, CONN.at_server(&connector));
        assert_has(&accept, used_by(&acceptor, "accept"));
        assert_has(&accept["peer"], json!({"id": open["id"], "process": connector}));
        pair.client.say("send 10");
        pair.server.say("recv 10");
        let closed = CONN.closes(&mut pair.watch, &mut pair.client, &mut pair.server);
        assert_has(&closed[0], CONN.at_client(&connector));
        assert_has(&closed[1], CONN.at_server(&connector));
        let log = pair.watch.finish();
        CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
    });
}

/// A program that inetd starts needs no socket calls.
#[test]
fn program_with_the_connection_on_stdin_is_a_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let cat = pair.server.say("spawn stream cat");
        pair.client.say("send 10");
        pair.client.say("recv 10");
        let exe = std::fs::canonicalize("/usr/bin/cat").or_else(|_| std::fs::canonicalize("/bin/cat"));
        let pid: u32 = cat.parse().unwrap();
        let cat = json!({
            "pid": pid,
            "tid": pid,
            "comm": "cat",
            "exe": exe.unwrap().to_str().unwrap(),
            "exe_state": "ok",
            "args": ["cat"],
            "uid": 0,
            "user": "root",
            "ppid": pair.server.pid(),
            "kernel": false,
        });
        let handover = pair.at_server(&cat);
        let ancestor = json!({"pid": pair.server.pid(), "comm": "actor"});
        assert_has(&handover["process"]["ancestors"][0], ancestor);
        // inetd closes its copy; cat exits at the end of its input.
        pair.finish(&["open", "close"], &["open", "accept", "handover", "close"]);
    });
}

/// The same process with another program: no handover, and the connector stays.
#[test]
fn exec_by_the_connector_is_no_handover() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        CONN.listens(&mut server);
        let script =
            format!("exec {} connect\\ {}\\ {} become\\ cat", Actor::program(), CONN.client, CONN.server);
        let mut program = Running::start(std::process::Command::new("sh").args(["-c", &script]));
        server.say("accept");
        server.say("send 10");
        server.say("recv 10");
        let open = watch.at("open", CONN.client_endpoint());
        assert_has(&open["process"], json!({"pid": program.pid(), "comm": "actor"}));
        server.say("close");
        program.ended("cat ends with its input");
        let closed = watch.at("close", CONN.client_endpoint());
        assert_has(&closed["origin"]["process"], json!({"pid": program.pid(), "comm": "actor"}));
        assert_eq!(closed["origin"]["process"]["args"], open["origin"]["process"]["args"]);
        let log = watch.finish();
        CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
    });
}

/// The creator of the socket does not matter: the process that connects is the connector, and the creator another user.
#[test]
fn child_that_connects_is_the_originator() {
    in_fresh_netns(|| {
        let mut pair = Pair { watch: Watch::shared(), client: actor(), server: actor() };
        CONN.listens(&mut pair.server);
        pair.client.say(&format!("socket {}", CONN.client));
        let child = pair.client.hire();
        pair.client.say(&format!("worker reconnect {}", CONN.server));
        pair.server.say("accept");
        let open = pair.watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&child));
        assert_has(&open, used_by(&child, "connect"));
        let accept = pair.watch.at("accept", CONN.server_endpoint());
        assert_has(&accept, CONN.at_server(&child));
        pair.client.say("worker send 10");
        pair.client.say("send 10");
        pair.server.say("recv 20");
        let handover = pair.watch.at("handover", CONN.client_endpoint());
        assert_has(&handover, CONN.at_client(&child));
        assert_has(&handover, used_by(&pair.client.object(), "handover"));
        pair.client.say("dismiss");
        let closed = CONN.closes(&mut pair.watch, &mut pair.client, &mut pair.server);
        assert_has(&closed[0], CONN.at_client(&child));
        let log = pair.watch.finish();
        CONN.kinds(&log, &["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

/// More processes than are remembered take turns: each is one handover, and the uses beyond the budget of the socket
/// are counted.
#[test]
fn uses_beyond_the_budget_are_counted() {
    const CHILDREN: u64 = 6;
    const ROUNDS: u64 = 40;
    /// Records that a socket has in advance: `MOST_REPORTED` of the kernel side.
    const BUDGET: u64 = 64;
    in_fresh_netns(|| {
        // Other logs would report a loss as well, which their tests do not expect.
        let mut pair =
            Pair { watch: Watch::alone(&["--ring", "16777216"]), client: actor(), server: actor() };
        if pair.watch.ready()["coverage"]["probes"]["use"].is_null() {
            tests::skip("handover::uses_beyond_the_budget_are_counted", "no probe observes uses");
            return;
        }
        pair.connect(CONN);
        pair.server.say("accept");
        pair.client.say(&format!("turns {CHILDREN} {ROUNDS}"));
        pair.server.say(&format!("recv {}", CHILDREN * ROUNDS));
        let lost = pair.watch.expect("a loss", |event| tests::kind(event) == "loss");
        assert_has(&lost, json!({"reason": "limit"}));
        let count = lost["kinds"]["handovers_not_followed"].as_u64().unwrap();
        assert!((1..=CHILDREN * ROUNDS - BUDGET).contains(&count), "{lost:#}");
        let handovers = |event: &Value| tests::kind(event) == "handover";
        let handovers = pair.watch.expect_times("a handover to each", CHILDREN as usize, handovers);
        let pids: std::collections::HashSet<_> =
            handovers.iter().map(|handover| handover["process"]["pid"].to_string()).collect();
        assert_eq!(pids.len() as u64, CHILDREN);
    });
}
