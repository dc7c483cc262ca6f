//! Wrong arguments and missing permissions: a one-line error, and the right exit status.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use tests::{binary, netwatch, output, stranger_s_copy};

/// Nothing on stdout, one line on stderr that names all of `says`.
#[track_caller]
fn one_line(output: &Output, status: i32, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.ends_with('\n'), "{stderr}");
    for word in says {
        assert!(stderr.contains(word), "{word} is not in: {stderr}");
    }
}

#[test]
fn invalid_value_is_a_one_line_error() {
    let values: &[(&str, &[&str])] = &[
        ("--port", &["x", "65536", "-1", "80,", "80,x"]),
        ("--local", &["127.0.0.1/33", "::1/129", "nowhere", "127.0.0.1:x"]),
        ("--remote", &["10.0.0.0/", "10.0.0.0/8:65536", "[::1"]),
        ("--origin", &["sideways"]),
        ("--event", &["nosuch", "open,nosuch"]),
        ("--proto", &["sctp"]),
        ("--netns", &["here", "-1"]),
        ("--pid", &["x", "-1"]),
        ("--process", &["[", "{a"]),
        ("--user", &["no-such-user-of-netwatch"]),
        ("--count", &["x", "-1"]),
        ("--duration", &["x", "-1s"]),
        ("--ring", &["x"]),
        ("--format", &["xml"]),
    ];
    for (option, values) in values {
        for value in *values {
            // With "=", a value may begin with a hyphen.
            let output = netwatch(&["watch", &format!("{option}={value}")]);
            one_line(&output, 2, &[option]);
        }
    }
}

#[test]
fn unknown_argument_is_a_one_line_error() {
    for arguments in [
        &["watch", "--nosuch"][..],
        &["watch", "argument"],
        &["nosuch"],
        &["watch", "--port"],
        // UNIX sockets are no network connections.
        &["list", "-x"],
    ] {
        one_line(&netwatch(arguments), 2, &[]);
    }
}

#[test]
fn without_root_the_error_names_root() {
    const NOBODY: u32 = 65534;
    let (_directory, copy) = stranger_s_copy(&binary(), "netwatch");
    for arguments in [&["watch"][..], &["watch", "--json"]] {
        let mut command = Command::new(&copy);
        let output = output(command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/"));
        one_line(&output, 1, &["root"]);
    }
}

#[test]
fn without_capabilities_the_error_is_one_line() {
    // Root, but not allowed to load programs or to see sockets of other users.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(binary()).arg("watch");
    one_line(&output(&mut command), 1, &[]);
}

#[test]
fn help_is_on_stdout() {
    for arguments in [&["--help"][..], &["watch", "--help"], &["--version"]] {
        let output = netwatch(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// What a package installs is valid for its reader.
#[test]
fn completions_and_manual_pages_are_printed() {
    let print = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        output.stdout
    };
    let mut bash =
        Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&print(&["completions", "bash"])).unwrap();
    let checked = bash.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    for shell in ["zsh", "fish"] {
        assert!(String::from_utf8(print(&["completions", shell])).unwrap().contains("retain"));
    }
    let page = String::from_utf8(print(&["man", "record"])).unwrap();
    assert!(page.contains(".TH netwatch-record 1") && page.contains("EXIT STATUS"), "{page}");
}
