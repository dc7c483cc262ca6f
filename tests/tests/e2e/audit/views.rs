//! Views that disagree: because netwatch hides entries from one, or because something is mounted over a process's
//! folder.

use std::net::TcpListener;
use std::process::Command;

use tests::{binary, in_fresh_netns, output};

use super::Audit;
use crate::actor;

/// Without iterators there is no second view of processes and their descriptors.
fn iterators_can_be_had() -> bool {
    let output = output(Command::new(binary()).args(["list", "--source", "iter"]));
    output.status.success()
}

#[test]
fn views_of_an_unaltered_host_agree() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        server.say("udp bind 127.0.0.1:4445");
        // Not every kernel has MPTCP.
        let mptcp = server.try_say("listen [::]:4446 8 mptcp").is_ok();
        server.say("connect 127.0.0.1:2000 127.0.0.1:4444");
        let audit = Audit::take(&[]);
        audit.has_no("views-disagree");
        let mptcp = mptcp.then_some("[::]:4446");
        for local in ["127.0.0.1:4444", "127.0.0.1:4445"].into_iter().chain(mptcp) {
            assert_eq!(audit.port(local)["process"]["pid"], server.pid(), "{local}");
        }
    });
}

#[test]
fn socket_hidden_from_a_view_is_a_finding() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        server.say("udp bind 127.0.0.1:4445");
        let views =
            [("net", "not by /proc/net"), ("diag", "not by sock_diag"), ("iter", "not by the BPF iterators")];
        for (view, evidence) in views {
            if view == "iter" && !iterators_can_be_had() {
                tests::skip(
                    "audit::views::socket_hidden_from_a_view_is_a_finding (iter)",
                    "the kernel has no iterators",
                );
                continue;
            }
            // Each is a separate audit, which takes seconds in an emulator.
            let ports = [(4444, "tcp"), (4445, "udp")];
            let ports = if tests::is_emulated() { &ports[..1] } else { &ports[..] };
            for (port, proto) in ports {
                let audit = Audit::take(&["--hide", &format!("{view}={port}")]);
                let finding = audit.finding("views-disagree");
                assert_eq!((&finding["severity"], &finding["proto"]), (&"critical".into(), &(*proto).into()));
                assert_eq!(finding["process"]["pid"], server.pid());
                assert!(finding["evidence"].as_str().unwrap().contains(evidence), "{finding}");
                // The port is reported whichever view hides it.
                assert_eq!(audit.port(&format!("127.0.0.1:{port}"))["process"]["pid"], server.pid());
            }
            if tests::is_emulated() && view != "net" {
                continue;
            }
            // Hidden in one of two comparisons: a coincidence.
            Audit::take(&["--hide", &format!("once:{view}=4444")]).has_no("views-disagree");
        }
    });
}

#[test]
fn process_hidden_from_proc_is_a_finding() {
    if !iterators_can_be_had() {
        return tests::skip(
            "audit::views::process_hidden_from_proc_is_a_finding",
            "the kernel has no iterators",
        );
    }
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        let pid = server.pid();
        let audit = Audit::take(&["--hide", &format!("proc={pid}")]);
        let finding = audit.finding("views-disagree");
        let evidence = finding["evidence"].as_str().unwrap();
        assert!(evidence.starts_with(&format!("process {pid} is shown by the BPF iterators")), "{evidence}");
        Audit::take(&["--hide", &format!("once:proc={pid}")]).has_no("views-disagree");
    });
}

/// What intruders do without a rootkit: an empty folder over that of the process.
#[test]
fn process_with_a_mount_over_its_folder_is_a_finding() {
    if !iterators_can_be_had() {
        return tests::skip(
            "audit::views::process_with_a_mount_over_its_folder_is_a_finding",
            "the kernel has no iterators",
        );
    }
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        let pid = server.pid();
        // In a temporary mount namespace.
        let script = format!("mount -t tmpfs none /proc/{pid} && exec \"$0\" audit --json --netns self");
        let audit = Audit::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(binary()));
        let finding = audit.finding("views-disagree");
        assert!(finding["evidence"].as_str().unwrap().starts_with(&format!("process {pid} ")), "{finding}");
        assert_eq!(audit.status, Some(3));
    });
}

/// A thread with its own descriptors is no disagreement, although `/proc/PID/fd` shows the leader's.
#[test]
fn thread_with_its_own_descriptors_is_no_finding() {
    in_fresh_netns(|| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
                let listener = TcpListener::bind("127.0.0.1:4444").unwrap();
                ready.send(()).unwrap();
                // Until the test ends, in any way.
                let _ = receiver.recv();
                drop(listener);
            });
            is_ready.recv().unwrap();
            let audit = Audit::take(&[]);
            drop(sender);
            audit.has_no("views-disagree");
            assert_eq!(audit.port("127.0.0.1:4444")["local"]["port"], 4444);
        });
    });
}

/// Missing permissions are reported as notes, and cause no findings.
#[test]
fn unreadable_view_is_a_note() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        let (_folder, copy) = tests::stranger_s_copy(&binary(), "netwatch");
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
        let audit = Audit::of(nobody.args(["audit", "--json", "--netns", "self"]));
        audit.has_no("views-disagree");
        audit.notes_with("descriptors could not be read");
        audit.notes_with("without the BPF iterators");
        assert_eq!(audit.port("127.0.0.1:4444")["process"], serde_json::Value::Null);

        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--pid", "--fork", "--mount-proc"]).arg(binary());
        let audit = Audit::of(elsewhere.args(["audit", "--json", "--netns", "self"]));
        audit.has_no("views-disagree");
        audit.notes_with("without the BPF iterators");
    });
}
