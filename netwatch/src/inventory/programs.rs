//! Facts about programs: state of the executable, package, script, unit.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::packages;
use super::units::{self, Unit};
use crate::audit::facts::{Owner, Ownership, Program, Script};
use crate::blocking::{self, Patience, Place, Subject};
use crate::enrich::{self, Users};
use crate::process::{Actor, Process};
use crate::signs;
use crate::snapshot::processes;
use crate::{limits, proc, where_it_runs};

/// Owners of files by mount namespace.
pub(crate) struct Programs {
    owners: HashMap<u32, Owners>,
    users: Users,
    executables: enrich::Executables,
    notes: Vec<String>,
    /// Those in `notes`.
    noted: HashSet<String>,
}

#[derive(Default)]
struct Owners {
    by_path: HashMap<String, Owner>,
    asked: HashSet<String>,
    /// A database could be read.
    is_known: bool,
}

/// A program before its owner is looked up.
struct Draft {
    process: Arc<Process>,
    script: Option<Draw>,
    unit: Option<Unit>,
}

/// What an interpreter runs by its command line.
enum Draw {
    File(String),
    Text,
    Module(String),
    Unknown,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
            users: Users::patient(),
            executables: enrich::Executables::patient(),
            notes: Vec::new(),
            noted: HashSet::new(),
        }
    }
}

impl Programs {
    /// The programs of these processes, in order.
    pub(crate) fn of(&mut self, processes: impl IntoIterator<Item = Arc<Process>>) -> Vec<Arc<Program>> {
        let drafts: Vec<Draft> = processes
            .into_iter()
            .map(|process| Draft { script: script(&process), unit: units::installed(&process), process })
            .collect();
        self.ask(&drafts);
        drafts.into_iter().map(|draft| Arc::new(self.program(draft))).collect()
    }

    /// Notes about what could not be read, without duplicates.
    pub(super) fn notes(&mut self) -> Vec<String> {
        self.noted.clear();
        std::mem::take(&mut self.notes)
    }

    fn ask(&mut self, drafts: &[Draft]) {
        let mut wanted: HashMap<u32, (u32, HashSet<String>)> = HashMap::new();
        for Draft { process, script, unit } in drafts {
            if let Some(unit) = unit {
                let own = wanted.entry(processes::own_mntns());
                let (_, paths) = own.or_insert_with(|| (std::process::id(), HashSet::new()));
                paths.insert(unit.file.clone());
            }
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
            let root = if is_own { PathBuf::from("/") } else { proc::of(pid).join("root") };
            // Any user can create a user namespace with a mount namespace that has arbitrary files.
            if !is_own && !shares_users(pid) {
                let what = "its package databases are not trusted";
                self.notes.push(format!("mount namespace {mntns} belongs to another user namespace: {what}"));
                continue;
            }
            let found = if answers(pid, is_own) {
                blocking::within(limits::READ_WAIT, move || packages::owners(&root, &paths))
            } else {
                None
            };
            let Some(found) = found else {
                self.notes.push(format!(
                    "mount namespace {mntns}: its package databases cannot be read: no answer"
                ));
                continue;
            };
            owners.is_known |= found.is_known;
            owners.by_path.extend(found.owners);
            let whose = if is_own { String::new() } else { format!("mount namespace {mntns}: ") };
            let new = found.notes.into_iter().map(|note| format!("{whose}{note}"));
            for note in new {
                if self.noted.insert(note.clone()) {
                    self.notes.push(note);
                }
            }
        }
    }

    fn program(&mut self, Draft { process, script, unit }: Draft) -> Program {
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
            Draw::Unknown => Script::Unknown,
        });
        let exe_owned = process.image.exe.as_deref().map_or(Ownership::Unknown, owned);
        let unit_of = unit.as_ref().map(|unit| self.owned_here(&unit.file));
        let place = where_it_runs::of_cgroup(&process.cgroup);
        // A container has its own files.
        let is_container = mntns != processes::own_mntns() && !units::is_a_users(&process);
        let within = place.unit.map(str::to_owned);
        let container = place.container.filter(|_| is_container).map(Into::into);
        let mut program = Program {
            owned: exe_owned,
            script,
            unit: None,
            within,
            container,
            user: self.users.name(process.uid),
            exe_status: self.executables.status(&process, Instant::now()),
            actor: Actor::leader(process),
        };
        program.unit = unit.filter(|unit| is_of(&program, unit, unit_of.as_ref())).map(|unit| unit.name);
        let process = &program.actor.process;
        if process.key.pid == 1 && units::named(process) == Some(MANAGER) {
            program.unit = Some(MANAGER.into());
        }
        program
    }

    /// The owner of a file in netwatch's mount namespace.
    fn owned_here(&self, path: &str) -> Option<Owner> {
        self.owners.get(&processes::own_mntns())?.by_path.get(path).cloned()
    }

    /// Clears owners: namespace numbers are reused, and packages change.
    pub(crate) fn forget(&mut self) {
        self.owners.clear();
        self.users = Users::patient();
        self.notes.clear();
        self.noted.clear();
    }
}

/// Whether the file system with the package databases answers.
fn answers(pid: u32, is_own: bool) -> bool {
    packages::DATABASES.iter().all(|database| {
        let path = Path::new(database);
        let place = Place { root_of: (!is_own).then_some(pid), path };
        let subject = || Subject::Folder(format!("/proc/{pid}/root{database}").into());
        blocking::stat(place, subject, Patience::Command).is_some()
    })
}

/// Whether a process is in the user namespace of netwatch; false if not known.
fn shares_users(pid: u32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&pid.to_string())
}

/// The unit of the service manager itself.
const MANAGER: &str = "init.scope";

/// Whether a unit runs a program: the unit file names it, or both are of packages of the same software.
fn is_of(program: &Program, unit: &Unit, owner: Option<&Option<Owner>>) -> bool {
    let script = match &program.script {
        Some(Script::File(path, _)) => Some(path.as_str()),
        _ => None,
    };
    let is_named = |path: &str| unit.starts.iter().any(|start| start == path);
    let one = owner.and_then(Option::as_ref).zip(program.package());
    script.map_or_else(|| is_named(program.exe()), is_named)
        || one.is_some_and(|(unit, program)| units::are_of_one(&unit.name, &program.name))
}

/// Families of interpreters by prefix of the name: options without a value, and options that are followed by commands.
/// After any other option the script cannot be determined.
const FAMILIES: [(&[&str], &str, &[&str]); 4] = [
    (&["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "rbash"], "aefhlimnruvxp", &["-c"]),
    (&["python"], "bBdEiIOPqsSuvx", &["-c"]),
    (&["perl"], "swtTWXuU", &["-e", "-E"]),
    (&["ruby"], "wsSTU", &["-e"]),
];

/// What a program interprets: the first argument that is not an option, unless commands are given. `None` if it is not
/// an interpreter.
fn script(process: &Process) -> Option<Draw> {
    let name = process.image.exe.as_deref().map(|exe| exe.rsplit('/').next().unwrap_or(exe));
    // Not a shell, but its executable does not determine what it does either.
    if name == Some("java") {
        return Some(Draw::Unknown);
    }
    if !signs::runs_shell(process) {
        return None;
    }
    let name = name.unwrap_or(&process.comm);
    let is_of = |beginning: &&str| {
        name.strip_prefix(*beginning).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    let family = FAMILIES.iter().find(|(names, ..)| names.iter().any(&is_of));
    let (plain, text) = family.map_or(("", &[][..]), |(_, plain, text)| (*plain, *text));
    let mut arguments = process.image.args.iter().skip(1);
    while let Some(argument) = arguments.next() {
        if text.contains(&argument) {
            return Some(Draw::Text);
        }
        if argument == "-m" && plain.contains('I') {
            return Some(Draw::Module(arguments.next().unwrap_or_default().to_owned()));
        }
        match argument.strip_prefix('-') {
            None => return Some(Draw::File(resolved(process, argument))),
            Some(letters) if !letters.is_empty() && letters.chars().all(|letter| plain.contains(letter)) => {}
            Some(_) => return Some(Draw::Unknown),
        }
    }
    Some(Draw::Text)
}

/// The path as in a package. Links in another mount namespace are not followed, since they may lead anywhere.
fn resolved(process: &Process, path: &str) -> String {
    let whole = if path.starts_with('/') {
        PathBuf::from(path)
    } else {
        let folder = std::fs::read_link(proc::of(process.key.pid).join("cwd")).unwrap_or_default();
        folder.join(path)
    };
    let is_own = process.image.mntns == processes::own_mntns();
    let real = if is_own { blocking::real_path(&whole, Patience::Command) } else { None };
    real.unwrap_or(whole).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Image;

    fn reported(exe: &str, arguments: &[&str]) -> String {
        let mut process = Process::clone(&crate::process::tests::process(1, None));
        let args = [exe].iter().chain(arguments).map(|argument| Arc::from(*argument)).collect();
        process.image = Arc::new(Image { exe: Some(exe.into()), args, ..Image::clone(&Image::unknown()) });
        match script(&process) {
            None => "none".into(),
            Some(Draw::File(path)) => path,
            Some(Draw::Text) => "text".into(),
            Some(Draw::Module(name)) => format!("module {name}"),
            Some(Draw::Unknown) => "unknown".into(),
        }
    }

    #[test]
    fn what_an_interpreter_runs() {
        for (exe, arguments, expected) in [
            ("/usr/bin/python3.11", &["-u", "/no/such/file.py", "-c"][..], "/no/such/file.py"),
            ("/usr/bin/python3", &["-m", "http.server"], "module http.server"),
            ("/bin/bash", &["-c", "x"], "text"),
            ("/bin/sh", &["-e", "/no/such/script"], "/no/such/script"),
            ("/usr/bin/perl", &["-e", "x", "/etc/passwd"], "text"),
            ("/usr/bin/perl", &["-T", "-w", "/no/such/x"], "/no/such/x"),
            ("/bin/bash", &[], "text"),
            // The value of an option may be the name of a packaged script.
            ("/bin/bash", &["--rcfile", "/usr/bin/ldd", "/no/such/x"], "unknown"),
            ("/usr/bin/python3", &["-W", "/usr/bin/ldd", "/no/such/x"], "unknown"),
            ("/usr/bin/perl", &["-I", "/usr/bin/shasum", "/no/such/x"], "unknown"),
            ("/usr/bin/php8.2", &["-c", "/no/such/ini", "/no/such/x"], "unknown"),
            ("/usr/bin/node", &["/no/such/x.js"], "/no/such/x.js"),
            ("/usr/lib/jvm/bin/java", &["-jar", "/no/such/x"], "unknown"),
            ("/usr/sbin/nginx", &["-g", "x"], "none"),
        ] {
            assert_eq!(reported(exe, arguments), expected, "{exe} {arguments:?}");
        }
    }
}
