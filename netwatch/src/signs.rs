//! Signs of a backdoor, from the facts about a process. Pure. A sign is not a proof: an inetd service has a socket for
//! stdin, too.

use serde::{Serialize, Serializer};

use crate::model::ExeState;
use crate::process::{ExeStatus, Process};
use crate::tracker::Endpoint;

/// A sign that a process or a listener is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// A shell or an interpreter with a socket for its stdin or stdout.
    ShellOnSocket,
    /// The file of its executable was deleted.
    ExeDeleted,
    /// Its executable is an anonymous file in memory (memfd_create(2)).
    ExeMemfd,
    /// The directory of its executable is world-writable.
    ExeWorldWritable,
    /// A shell or an interpreter listens.
    ShellListens,
}

impl Sign {
    /// All signs.
    pub const ALL: [Self; 5] =
        [Self::ShellOnSocket, Self::ExeDeleted, Self::ExeMemfd, Self::ExeWorldWritable, Self::ShellListens];

    /// Name in JSON and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShellOnSocket => "shell-on-socket",
            Self::ExeDeleted => "exe-deleted",
            Self::ExeMemfd => "exe-memfd",
            Self::ExeWorldWritable => "exe-world-writable",
            Self::ShellListens => "shell-listens",
        }
    }

    /// Text for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ShellOnSocket => "shell on a socket",
            Self::ExeDeleted => "executable deleted",
            Self::ExeMemfd => "executable only in memory",
            Self::ExeWorldWritable => "executable in a world-writable directory",
            Self::ShellListens => "shell listens",
        }
    }
}

impl Serialize for Sign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Names of shells and interpreters.
const SHELLS: [&str; 25] = [
    "ash", "awk", "bash", "busybox", "csh", "dash", "elvish", "expect", "fish", "gawk", "guile", "irb",
    "ksh", "ksh93", "mawk", "mksh", "node", "nodejs", "pwsh", "rbash", "sh", "tclsh", "tcsh", "toybox",
    "zsh",
];

/// Interpreters that may have a version in their name: `python3.12`, `ruby3`, `lua5.4`.
const VERSIONED: [&str; 9] = ["gawk", "guile", "lua", "luajit", "perl", "php", "python", "ruby", "tclsh"];

/// Whether this is the name of a shell or an interpreter.
#[must_use]
pub fn is_shell(name: &str) -> bool {
    // A login shell has a hyphen before its name.
    let name = name.strip_prefix('-').unwrap_or(name);
    let is_version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    SHELLS.binary_search(&name).is_ok()
        || VERSIONED.iter().any(|stem| name.strip_prefix(stem).is_some_and(is_version))
}

/// Whether a process runs a shell or an interpreter, by the name of its executable or, if not known, of the process.
#[must_use]
pub fn runs_shell(process: &Process) -> bool {
    match process.image.exe.as_deref() {
        Some(exe) => is_shell(exe.rsplit('/').next().unwrap_or(exe)),
        None => !process.kernel && is_shell(&process.comm),
    }
}

/// Servers for logins: a shell that such a program steers is a session of its user.
const LOGIN_SERVERS: [&str; 8] =
    ["dropbear", "in.telnetd", "login", "mosh-server", "sshd", "sshd-auth", "sshd-session", "telnetd"];

/// Whether this is the name of a server for logins.
#[must_use]
pub fn is_login_server(name: &str) -> bool {
    LOGIN_SERVERS.binary_search(&name).is_ok()
}

/// Options by which an interpreter gets its program from the command line: `-c`, `-e`, `-m`, `-r`, `-E`, `-p`, `-f`.
const PROGRAM_FOLLOWS: &[char] = &['c', 'e', 'm', 'r', 'E', 'p', 'f'];

/// Whether a shell or interpreter takes its commands from its standard input, by its arguments: it has neither a script
/// nor a program on the command line.
#[must_use]
pub fn reads_commands(process: &Process) -> bool {
    let mut arguments = process.image.args.iter().skip(1);
    let is_option = |argument: &str| match argument.strip_prefix('-') {
        // `-` and `-s`: standard input, and what follows are arguments.
        Some("" | "s") => true,
        Some(long) if long.starts_with('-') => true,
        Some(short) => !short.contains(PROGRAM_FOLLOWS),
        None => false,
    };
    runs_shell(process) && arguments.all(is_option)
}

/// The signs of a process whose executable has this status.
pub fn of_process(process: &Process, status: ExeStatus) -> impl Iterator<Item = Sign> + use<> {
    let [stdin, stdout, _] = process.stdio;
    let on_socket = (stdin.is_some() || stdout.is_some()) && runs_shell(process);
    let of_file = match status.state {
        ExeState::Deleted => Some(Sign::ExeDeleted),
        ExeState::Memfd => Some(Sign::ExeMemfd),
        ExeState::Ok | ExeState::Replaced | ExeState::Unknown => None,
    };
    let writable = status.world_writable.then_some(Sign::ExeWorldWritable);
    on_socket.then_some(Sign::ShellOnSocket).into_iter().chain(of_file).chain(writable)
}

/// The signs of a listener; none of a connection.
pub fn of_end(endpoint: &Endpoint) -> impl Iterator<Item = Sign> + use<> {
    let listens = endpoint.remote.is_none()
        && endpoint.process.as_ref().is_some_and(|actor| runs_shell(&actor.process));
    listens.then_some(Sign::ShellListens).into_iter()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Image;
    use crate::process::Actor;
    use crate::tracker::{EventKind, tests::event};

    const SOUND: ExeStatus = ExeStatus { state: ExeState::Ok, world_writable: false };

    fn running(exe: Option<&str>, comm: &str, stdio: [u64; 3]) -> Process {
        let image = Image { exe: exe.map(Into::into), ..Image::clone(&Image::unknown()) };
        let mut process = Process::clone(&crate::process::tests::process(5, None));
        (process.comm, process.image) = (comm.into(), Arc::new(image));
        process.stdio = stdio.map(crate::model::Cookie::new);
        process
    }

    #[test]
    fn shells_by_name() {
        assert!(SHELLS.is_sorted() && LOGIN_SERVERS.is_sorted());
        for shell in
            ["sh", "-bash", "busybox", "python3", "python3.12", "perl5.36", "lua5.4", "php8.2", "php"]
        {
            assert!(is_shell(shell), "{shell}");
        }
        for other in ["", "-", "sshd", "shred", "pythonista", "rubymine", "bashtop", "perldoc", "nodemon"] {
            assert!(!is_shell(other), "{other}");
        }
    }

    #[test]
    fn shells_that_read_their_commands() {
        for (line, reads) in [
            ("sh", true),
            ("-bash", true),
            ("sh -i", true),
            ("bash --norc -li", true),
            ("sh -s", true),
            ("python3 -u -", true),
            ("sh script.sh", false),
            ("bash -e /work/step.sh", false),
            ("sh -c id", false),
            ("bash -lc id", false),
            ("python3 -m http.server", false),
            ("perl -e 1", false),
            ("nc -l", false),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let args = crate::model::Arguments::of(format!("{}\0", words.join("\0")).as_bytes());
            let image = Image { args, ..Image::clone(&Image::unknown()) };
            let mut process = Process::clone(&crate::process::tests::process(5, None));
            (process.comm, process.image) = (words[0].into(), Arc::new(image));
            assert_eq!(reads_commands(&process), reads, "{line}");
        }
    }

    #[test]
    fn a_shell_on_a_socket_is_a_sign_and_a_server_is_none() {
        let signs = |process: &Process, status| of_process(process, status).collect::<Vec<_>>();
        let reverse = running(Some("/usr/bin/dash"), "x", [7, 7, 7]);
        assert_eq!(signs(&reverse, SOUND), [Sign::ShellOnSocket]);
        assert_eq!(signs(&running(Some("/usr/bin/dash"), "sh", [0, 0, 7]), SOUND), []);
        assert_eq!(signs(&running(Some("/usr/sbin/in.ftpd"), "sh", [7, 7, 7]), SOUND), []);
        assert_eq!(signs(&running(None, "sh", [7, 0, 0]), SOUND), [Sign::ShellOnSocket]);
        let hidden = ExeStatus { state: ExeState::Deleted, world_writable: true };
        assert_eq!(
            signs(&running(Some("/tmp/x"), "x", [0; 3]), hidden),
            [Sign::ExeDeleted, Sign::ExeWorldWritable]
        );
    }

    #[test]
    fn a_shell_that_listens_is_a_sign() {
        let mut listen = event(EventKind::Listen, "0.0.0.0:4444", None).endpoint;
        assert_eq!(of_end(&listen).count(), 0);
        listen.process = Some(Actor::leader(running(Some("/bin/bash"), "bash", [0; 3]).into()));
        assert_eq!(of_end(&listen).collect::<Vec<_>>(), [Sign::ShellListens]);
        let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:443")).endpoint;
        open.process = listen.process;
        assert_eq!(of_end(&open).count(), 0);
    }
}
