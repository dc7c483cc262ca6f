//! The systemd unit: its score, and a recorder that has no more than it grants.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use tests::{
    Actor, Netns, Recorder, Store, binary, forced, in_fresh_netns, kind, output, skip, stranger_s_copy, until,
};

const UNIT: &str = include_str!("../../../../packaging/netwatch.service");

/// Exposure that `systemd-analyze security` may give.
const MOST: f64 = 3.0;

/// All values of a key, in order.
fn values(key: &str) -> impl Iterator<Item = &'static str> {
    UNIT.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

fn has(program: &str, test: &str) -> bool {
    let has =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has {
        skip(test, &format!("no {program} here"));
    }
    has
}

#[test]
fn unit_exposes_little() {
    if !has("systemd-analyze", "rights::unit::unit_exposes_little") {
        return;
    }
    // Not the path in the checkout, which root may not be able to read.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("netwatch.service");
    std::fs::write(&unit, UNIT).unwrap();
    let output = output(Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(&unit));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let line = stdout.lines().find(|line| line.contains("Overall exposure")).expect("an exposure");
    let exposure: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
    assert!(exposure <= MOST, "{line}");
    // Unknown keys and groups.
    assert!(!stderr.contains("ignoring"), "{stderr}");
}

/// Names of the system calls that the unit allows.
fn allowed() -> Vec<String> {
    let mut names: Vec<String> = expanded("@default");
    for value in values("SystemCallFilter") {
        let (removes, value) = value.strip_prefix('~').map_or((false, value), |value| (true, value));
        for word in value.split(' ') {
            let these = if word.starts_with('@') { expanded(word) } else { vec![word.to_owned()] };
            if removes {
                names.retain(|name| !these.contains(name));
            } else {
                names.extend(these);
            }
        }
    }
    names
}

/// The members of a group, and of the groups in it.
fn expanded(group: &str) -> Vec<String> {
    let output = output(Command::new("systemd-analyze").args(["syscall-filter", group]));
    let text = String::from_utf8(output.stdout).unwrap();
    let members =
        text.lines().skip(1).map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'));
    members
        .flat_map(|name| if name.starts_with('@') { expanded(name) } else { vec![name.to_owned()] })
        .collect()
}

/// The number of a system call here, by the library that systemd uses. `None`: other machines have it.
fn number(resolve: extern "C" fn(*const libc::c_char) -> libc::c_int, name: &str) -> Option<i64> {
    let name = CString::new(name).unwrap();
    let number = resolve(name.as_ptr());
    (number >= 0).then(|| number.into())
}

fn filter() -> Option<BpfProgram> {
    const LIBRARY: &CStr = c"libseccomp.so.2";
    const RESOLVE: &CStr = c"seccomp_syscall_resolve_name";
    // SAFETY: the library has no constructors with preconditions.
    let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the handle is open and never closed.
    let symbol = unsafe { libc::dlsym(library, RESOLVE.as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: seccomp_syscall_resolve_name(3) has this type.
    let resolve: extern "C" fn(*const libc::c_char) -> libc::c_int = unsafe { std::mem::transmute(symbol) };
    let numbers: Vec<_> = allowed().iter().filter_map(|name| number(resolve, name)).collect();
    assert!(numbers.len() > 100, "{}", numbers.len());
    let rules: BTreeMap<_, _> = numbers.into_iter().map(|number| (number, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch).unwrap();
    Some(BpfProgram::try_from(filter).unwrap())
}

/// A recorder with the capabilities and the filter of the unit. setpriv(1) drops the capabilities first, which the filter
/// would not allow; so the filter is applied by the second of two processes.
fn recorder(store: &Path, filter: BpfProgram) -> Recorder {
    let bounding: Vec<_> = values("CapabilityBoundingSet").flat_map(|value| value.split(' ')).collect();
    let mut set = String::from("-all");
    for name in bounding {
        set.push_str(",+");
        set.push_str(&name.strip_prefix("CAP_").unwrap().to_lowercase());
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={set}")).args(["--inh-caps=-all", "--no-new-privs"]);
    command.arg(binary()).arg("record").arg("--store").arg(store).args(["--ring", "4096"]).args(forced());
    // prctl(2) and capset(2), which setpriv takes, are in the filter.
    // SAFETY: only system calls, on memory that was allocated before.
    unsafe { command.pre_exec(move || apply_filter(&filter).map_err(std::io::Error::other)) };
    let mut recorder = Recorder::of(command.stdin(Stdio::null()).stdout(Stdio::null()));
    recorder.says("recording to");
    recorder
}

/// Many times what the smallest ring holds.
const FLOOD: usize = 2000;

/// Makes connections in the calling thread's namespace, and returns some that stay.
fn flood() -> Vec<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:7001").unwrap();
    let connect = || (TcpStream::connect("127.0.0.1:7001").unwrap(), listener.accept().unwrap().0);
    let all = (0..FLOOD).map(|nth| (nth, connect()));
    all.filter(|(nth, _)| nth % 100 == 0).map(|(_, pair)| pair).collect()
}

#[test]
fn recorder_works_with_what_the_unit_grants() {
    const TEST: &str = "rights::unit::recorder_works_with_what_the_unit_grants";
    if !has("systemd-analyze", TEST) || !has("setpriv", TEST) {
        return;
    }
    let Some(filter) = filter() else { return skip(TEST, "no libseccomp here") };
    in_fresh_netns(|| {
        // Another user's process, in another network namespace.
        let (_folder, program) = stranger_s_copy(Path::new(Actor::program()), "stranger");
        let elsewhere = Netns::fresh();
        let mut stranger = elsewhere.inside(|| {
            let mut command = Command::new(&program);
            Actor::start_as(&program, command.uid(NOBODY).gid(NOBODY).current_dir("/"))
        });
        // Older than the recorder: it is known from /proc, and its socket from its namespace.
        stranger.say("listen 127.0.0.1:6000 16");
        let store = Store::new();
        let recorder = recorder(&store.path(), filter);
        assert!(stranger.try_say("connect 127.0.0.1:2000 127.0.0.1:5999").is_err());
        let events = |arguments: &[&str]| store.log(arguments);
        until("the stranger's attempt is recorded", || !events(&["--port", "5999"]).is_empty());
        for event in [&events(&["--port", "5999"])[0], &events(&["--port", "6000"])[0]] {
            assert_eq!(event["netns"], elsewhere.inum(), "{event:#}");
            assert_eq!(event["process"]["exe"], program.to_str().unwrap(), "{event:#}");
            assert_eq!(event["process"]["uid"], NOBODY, "{event:#}");
            assert_eq!(event["process"]["exe_state"], "ok", "{event:#}");
        }
        // Records are lost, and what is open at the end is found by the repair, which enters the namespace.
        let open = elsewhere.inside(flood);
        until("records are lost", || events(&[]).iter().any(|event| kind(event) == "loss"));
        until("the repair finds what is open", || {
            let known = events(&["--port", "7001"]);
            open.iter().all(|(client, _)| {
                let port = client.local_addr().expect("an address").port();
                known.iter().any(|event| tests::port(event, "local") == port && kind(event) == "open")
            })
        });
        let repaired = events(&["--port", "7001"]).iter().any(|event| event["repaired"] == true);
        assert!(repaired, "nothing was repaired");
        recorder.signal(nix::sys::signal::Signal::SIGTERM);
        let (status, said) = recorder.ended();
        assert_eq!(status.code(), Some(0), "{said:?}");
        assert!(!said.iter().any(|line| line.contains("cannot")), "{said:?}");
    });
}

const NOBODY: u32 = 65534;
