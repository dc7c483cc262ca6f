//! Rules and names that are made to take time, and what rules cost.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// What takes exponential time in engines that go back.
#[test]
fn hostile_patterns_and_names_end() {
    let detection = "    a:\n        CommandLine|re: '^(a+)+$'\n    b:\n        CommandLine|contains: '*a*a*a*a*a*a*a*b'\n    \
                     condition: a or b\n";
    let mut sigma = of_connections(detection);
    let mut event = connection("192.0.2.1:4444", Verdict::CONNECT);
    let process = program(&"/a\u{202e}\u{1b}[".repeat(100), &format!("{}!", "a".repeat(60_000)), None);
    event.endpoint.process = Some(Actor::leader(process));
    assert_eq!(found(&mut sigma, &event), [""; 0]);
    // A pattern whose program would be too large is refused.
    let large = rule(
        "A",
        "network_connection",
        "    a:\n        Image|re: '((a{500}){500}){500}'\n    condition: a\n",
    );
    let deep = rule(
        "B",
        "network_connection",
        &format!("    a:\n        Image: x\n    condition: {}a{}\n", "(".repeat(5000), ")".repeat(5000)),
    );
    let nested = format!("title: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let (_folder, mut pack) = written(&[("large.yml", &large), ("deep.yml", &deep), ("nested.yml", &nested)]);
    let _ = Sigma::compile(&mut pack);
    assert!(pack.bad.iter().any(|bad| bad.file.ends_with("large.yml")), "{:?}", pack.bad);
    assert!(pack.bad.iter().any(|bad| bad.file.ends_with("nested.yml")), "{:?}", pack.bad);
}

proptest! {
    #[test]
    fn no_text_panics_or_ends_the_others(text in "(title: |detection:\n|  a:\n|  condition: |1 of them|all of a\\*|not |Image\\|re: |'|\\(|a|\n|- |logsource:\n|  product: linux\n|  category: network_connection\n|correlation:\n){0,24}") {
        let (_folder, mut pack) = written(&[("a.yml", &text), ("b.yml", &rule("B", "network_connection", "    a:\n        Image: x\n    condition: a\n"))]);
        prop_assert!(Sigma::compile(&mut pack).count() >= 1);
    }
}

/// Of 300 rules, of the kinds that SigmaHQ has for connections: see docs/rules.md for the figure. Run it with
/// `cargo test --release -p netwatch --lib cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_300_rules() {
    let kind = |n: usize| match n % 5 {
        0 => format!(
            "    selection:\n        Image|endswith: '/tool{n}'\n        Initiated: 'true'\n    condition: selection\n"
        ),
        1 => format!(
            "    selection:\n        DestinationPort:\n            - {}\n            - {}\n        Initiated: 'true'\n    filter:\n        DestinationIp|cidr:\n            - '10.0.0.0/8'\n            - '127.0.0.0/8'\n    condition: selection and not filter\n",
            4000 + n,
            9000 + n
        ),
        2 => format!(
            "    selection:\n        DestinationHostname|contains: 'host{n}.example'\n    condition: selection\n"
        ),
        3 => format!(
            "    selection:\n        CommandLine|contains|all:\n            - 'word{n}'\n            - ' -c '\n    condition: selection\n"
        ),
        _ => format!(
            "    a:\n        Image|startswith: '/opt/{n}/'\n    b:\n        ParentImage|endswith: '/parent{n}'\n        User: nobody\n    condition: 1 of them\n"
        ),
    };
    let files: Vec<_> = (0..300)
        .map(|n| (format!("{n}.yml"), rule(&format!("R{n}"), "network_connection", &kind(n))))
        .collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let (_folder, mut pack) = written(&files);
    let began = Instant::now();
    let mut sigma = Sigma::compile(&mut pack);
    println!("compiled {} rules in {:?}", sigma.count(), began.elapsed());
    let (context, mut out) = (context(), Vec::new());
    let events: Vec<_> = (0..1000_u32)
        .map(|n| {
            connection(
                &format!("192.0.2.{}:{}", n % 250 + 1, 443 + n % 7),
                if n % 3 == 0 { Verdict::ACCEPT } else { Verdict::CONNECT },
            )
        })
        .collect();
    const ROUNDS: u32 = 100;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        events.iter().for_each(|event| sigma.connection(event, &context, &mut out));
    }
    println!("{:?} an event, {} alerts", began.elapsed() / (ROUNDS * 1000), out.len());
}
