//! The screen in a real terminal (tmux): the real binary, real connections, keys, sizes and signals.

use std::cell::RefCell;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Actor, Recorder, Store, binary, in_fresh_netns, output, skip, until};

use crate::actor;

/// A terminal in which a shell runs netwatch, and says how it ended and what the terminal is set to.
struct Terminal {
    socket: String,
    last: RefCell<String>,
}

/// What the shell prints when netwatch has ended, before the status.
const ENDED: &str = "top ended with";

impl Terminal {
    /// `None`, with a line for `cargo xtask test`, if there is no tmux.
    fn start(test: &str, arguments: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            skip(test, "tmux is not installed");
            return None;
        }
        let terminal =
            Self { socket: format!("netwatch-{}-{test}", std::process::id()), last: RefCell::default() };
        let binary = binary();
        let forced = tests::forced();
        let line = format!(
            "RUST_LOG=off {} top {arguments} {}; echo {ENDED} $?; stty -a | tr ' ;' '\\n\\n' | grep -x -e '-*icanon' -e '-*echo' | xargs echo modes; read line; echo read $line; sleep 600",
            binary.display(),
            forced.join(" "),
        );
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "24", "sh", "-c", &line]);
        Some(terminal)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = output(Command::new("tmux").args(["-L", &self.socket]).args(words).env("TERM", "xterm"));
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        let screen = self.tmux(&["capture-pane", "-p"]);
        self.last.replace(screen.clone());
        screen
    }

    /// Waits until the screen fulfils a condition.
    fn shows_that(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        until(&format!("the screen shows {what}"), || is(&self.screen()));
        self.last.borrow().clone()
    }

    fn shows(&self, text: &str) -> String {
        self.shows_that(text, |screen| screen.contains(text))
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// The process of netwatch: the child of the shell that is no helper of it.
    fn pid(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let mut pid = None;
        until("netwatch runs", || {
            let children = std::fs::read_to_string(&children).unwrap_or_default();
            pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
            pid.is_some()
        });
        Pid::from_raw(pid.unwrap())
    }

    /// netwatch ends with this status, and leaves the terminal as it was: lines, an echo, and the other screen.
    fn is_sane_after(&self, status: i32) -> String {
        let screen = self.shows_that("the modes", |screen| screen.contains("modes "));
        assert!(screen.contains(&format!("{ENDED} {status}")), "{screen}");
        assert!(screen.contains("modes icanon echo") || screen.contains("modes echo icanon"), "{screen}");
        assert!(!screen.contains("[1 Connections]"), "{screen}");
        self.keys(&["hello", "Enter"]);
        self.shows("read hello");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the screen was:\n{}", self.last.borrow());
        }
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).status();
    }
}

/// A connection within this host, which both actors keep.
fn connected() -> (Actor, Actor) {
    let (mut client, mut server) = (actor(), actor());
    server.say("listen 127.0.0.1:6000 16");
    client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
    server.say("accept");
    (client, server)
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn screen_names_the_originator_of_a_connection() {
    in_fresh_netns(|| {
        let Some(terminal) = Terminal::start("originator", "--netns self") else { return };
        terminal.shows(" live ");
        let (client, server) = connected();
        let (out, inside) = (
            format!("actor[{}] -> connect 127.0.0.1:6000 actor[{}] ESTAB", client.pid(), client.pid()),
            format!("actor[{}] <- accept 127.0.0.1:2000 actor[{}] ESTAB", client.pid(), server.pid()),
        );
        terminal.shows_that("both endpoints with their originator", |screen| {
            let lines: Vec<_> = screen.lines().map(words).collect();
            [&out, &inside].iter().all(|end| lines.iter().any(|line| line.ends_with(end.as_str())))
        });
        // A narrow screen still has it.
        terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
        let narrow = format!("actor[{}] -> 127.0.0.1:6000", client.pid());
        terminal.shows_that(&narrow, |screen| screen.lines().any(|line| words(line) == narrow));
        terminal.tmux(&["resize-window", "-x", "10", "-y", "4"]);
        terminal.shows("too small");
        terminal.tmux(&["resize-window", "-x", "100", "-y", "24"]);
        terminal.shows("PROGRAM");

        // The views, a filter, details and a trace.
        terminal.keys(&["4"]);
        terminal.shows_that("the listener", |screen| {
            screen
                .lines()
                .map(words)
                .any(|line| line.starts_with("127.0.0.1:6000 tcp actor[") && line.contains("] 1 "))
        });
        terminal.keys(&["1", "/", "origin:local", "Space", "port:6000", "Enter"]);
        let shown = terminal.shows("filter: origin:local port:6000");
        assert!(!shown.lines().any(|line| words(line).ends_with(&inside)), "{shown}");
        terminal.keys(&["Down", "Enter"]);
        terminal.shows(&format!("Known by: actor[{}] was seen to call connect()", client.pid()));
        terminal.keys(&["t"]);
        terminal.shows_that("the trace", |screen| screen.contains("└ ") && screen.contains("127.0.0.1:2000"));
        terminal.keys(&["y"]);
        terminal.shows("copied: netwatch log --proto tcp --local 127.0.0.1:2000 --remote 127.0.0.1:6000");
        let copied = terminal.tmux(&["show-options", "-gv", "set-clipboard"]);
        assert!(copied.starts_with("external") || copied.starts_with("on"), "{copied}");
        terminal.keys(&["Escape"]);
        terminal.shows("ORIGIN");

        // A closed connection is said to be, and goes.
        drop((client, server));
        terminal.shows("closed");
        // The selected line stays until it is not selected any more.
        terminal.keys(&["Escape"]);
        terminal
            .shows_that("nothing", |screen| screen.contains("nothing matches") || !screen.contains("closed"));
        terminal.keys(&["q"]);
        terminal.is_sane_after(0);
    });
}

#[test]
fn signals_leave_a_sane_terminal() {
    in_fresh_netns(|| {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let test = format!("signal-{}", signal as i32);
            let Some(terminal) = Terminal::start(&test, "--netns self") else { return };
            terminal.shows(" live ");
            kill(terminal.pid(), signal).unwrap();
            terminal.is_sane_after(0);
        }
    });
}

#[test]
fn screen_comes_back_after_a_stop() {
    in_fresh_netns(|| {
        let Some(terminal) = Terminal::start("stop", "--netns self") else { return };
        terminal.shows(" live ");
        let pid = terminal.pid();
        for signal in [Signal::SIGTSTP, Signal::SIGSTOP] {
            kill(pid, signal).unwrap();
            until("netwatch is stopped", || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            });
            if signal == Signal::SIGTSTP {
                assert!(!terminal.screen().contains("Connections"), "{}", terminal.screen());
            }
            kill(pid, Signal::SIGCONT).unwrap();
            terminal.shows(" live ");
            terminal.keys(&["2"]);
            terminal.shows("[2 Processes]");
            terminal.keys(&["1"]);
            terminal.shows("[1 Connections]");
        }
        terminal.keys(&["q"]);
        terminal.is_sane_after(0);
    });
}

#[test]
fn panic_leaves_a_sane_terminal() {
    in_fresh_netns(|| {
        let Some(terminal) = Terminal::start("panic", "--netns self --panics") else { return };
        terminal.shows(" live ");
        terminal.keys(&["P"]);
        let screen = terminal.is_sane_after(1);
        assert!(screen.contains("the key P was pressed"), "{screen}");
    });
}

#[test]
fn failed_start_is_said_on_the_usual_screen() {
    in_fresh_netns(|| {
        let Some(terminal) = Terminal::start("failed", "--store /nowhere/at/all.db") else { return };
        let screen = terminal.is_sane_after(1);
        assert!(screen.contains("no store at /nowhere/at/all.db"), "{screen}");
    });
}

#[test]
fn stored_connections_are_shown_and_traced() {
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        let (client, server) = connected();
        until("all is recorded", || store.log(&["--event", "accept"]).len() == 1);
        recorder.finish();
        let line = format!("--store {}", store.path().display());
        let Some(terminal) = Terminal::start("store", &line) else { return };
        let out = format!("actor[{}] -> connect 127.0.0.1:6000", client.pid());
        terminal.shows_that(&out, |screen| screen.lines().any(|line| words(line).contains(&out)));
        terminal.keys(&["/", "origin:local", "Enter", "Down", "t"]);
        terminal.shows_that("the trace", |screen| screen.contains("└ ") && screen.contains("127.0.0.1:2000"));
        drop(server);
        terminal.keys(&["q"]);
        terminal.is_sane_after(0);
    });
}

#[test]
fn without_a_terminal_it_points_to_watch() {
    let output = tests::netwatch(&["top"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains("`netwatch watch`"), "{stderr}");
    in_fresh_netns(|| {
        let Some(terminal) = Terminal::start("dumb", "") else { return };
        // The shell of this one sets nothing: a dumb terminal is tried beside it.
        let dumb = format!("TERM=dumb {} top; echo status $?; sleep 600", binary().display());
        terminal.tmux(&["new-window", "sh", "-c", &dumb]);
        terminal.shows_that("the line", |screen| {
            screen.contains("status 2") && screen.contains("netwatch watch")
        });
    });
}

#[test]
fn without_privileges_it_polls_and_says_so() {
    in_fresh_netns(|| {
        let (_client, _server) = connected();
        let Some(terminal) = Terminal::start("polling", "") else { return };
        let (_directory, copy) = tests::stranger_s_copy(&binary(), "netwatch");
        let line = format!(
            "RUST_LOG=off setpriv --reuid 65534 --regid 65534 --clear-groups {} top; sleep 600",
            copy.display()
        );
        terminal.tmux(&["new-window", "sh", "-c", &line]);
        let screen = terminal.shows("127.0.0.1:6000");
        assert!(screen.lines().next().unwrap().contains("POLLING, NO PROBES"), "{screen}");
        terminal.keys(&["5"]);
        terminal.shows("no probes: top lacks CAP_BPF");
    });
}
