//! Programs that relay commands to a shell, in a Debian of the test.

use std::fs;
use std::io::Read as _;
use std::process::{ChildStdout, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tests::{Debian, Running, until};

/// The end of what [`Scene::answers`] waits for.
pub(super) const SAID: &str = "/42";

/// A loop that hands the commands from a connection to a shell on pipes, and its output back.
pub(super) const LOOP: &str = "import socket, subprocess, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
p = subprocess.PIPE
sh = subprocess.Popen(sys.argv[3:], stdin=p, stdout=p, stderr=subprocess.STDOUT)
while True:
    sh.stdin.write(c.recv(1024))
    sh.stdin.flush()
    c.send(sh.stdout.read1(1024))
";

/// A Debian, and what runs in it.
pub(super) struct Scene {
    // Dropped before `debian`.
    pub(super) running: Vec<Running>,
    pub(super) debian: Debian,
}

impl Scene {
    pub(super) fn new(test: &str) -> Option<Self> {
        Some(Self { running: Vec::new(), debian: Debian::of_this_run(test)? })
    }

    /// A file in that root.
    pub(super) fn has(&self, path: &str, text: &str) {
        self.debian.inside(|| fs::write(path, text).unwrap());
    }

    pub(super) fn command(words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LC_ALL", "C.UTF-8").env("HOME", "/root").current_dir("/tmp");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts a program.
    pub(super) fn start(&mut self, words: &[&str]) {
        let running = self.debian.inside(|| Running::start(&mut Self::command(words)));
        self.running.push(running);
    }

    /// Starts a program with this input, which stays open, and waits until it says [`SAID`]. Returns what it said.
    pub(super) fn answers(&mut self, words: &[&str], input: &str) -> String {
        let mut running = self
            .debian
            .inside(|| Running::start(Self::command(words).stdin(Stdio::piped()).stdout(Stdio::piped())));
        if !input.is_empty() {
            running.tell(input);
        }
        let answer = read_until(&mut running.stdout(), SAID);
        self.running.push(running);
        answer
    }

    /// What a program prints that ends by itself.
    pub(super) fn output(&self, words: &[&str]) -> String {
        let output = self.debian.inside(|| tests::output(&mut Self::command(words)));
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Reads until the output ends with `end`.
fn read_until(stdout: &mut ChildStdout, end: &str) -> String {
    fcntl(&*stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut said = Vec::new();
    until(&format!("a program says {end}"), || {
        let mut bytes = [0; 4096];
        if let Ok(len) = stdout.read(&mut bytes) {
            said.extend_from_slice(&bytes[..len]);
        }
        said.ends_with(end.as_bytes())
    });
    String::from_utf8_lossy(&said).into_owned()
}
