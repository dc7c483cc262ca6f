//! The signs of a backdoor, told from what is known of a process. Pure. A sign is no proof: an inetd service is
//! a program on a socket too.

use serde::{Serialize, Serializer};

use crate::model::ExeState;
use crate::process::{ExeStatus, Process};
use crate::tracker::Endpoint;

/// What speaks against a process, or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// A shell or an interpreter with a socket for its stdin or stdout.
    ShellOnSocket,
    /// The file of its executable is gone.
    ExeDeleted,
    /// Its executable never had a name.
    ExeMemfd,
    /// Everybody may put files where its executable lies.
    ExeWorldWritable,
    /// A shell or an interpreter listens.
    ShellListens,
}

impl Sign {
    /// As it is spelled outside.
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

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ShellOnSocket => "shell on a socket",
            Self::ExeDeleted => "its program was deleted",
            Self::ExeMemfd => "its program never had a file name",
            Self::ExeWorldWritable => "its program lies where everybody may write",
            Self::ShellListens => "a shell listens",
        }
    }
}

impl Serialize for Sign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Programs that do what they read, by name.
const SHELLS: [&str; 25] = [
    "ash", "awk", "bash", "busybox", "csh", "dash", "elvish", "expect", "fish", "gawk", "guile", "irb",
    "ksh", "ksh93", "mawk", "mksh", "node", "nodejs", "pwsh", "rbash", "sh", "tclsh", "tcsh", "toybox",
    "zsh",
];

/// Programs that have versions in their names: `python3.12`, `ruby3`, `lua5.4`.
const VERSIONED: [&str; 9] = ["gawk", "guile", "lua", "luajit", "perl", "php", "python", "ruby", "tclsh"];

/// Whether a program of this name does what it reads.
#[must_use]
pub fn is_shell(name: &str) -> bool {
    // A login shell has a hyphen before its name.
    let name = name.strip_prefix('-').unwrap_or(name);
    let is_version = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    SHELLS.binary_search(&name).is_ok()
        || VERSIONED.iter().any(|stem| name.strip_prefix(stem).is_some_and(is_version))
}

/// Whether a process runs such a program, by its file's name or, where that is not known, by its own.
#[must_use]
pub fn runs_shell(process: &Process) -> bool {
    match process.image.exe.as_deref() {
        Some(exe) => is_shell(exe.rsplit('/').next().unwrap_or(exe)),
        None => !process.kernel && is_shell(&process.comm),
    }
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
        assert!(SHELLS.is_sorted());
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
