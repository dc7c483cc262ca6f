//! Sigma rules on events of netwatch, wrong rules, and the limits.

mod hostile;

use std::path::Path;

use super::*;
use crate::model::tests::ns;
use crate::model::{Arguments, Image};
use crate::origin::{Side, Verdict};
use crate::rules::sigma::check::remarks;
use crate::tracker::EventKind;
use crate::tracker::tests::event;

fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, Pack) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let pack = Pack::read(&[folder.path().to_owned()]).unwrap();
    (folder, pack)
}

/// A rule of a category with these lines of `detection`.
fn rule(title: &str, category: &str, detection: &str) -> String {
    format!(
        "title: {title}\nid: {title}-id\nlevel: high\ntags:\n    - attack.t1059.004\nlogsource:\n    category: {category}\n    \
         product: linux\ndetection:\n{detection}"
    )
}

fn of_connections(detection: &str) -> Sigma {
    let (_folder, mut pack) = written(&[("a.yml", &rule("A", "network_connection", detection))]);
    let sigma = Sigma::compile(&mut pack);
    assert_eq!(pack.bad, []);
    sigma
}

fn context() -> Context {
    let mut context = Context::of_run("0123abcd").unwrap();
    let mut users = Map::default();
    users.insert(0, Some("root".into()));
    context.users = Arc::new(users);
    context
}

fn program(exe: &str, line: &str, parent: Option<&Arc<Process>>) -> Arc<Process> {
    let mut process = Process::clone(&crate::process::tests::process(5, parent));
    let args = Arguments::of(line.replace(' ', "\0").as_bytes());
    process.image = Arc::new(Image { exe: Some(exe.into()), args, ..Image::clone(&Image::unknown()) });
    process.into()
}

fn connection(remote: &str, verdict: Verdict) -> ConnectionEvent {
    let kind = if verdict.side == Side::Remote { EventKind::Accept } else { EventKind::Open };
    let mut event = event(kind, "10.0.0.1:40000", Some(remote));
    event.endpoint.verdict = verdict;
    let parent = program("/usr/sbin/cron", "cron -f", None);
    event.endpoint.process = Some(Actor::leader(program("/usr/bin/bash", "bash -c x", Some(&parent))));
    event
}

fn found(sigma: &mut Sigma, event: &ConnectionEvent) -> Vec<String> {
    let mut out = Vec::new();
    sigma.connection(event, &context(), &mut out);
    out.into_iter().map(|alert| format!("{}: {}", alert.rule.title, alert.detail)).collect()
}

#[test]
fn rule_matches_its_connection_and_not_others() {
    let mut shell = of_connections(
        "    selection:\n        Image|endswith: '/bash'\n        Initiated: 'true'\n    filter:\n        \
         DestinationIp|cidr:\n            - '127.0.0.0/8'\n            - '10.0.0.0/8'\n    condition: selection and not filter\n",
    );
    let to = |remote, verdict| connection(remote, verdict);
    let hit = to("192.0.2.1:4444", Verdict::CONNECT);
    assert_eq!(found(&mut shell, &hit), ["A: Image: /usr/bin/bash, Initiated: true"]);
    assert_eq!(found(&mut shell, &to("127.0.0.1:4444", Verdict::CONNECT)), [""; 0]);
    assert_eq!(found(&mut shell, &to("192.0.2.1:4444", Verdict::ACCEPT)), [""; 0], "it was accepted");
    for unknown in [Verdict::UNKNOWN, Verdict::port_range(Side::Local)] {
        assert_eq!(found(&mut shell, &to("192.0.2.1:4444", unknown)), [""; 0], "{unknown:?}");
        for value in ["'true'", "'false'"] {
            let detection = format!("    selection:\n        Initiated: {value}\n    condition: selection\n");
            assert_eq!(found(&mut of_connections(&detection), &to("192.0.2.1:1", unknown)), [""; 0]);
        }
    }
    let alert = {
        let mut out = Vec::new();
        shell.connection(&hit, &context(), &mut out);
        out.pop().unwrap()
    };
    assert_eq!(
        (&*alert.rule.id, alert.rule.level, &alert.rule.tags[..]),
        ("A-id", Level::High, &["attack.t1059.004".into()][..])
    );
    assert_eq!(alert.about.map(|about| about.id), Some(hit.endpoint.id));
}

#[test]
fn every_field_has_the_value_that_rules_expect() {
    for selection in [
        "DestinationPort: 4444",
        "DestinationPort: '4444'",
        "DestinationIp: 192.0.2.1",
        "DestinationIsIpv6: 'false'",
        "SourceIp|startswith: '10.'",
        "SourcePort|gte: 40000",
        "SourceIsIpv6: false",
        "Protocol: tcp",
        "User: root",
        "CommandLine|contains|all:\n            - '-c'\n            - bash",
        "CommandLine|re: '^bash\\s+-c'",
        "ParentImage|endswith: /cron",
        "ParentCommandLine: cron -f",
        "ProcessId: 5",
        "ProcessGuid|startswith: '5@'",
        "EventID: 3",
        "Image|startswith: /usr/",
        "NetwatchBasis: connect",
        "NetwatchConfidence: observed",
        "DestinationHostname: null",
    ] {
        let detection = format!("    selection:\n        {selection}\n    condition: selection\n");
        let hit = connection("192.0.2.1:4444", Verdict::CONNECT);
        assert_eq!(found(&mut of_connections(&detection), &hit).len(), 1, "{selection}");
    }
    // Of an accepted connection the originator is the source.
    let detection = "    selection:\n        SourcePort: 4444\n        DestinationPort: 40000\n    condition: selection\n";
    assert_eq!(
        found(&mut of_connections(detection), &connection("192.0.2.1:4444", Verdict::ACCEPT)).len(),
        1
    );
    let keyword = "    keywords:\n        - '*cron*'\n    condition: keywords\n";
    assert_eq!(found(&mut of_connections(keyword), &connection("192.0.2.1:4444", Verdict::CONNECT)).len(), 1);
}

#[test]
fn names_of_hosts_are_those_of_their_ends() {
    use crate::names::{HostName, Names};
    let named = |verdict| {
        let mut event = connection("192.0.2.1:443", verdict);
        event.endpoint.names = Names::new(Some(HostName::said("pool.example.com", ns(1)).into()), None);
        event
    };
    let of = |field: &str| {
        of_connections(&format!(
            "    selection:\n        {field}|endswith: .example.com\n    condition: selection\n"
        ))
    };
    assert_eq!(found(&mut of("DestinationHostname"), &named(Verdict::CONNECT)).len(), 1);
    assert_eq!(found(&mut of("DestinationHostname"), &named(Verdict::ACCEPT)), [""; 0]);
    assert_eq!(found(&mut of("SourceHostname"), &named(Verdict::ACCEPT)).len(), 1);
}

#[test]
fn programs_are_of_their_category() {
    let detection = "    selection:\n        Image|endswith: /base64\n        CommandLine|contains: ' -d'\n        \
                     ParentImage|endswith: /sh\n    condition: selection\n";
    let (_folder, mut pack) = written(&[
        ("a.yml", &rule("A", "process_creation", detection)),
        (
            "b.yml",
            &rule(
                "B",
                "network_connection",
                "    selection:\n        Image|contains: base\n    condition: selection\n",
            ),
        ),
        (
            "c.yml",
            &rule(
                "C",
                "file_event",
                "    selection:\n        Image|contains: base\n    condition: selection\n",
            ),
        ),
    ]);
    let mut sigma = Sigma::compile(&mut pack);
    assert_eq!((pack.rules.len(), pack.others.len(), sigma.count()), (2, 1, 2));
    let parent = program("/bin/sh", "sh", None);
    let mut out = Vec::new();
    sigma.program(&program("/usr/bin/base64", "base64 -d x", Some(&parent)), ns(1), &context(), &mut out);
    sigma.program(&program("/usr/bin/base64", "base64 x", Some(&parent)), ns(1), &context(), &mut out);
    sigma.program(&program("/usr/bin/base64", "base64 -d x", None), ns(1), &context(), &mut out);
    let titles: Vec<_> = out.iter().map(|alert| &*alert.rule.title).collect();
    assert_eq!(titles, ["A"]);
    assert!(out[0].about.is_none() && out[0].process.is_some());
}

const COUNTED: &str = "title: Many\nid: many\nlevel: critical\ncorrelation:\n    type: event_count\n    rules:\n        - A-id\n    \
                       group-by:\n        - Image\n    timespan: 1m\n    condition:\n        gte: 3\n";

#[test]
fn correlations_count_by_the_time_of_events() {
    let detection = "    selection:\n        DestinationPort: 4444\n    condition: selection\n";
    let (_folder, mut pack) =
        written(&[("a/b/a.yaml", &rule("A", "network_connection", detection)), ("c.yml", COUNTED)]);
    let mut sigma = Sigma::compile(&mut pack);
    assert_eq!((pack.bad.len(), sigma.count()), (0, 2));
    let mut at = |second: u64| {
        let mut event = connection("192.0.2.1:4444", Verdict::CONNECT);
        event.at = ns(second * 1_000_000_000);
        found(&mut sigma, &event)
    };
    // The rule itself raises nothing: it only serves the correlation.
    assert_eq!((at(100), at(200), at(210)), (vec![], vec![], vec![]));
    assert_eq!(at(220), ["Many: 3 within 60 s of Image: /usr/bin/bash"]);
}

#[test]
fn bad_rules_are_named_and_the_others_are_used() {
    let good = rule(
        "Good",
        "network_connection",
        "    selection:\n        DestinationPort: 1\n    condition: selection\n",
    );
    let mut files: Vec<(String, String)> = (0..300).map(|n| (format!("{n}.yml"), good.clone())).collect();
    let with = |condition: &str| {
        rule(
            "Bad",
            "network_connection",
            &format!("    selection:\n        Image|re: '(('\n    condition: {condition}\n"),
        )
    };
    for (name, text) in [
        ("x1.yml", "title: [".to_owned()),
        ("x2.yml", with("selection")),
        ("x3.yml", with("selection and (")),
        (
            "x4.yml",
            "title: None\nlogsource:\n    category: network_connection\n    product: linux\n".to_owned(),
        ),
        ("x5.yml", COUNTED.replace("A-id", "nobody")),
        ("x6.yml", "\u{0}\u{1}".to_owned()),
        ("x7.yml", "a: &a [x]\nb: *a\n".to_owned()),
        (
            "x8.yml",
            rule(
                "Bad",
                "network_connection",
                "    selection:\n        Image|fly: x\n    condition: selection\n",
            ),
        ),
    ] {
        files.push((name.to_owned(), text));
    }
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (folder, mut pack) = written(&files);
    std::fs::write(folder.path().join("x9.yml"), [0xff, 0xfe]).unwrap();
    let mut again = Pack::read(&[folder.path().to_owned()]).unwrap();
    assert_eq!(again.bad.len(), pack.bad.len() + 1, "{:?}", again.bad);
    let mut sigma = Sigma::compile(&mut pack);
    assert_eq!(sigma.count(), 300);
    let mut names: Vec<_> =
        pack.bad.iter().map(|bad| bad.file.file_name().unwrap().to_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names,
        ["x1.yml", "x2.yml", "x3.yml", "x4.yml", "x5.yml", "x6.yml", "x7.yml", "x8.yml"],
        "{:?}",
        pack.bad
    );
    let said = |name: &str| pack.bad.iter().find(|bad| bad.file.ends_with(name)).unwrap().to_string();
    assert!(said("x7.yml").contains("x7.yml:1: aliases of YAML"), "{}", said("x7.yml"));
    assert!(!said("x2.yml").contains('\n'), "{}", said("x2.yml"));
    assert_eq!(found(&mut sigma, &connection("192.0.2.1:1", Verdict::CONNECT)).len(), 300);
    let _ = Sigma::compile(&mut again);
}

#[test]
fn text_with_stars_is_no_alias() {
    let described = "title: T\ndescription: |\n    *one* and\n\n    &two\n";
    let text = rule("A", "network_connection", "    a:\n        Image: '*x*'\n    condition: a\n")
        .replace("title: A\n", described);
    let (_folder, pack) = written(&[("a.yml", &text), ("b.yml", &format!("{text}x: *a\n"))]);
    assert_eq!((pack.rules.len(), pack.bad.len()), (1, 1), "{:?}", pack.bad);
    assert_eq!(pack.bad[0].line, text.lines().count() + 1);
}

#[test]
fn path_that_cannot_be_read_is_an_error() {
    let error = Pack::read(&[Path::new("/nowhere/at/all").to_owned()]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the rules /nowhere/at/all: "), "{error}");
}

#[test]
fn remarks_say_what_netwatch_never_fills() {
    let check = |detection: &str| {
        let (_folder, pack) = written(&[("a.yml", &rule("A", "process_creation", detection))]);
        assert_eq!(pack.rules.len(), 1, "{:?}", pack.bad);
        let found = remarks(&pack);
        found.first().map(|remark| (remark.unfilled.join(" "), remark.is_dead, remark.line))
    };
    let fine = "    selection:\n        Image: x\n    condition: selection\n";
    assert_eq!(check(fine), None);
    let dead = "    selection:\n        Image: x\n        CurrentDirectory: /tmp\n    condition: selection\n";
    assert_eq!(check(dead), Some(("CurrentDirectory".into(), true, 1)));
    let either = "    a:\n        Image: x\n    b:\n        Hashes: y\n    condition: 1 of them\n";
    assert_eq!(check(either), Some(("Hashes".into(), false, 1)));
    let both = "    sel_a:\n        Image: x\n    sel_b:\n        Hashes: y\n    condition: all of sel_*\n";
    assert_eq!(check(both), Some(("Hashes".into(), true, 1)));
    let without =
        "    a:\n        Image: x\n    b:\n        CurrentDirectory: /tmp\n    condition: a and not b\n";
    assert_eq!(check(without), Some(("CurrentDirectory".into(), false, 1)));
    let absent = "    a:\n        Hashes: null\n    condition: a\n";
    assert_eq!(check(absent), Some(("Hashes".into(), false, 1)));
    let never = "    a:\n        Hashes: null\n    condition: not a\n";
    assert_eq!(check(never), Some(("Hashes".into(), true, 1)));
}

#[test]
fn files_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..=limits::RULE_FILES {
        std::fs::write(folder.path().join(format!("{n}.yml")), "").unwrap();
    }
    let error = Pack::read(&[folder.path().to_owned()]).unwrap_err().to_string();
    assert!(error.contains("more than 16384 files"), "{error}");
    let (_folder, pack) = written(&[("a.yml", &"#".repeat(limits::RULE_FILE + 1))]);
    assert!(pack.bad[0].to_string().contains("cannot be read: larger than"), "{:?}", pack.bad);
}

#[test]
fn groups_of_a_correlation_are_limited() {
    let detection = "    selection:\n        DestinationPort|gt: 0\n    condition: selection\n";
    let counted = COUNTED.replace("- Image", "- SourcePort").replace("gte: 3", "gte: 100000000");
    let (_folder, mut pack) =
        written(&[("a.yml", &rule("A", "network_connection", detection)), ("c.yml", &counted)]);
    let mut sigma = Sigma::compile(&mut pack);
    let context = context();
    for n in 0..limits::RULE_GROUPS as u32 * 3 {
        let mut event = connection("192.0.2.1:4444", Verdict::CONNECT);
        event.endpoint.local.port = (n % 60_000) as u16 + 1;
        event.endpoint.local.ip = std::net::Ipv4Addr::from_bits(n / 60_000).into();
        sigma.connection(&event, &context, &mut Vec::new());
    }
    assert!(sigma.engine.state_count() <= limits::RULE_GROUPS, "{}", sigma.engine.state_count());
}
