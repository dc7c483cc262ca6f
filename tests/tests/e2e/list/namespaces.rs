//! `netwatch list --netns`: namespaces other than netwatch's own.

use std::process::Command;

use serde_json::json;
use tests::{Running, binary, in_fresh_netns, ip};

use super::objects::Rows;
use super::{netwatch, scene};

#[test]
fn other_namespace_is_listed_and_joined() {
    in_fresh_netns(|| {
        // The client's endpoint is held by this process; `sleep` is in the other namespace.
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

        // There is only the client here; that its peer was accepted is known from the other namespace.
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
fn mounted_namespace_without_processes_is_listed() {
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
        // Its number may be reused by another test; 1 is never used (PROC_DYNAMIC_FIRST in fs/proc/generic.c).
        let gone = Command::new(binary()).args(["list", "--netns", "1"]).output().unwrap();
        assert_eq!(gone.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&gone.stderr).contains("network namespace 1 "));
    });
}
