//! What cannot be read or asked is a note, and never ends the rest.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use tests::{Actor, Running, binary, in_fresh_netns, until};

use super::Audit;
use crate::actor;

/// Audits in a mount namespace that ends with it, where `content` is mounted on the file `path`.
fn with_mounted(path: &str, content: &[u8]) -> Audit {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, content).unwrap();
    let script = format!("mount --bind {} {path} && exec \"$0\" audit --json --netns self", file.display());
    Audit::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(binary()))
}

#[test]
fn a_damaged_file_of_services() {
    if !Path::new("/etc/services").exists() {
        return tests::skip("audit::broken::a_damaged_file_of_services", "there is no /etc/services");
    }
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        let audit = with_mounted("/etc/services", b"ssh 22/tcp\n\xff\xfe\x00 nonsense\nhttp eighty/tcp\n");
        audit.notes_with("line 2 of /etc/services and 1 others are invalid");
        assert_eq!(audit.port("127.0.0.1:22")["service"], "ssh");
    });
}

/// Audits `sleep`, which listens at 127.0.0.1:5000, in a mount namespace of its own that ends with it, where `what` is
/// mounted on `path`: netwatch reads the database that the program's own namespace has.
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
fn a_database_of_packages_that_cannot_be_read() {
    const STATUS: &str = "/var/lib/dpkg/status";
    if !Path::new(STATUS).exists() {
        return tests::skip("audit::broken::a_database_of_packages", "dpkg is not here");
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
        // Bytes that make no sense have no packages in them.
        let damaged = folder.path().join("damaged");
        std::fs::write(&damaged, b"\xff\x00 no status\n").unwrap();
        assert_eq!(package(&sleep_with_mounted(&damaged, STATUS)), None);
        // Nobody ever writes to it: whoever opens it would wait for ever.
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let audit = sleep_with_mounted(&fifo, STATUS);
        audit.notes_with("the status of dpkg in ");
        assert_eq!(package(&audit).as_deref(), Some("coreutils"));
        // No list of any package's.
        std::fs::write(elsewhere.join("damaged.list"), b"\xff\x00\n/no/such").unwrap();
        assert_eq!(package(&sleep_with_mounted(&elsewhere, "/var/lib/dpkg/info")), None);
    });
}

/// Whoever makes a user namespace has the files there say what they want.
#[test]
fn a_database_of_packages_of_somebody_s_own() {
    if !Path::new("/var/lib/dpkg/status").exists() {
        return tests::skip("audit::broken::a_database_of_packages_of_somebody_s_own", "dpkg is not here");
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

/// It takes the question, and never answers.
#[test]
fn a_portmapper_that_hangs() {
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

/// It answers with what makes no sense.
#[test]
fn a_portmapper_that_talks_nonsense() {
    in_fresh_netns(|| {
        let portmapper = TcpListener::bind("127.0.0.1:111").unwrap();
        std::thread::spawn(move || {
            // Ends with the test's process at the latest: one answer for each question.
            while let Ok((mut asker, _)) = portmapper.accept() {
                // Whoever asked may have hung up.
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

/// It says that everybody's port is a service's. That explains no program that nobody answers for.
#[test]
fn a_portmapper_that_lies() {
    in_fresh_netns(|| {
        let portmapper = TcpListener::bind("127.0.0.1:111").unwrap();
        std::thread::spawn(move || {
            while let Ok((mut asker, _)) = portmapper.accept() {
                let mut call = [0; 44];
                if std::io::Read::read_exact(&mut asker, &mut call).is_err() {
                    continue;
                }
                // RFC 5531: the xid, a reply, accepted, no verifier, success; RFC 1833: one mapping, of nfs, and no more.
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

/// Processes that begin, listen and end all the time.
#[test]
fn processes_that_vanish_meanwhile() {
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
                // What ended between the look at sockets and that at processes is no port any more.
                assert!(audit.kind("port").all(|port| port["process"].is_object()), "{:#?}", audit.objects);
            }
            drop(stop);
        });
    });
}
