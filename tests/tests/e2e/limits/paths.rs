//! Long paths of programs and cgroups. A record has a part of them; the rest is read while the process lives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Actor, Cgroup, Running, Tree, Watch, copy_program, endpoint, in_fresh_netns, skip};

use crate::actor;

/// A copy of the actor at the end of these directories.
fn program(folder: &Path, directories: impl IntoIterator<Item = String>, name: &str) -> PathBuf {
    let inside = directories.into_iter().fold(folder.to_owned(), |path, name| path.join(name));
    std::fs::create_dir_all(&inside).unwrap();
    let program = inside.join(name);
    copy_program(Path::new(Actor::program()), &program);
    program
}

/// What netwatch, which is stopped until the program has ended, and so has only records, says of it; and the same of one
/// that lives on.
fn exes(watch: &mut Watch, program: &Path, port: u16) -> (Value, Value) {
    let connect = |port: u16| format!("connect 127.0.0.1:{port} 127.0.0.1:6000");
    watch.signal(Signal::SIGSTOP);
    Running::start(Command::new(program).arg(connect(port))).ended("it ends");
    watch.signal(Signal::SIGCONT);
    let ended = watch.at("fail", endpoint(port, 6000))["process"]["exe"].clone();
    let (input, keep) = std::io::pipe().unwrap();
    let mut command = Command::new(program);
    let mut lives = Running::start(command.args([&connect(port + 1), "wait"]).stdin(Stdio::from(input)));
    let living = watch.at("fail", endpoint(port + 1, 6000))["process"]["exe"].clone();
    drop(keep);
    lives.ended("it ends");
    (ended, living)
}

#[test]
fn long_path_of_a_program_is_read_while_it_lives() {
    in_fresh_netns(|| {
        let folder = [(); 5].map(|()| tempfile::tempdir().unwrap());
        let [name, few, many, short, long] = folder.each_ref().map(|folder| folder.path());
        let mut watch = Watch::alone(&["--ring", "16777216"]);
        let component = "x".repeat(255);
        let programs = [
            (program(name, [], &component), true),
            (program(few, (0..40).map(|nth| nth.to_string()), "actor"), true),
            // More directories than are walked.
            (program(many, (0..50).map(|nth| nth.to_string()), "actor"), false),
            (program(short, (0..6).map(|_| component.clone()), "actor"), true),
            // More bytes than are recorded.
            (program(long, (0..9).map(|_| component.clone()), "actor"), false),
        ];
        for (nth, (program, is_recorded)) in (2000_u16..).step_by(2).zip(&programs) {
            let whole = Value::from(program.to_str().unwrap());
            let (ended, living) = exes(&mut watch, program, nth);
            assert_eq!(ended, if *is_recorded { whole.clone() } else { Value::Null });
            assert_eq!(living, whole);
        }
        watch.finish();
    });
}

#[test]
fn long_path_of_a_cgroup_is_read_while_a_process_lives() {
    /// The bytes of a path that a record has.
    const RECORDED: usize = 1023;
    in_fresh_netns(|| {
        if Tree::Unified.root().is_none() {
            return skip(
                "limits::paths::long_path_of_a_cgroup_is_read_while_a_process_lives",
                "no cgroup v2",
            );
        }
        let mut watch = Watch::alone(&["--ring", "16777216"]);
        let group = Cgroup::new(Tree::Unified, &["x"; 6].map(|x| x.repeat(200)).join("/"));
        let mut cgroup = |stopped: bool, port: u16| {
            let mut client = actor();
            if stopped {
                watch.signal(Signal::SIGSTOP);
            }
            group.takes(client.pid());
            assert!(client.try_say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000")).is_err());
            if stopped {
                client.kill();
                watch.signal(Signal::SIGCONT);
                return watch.at("fail", endpoint(port, 6000))["process"]["cgroup"].clone();
            }
            watch.at("fail", endpoint(port, 6000))["process"]["cgroup"].clone()
        };
        let whole = group.path();
        assert_eq!(cgroup(false, 2000), whole.as_str());
        assert_eq!(cgroup(true, 2001), &whole[..RECORDED]);
        watch.finish();
    });
}
