//! Paths of executables whose directories are renamed at the same time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Actor, PATIENCE, Watch, copy_program, in_fresh_netns, kind, netns};

/// So many programs are started. Without the second walk, one in a thousand has a path that never was.
const STARTS: u16 = 3000;

/// A directory takes turns between two names in two directories, and programs are started in it. The record of the exec
/// is all that is known of them, since netwatch is stopped meanwhile.
#[test]
fn path_that_never_was_does_not_appear() {
    in_fresh_netns(|| {
        // A rename in tmpfs takes the least time, so that the most of them meet a walk.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let [first, second] = ["left/one", "right/two"].map(|name| folder.path().join(name));
        for directory in [&first, &second] {
            fs::create_dir_all(directory.parent().unwrap()).unwrap();
        }
        fs::create_dir(&first).unwrap();
        let program = first.join("program");
        copy_program(Path::new(Actor::program()), &program);
        let file = File::open(&program).unwrap();
        // The path by which it is started does not depend on the names.
        let start = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());

        let starts = if tests::is_emulated() { STARTS / 10 } else { STARTS };
        let mut watch = Watch::start(&["--event", "fail"]);
        watch.signal(Signal::SIGSTOP);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let deadline = Instant::now() + PATIENCE;
                while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                    fs::rename(&first, &second).unwrap();
                    fs::rename(&second, &first).unwrap();
                }
            });
            for port in 0..starts {
                let connect = format!("connect 127.0.0.1:{} 127.0.0.1:5999", 2000 + port);
                let status = Command::new(&start).arg(connect).stdout(Stdio::null()).status().unwrap();
                assert!(status.success());
            }
            stop.store(true, Ordering::Relaxed);
        });
        watch.signal(Signal::SIGCONT);
        let own = netns();
        let failed = |event: &&Value| kind(event) == "fail" && event["netns"] == own;
        watch.settles("all attempts are reported", |events| {
            events.iter().filter(failed).count() == usize::from(starts)
        });
        let mut paths: BTreeMap<String, usize> = BTreeMap::new();
        for event in watch.events().iter().filter(failed) {
            let process = &event["process"];
            *paths.entry(format!("{} {}", process["exe"], process["exe_state"])).or_default() += 1;
        }
        let is_true = |known: &str| {
            let is =
                |directory: &Path| known.starts_with(&format!("\"{}\"", directory.join("program").display()));
            is(&first) || is(&second) || known == "null \"unknown\""
        };
        assert!(paths.keys().all(|path| is_true(path)), "{paths:#?}");
        assert!(paths.keys().filter(|path| *path != "null \"unknown\"").count() > 0, "{paths:#?}");
    });
}
