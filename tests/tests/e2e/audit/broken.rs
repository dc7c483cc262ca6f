//! What cannot be read or queried is a note, and the rest of the audit is done.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use tests::{Actor, Running, binary, in_fresh_netns, until};

use super::Audit;
use crate::actor;

/// Audits in a temporary mount namespace in which `content` is mounted on the file `path`.
fn with_mounted(path: &str, content: &[u8]) -> Audit {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, content).unwrap();
    let script = format!("mount --bind {} {path} && exec \"$0\" audit --json --netns self", file.display());
    Audit::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(binary()))
}

#[test]
fn damaged_services_file_is_read_in_part() {
    if !Path::new("/etc/services").exists() {
        return tests::skip(
            "audit::broken::damaged_services_file_is_read_in_part",
            "there is no /etc/services",
        );
    }
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        let audit = with_mounted("/etc/services", b"ssh 22/tcp\n\xff\xfe\x00 nonsense\nhttp eighty/tcp\n");
        audit.notes_with("line 2 of /etc/services and 1 others are invalid");
        assert_eq!(audit.port("127.0.0.1:22")["service"], "ssh");
    });
}

/// Audits `sleep`, which listens at 127.0.0.1:5000, in a temporary mount namespace in which `what` is mounted on
/// `path`: netwatch reads the package database of the program's own namespace.
fn sleep_with_mounted(what: &Path, path: &str) -> Audit {
    let script = format!(
        "mount --bind {} {path} && exec 3<&0 </dev/null && {{ sleep 600 <&3 3<&- & }} && exec 3<&- && \
         \"$0\" audit --json --netns self; status=$?; kill $!; wait $!; exit $status",
        what.display()
    );
    let listener = TcpListener::bind("127.0.0.1:5000").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binary());
    Audit::of_with(command, listener.into())
}

#[test]
fn damaged_package_database_names_no_package() {
    const STATUS: &str = "/var/lib/dpkg/status";
    if !Path::new(STATUS).exists() {
        return tests::skip("audit::broken::damaged_package_database_names_no_package", "dpkg is not here");
    }
    in_fresh_netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let package = |audit: &Audit| {
            let port = audit.port("127.0.0.1:5000");
            assert_eq!(port["process"]["comm"], "sleep");
            port["package"]["name"].as_str().map(str::to_owned)
        };
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        assert_eq!(package(&sleep_with_mounted(&elsewhere, "/mnt")).as_deref(), Some("coreutils"));
        // Invalid bytes contain no packages.
        let damaged = folder.path().join("damaged");
        std::fs::write(&damaged, b"\xff\x00 no status\n").unwrap();
        assert_eq!(package(&sleep_with_mounted(&damaged, STATUS)), None);
        // It has no writer: open() for reading would block forever.
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let audit = sleep_with_mounted(&fifo, STATUS);
        audit.notes_with("the status of dpkg in ");
        assert_eq!(package(&audit).as_deref(), Some("coreutils"));
        // A file list of no package.
        std::fs::write(elsewhere.join("damaged.list"), b"\xff\x00\n/no/such").unwrap();
        assert_eq!(package(&sleep_with_mounted(&elsewhere, "/var/lib/dpkg/info")), None);
    });
}

/// The creator of a user namespace controls the files in it.
#[test]
fn package_database_in_a_user_namespace_is_not_trusted() {
    if !Path::new("/var/lib/dpkg/status").exists() {
        return tests::skip(
            "audit::broken::package_database_in_a_user_namespace_is_not_trusted",
            "dpkg is not here",
        );
    }
    in_fresh_netns(|| {
        for (options, package) in
            [(&["--mount"][..], Some("coreutils")), (&["--user", "--map-root-user", "--mount"], None)]
        {
            let listener = TcpListener::bind("127.0.0.1:5000").unwrap();
            // The command has the listener open until it is dropped.
            let mut sleep = {
                let mut command = Command::new("unshare");
                command.args(options).args(["sleep", "600"]).stdin(OwnedFd::from(listener));
                Running::start(&mut command)
            };
            until("it has become sleep", || {
                std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid()))
                    .is_ok_and(|comm| comm == "sleep\n")
            });
            let audit = Audit::take(&[]);
            let port = audit.port("127.0.0.1:5000");
            assert_eq!(
                (port["process"]["pid"].as_u64(), port["package"]["name"].as_str()),
                (Some(sleep.pid().into()), package)
            );
            if package.is_none() {
                audit.notes_with("another user namespace");
            }
            sleep.signal(nix::sys::signal::Signal::SIGKILL);
            sleep.ended("sleep ends");
        }
    });
}

/// It accepts the query, and never answers.
#[test]
fn hanging_portmapper_is_a_note() {
    in_fresh_netns(|| {
        let portmapper = TcpListener::bind("127.0.0.1:111").unwrap();
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        let audit = Audit::take(&[]);
        audit.notes_with("portmapper");
        assert_eq!(audit.port("127.0.0.1:5000")["process"]["pid"], server.pid());
        drop(portmapper);
    });
}

/// Its answer is invalid.
#[test]
fn invalid_portmapper_answer_is_a_note() {
    in_fresh_netns(|| {
        let portmapper = TcpListener::bind("127.0.0.1:111").unwrap();
        std::thread::spawn(move || {
            // It ends with the test's process at the latest: one answer for each query.
            while let Ok((mut asker, _)) = portmapper.accept() {
                // The client may have closed the connection.
                let _ = asker.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        let audit = Audit::take(&[]);
        audit.notes_with("portmapper");
        assert_eq!(audit.port("127.0.0.1:5000")["process"]["pid"], server.pid());
    });
}

/// It claims that every port belongs to an RPC service. That explains no program that has no package or unit.
#[test]
fn false_portmapper_answer_explains_nothing() {
    in_fresh_netns(|| {
        let portmapper = TcpListener::bind("127.0.0.1:111").unwrap();
        std::thread::spawn(move || {
            while let Ok((mut asker, _)) = portmapper.accept() {
                let mut call = [0; 44];
                if std::io::Read::read_exact(&mut asker, &mut call).is_err() {
                    continue;
                }
                // RFC 5531: the xid, a reply, accepted, no verifier, success; RFC 1833: one mapping, of nfs, and no
                // more.
                let mut words = vec![u32::from_be_bytes([call[4], call[5], call[6], call[7]]), 1, 0, 0, 0, 0];
                words.extend([1, 100_003, 3, 6, 5000, 0]);
                let body: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
                let mark = 0x8000_0000 | u32::try_from(body.len()).unwrap();
                let _ = asker.write_all(&[&mark.to_be_bytes()[..], &body].concat());
            }
        });
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        let audit = Audit::take(&[]);
        let port = audit.port("127.0.0.1:5000");
        assert_eq!(
            (&port["rpc"][0]["program"], &port["explained"]),
            (&100_003.into(), &false.into()),
            "{port:#}"
        );
    });
}

/// Processes that start, listen and exit all the time.
#[test]
fn processes_that_exit_during_the_audit_are_no_finding() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let listen = "listen 127.0.0.1:0 8";
                    let _ = Command::new(Actor::program()).arg(listen).status();
                }
            });
            for _ in 0..5 {
                let audit = Audit::take(&[]);
                audit.has_no("views-disagree");
                assert_eq!(audit.port("127.0.0.1:5000")["process"]["pid"], server.pid());
                // A process that exited between the snapshots of sockets and of processes is not reported.
                assert!(audit.kind("port").all(|port| port["process"].is_object()), "{:#?}", audit.objects);
            }
            drop(stop);
        });
    });
}
