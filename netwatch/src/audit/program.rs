//! A process that has a network socket open, with facts about its program.

use std::sync::Arc;

use crate::model::ExeState;
use crate::process::{Actor, ExeStatus};
use crate::signs;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Package name without the architecture.
    pub name: String,
    /// `[epoch:]version[-release]` as the package manager prints it; `None` if the database has none.
    pub version: Option<String>,
    /// `dpkg` or `rpm`.
    pub manager: &'static str,
}

/// The package that owns a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Owned by this package.
    Package(Owner),
    /// Owned by no package.
    Nobody,
    /// No package database could be read.
    Unknown,
}

/// What an interpreter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A file, and the package that owns it.
    File(String, Ownership),
    /// Commands from the command line or from stdin.
    Text,
    /// A module that the interpreter looks up by name.
    Module(String),
    /// Cannot be determined from the command line.
    Unknown,
}

/// A process with facts about its program.
#[derive(Clone, Debug)]
pub struct Program {
    /// The process.
    pub actor: Actor,
    /// Status of its executable.
    pub exe_status: ExeStatus,
    /// The package that owns the executable.
    pub owned: Ownership,
    /// What it runs, if it is a shell or an interpreter.
    pub script: Option<Script>,
    /// Name of its user.
    pub user: Option<Arc<str>>,
    /// The installed system unit whose program this is.
    pub unit: Option<String>,
    /// The unit whose cgroup the process is in.
    pub within: Option<String>,
    /// Id of its container.
    pub container: Option<String>,
}

impl Program {
    /// Path of the executable; `?` if not known.
    #[must_use]
    pub fn exe(&self) -> &str {
        self.actor.process.image.exe.as_deref().unwrap_or("?")
    }

    /// File name of the script or the executable; name of the process if neither is known.
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

    /// The package that is answerable for what it does: of an interpreter, that of the script. `None` where what runs
    /// is not the package's file any more.
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
