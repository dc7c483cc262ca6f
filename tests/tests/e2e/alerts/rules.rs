//! Sigma rules and match lists on `watch` and `record`, and `rules check`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::{Running, Store, Watch, assert_has, endpoint, in_fresh_netns, kind, netwatch};

use super::alerts;
use crate::actor;

const TO_4444: &str = "title: Callback port\nid: 6d0f0bb1-9e2b-4d8e-8f3c-2f5a9f0f9a11\nlevel: high\ntags:\n    - attack.t1571\n\
logsource:\n    category: network_connection\n    product: linux\ndetection:\n    selection:\n        Initiated: 'true'\n        \
DestinationPort: 4444\n    condition: selection\n";

const ENCODED: &str = "title: Decodes\nid: decodes\nlevel: low\nlogsource:\n    category: process_creation\n    product: linux\n\
detection:\n    selection:\n        Image|endswith: /base64\n        CommandLine|contains: ' -d'\n    condition: selection\n";

const MANY: &str = "title: Many callbacks\nid: many\nlevel: critical\ncorrelation:\n    type: event_count\n    rules:\n        \
- again\n    group-by:\n        - Image\n    timespan: 1h\n    condition:\n        gte: 3\n";

/// A directory of rules.
fn rules(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().to_owned();
    (folder, path)
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn titles(events: &[Value]) -> Vec<&str> {
    alerts(events).iter().map(|alert| alert["rule"]["title"].as_str().unwrap()).collect()
}

#[test]
fn sigma_rules_are_evaluated_as_they_are_and_a_bad_one_is_named() {
    in_fresh_netns(|| {
        let again = TO_4444
            .replace("Callback port", "Again")
            .replace("6d0f0bb1-9e2b-4d8e-8f3c-2f5a9f0f9a11", "again");
        let again = again.replace("4444", "4445");
        let (_folder, path) =
            rules(&[("a.yml", TO_4444), ("bad.yml", "title: [\n"), ("c.yaml", &again), ("m.yml", MANY)]);
        let mut watch = Watch::start(&["--rules", word(&path)]);
        let mut server = actor();
        for port in [4444, 4445, 4446] {
            server.say(&format!("listen 127.0.0.1:{port} 16"));
        }
        let mut client = actor();
        for (from, to) in [(2000, 4446), (2001, 4444), (2002, 4445), (2003, 4445), (2004, 4445)] {
            client.say(&format!("connect 127.0.0.1:{from} 127.0.0.1:{to}"));
        }
        let many = watch.expect("the correlation", |event| event["rule"]["id"] == "many");
        assert_has(&many, json!({"rule": {"level": "critical"}, "local": {"port": 2004}, "code": null}));
        let log = watch.finish();
        // A correlation may come before what else is found in the same batch.
        let mut all = titles(&log.events);
        all.sort_unstable();
        assert_eq!(all, ["Callback port", "Many callbacks"]);
        let found = alerts(&log.events);
        let alert = found.iter().find(|alert| alert["rule"]["title"] == "Callback port").unwrap();
        let open = log.at("open", endpoint(2001, 4444))[0];
        assert_has(
            alert,
            json!({
                "rule": {"id": "6d0f0bb1-9e2b-4d8e-8f3c-2f5a9f0f9a11", "level": "high", "tags": ["attack.t1571"]},
                "detail": "Initiated: true, DestinationPort: 4444",
                "connection": open["id"],
                "process": {"pid": client.pid()},
            }),
        );
        assert!(log.stderr.contains("bad.yml:") && log.stderr.lines().count() == 1, "{}", log.stderr);
    });
}

#[test]
fn rules_of_programs_see_every_exec() {
    let (_folder, path) = rules(&[("p.yml", ENCODED)]);
    let mut watch = Watch::everywhere(&["--rules", word(&path), "--event", "alert"]);
    let run = |arguments: &[&str]| {
        let mut running = Running::start(
            Command::new("/usr/bin/base64").args(arguments).stdin(std::process::Stdio::null()),
        );
        running.ended("base64 ends");
        running.pid()
    };
    let harmless = run(&["/dev/null"]);
    let pid = run(&["-d", "/dev/null"]);
    let alert = watch.expect("an alert", |event| kind(event) == "alert" && event["process"]["pid"] == pid);
    assert_has(&alert, json!({"rule": {"id": "decodes"}, "connection": null, "trace": null}));
    let log = watch.finish();
    assert!(alerts(&log.events).iter().all(|alert| alert["process"]["pid"] != harmless));
}

#[test]
fn listed_addresses_raise_alerts() {
    in_fresh_netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("bad.txt");
        fs::write(&list, "# known\n192.0.2.0/24\n127.0.0.7\n").unwrap();
        let mut watch = Watch::start(&["--match-list", word(&list)]);
        let mut server = actor();
        server.say("listen 0.0.0.0:6000 16");
        let mut client = actor();
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        client.say("connect 127.0.0.1:2001 127.0.0.7:6000");
        watch.expect("an alert", |event| kind(event) == "alert");
        let log = watch.finish();
        let [alert] = alerts(&log.events)[..] else { panic!("{:#?}", alerts(&log.events)) };
        assert_has(
            alert,
            json!({"rule": {"id": "match-list:bad.txt", "level": "high"}, "remote": {"ip": "127.0.0.7"}}),
        );
        assert_eq!(alert["detail"], format!("127.0.0.7 is in {}:3", list.display()));
    });
}

#[test]
fn file_that_nobody_writes_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = netwatch(&["watch", "--match-list", word(&fifo), "--duration", "1s"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("no answer within") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn wrong_paths_and_lines_end_the_start() {
    let (folder, path) = rules(&[("list", "192.0.2.1\nnot an address\n")]);
    let list = folder.path().join("list");
    for (arguments, part) in [
        (["--rules", "/nowhere/rules"], "cannot read the rules /nowhere/rules: No such file".to_owned()),
        (["--match-list", "/nowhere/list"], "cannot read the list /nowhere/list".to_owned()),
        (["--match-list", word(&list)], format!("{}:2: `not an address` is neither", list.display())),
    ] {
        let output = netwatch(&[&["watch", "--duration", "1"], &arguments[..]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(&part), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    drop((folder, path));
}

/// The same from the configuration file of `record`; what is recorded is found by `rules check --against`.
#[test]
fn rules_of_the_configuration_and_a_hunt_over_the_past() {
    in_fresh_netns(|| {
        let store = Store::new();
        let dead = ENCODED
            .replace("CommandLine|contains: ' -d'", "CurrentDirectory: /tmp")
            .replace("Decodes", "Dead");
        let (folder, path) = rules(&[("a.yml", TO_4444), ("dead.yml", &dead)]);
        let config = folder.path().join("netwatch.toml");
        fs::write(&config, format!("rules = ['{}']\ndetect = 'none'\nnetns = 'self'\n", path.display()))
            .unwrap();
        let mut watch = Watch::recording(&store.path(), &["--config", word(&config)]);
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 16");
        let mut client = actor();
        client.say("connect 127.0.0.1:2000 127.0.0.1:4444");
        watch.expect("an alert", |event| kind(event) == "alert");
        assert_eq!(watch.finish().stderr, "");
        assert_eq!(titles(&store.log(&["--event", "alert"])), ["Callback port"]);

        let check = |arguments: &[&str]| {
            let output = netwatch(&[&["rules", "check"], arguments].concat());
            assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let (status, said) = check(&[word(&path), "--against", word(&store.path())]);
        assert_eq!(status, Some(3), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert!(
            lines[0].ends_with("dead.yml:1: Dead: can never match: netwatch never fills CurrentDirectory"),
            "{said}"
        );
        let summary = "2 rules for netwatch (1 of connections, 1 of programs) and 0 correlations; 0 for other log sources; \
                       0 wrong; 1 can never match";
        assert_eq!(lines[1], summary);
        assert!(lines[2].contains("alert    high Callback port: actor["), "{said}");
        assert_eq!(
            (lines[3], lines.last()),
            ("1 rule would have raised an alert", Some(&"       1 Callback port"))
        );
        fs::remove_file(path.join("dead.yml")).unwrap();
        let (status, said) = check(&[word(&path)]);
        assert_eq!((status, said.lines().count()), (Some(0), 1), "{said}");
        let missing = netwatch(&["rules", "check", "/nowhere"]);
        assert_eq!(missing.status.code(), Some(1));
    });
}
