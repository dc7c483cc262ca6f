//! A process that has a network socket open, with what was found out about its program.

use std::sync::Arc;

use crate::model::ExeState;
use crate::process::{Actor, ExeStatus};
use crate::signs;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Without the architecture.
    pub name: String,
    /// As the package manager prints it, `[epoch:]version[-release]`. `None` where the database has none.
    pub version: Option<String>,
    /// `dpkg` or `rpm`.
    pub manager: &'static str,
}

/// Who owns a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This package.
    Package(Owner),
    /// No package.
    Nobody,
    /// There is no database of packages that could be read.
    Unknown,
}

/// What an interpreter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A file, and who owns it.
    File(String, Ownership),
    /// Text from its command line or its stdin, or whatever somebody types.
    Text,
    /// A module that it finds by name.
    Module(String),
    /// Its command line does not say for sure.
    Unknown,
}

/// A process, with what was found out about its program.
#[derive(Clone, Debug)]
pub struct Program {
    /// The process.
    pub actor: Actor,
    /// Status of its executable.
    pub exe_status: ExeStatus,
    /// Who owns that.
    pub owned: Ownership,
    /// What it interprets, where it is a shell or an interpreter.
    pub script: Option<Script>,
    /// Name of its user.
    pub user: Option<Arc<str>>,
    /// The unit that runs it: installed, the system's, and made for it.
    pub unit: Option<String>,
    /// The unit whose cgroup it is in, whoever made that.
    pub within: Option<String>,
    /// Its container, which has files of its own.
    pub container: Option<String>,
}

impl Program {
    /// Path of the executable; `?` where not known.
    #[must_use]
    pub fn exe(&self) -> &str {
        self.actor.process.image.exe.as_deref().unwrap_or("?")
    }

    /// Name of the executable's file, or of the script that it runs; of the process where neither is known.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(Script::File(path, _)) = &self.script {
            return path.rsplit('/').next().unwrap_or(path);
        }
        match self.actor.process.image.exe.as_deref() {
            Some(exe) => exe.rsplit('/').next().unwrap_or(exe),
            None => &self.actor.process.comm,
        }
    }

    /// Whether it does what it reads.
    #[must_use]
    pub fn is_shell(&self) -> bool {
        signs::runs_shell(&self.actor.process)
    }

    /// The package that is answerable for what it does: of an interpreter, that of the script. `None` where what runs is
    /// not the package's file any more.
    #[must_use]
    pub fn package(&self) -> Option<&Owner> {
        let is_there = matches!(self.exe_status.state, ExeState::Ok | ExeState::Replaced);
        match (self.answers(), is_there) {
            (Ownership::Package(owner), true) => Some(owner),
            _ => None,
        }
    }

    /// Who owns what it does.
    #[must_use]
    pub fn answers(&self) -> &Ownership {
        match (&self.owned, &self.script) {
            (owned, None) => owned,
            (_, Some(Script::File(_, owned))) => owned,
            // A module of the interpreter's may do anything that its arguments say.
            (_, Some(Script::Text | Script::Module(_) | Script::Unknown)) => &Ownership::Nobody,
        }
    }
}
