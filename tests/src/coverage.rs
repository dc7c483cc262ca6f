//! What netwatch cannot tell on the kernel at hand. A test that needs it is skipped where that kernel is old
//! enough to lack it (docs/kernels.md), and fails where it is not.

use std::process::Output;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::program::netwatch;
use crate::wait::skip;
use crate::watch::forced;

/// `bpf_task_pt_regs`.
const REGISTERS: (u32, u32) = (5, 15);

/// Counts of an MPTCP socket's own.
const MPTCP_COUNTS: (u32, u32) = (6, 5);

/// Whether it cannot tell a call by io_uring or socketcall(2) from others; says so for `test`. Where that is so,
/// io_uring's workers may be the kernel's own threads, too (before 5.12).
///
/// # Panics
/// Where the kernel is new enough to tell.
#[must_use]
pub fn cannot_tell_via(test: &str) -> bool {
    let lacks = lacks("`via`", REGISTERS);
    if lacks {
        skip(test, "before 5.15 netwatch cannot tell which system call a task is in");
    }
    lacks
}

/// What the end of an MPTCP connection has to say of its bytes: nothing where the kernel does not count them.
///
/// # Panics
/// Where the kernel is new enough to count.
#[must_use]
pub fn mptcp_bytes(sent: u64, received: u64) -> Value {
    if lacks("MPTCP connection carried", MPTCP_COUNTS) {
        json!({"bytes_sent": null, "bytes_received": null})
    } else {
        json!({"bytes_sent": sent, "bytes_received": received})
    }
}

/// Whether netwatch says that it lacks something, which kernels have since `since`.
fn lacks(words: &str, since: (u32, u32)) -> bool {
    let lacks = unseen().iter().any(|unseen| unseen.contains(words));
    let kernel = kernel();
    assert!(!lacks || kernel < since, "not on {kernel:?}, and kernels have it since {since:?}: {words}");
    lacks
}

/// Runs `netwatch doctor`, by the rungs that the tests run with.
///
/// # Panics
/// When it cannot be started, or goes on.
#[must_use]
pub fn doctor(arguments: &[&str]) -> Output {
    let forced = forced();
    let forced: Vec<_> = forced.iter().map(String::as_str).collect();
    netwatch(&[&["doctor"], arguments, &forced].concat())
}

/// What it says in JSON, which is the same for all tests.
///
/// # Panics
/// When it cannot be started, or goes on.
#[must_use]
pub fn doctor_says() -> &'static Output {
    static SAID: OnceLock<Output> = OnceLock::new();
    SAID.get_or_init(|| doctor(&["--json"]))
}

/// As `doctor` has it for the rungs that the tests run with.
fn unseen() -> &'static [String] {
    static UNSEEN: OnceLock<Vec<String>> = OnceLock::new();
    UNSEEN.get_or_init(|| {
        // Whoever started the tests may have asked it already.
        let said = std::env::var_os("NETWATCH_TEST_DOCTOR");
        let said = said.map(|path| std::fs::read(path).expect("what doctor said"));
        let doctor = said.as_deref().unwrap_or_else(|| &doctor_says().stdout);
        let doctor: Value = serde_json::from_slice(doctor).expect("an object of doctor's");
        let unseen = doctor["unseen"].as_array().expect("what is not seen");
        unseen.iter().map(|words| words.as_str().unwrap_or_default().to_owned()).collect()
    })
}

/// Whether the tests run in an emulator, which `cargo xtask vm` says.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os("NETWATCH_TEST_EMULATED").is_some()
}

/// Major and minor of the kernel's version.
///
/// # Panics
/// Where it has none.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let uname = nix::sys::utsname::uname().expect("uname");
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("what version is {release}"),
    }
}
