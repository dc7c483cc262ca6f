//! `--alert-exec`: a program for each alert.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tests::{Watch, assert_has, in_fresh_netns, kind, netwatch, until};

use super::hidden;

/// A folder in which anyone may create files.
fn open_folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn program_gets_the_alert_and_has_no_privileges() {
    in_fresh_netns(|| {
        let (_folder, path) = open_folder();
        // Programs of other tests raise alerts as well: rules see every namespace.
        let script = "{ cat; id -u; id -G; grep CapEff /proc/self/status; } > \"$0/$$.new\"; mv \"$0/$$.new\" \"$0/$$.alert\"";
        let arguments = ["-c", script, &path].map(|word| format!("--alert-exec-arg={word}"));
        let mut watch = Watch::start(
            &[
                &["--detect", "exe-memfd", "--alert-exec", "/bin/sh"],
                &arguments.each_ref().map(String::as_str)[..],
            ]
            .concat(),
        );
        let file = crate::disguise::memfd();
        hidden(&file).say("listen 127.0.0.1:6000 16");
        let alert = watch.expect("an alert", |event| kind(event) == "alert");
        let mut own = None;
        until("the program has run", || {
            let files = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path());
            let done = files.filter(|file| file.extension().is_some_and(|ending| ending == "alert"));
            own = done.map(|file| fs::read_to_string(file).unwrap()).find(|text| {
                let passed: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                passed["connection"] == alert["connection"]
            });
            own.is_some()
        });
        let own = own.unwrap();
        let lines: Vec<_> = own.lines().collect();
        let passed: Value = serde_json::from_str(lines[0]).unwrap();
        assert_has(&passed, json!({"event": "alert", "rule": alert["rule"]}));
        assert_eq!(lines[1..3], ["65534", "65534"]);
        assert!(lines[3].ends_with("0000000000000000"), "{lines:?}");
        assert_eq!(watch.finish().status.code(), Some(0));
    });
}

#[test]
fn alerts_beyond_the_limit_are_counted() {
    in_fresh_netns(|| {
        let arguments =
            ["--detect", "exe-memfd", "--suppress", "0", "--alert-exec", "/bin/sleep", "--alert-exec-arg=5"];
        let mut watch = Watch::start(&arguments);
        let mut server = crate::actor();
        server.say("listen 127.0.0.1:6000 500");
        let file = crate::disguise::memfd();
        let mut client = hidden(&file);
        for port in 2000..2300 {
            client.say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000"));
        }
        watch.at("open", tests::endpoint(2299, 6000));
        let log = watch.finish();
        assert_eq!(super::alerts(&log.events).len(), 300, "none is missing in the log");
        assert!(
            log.stderr.contains("alerts were not passed to the program of --alert-exec"),
            "{}",
            log.stderr
        );
    });
}

#[test]
fn relative_path_of_the_program_is_refused() {
    let output = netwatch(&["watch", "--detect", "all", "--alert-exec", "page"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("has to begin with a slash"), "{said}");
}
