//! Hosts that lack something: netwatch does without it if it can, and otherwise fails with one line.

use std::process::{Command, Output};

use serde_json::Value;
use tests::{binary, endpoint, in_fresh_netns, output};

use crate::actor;

/// Runs netwatch with an empty file system mounted over each of `hidden`, in its own mount namespace.
fn without(hidden: &[&str], arguments: &str) -> Output {
    let mounts: Vec<_> = hidden.iter().map(|path| format!("mount -t tmpfs none {path} && ")).collect();
    let script = format!("{}exec \"$NETWATCH\" {arguments}", mounts.concat());
    output(Command::new("unshare").args(["--mount", "sh", "-c", &script]).env("NETWATCH", binary()))
}

fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn missing_btf_is_a_one_line_error() {
    let error = complaint(&without(&["/sys/kernel/btf"], "watch"));
    assert!(error.contains("/sys/kernel/btf/vmlinux") && error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
    assert!(complaint(&without(&["/sys/kernel/btf"], "doctor")).contains("BTF"));
}

#[test]
fn missing_proc_is_a_one_line_error() {
    assert!(complaint(&without(&["/proc"], "watch")).contains("/proc"));
    assert!(complaint(&without(&["/proc"], "list")).contains("/proc"));
}

#[test]
fn full_file_system_is_a_one_line_error() {
    let error = complaint(&without(&[], "watch > /dev/full"));
    assert!(error.contains("No space left"), "{error}");
    assert!(complaint(&without(&[], "list -nat > /dev/full")).contains("No space left"));
}

/// As `ip netns exec` leaves it: a new /sys, without the mounts below the old one.
#[test]
fn missing_mounts_are_made_in_a_private_namespace() {
    let hidden = ["/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/cgroup"];
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let output = without(&hidden, "doctor --json");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let doctor: Value = serde_json::from_slice(&output.stdout).unwrap();
    for job in doctor["jobs"].as_array().unwrap() {
        // Only functions that can be probed show writes to pipes and the end of packet sockets, and not every kernel allows
        // that.
        let needs_functions = job["job"] == "pipe" || job["job"] == "packet";
        assert!(job["probe"].is_string() || needs_functions, "{job}");
    }
    assert_eq!(doctor["self_test"]["ok"], true);
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn without_loopback_the_self_test_is_skipped() {
    in_fresh_netns(|| {
        tests::ip("link set lo down");
        let output = without(&[], "watch --json --netns self --duration 100ms");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("self-test") && stderr.contains("loopback"));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        assert_eq!(without(&[], "doctor").status.code(), Some(1));
    });
}

/// Pids of the host have no meaning there: netwatch reports that, and names no process.
#[test]
fn foreign_pid_namespace_is_reported() {
    in_fresh_netns(|| {
        let command = "exec \"$NETWATCH\" watch --json --netns self --count 1";
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        let output = output(
            Command::new("unshare")
                .args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", command])
                .env("NETWATCH", binary()),
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("pid namespace"), "{stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let seed: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert!(endpoint(6000, 0).of(&seed), "{seed}");
        assert_eq!(seed["process"], Value::Null);
    });
}
