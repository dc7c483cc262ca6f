//! The text output: the worst first, and control characters escaped.

use std::process::Command;

use tests::{binary, in_fresh_netns, output};

use super::Audit;
use crate::actor;

fn text(command: &mut Command) -> String {
    let output = output(command);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn worst_finding_comes_first_and_names_are_escaped() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        server.say("listen 0.0.0.0:0 8");
        // An escape, a newline, and a byte that is not UTF-8.
        server.say("rename 1b5b33316d0aff79");
        let text = text(Command::new(binary()).args(["audit", "--netns", "self"]));
        assert!(text.starts_with("2 ports: 0 explained, 2 not explained; 2 findings\n"), "{text}");
        assert!(text.contains(r"\x1b[31m\x0a\xffy["), "{text}");
        assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
        let places = ["\nFindings\n", "\nhigh ", "\nmedium ", "\nNot explained\n", "tcp 127.0.0.1:22 "];
        let places: Vec<_> =
            places.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"))).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("from this host only") && text.contains("on all addresses"), "{text}");
        assert_eq!(Audit::take(&[]).port("127.0.0.1:22")["reach"], "loopback");
    });
}

#[test]
fn terminal_gets_colours_unless_no_color_is_set() {
    if Command::new("script").arg("--version").output().is_err() {
        return tests::skip(
            "audit::text::terminal_gets_colours_unless_no_color_is_set",
            "there is no script(1), which makes a terminal",
        );
    }
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        let audit = format!("{} audit --netns self", binary().display());
        let script = |no_color: &str| {
            let mut script = Command::new("script");
            script.args(["--quiet", "--return", "--command", &audit, "/dev/null"]).env("NO_COLOR", no_color);
            text(&mut script)
        };
        assert!(script("").contains("\x1b["));
        assert!(!script("1").contains('\x1b'));
    });
}
