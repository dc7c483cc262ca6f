//! `netwatch audit`: explanations of ports, and findings. Each finding is tested with the real situation, and with a
//! similar one that is harmless.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tests::{binary, output};

mod baseline;
mod broken;
mod debian;
mod executables;
mod findings;
mod owned;
mod relays;
mod text;
mod units;
mod views;
mod watching;

/// The output of an audit.
struct Audit {
    status: Option<i32>,
    objects: Vec<Value>,
}

impl Audit {
    /// Audits the calling thread's namespace.
    fn take(arguments: &[&str]) -> Self {
        Self::of_netns("self", arguments)
    }

    /// Audits another namespace, or all.
    fn of_netns(netns: &str, arguments: &[&str]) -> Self {
        Self::of(Command::new(binary()).args(["audit", "--json", "--netns", netns]).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        Self::read(&output(command))
    }

    /// By a command with this stdin, which no other process here has open any more.
    fn of_with(mut command: Command, stdin: OwnedFd) -> Self {
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        drop(command);
        let output = child.and_then(Child::wait_with_output);
        Self::read(&output.expect("it can be started"))
    }

    fn read(output: &Output) -> Self {
        let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
        let objects: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert!(
            output.status.code().is_some_and(|code| code == 0 || code == 3),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { status: output.status.code(), objects }
    }

    fn kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The port at an address.
    #[track_caller]
    fn port(&self, local: &str) -> &Value {
        let local = super::address(local);
        let found: Vec<_> = self.kind("port").filter(|port| port["local"] == local).collect();
        assert_eq!(found.len(), 1, "{local}: {:#?}", self.objects);
        found[0]
    }

    fn findings(&self, code: &str) -> Vec<&Value> {
        self.kind("finding").filter(|finding| finding["code"] == code).collect()
    }

    /// The only finding of its kind.
    #[track_caller]
    fn finding(&self, code: &str) -> &Value {
        let found = self.findings(code);
        assert_eq!(found.len(), 1, "{code}: {:#?}", self.objects);
        found[0]
    }

    #[track_caller]
    fn has_no(&self, code: &str) {
        assert!(self.findings(code).is_empty(), "{:#?}", self.findings(code));
    }

    fn notes(&self) -> Vec<&str> {
        self.kind("note").filter_map(|note| note["text"].as_str()).collect()
    }

    #[track_caller]
    fn notes_with(&self, part: &str) {
        assert!(self.notes().iter().any(|note| note.contains(part)), "{part}: {:#?}", self.notes());
    }
}

/// The reasons why a port is not explained, in one text.
fn reasons(port: &Value) -> String {
    let reasons = port["reasons"].as_array().expect("reasons");
    reasons.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}
