//! Finds out about programs: what became of the file, which package has it, what an interpreter runs, which unit it is.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Uid, User};

use crate::audit::facts::{Ownership, Program, Script};
use crate::audit::packages::{self, Owner};
use crate::escape;
use crate::process::found::Looks;
use crate::process::{Actor, Process, signs};
use crate::snapshot::processes;
use crate::where_it_runs;

/// Who owns files, of each mount namespace: asked once for all, and for what comes later again.
#[derive(Default)]
pub(super) struct Programs {
    owners: HashMap<u32, Owners>,
    users: HashMap<u32, Option<Arc<str>>>,
    looks: Looks,
    notes: Vec<String>,
}

#[derive(Default)]
struct Owners {
    by_path: HashMap<String, Owner>,
    asked: HashSet<String>,
    /// There is a database that could be read.
    is_known: bool,
}

/// Before anybody was asked who owns the files.
struct Draft {
    process: Arc<Process>,
    script: Option<Draw>,
}

/// What an interpreter's command line says.
enum Draw {
    File(String),
    Text,
    Module(String),
}

impl Programs {
    /// The programs of these processes, in their order.
    pub(super) fn of(&mut self, processes: impl IntoIterator<Item = Arc<Process>>) -> Vec<Arc<Program>> {
        self.looks.refresh();
        let drafts: Vec<Draft> = processes
            .into_iter()
            .map(|process| Draft { script: signs::runs_shell(&process).then(|| script(&process)), process })
            .collect();
        self.ask(&drafts);
        drafts.into_iter().map(|draft| Arc::new(self.program(draft))).collect()
    }

    /// What could not be read, each told once.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn ask(&mut self, drafts: &[Draft]) {
        let mut wanted: HashMap<u32, (u32, HashSet<String>)> = HashMap::new();
        for Draft { process, script } in drafts {
            let mntns = process.image.mntns;
            let (_, paths) = wanted.entry(mntns).or_insert_with(|| (process.key.pid, HashSet::new()));
            paths.extend(process.image.exe.as_deref().map(Into::into));
            if let Some(Draw::File(path)) = script {
                paths.insert(path.clone());
            }
        }
        for (mntns, (pid, mut paths)) in wanted {
            let owners = self.owners.entry(mntns).or_default();
            paths.retain(|path| owners.asked.insert(path.clone()));
            if paths.is_empty() {
                continue;
            }
            let is_own = mntns == processes::own_mntns();
            let root = if is_own { PathBuf::from("/") } else { PathBuf::from(format!("/proc/{pid}/root")) };
            // Anybody may make a user namespace, and within it a mount namespace with whatever files.
            if !is_own && !shares_users(pid) {
                let what = "its package databases are somebody's own word, and not asked";
                self.notes
                    .push(format!("mount namespace {mntns} belongs to a user namespace of its own: {what}"));
                continue;
            }
            let found = packages::owners(&root, &paths);
            owners.is_known |= found.is_known;
            owners.by_path.extend(found.owners);
            let whose = if is_own { String::new() } else { format!("mount namespace {mntns}: ") };
            let new = found.notes.into_iter().map(|note| format!("{whose}{note}"));
            for note in new {
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
        }
    }

    fn program(&mut self, Draft { process, script }: Draft) -> Program {
        let mntns = process.image.mntns;
        let owned = |path: &str| match self.owners.get(&mntns) {
            Some(owners) if owners.is_known => {
                owners.by_path.get(path).map_or(Ownership::Nobody, |owner| Ownership::Package(owner.clone()))
            }
            _ => Ownership::Unknown,
        };
        let script = script.map(|script| match script {
            Draw::File(path) => Script::File(path.clone(), owned(&path)),
            Draw::Text => Script::Text,
            Draw::Module(name) => Script::Module(name),
        });
        let place = where_it_runs::of_cgroup(&process.cgroup);
        let is_manager = process.key.pid == 1 && place.unit == Some("init.scope");
        Program {
            owned: process.image.exe.as_deref().map_or(Ownership::Unknown, owned),
            script,
            unit: place.unit.filter(|unit| is_manager || is_installed(unit)).map(Into::into),
            container: place.container.map(Into::into),
            user: self
                .users
                .entry(process.uid)
                .or_insert_with(|| {
                    let user = User::from_uid(Uid::from_raw(process.uid)).ok().flatten();
                    user.map(|user| escape::utf8(user.name.as_bytes()).into())
                })
                .clone(),
            found: self.looks.of(&process),
            actor: Actor::leader(process),
        }
    }
}

/// Whether a process is in netwatch's own user namespace; not where that cannot be told.
fn shares_users(pid: u32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&pid.to_string())
}

/// Options of interpreters that are followed by text to run.
const TEXT: [&str; 5] = ["-c", "-e", "-E", "-r", "--eval"];

/// What an interpreter was told to run, by its arguments: the first that is no option, unless there is text.
fn script(process: &Process) -> Draw {
    let mut arguments = process.image.args.iter().skip(1).map(|argument| &**argument);
    while let Some(argument) = arguments.next() {
        if TEXT.contains(&argument) {
            return Draw::Text;
        }
        if argument == "-m" {
            return Draw::Module(arguments.next().unwrap_or_default().to_owned());
        }
        if !argument.starts_with('-') {
            return Draw::File(resolved(process, argument));
        }
    }
    Draw::Text
}

/// As a package would have it. Of another mount namespace nothing is followed: it may lead anywhere.
fn resolved(process: &Process, path: &str) -> String {
    let whole = if path.starts_with('/') {
        PathBuf::from(path)
    } else {
        let folder = std::fs::read_link(format!("/proc/{}/cwd", process.key.pid)).unwrap_or_default();
        folder.join(path)
    };
    let is_own = process.image.mntns == processes::own_mntns();
    let real = if is_own { std::fs::canonicalize(&whole).ok() } else { None };
    real.unwrap_or(whole).to_string_lossy().into_owned()
}

/// Where unit files are that somebody installed: not those of `/run/systemd/transient`, which `systemd-run` makes.
const UNITS: [&str; 9] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/etc/systemd/user",
    "/usr/lib/systemd/user",
];

/// Whether a service or socket of this name is installed; of `name@instance.service` the template.
fn is_installed(unit: &str) -> bool {
    let Some((name, kind)) = unit.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "service" | "socket"))
    else {
        return false;
    };
    if name.contains('/') {
        return false;
    }
    let template = name.split_once('@').map(|(template, _)| format!("{template}@.{kind}"));
    UNITS.iter().any(|folder| {
        let is_there = |file: &str| Path::new(folder).join(file).is_file();
        is_there(unit) || template.as_deref().is_some_and(is_there)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Image;

    fn told(arguments: &[&str]) -> String {
        let mut process = Process::clone(&crate::process::tests::process(1, None));
        let args = arguments.iter().map(|argument| Arc::from(*argument)).collect();
        process.image = Arc::new(Image { args, ..Image::clone(&Image::unknown()) });
        match script(&process) {
            Draw::File(path) => path,
            Draw::Text => "text".into(),
            Draw::Module(name) => format!("module {name}"),
        }
    }

    #[test]
    fn what_an_interpreter_runs() {
        assert_eq!(told(&["python3", "-u", "/no/such/file.py", "-c"]), "/no/such/file.py");
        assert_eq!(told(&["python3", "-m", "http.server"]), "module http.server");
        assert_eq!(told(&["bash", "-c", "x"]), "text");
        assert_eq!(told(&["perl", "-e", "x", "/etc/passwd"]), "text");
        assert_eq!(told(&["-bash"]), "text");
        assert_eq!(told(&[]), "text");
    }

    #[test]
    fn a_unit_that_nobody_installed_is_none() {
        for unit in ["no-such-thing.service", "session-3.scope", "../../etc/passwd.service", "x"] {
            assert!(!is_installed(unit), "{unit}");
        }
    }
}
