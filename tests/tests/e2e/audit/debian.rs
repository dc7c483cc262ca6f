//! A plain Debian with servers from packages: no findings for a sound host.

mod servers;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use tests::{PATIENCE, Store, Watch, in_fresh_netns};

use super::Audit;
use servers::Servers;

/// Listeners, and the packages of their programs. PostgreSQL's has its version in its name.
const PORTS: [(&str, &str, &str); 12] = [
    ("0.0.0.0:22", "tcp", "openssh-server"),
    ("[::]:22", "tcp", "openssh-server"),
    ("0.0.0.0:80", "tcp", "nginx"),
    ("[::]:80", "tcp", "nginx"),
    ("0.0.0.0:111", "tcp", "rpcbind"),
    ("[::]:111", "tcp", "rpcbind"),
    ("0.0.0.0:111", "udp", "rpcbind"),
    ("[::]:111", "udp", "rpcbind"),
    ("127.0.0.1:5432", "tcp", "postgresql"),
    ("[::1]:5432", "tcp", "postgresql"),
    ("127.0.0.1:6379", "tcp", "redis-"),
    ("[::1]:6379", "tcp", "redis-"),
];

fn port<'a>(audit: &'a Audit, local: &str, proto: &str) -> &'a Value {
    let endpoint = crate::address(local);
    let found: Vec<_> =
        audit.kind("port").filter(|port| port["local"] == endpoint && port["proto"] == proto).collect();
    assert_eq!(found.len(), 1, "{proto} {local}: {:#?}", audit.objects);
    found[0]
}

fn has(port: &Value, by: &str) -> bool {
    port["by"].as_array().expect("by what").iter().any(|one| one == by)
}

/// All of them are explained, by a program for the service of the port.
#[track_caller]
fn explained(audit: &Audit) {
    assert_eq!(audit.kind("port").count(), PORTS.len(), "{:#?}", audit.objects);
    for (local, proto, package) in PORTS {
        let port = port(audit, local, proto);
        assert!(port["explained"] == true && has(port, "service"), "{port:#}");
        let owner = port["package"]["name"].as_str().unwrap();
        assert!(owner.starts_with(package) && port["package"]["manager"] == "dpkg", "{port:#}");
    }
    for proto in ["tcp", "udp"] {
        // 100000 is the portmapper itself: RFC 1833, section 3.
        let port = port(audit, "0.0.0.0:111", proto);
        let rpc = port["rpc"].as_array().unwrap();
        let is_itself = |rpc: &Value| rpc["program"] == 100_000 && rpc["name"] == "portmapper";
        assert!(rpc.iter().any(is_itself) && has(port, "portmapper"), "{port:#}");
    }
}

/// The findings of an audit: code, severity and address.
fn found(audit: &Audit) -> Vec<(&str, &str, &Value)> {
    audit
        .kind("finding")
        .map(|finding| {
            (finding["code"].as_str().unwrap(), finding["severity"].as_str().unwrap(), &finding["local"])
        })
        .collect()
}

/// All ports are explained, and there are no findings, both from outside of the root and from inside.
#[track_caller]
fn sound(servers: &Servers, arguments: &[&str]) {
    for audit in [Audit::take(arguments), inside(servers, arguments)] {
        explained(&audit);
        assert!(found(&audit).is_empty(), "{:#?}", found(&audit));
        assert_eq!(audit.status, Some(0));
    }
}

/// As on a plain Debian, whose package databases are in netwatch's own root.
fn inside(servers: &Servers, arguments: &[&str]) -> Audit {
    let mut command = servers.netwatch();
    servers.debian.inside(|| Audit::of(command.args(["audit", "--json", "--netns", "self"]).args(arguments)))
}

#[test]
fn servers_from_packages_are_explained() {
    in_fresh_netns(|| {
        let Some(servers) = Servers::all("audit::debian::servers_from_packages_are_explained") else {
            return;
        };
        sound(&servers, &[]);
    });
}

/// Sends a request to a server, and waits for the beginning of its answer. The connection stays open.
fn asked(port: u16, question: &[u8], answer: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(question).unwrap();
    let mut read = vec![0; answer.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, answer);
    stream
}

/// A connection to each, with an answer.
fn traffic() -> Vec<TcpStream> {
    // SSLRequest: PostgreSQL's documentation, "Message Formats". It has a certificate from its package, so S: willing.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    vec![
        asked(22, b"", b"SSH-2.0-"),
        asked(80, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200"),
        asked(5432, &SSL_REQUEST, b"S"),
        asked(6379, b"PING\r\n", b"+PONG"),
    ]
}

#[test]
fn servers_with_connections_are_explained() {
    in_fresh_netns(|| {
        let Some(servers) = Servers::all("audit::debian::servers_with_connections_are_explained") else {
            return;
        };
        // The connections that stay open are there during the audit: a child of sshd, a process of PostgreSQL.
        let (gone, _here) = (traffic(), traffic());
        drop(gone);
        sound(&servers, &[]);
    });
}

/// The store adds findings: wildcard listeners that only this host connected to.
#[test]
fn servers_in_a_store_are_explained() {
    in_fresh_netns(|| {
        let Some(mut servers) = Servers::none("audit::debian::servers_in_a_store_are_explained") else {
            return;
        };
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &[]);
        servers.start_all();
        let connections = [traffic(), traffic(), traffic()];
        for port in [22, 80, 5432, 6379] {
            let is_taken = |event: &Value| event["event"] == "accept" && event["local"]["port"] == port;
            watch.expect_times("accept", connections.len(), is_taken);
        }
        watch.finish();
        drop(connections);
        let store = store.path();
        let arguments = ["--store", store.to_str().unwrap()];
        let audit = Audit::take(&arguments);
        explained(&audit);
        let local = |text: &str| crate::address(text);
        let (ssh, http) = (local("0.0.0.0:22"), local("0.0.0.0:80"));
        let expected = [("only-local-peers", "info", &ssh), ("only-local-peers", "info", &http)];
        assert_eq!(found(&audit), expected);
        assert_eq!(audit.status, Some(0));
        // A datagram socket does not listen, so no event tells when it was bound.
        for (local, proto, _) in PORTS.into_iter().filter(|(_, proto, _)| *proto == "tcp") {
            // All connections were to IPv4 addresses, and none to the portmapper.
            let is_asked = !local.starts_with('[') && !local.ends_with(":111");
            let port = port(&audit, local, proto);
            let count = if is_asked { 3 } else { 0 };
            assert_eq!(port["connections"]["count"], count, "{port:#}");
            assert!(port["since"].is_string(), "{port:#}");
        }
    });
}

/// As dpkg does it: the new file is written beside the old one, and renamed over it.
#[test]
fn server_of_an_upgraded_package_is_a_low_finding() {
    in_fresh_netns(|| {
        const SSHD: &str = "/usr/sbin/sshd";
        let Some(servers) = Servers::all("audit::debian::server_of_an_upgraded_package_is_a_low_finding")
        else {
            return;
        };
        servers.debian.inside(|| {
            let new = format!("{SSHD}.dpkg-new");
            fs::copy(SSHD, &new).unwrap();
            fs::rename(&new, SSHD).unwrap();
        });
        for audit in [Audit::take(&[]), inside(&servers, &[])] {
            explained(&audit);
            let finding = audit.finding("exe-replaced");
            assert_eq!(
                (&finding["severity"], &finding["process"]["pid"]),
                (&"low".into(), &servers.pid("sshd").into())
            );
            assert_eq!((audit.kind("finding").count(), audit.status), (1, Some(0)), "{:#?}", found(&audit));
        }
    });
}

/// The rpm database, beside that of dpkg.
#[test]
fn server_from_an_rpm_package_is_explained() {
    in_fresh_netns(|| {
        let Some(mut servers) = Servers::none("audit::debian::server_from_an_rpm_package_is_explained")
        else {
            return;
        };
        servers.start(servers::of_rpm, 6379);
        for audit in [Audit::take(&[]), inside(&servers, &[])] {
            let port = audit.port("127.0.0.1:6379");
            assert!(has(port, "service"), "{port:#}");
            let package = &port["package"];
            assert_eq!(
                (&package["name"], &package["version"], &package["manager"]),
                (&"netwatch-sample".into(), &"1.2-3".into(), &"rpm".into())
            );
            assert!(found(&audit).is_empty() && audit.status == Some(0), "{:#?}", found(&audit));
        }
    });
}
