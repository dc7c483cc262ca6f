//! What netwatch cannot observe on the running kernel. A test that needs it is skipped if the kernel is older than the
//! feature (docs/kernels.md), and fails otherwise.

use std::process::Output;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::program::netwatch;
use crate::wait::skip;
use crate::watch::forced;

/// `bpf_task_pt_regs`.
const REGISTERS: (u32, u32) = (5, 15);

/// Byte counts of the MPTCP socket itself.
const MPTCP_COUNTS: (u32, u32) = (6, 5);

/// Whether netwatch cannot distinguish calls by io_uring or socketcall(2) from others; prints a skip line for `test`.
/// On such kernels io_uring's workers may also be kernel threads (before 5.12).
///
/// # Panics
/// If it cannot although the kernel is new enough.
#[must_use]
pub fn cannot_detect_via(test: &str) -> bool {
    let lacks = lacks("`via`", REGISTERS);
    if lacks {
        skip(test, "before 5.15 netwatch cannot tell which system call a task is in");
    }
    lacks
}

/// The byte counts that the `close` of an MPTCP connection must have: null if the kernel does not count them.
///
/// # Panics
/// If they are missing although the kernel is new enough.
#[must_use]
pub fn mptcp_bytes(sent: u64, received: u64) -> Value {
    if lacks("MPTCP connection carried", MPTCP_COUNTS) {
        json!({"bytes_sent": null, "bytes_received": null})
    } else {
        json!({"bytes_sent": sent, "bytes_received": received})
    }
}

/// Whether netwatch reports that it lacks something that kernels have since `since`.
fn lacks(words: &str, since: (u32, u32)) -> bool {
    let lacks = unseen().iter().any(|unseen| unseen.contains(words));
    let kernel = kernel();
    assert!(!lacks || kernel < since, "not on {kernel:?}, and kernels have it since {since:?}: {words}");
    lacks
}

/// Runs `netwatch doctor` with the rungs that the tests run with.
///
/// # Panics
/// If it cannot be started, or does not exit.
#[must_use]
pub fn doctor(arguments: &[&str]) -> Output {
    let forced = forced();
    let forced: Vec<_> = forced.iter().map(String::as_str).collect();
    netwatch(&[&["doctor"], arguments, &forced].concat())
}

/// Its output in JSON, which is the same for all tests.
///
/// # Panics
/// If it cannot be started, or does not exit.
#[must_use]
pub fn doctor_says() -> &'static Output {
    static SAID: OnceLock<Output> = OnceLock::new();
    SAID.get_or_init(|| doctor(&["--json"]))
}

/// `unseen` of `doctor` for the rungs that the tests run with.
fn unseen() -> &'static [String] {
    static UNSEEN: OnceLock<Vec<String>> = OnceLock::new();
    UNSEEN.get_or_init(|| {
        // `cargo xtask` may have run it already.
        let said = std::env::var_os("NETWATCH_TEST_DOCTOR");
        let said = said.map(|path| std::fs::read(path).expect("what doctor said"));
        let doctor = said.as_deref().unwrap_or_else(|| &doctor_says().stdout);
        let doctor: Value = serde_json::from_slice(doctor).expect("an object of doctor's");
        let unseen = doctor["unseen"].as_array().expect("what is not seen");
        unseen.iter().map(|words| words.as_str().unwrap_or_default().to_owned()).collect()
    })
}

/// Whether the tests run in an emulator, as set by `cargo xtask vm`.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os("NETWATCH_TEST_EMULATED").is_some()
}

/// Major and minor version of the kernel.
///
/// # Panics
/// If it has none.
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
