//! Attempts that failed: by whom, where to, and the errno that the caller got.

use serde_json::{Value, json};
use tests::{Actor, Netns, Watch, Wire, assert_has, in_fresh_netns, kernel, kind, netns, sysctl};

use crate::{actor, address};

/// The failed attempt of `client` to connect to `remote`, from any port.
fn failure(watch: &mut Watch, remote: &str, client: &Actor) -> Value {
    let (own, remote) = (netns(), address(remote));
    let fail = watch.expect(&format!("fail to {remote}"), |event| {
        kind(event) == "fail"
            && event["netns"] == own
            && event["remote"] == remote
            && event["process"]["pid"] == client.pid()
    });
    assert_has(
        &fail,
        json!({
            "proto": "tcp",
            "process": client.object(),
            "process_basis": "connect",
            "listener": null,
            "peer": null,
        }),
    );
    assert_has(
        &fail["origin"],
        json!({
            "side": "local",
            "basis": "connect",
            "confidence": "observed",
            "endpoint": fail["local"],
            "process": client.object(),
        }),
    );
    fail
}

/// Every attempt has failed once, and there are no other events of it.
fn only_fails(watch: Watch, client: &Actor, attempts: usize) {
    let log = watch.finish();
    let ours = |event: &&Value| event["process"]["pid"] == client.pid();
    let kinds: Vec<_> = log.events.iter().filter(ours).map(kind).collect();
    assert_eq!(kinds, vec!["fail"; attempts]);
}

#[test]
fn refused_attempt_is_econnrefused() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        let cases = [
            ("127.0.0.1:2000", "127.0.0.1:6000", "ipv4", ""),
            ("127.0.0.1:900", "127.0.0.1:901", "ipv4", " nonblocking"),
            ("[::1]:2001", "[::1]:6001", "ipv6", ""),
            ("[::ffff:127.0.0.1]:2002", "[::ffff:127.0.0.1]:6002", "ipv4", ""),
            ("[::1]:2003", "[::1]:6003", "ipv6", " nonblocking"),
        ];
        for (local, remote, family, how) in cases {
            let begun = client.try_say(&format!("connect {local} {remote}{how}"));
            let got = if how.is_empty() { begun } else { begun.and_then(|_| client.try_say("finish")) };
            assert_eq!(got, Err("ECONNREFUSED".to_owned()));
            if !how.is_empty() {
                client.say("close");
            }
            let fail = failure(&mut watch, remote, &client);
            assert_has(&fail, json!({"errno": "ECONNREFUSED", "family": family, "local": address(local)}));
        }
        only_fails(watch, &client, cases.len());
    });
}

#[test]
fn attempt_without_a_route_is_enetunreach() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        for (remote, how) in
            [("192.0.2.1:80", ""), ("192.0.2.2:80", " nonblocking"), ("[2001:db8::1]:80", "")]
        {
            assert_eq!(client.try_say(&format!("connect - {remote}{how}")), Err("ENETUNREACH".to_owned()));
            let fail = failure(&mut watch, remote, &client);
            assert_has(&fail, json!({"errno": "ENETUNREACH", "service": tests::service(80, "tcp")}));
        }
        only_fails(watch, &client, 3);
    });
}

#[test]
fn attempt_without_a_free_port_is_eaddrnotavail() {
    in_fresh_netns(|| {
        sysctl("net/ipv4/ip_local_port_range", "40000 40000");
        let mut watch = Watch::shared();
        let (mut server, mut first, mut second) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        first.say("connect - 127.0.0.1:6000");
        assert_eq!(second.try_say("connect - 127.0.0.1:6000"), Err("EADDRNOTAVAIL".to_owned()));
        let fail = failure(&mut watch, "127.0.0.1:6000", &second);
        assert_has(&fail, json!({"errno": "EADDRNOTAVAIL"}));
        only_fails(watch, &second, 1);
    });
}

#[test]
fn closed_attempt_is_ecanceled() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, lost, .. } = Wire::between(&here, &there);
    here.inside(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say(&format!("connect {a}:2000 {lost}:6000 nonblocking"));
        client.say("close");
        let fail = failure(&mut watch, &format!("{lost}:6000"), &client);
        assert_has(&fail, json!({"errno": "ECANCELED", "local": address(&format!("{a}:2000"))}));
        only_fails(watch, &client, 1);
    });
}

#[test]
fn attempt_of_a_killed_process_is_ecanceled() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, lost, .. } = Wire::between(&here, &there);
    here.inside(|| {
        let mut watch = Watch::shared_with_states();
        let mut client = actor();
        let object = client.object();
        client.begin(&format!("connect {a}:2000 {lost}:6000"));
        let attempt = watch.at("attempt", tests::endpoint(2000, 6000));
        client.kill();
        let fail = watch.at("fail", tests::endpoint(2000, 6000));
        assert_has(
            &fail,
            json!({
                "id": attempt["id"],
                "errno": "ECANCELED",
                "process": object,
                "origin": {"side": "local", "basis": "connect", "process": object},
            }),
        );
    });
}

#[test]
fn unanswered_attempt_is_etimedout_or_ehostunreach() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, lost, nobody, .. } = Wire::between(&here, &there);
    here.inside(|| {
        // Two SYNs, one and two seconds apart, then the kernel gives up.
        sysctl("net/ipv4/tcp_syn_retries", "1");
        // One ARP request, a second long: less than that.
        sysctl("net/ipv4/neigh/veth/mcast_solicit", "1");
        let mut watch = Watch::shared();
        let (mut dropped, mut unanswered) = (actor(), actor());
        dropped.begin(&format!("connect {a}:2000 {lost}:6000"));
        unanswered.begin(&format!("connect {a}:2001 {nobody}:6000"));
        assert_eq!(dropped.answer(), Err("ETIMEDOUT".to_owned()));
        let errno = unanswered.answer().expect_err("nobody is there");
        // As seen on 5.10 and 6.1, where a failed ARP request does not end the attempt.
        let is_old = errno == "ETIMEDOUT" && kernel() < (6, 12);
        assert!(errno == "EHOSTUNREACH" || is_old, "{errno}");
        let fail = failure(&mut watch, &format!("{lost}:6000"), &dropped);
        assert_has(&fail, json!({"errno": "ETIMEDOUT", "local": address(&format!("{a}:2000"))}));
        let fail = failure(&mut watch, &format!("{nobody}:6000"), &unanswered);
        assert_has(&fail, json!({"errno": errno, "local": address(&format!("{a}:2001"))}));
        only_fails(watch, &dropped, 1);
    });
}

#[test]
fn failed_attempt_on_a_reused_socket_has_a_new_id() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let open = watch.at("open", tests::endpoint(2000, 6000));
        client.say("disconnect");
        let close = watch.at("close", tests::endpoint(2000, 6000));
        assert_has(&close, json!({"id": open["id"], "closed_by": "reset-local", "process": client.object()}));
        // The socket, with the same cookie, connects again.
        assert_eq!(client.try_say("reconnect 127.0.0.1:6001"), Err("ECONNREFUSED".to_owned()));
        let fail = failure(&mut watch, "127.0.0.1:6001", &client);
        assert_has(&fail, json!({"errno": "ECONNREFUSED", "cookie": open["cookie"]}));
        assert_ne!(fail["id"], open["id"]);
        assert_ne!(fail["flow"], open["flow"]);
    });
}

/// Rejections by ICMP and ICMPv6, as an nftables rule spells them, each with its port and address.
const REJECTED: [(&str, &str); 12] = [
    ("127.0.0.1:7101", "icmp type net-unreachable"),
    ("127.0.0.1:7102", "icmp type host-unreachable"),
    ("127.0.0.1:7103", "icmp type port-unreachable"),
    ("127.0.0.1:7104", "icmp type net-prohibited"),
    ("127.0.0.1:7105", "icmp type host-prohibited"),
    ("127.0.0.1:7106", "icmp type admin-prohibited"),
    ("127.0.0.1:7107", "tcp reset"),
    ("[::1]:7108", "icmpv6 type no-route"),
    ("[::1]:7109", "icmpv6 type admin-prohibited"),
    ("[::1]:7110", "icmpv6 type addr-unreachable"),
    ("[::1]:7111", "icmpv6 type port-unreachable"),
    ("[::1]:7112", "tcp reset"),
];

/// The error arrives while connect() holds the socket, so that the kernel keeps it as a soft error, or later.
#[test]
fn attempt_that_icmp_ends_has_the_errno_of_so_error() {
    const TEST: &str = "fail::attempt_that_icmp_ends_has_the_errno_of_so_error";
    in_fresh_netns(|| {
        let rules = REJECTED
            .map(|(remote, with)| format!("tcp dport {} reject with {with}\n", crate::port_of(remote)));
        let table = format!(
            "table inet f {{\nchain o {{\ntype filter hook output priority 0\n{}}}\n}}\n",
            rules.concat()
        );
        let nft = std::process::Command::new("nft").arg(&table).output();
        if !nft.as_ref().is_ok_and(|output| output.status.success()) {
            return tests::skip(TEST, &format!("no nft: {nft:?}"));
        }
        let mut watch = Watch::shared();
        let mut client = actor();
        for (remote, with) in REJECTED {
            let begun = client.try_say(&format!("connect - {remote} nonblocking"));
            let got = begun.and_then(|_| client.try_say("finish")).expect_err(with);
            client.say("close");
            let fail = failure(&mut watch, remote, &client);
            assert_has(&fail, json!({"errno": got}));
            assert_ne!(got, "ECANCELED", "{with}");
        }
        only_fails(watch, &client, REJECTED.len());
    });
}
