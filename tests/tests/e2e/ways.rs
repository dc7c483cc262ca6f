//! Other ways into the kernel than a system call of a 64-bit program: 32-bit ones, bash's /dev/tcp, and the kernel
//! itself.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tests::{Actor, Running, Watch, assert_has, cannot_detect_via, endpoint, in_fresh_netns, kind, skip};

use crate::actor;
use crate::expect::{CONN, Conn, assert_via, used_by};

/// Whether kernel and processor accept 32-bit system calls; if not, prints a skip line for `test`.
fn takes_32_bit_calls(test: &str) -> bool {
    let has = cfg!(target_arch = "x86_64")
        && Running::start(Command::new(Actor::program()).arg("ia32")).ended("the actor tries").success();
    if !has {
        skip(test, "the kernel takes no 32-bit system calls (CONFIG_IA32_EMULATION)");
    }
    has
}

/// Does everything by `way`, and compares `via`.
fn lives(way: &str, via: Option<&str>) {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, &format!("{way} "));
        server.say(&format!("{way} accept"));
        client.say(&format!("{way} send 10"));
        server.say(&format!("{way} recv 10"));
        let open = watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&client.object()));
        assert_has(&open, used_by(&client.object(), "connect"));
        let listen = watch.at("listen", endpoint(6000, 0));
        let accept = watch.at("accept", CONN.server_endpoint());
        assert_has(&accept, CONN.at_server(&client.object()));
        assert_has(&accept, used_by(&server.object(), "accept"));
        assert_has(
            &accept,
            json!({
                "listener": {"id": listen["id"], "process": server.object()},
                "peer": {"id": open["id"], "process": client.object()},
            }),
        );
        let closed = CONN.closes(&mut watch, &mut client, &mut server);
        assert_has(&closed[0], CONN.at_client(&client.object()));
        assert_has(&closed[1], CONN.at_server(&client.object()));
        for event in [&open, &accept, &closed[0], &closed[1]] {
            assert_via(event, via);
        }
        let log = watch.finish();
        CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn socketcall_has_via_socketcall() {
    if cannot_detect_via("ways::socketcall_has_via_socketcall") {
        return;
    }
    if takes_32_bit_calls("ways::socketcall_has_via_socketcall") {
        lives("socketcall", Some("socketcall"));
    }
}

/// The direct 32-bit calls, since Linux 4.3, are plain calls.
#[test]
fn ia32_system_calls_have_no_via() {
    if takes_32_bit_calls("ways::ia32_system_calls_have_no_via") {
        lives("ia32", None);
    }
}

#[test]
fn refused_32_bit_connect_is_econnrefused() {
    if cannot_detect_via("ways::refused_32_bit_connect_is_econnrefused") {
        return;
    }
    if !takes_32_bit_calls("ways::refused_32_bit_connect_is_econnrefused") {
        return;
    }
    for (way, via) in [("socketcall", Some("socketcall")), ("ia32", None)] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let mut client = actor();
            let Conn { client: local, server: remote } = CONN;
            let got = client.try_say(&format!("{way} connect {local} {remote}"));
            assert_eq!(got, Err("ECONNREFUSED".to_owned()));
            let fail = watch.at("fail", CONN.client_endpoint());
            let mut expected = CONN.at_client(&client.object());
            expected["errno"] = "ECONNREFUSED".into();
            assert_has(&fail, expected);
            assert_has(&fail, used_by(&client.object(), "connect"));
            assert_via(&fail, via);
            assert_eq!(watch.finish().kinds(CONN.client_endpoint()), ["fail"]);
        });
    }
}

/// A child that uses its parent's socket by 32-bit calls.
#[test]
fn use_by_a_child_is_a_handover() {
    if cannot_detect_via("ways::use_by_a_child_is_a_handover") {
        return;
    }
    if !takes_32_bit_calls("ways::use_by_a_child_is_a_handover") {
        return;
    }
    for way in ["socketcall", "ia32"] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            CONN.connects(&mut client, "");
            server.say("accept");
            let child = client.hire();
            client.say(&format!("worker {way} send 10"));
            server.say("recv 10");
            let handover = watch.at("handover", CONN.client_endpoint());
            assert_has(&handover, CONN.at_client(&client.object()));
            assert_has(&handover, used_by(&child, "handover"));
        });
    }
}

#[test]
fn bash_is_the_originator_of_its_connection() {
    let bash = Path::new("/bin/bash");
    if !bash.exists() {
        skip("ways::bash_is_the_originator_of_its_connection", "there is no bash");
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        CONN.listens(&mut server);
        let script =
            "exec 3<>/dev/tcp/127.0.0.1/6000; echo hello >&3; read -r answer <&3; cat <&3; exec 3>&-";
        let mut shell = Running::start(Command::new(bash).args(["-c", script]));
        let local = server.say("accept");
        server.say("recv 6");
        let conn = Conn { client: &local, ..CONN };
        let connector = json!({
            "pid": shell.pid(),
            "tid": shell.pid(),
            "comm": "bash",
            "exe": bash.canonicalize().unwrap().to_str().unwrap(),
            "exe_state": "ok",
            "args": ["/bin/bash", "-c", script],
            "uid": 0,
            "user": "root",
            "ppid": std::process::id(),
            "kernel": false,
        });
        let open = watch.at("open", conn.client_endpoint());
        assert_has(&open, conn.at_client(&connector));
        assert_has(&open, used_by(&connector, "connect"));
        assert_via(&open, None);
        let accept = watch.at("accept", conn.server_endpoint());
        assert_has(&accept, conn.at_server(&connector));
        assert_has(&accept, used_by(&server.object(), "accept"));
        // Its child is another user.
        server.say("line");
        server.say("close");
        shell.ended("bash ends");
        let handover = watch.at("handover", conn.client_endpoint());
        assert_has(&handover, conn.at_client(&connector));
        assert_has(&handover, json!({"process_basis": "handover"}));
        assert_has(&handover["process"], json!({"comm": "cat", "args": ["cat"], "ppid": shell.pid()}));
        let closed = watch.at("close", conn.client_endpoint());
        assert_has(&closed, conn.at_client(&connector));
        assert_has(&closed, json!({"bytes_sent": 6, "closed_by": "remote"}));
        let log = watch.finish();
        conn.kinds(&log, &["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

/// A network file system: the kernel itself connects, in one of its threads.
#[test]
fn kernel_connection_has_via_kernel() {
    const NAME: &str = "ways::kernel_connection_has_via_kernel";
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !file_systems.lines().any(|line| line.ends_with("\tnfs4")) {
        skip(NAME, "the kernel has no NFS (nfsv4.ko is not loaded)");
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        CONN.listens(&mut server);
        let directory = tempfile::tempdir().unwrap();
        let options = "vers=4.1,proto=tcp,addr=127.0.0.1,clientaddr=127.0.0.1,port=6000,soft,timeo=20,retrans=1,noresvport";
        // Without the mount helper of NFS, which may not be installed.
        let mut mount = Running::start(
            Command::new("mount")
                .args(["-i", "-t", "nfs4", "-o", options, "127.0.0.1:/"])
                .arg(directory.path())
                .stderr(Stdio::null()),
        );
        let open = watch.expect("the kernel connects", |event| {
            kind(event) == "open" && tests::port(event, "remote") == 6000
        });
        assert_has(&open, json!({"via": "kernel", "process_basis": "connect"}));
        assert_has(&open["process"], json!({"kernel": true, "uid": 0}));
        assert_has(
            &open["origin"],
            json!({"side": "local", "basis": "connect", "confidence": "observed", "process": open["process"]}),
        );
        assert_ne!(open["process"]["pid"], mount.pid());
        server.say("accept");
        let server_endpoint = endpoint(6000, tests::port(&open, "local"));
        let accept = watch.at("accept", server_endpoint);
        assert_has(&accept["origin"], json!({"side": "remote", "process": open["process"]}));
        assert_has(&accept, used_by(&server.object(), "accept"));
        // The mount fails once the server is gone.
        mount.signal(nix::sys::signal::Signal::SIGKILL);
        server.kill();
        mount.ended("mount");
        watch.finish();
    });
}
