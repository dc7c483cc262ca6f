//! `netwatch list` against the real netstat, row by row and cell by cell, and its origins against
//! connections whose initiator is known because the test began them.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::{Running, binary, in_fresh_netns, ip, kernel, skip, stranger_s_copy, until};

mod scene;

use scene::{one_of_each, pair};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn netwatch(arguments: &[&str]) -> String {
    text(&run(Command::new(binary()).arg("list").args(arguments)))
}

fn netstat(arguments: &[&str]) -> String {
    text(&run(Command::new("netstat").args(arguments)))
}

/// Both tables of the same moment: netstat said the same before and after.
fn both(ours: &[&str], theirs: &[&str]) -> (String, String) {
    let mut pair = None;
    until("sockets hold still", || {
        let before = netstat(theirs);
        let table = netwatch(ours);
        let still = before == netstat(theirs);
        pair = Some((table, before));
        still
    });
    pair.unwrap()
}

/// Every line must be netstat's, byte for byte, and then tell the origin.
fn assert_same(ours: &str, theirs: &str, letters: &str) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    assert_eq!(ours.len(), theirs.len(), "-{letters}:\n{}\n{}", ours.join("\n"), theirs.join("\n"));
    assert_eq!(ours[0], theirs[0]);
    for (ours, theirs) in ours.iter().zip(&theirs).skip(1) {
        // netstat pads its last column only where there is a program.
        let rest = ours.strip_prefix(*theirs).unwrap_or_else(|| panic!("-{letters}:\n{ours}\n{theirs}"));
        assert!(!rest.trim_start().is_empty() && rest.starts_with(' '), "-{letters}: no origin: {ours}");
    }
}

#[test]
fn the_table_is_netstat_s_for_every_letter() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let letters = [
            "natup", "natu", "nat", "nau", "natp", "tn", "un", "tun", "ln", "tln", "uln", "lnp", "lanp",
            "an4", "an6", "an46", "natup4", "natup6", "naul4", "naul6", "ntl6", "n", "np", "na",
        ];
        for letters in letters {
            let flag = format!("-{letters}");
            // Without a protocol netstat adds raw and UNIX sockets; those are none of ours.
            let protocols = if letters.contains(['t', 'u']) { "" } else { "tu" };
            let (ours, theirs) = both(&[&flag], &[&format!("{flag}{protocols}")]);
            assert_same(&ours, &theirs, letters);
            assert!(ours.lines().count() > 3, "-{letters} shows too little to compare:\n{ours}");
        }
        // No letters: the usual ones.
        let (ours, theirs) = both(&[], &["-natup"]);
        assert_same(&ours, &theirs, "");
    });
}

#[test]
fn the_scene_has_every_state() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        // An acknowledgement may be delayed (TCP_DELACK_MAX), and FIN_WAIT2 with it.
        for state in [
            "LISTEN",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT2",
            "CLOSE_WAIT",
            "TIME_WAIT",
            "tcp6",
            "udp6",
        ] {
            until(state, || netstat(&["-natup"]).contains(state));
        }
    });
}

fn local_routes() -> String {
    text(&run(Command::new("ip").args(["-6", "route", "show", "table", "local"])))
}

#[test]
fn long_addresses_are_whole_and_aligned() {
    in_fresh_netns(|| {
        const HOST: &str = "2001:db8:1111:2222:3333:4444:5555:6666";
        ip(&format!("-6 addr add {HOST}/64 dev lo nodad"));
        // An IPv6 address gets its routes a little later, one by one, from a work queue (addrconf_dad_work).
        let probe = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        until("the address is routed", || {
            std::net::TcpStream::connect((HOST, port)).is_ok() && local_routes().contains(HOST)
        });
        drop(probe);
        let server = format!("[{HOST}]:17001");
        let _long = pair(&format!("[{HOST}]:12001"), &server);
        let _short = pair("127.0.0.1:2000", "127.0.0.1:6000");
        // -W: netstat cuts what is long unless told not to.
        let (ours, theirs) = both(&["-natup"], &["-natupW"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (ours, theirs) in ours.lines().zip(theirs.lines()).skip(2) {
            let (ours, theirs) = (words(ours), words(theirs));
            assert_eq!(ours[..theirs.len()], theirs);
        }
        assert!(ours.contains(&format!(" {HOST}:12001 ")), "{ours}");
        let header = ours.lines().nth(1).unwrap();
        for column in ["State", "PID/Program name", "ORIGIN"] {
            let at = header.find(column).unwrap();
            for line in ours.lines().skip(2) {
                assert!(line.as_bytes()[at - 1] == b' ' && line.as_bytes()[at] != b' ', "{column}: {line}");
            }
        }
    });
}

#[test]
fn a_stranger_s_view_is_netstat_s() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        // A place where anybody may run it.
        let (_directory, copy) = stranger_s_copy(&binary(), "netwatch");
        const NOBODY: u32 = 65534;
        let as_nobody = |command: &mut Command| run(command.uid(NOBODY).gid(NOBODY).current_dir("/"));
        let theirs = as_nobody(Command::new("netstat").arg("-natup"));
        let ours = as_nobody(Command::new(&copy).args(["list", "-natup"]));
        assert_same(&text(&ours), &text(&theirs), "natup");
        assert_eq!(String::from_utf8_lossy(&ours.stderr), String::from_utf8_lossy(&theirs.stderr));
        assert!(!ours.stderr.is_empty());
    });
}

/// Objects of `list --json`.
struct Rows(Vec<Value>);

impl Rows {
    fn take(arguments: &[&str]) -> Self {
        let lines = netwatch(&[&["--json"], arguments].concat());
        Self(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// The only row of a protocol, a local port and a remote one (0: none).
    fn one(&self, proto: &str, local: u16, remote: u16) -> &Value {
        let port = |end: &Value| end["port"].as_u64().unwrap_or(0);
        let mut found = self.0.iter().filter(|row| {
            row["proto"] == proto
                && port(&row["local"]) == u64::from(local)
                && port(&row["remote"]) == u64::from(remote)
        });
        let row = found.next().unwrap_or_else(|| panic!("no row {proto} {local} {remote}"));
        assert_eq!(found.next(), None);
        row
    }

    /// Side, basis, confidence, the rule of thumb, the initiator's port, and its process.
    fn origin(&self, local: u16, remote: u16) -> Value {
        let origin = &self.one("tcp", local, remote)["origin"];
        let keys = ["side", "basis", "confidence", "port_rule"].map(|key| origin[key].clone());
        json!([keys[0], keys[1], keys[2], keys[3], origin["endpoint"]["port"], origin["process"]["pid"]])
    }
}

#[test]
fn origins_are_what_happened() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let own = std::process::id();
        let connector = scene.holders[1].pid();
        // Below its peer's port, and yet the initiator; and one that the rule of thumb has the wrong way.
        let _wrong = pair("127.0.0.1:900", "127.0.0.1:40000");
        // A high port that is no ephemeral one, and nobody listens any more.
        let (_guess, _guessed, listener) = pair("127.0.0.1:50000", "127.0.0.1:6001");
        drop(listener);
        let (_dark, _darker, listener) = pair("127.0.0.1:2100", "127.0.0.1:6002");
        drop(listener);
        let rows = Rows::take(&[]);
        let cases = [
            (6000, 2000, json!(["remote", "listener", "inferred", "unknown", 2000, connector])),
            (2000, 6000, json!(["local", "peer", "inferred", "unknown", 2000, connector])),
            (40000, 900, json!(["remote", "listener", "inferred", "local", 900, own])),
            (900, 40000, json!(["local", "peer", "inferred", "remote", 900, own])),
            (50000, 6001, json!(["local", "port-range", "guessed", "unknown", 50000, null])),
            (6001, 50000, json!(["remote", "port-range", "guessed", "unknown", 50000, null])),
            (2100, 6002, json!(["unknown", "none", "unknown", "unknown", null, null])),
            (6002, 2100, json!(["unknown", "none", "unknown", "unknown", null, null])),
            (2005, 7004, json!(["local", "handshake", "observed", "unknown", 2005, own])),
            (7008, 2008, json!(["remote", "handshake", "observed", "unknown", 2008, own])),
            (2008, 7008, json!(["local", "peer", "observed", "unknown", 2008, own])),
            (4000, 4000, json!(["both", "handshake", "observed", "unknown", 4000, own])),
            // The initiator's end is in TIME_WAIT: nobody holds it.
            (2009, 7009, json!(["local", "peer", "inferred", "unknown", 2009, null])),
        ];
        for (local, remote, expected) in cases {
            assert_eq!(rows.origin(local, remote), expected, "{local} to {remote}");
        }
        // A guess is a matter of the namespace's own range.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "6001 6001").unwrap();
        let rows = Rows::take(&[]);
        assert_eq!(rows.origin(50000, 6001)[0], "remote");
        assert_eq!(rows.origin(2100, 6002)[0], "unknown");
    });
}

#[test]
fn objects_say_what_the_sockets_are() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let own = std::process::id();
        let rows = Rows::take(&[]);
        let netns = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert!(rows.0.iter().all(|row| format!("net:[{}]", row["netns"]) == netns.to_str().unwrap()));

        let x11 = rows.one("tcp", 6000, 0);
        assert_eq!(x11["state"], "LISTEN");
        assert_eq!((&x11["remote"], &x11["origin"]), (&Value::Null, &Value::Null));
        assert_eq!((&x11["recv_q"], &x11["send_q"]), (&json!(0), &json!(16)));
        // Two hold it, and the elder is its opener.
        assert_eq!(x11["process"]["pid"], own);
        // A child that another test starts may hold it too for a moment, until its exec.
        let sleep = json!({"pid": scene.holders[0].pid(), "fd": 0, "comm": "sleep"});
        until("only the two hold it", || {
            let holders = Rows::take(&[]).one("tcp", 6000, 0)["holders"].as_array().unwrap().clone();
            holders.len() == 2
                && holders.contains(&sleep)
                && holders.iter().any(|holder| holder["pid"] == own)
        });
        let full = rows.one("tcp", 7004, 0);
        assert_eq!((&full["recv_q"], &full["send_q"]), (&json!(1), &json!(0)));

        let process = &rows.one("tcp", 2000, 6000)["process"];
        assert_eq!(process["pid"], scene.holders[1].pid());
        assert_eq!((&process["comm"], &process["args"]), (&json!("sleep"), &json!(["sleep", "600"])));
        assert_eq!((&process["uid"], &process["user"]), (&json!(0), &json!("root")));
        assert_eq!((&process["ppid"], &process["ancestors"][0]["pid"]), (&json!(own), &json!(own)));
        assert_eq!((&process["exe_state"], &process["kernel"]), (&json!("ok"), &json!(false)));
        assert_eq!(process.get("thread"), None);
        let pid = scene.holders[1].pid();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(process["exe"], exe.to_str().unwrap());
        assert!(process["key"].as_str().unwrap().starts_with(&format!("{pid}@")));

        let mapped = rows.one("tcp", 2002, 7002);
        assert_eq!((&mapped["family"], &mapped["mapped"]), (&json!("ipv4"), &json!(true)));
        assert_eq!(mapped["local"], json!({"ip": "127.0.0.1", "port": 2002}));
        assert_eq!(rows.one("tcp", 2001, 7001)["family"], "ipv6");
        assert_eq!(rows.one("tcp", 2001, 7001)["recv_q"], 14);
        assert_eq!(rows.one("tcp", 7009, 2009)["inode"], 0);

        let dns = rows.one("udp", 53, 0);
        assert_eq!(
            (&dns["state"], &dns["service"], &dns["origin"]),
            (&json!(""), &json!("domain"), &Value::Null)
        );
        let question = rows.one("udp", 5001, 53);
        assert_eq!(question["state"], "ESTABLISHED");
        // 53 is below 1024, and that is all that one look knows.
        assert_eq!(question["origin"]["basis"], "port-range");
        assert_eq!(question["service"], "domain");

        let mut cookies: Vec<_> = rows.0.iter().map(|row| row["cookie"].as_u64().unwrap()).collect();
        cookies.sort_unstable();
        let all = cookies.len();
        cookies.dedup();
        assert_eq!(cookies.len(), all, "a socket came twice");
    });
}

#[test]
fn the_origin_column_reads_as_a_sentence() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let (_guess, _guessed, listener) = pair("127.0.0.1:50000", "127.0.0.1:6001");
        drop(listener);
        let table = netwatch(&["-nat"]);
        let row = |ends: [&str; 2]| {
            let found = table.lines().find(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                words.len() > 4 && words[3..5] == ends
            });
            found.unwrap_or_else(|| panic!("{ends:?} in\n{table}"))
        };
        let connector = scene.holders[1].pid();
        let ends = |a, b| row([a, b]);
        assert!(
            ends("127.0.0.1:6000", "127.0.0.1:2000")
                .ends_with(&format!(" remote sleep[{connector}] (listener)"))
        );
        assert!(
            ends("127.0.0.1:2000", "127.0.0.1:6000").ends_with(&format!(" local sleep[{connector}] (peer)"))
        );
        assert!(
            ends("127.0.0.1:6001", "127.0.0.1:50000")
                .ends_with(" remote 127.0.0.1:50000 (guess: port-range)")
        );
        assert!(ends("127.0.0.1:6000", "0.0.0.0:*").ends_with(" -"));
    });
}

#[test]
fn another_namespace_is_looked_into_and_joined() {
    in_fresh_netns(|| {
        // Held open by this process, which must be the client's end; `sleep` lives in the other one.
        ip("link add here type veth peer name there");
        ip("addr add 10.77.0.1/24 dev here");
        ip("link set here up");
        let inner = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let idle = Running::holding(std::fs::File::open("/dev/null").unwrap());
            let netns = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            (idle, netns)
        });
        let (idle, netns) = inner.join().unwrap();
        ip(&format!("link set there netns {}", idle.pid()));
        let in_other = |work: &(dyn Fn() -> std::net::TcpListener + Sync)| {
            std::thread::scope(|scope| {
                let work = scope.spawn(|| {
                    nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                });
                work.join().unwrap()
            })
        };
        let listener = in_other(&|| {
            ip("link set lo up");
            ip("addr add 10.77.0.2/24 dev there");
            ip("link set there up");
            scene::listen_on("10.77.0.2:6000", 16)
        });
        let client = scene::connect_from("10.77.0.1:2000", "10.77.0.2:6000");
        let (server, _) = listener.accept().unwrap();
        let server = Running::holding(server);

        // Here there is but the client; that its peer was accepted is known from over there.
        let rows = Rows::take(&[]);
        assert_eq!(rows.0.len(), 1);
        let own = std::process::id();
        assert_eq!(rows.origin(2000, 6000), json!(["local", "peer", "inferred", "unknown", 2000, own]));

        let inum = std::os::unix::fs::MetadataExt::ino(&netns.metadata().unwrap()).to_string();
        let rows = Rows::take(&["--netns", &inum]);
        assert_eq!(rows.0.len(), 2);
        assert_eq!(rows.origin(6000, 2000), json!(["remote", "listener", "inferred", "unknown", 2000, own]));
        assert_eq!(rows.one("tcp", 6000, 2000)["process"]["pid"], server.pid());
        // Other tests' namespaces are among all.
        let rows = Rows::take(&["--netns", "all"]).0;
        let ours = |local: &str, port: u16| {
            let local = json!({"ip": local, "port": port});
            let row = rows.iter().find(|row| row["local"] == local && row["state"] == "ESTABLISHED");
            row.unwrap()["netns"].to_string()
        };
        assert_eq!(ours("10.77.0.2", 6000), inum);
        assert_ne!(ours("10.77.0.1", 2000), inum);
        let table = netwatch(&["--netns", "all"]);
        assert!(table.lines().nth(1).unwrap().contains(" NETNS "), "{table}");
        drop(client);
    });
}

#[test]
fn a_namespace_that_is_only_mounted_is_looked_into() {
    in_fresh_netns(|| {
        // What `ip netns add` leaves: no process, a mount. In a mount namespace of this thread's own.
        use nix::mount::{MsFlags, mount};
        const NONE: Option<&str> = None;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().join("a name with spaces");
        std::fs::write(&point, "").unwrap();
        // The socket is this process's, but no process's main thread is in its namespace.
        let (socket, inum) = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                ip("link set lo up");
                mount(Some("/proc/thread-self/ns/net"), &point, NONE, MsFlags::MS_BIND, NONE).unwrap();
                let inum = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&point).unwrap());
                (scene::listen_on("127.0.0.1:6000", 1), inum.to_string())
            });
            made.join().unwrap()
        });
        let rows = Rows::take(&["--netns", &inum]);
        assert_eq!(rows.one("tcp", 6000, 0)["process"]["pid"], std::process::id());
        drop(socket);
        nix::mount::umount(&point).unwrap();
        // Its number may be another test's by now; this one is nobody's (PROC_DYNAMIC_FIRST in fs/proc/generic.c).
        let gone = Command::new(binary()).args(["list", "--netns", "1"]).output().unwrap();
        assert_eq!(gone.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&gone.stderr).contains("network namespace 1 "));
    });
}

/// Since when they can (`kernel/trace/bpf_trace.c`, bpf_get_socket_ptr_cookie).
const COOKIES_IN_ITERATORS: (u32, u32) = (5, 12);

/// Who asks for the iterators gets them, or one line that says why not; who does not ask gets `/proc`.
#[test]
fn a_stranger_cannot_have_the_iterators() {
    let (_directory, copy) = stranger_s_copy(&binary(), "netwatch");
    let run =
        |source: &str| Command::new(&copy).args(["list", "--source", source]).uid(65534).output().unwrap();
    let refused = run("iter");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("root"), "{said}");
    assert!(run("best").status.success());
}

/// The iterators and `/proc` with sock_diag say the same, field by field.
#[test]
fn both_sources_give_the_same_rows() {
    if !Command::new(binary()).args(["list", "--source", "iter"]).output().unwrap().status.success() {
        assert!(kernel() < COOKIES_IN_ITERATORS, "iterators are to be had on {:?}", kernel());
        skip("list::both_sources_give_the_same_rows", "before 5.12 iterators cannot ask for cookies");
        return;
    }
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let rows = |source| {
            let mut rows = objects(&netwatch(&["--json", "--source", source]));
            rows.iter_mut().for_each(without_starts);
            rows.sort_by_key(Value::to_string);
            rows
        };
        let mut last = (Vec::new(), Vec::new());
        until("sockets hold still", || {
            last = (rows("iter"), rows("proc"));
            last.0 == last.1
        });
        assert!(last.0.len() > 10, "too little to compare: {last:#?}");
    });
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Two readings of the clocks differ by some nanoseconds, and so do starts as times of day.
fn without_starts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("start");
            fields.values_mut().for_each(without_starts);
        }
        Value::Array(items) => items.iter_mut().for_each(without_starts),
        _ => {}
    }
}
