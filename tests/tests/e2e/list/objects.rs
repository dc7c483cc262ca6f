//! What `netwatch list --json` says of sockets, and their origins, compared with connections whose originator is known
//! because the test made them.

use serde_json::{Value, json};
use tests::{in_fresh_netns, until};

use super::netwatch;
use super::scene::{one_of_each, pair};

/// Objects of `list --json`.
pub(super) struct Rows(pub(super) Vec<Value>);

impl Rows {
    pub(super) fn take(arguments: &[&str]) -> Self {
        let lines = netwatch(&[&["--json"], arguments].concat());
        Self(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// The only row of a protocol, a local port and a remote one (0: none).
    pub(super) fn one(&self, proto: &str, local: u16, remote: u16) -> &Value {
        let port = |address: &Value| address["port"].as_u64().unwrap_or(0);
        let mut found = self.0.iter().filter(|row| {
            row["proto"] == proto
                && port(&row["local"]) == u64::from(local)
                && port(&row["remote"]) == u64::from(remote)
        });
        let row = found.next().unwrap_or_else(|| panic!("no row {proto} {local} {remote}"));
        assert_eq!(found.next(), None);
        row
    }

    /// Side, basis, confidence, the rule of thumb, the originator's port, and its process.
    pub(super) fn origin(&self, local: u16, remote: u16) -> Value {
        let origin = &self.one("tcp", local, remote)["origin"];
        let keys = ["side", "basis", "confidence", "port_rule"].map(|key| origin[key].clone());
        json!([keys[0], keys[1], keys[2], keys[3], origin["endpoint"]["port"], origin["process"]["pid"]])
    }
}

#[test]
fn origins_match_the_connections() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let own = std::process::id();
        let connector = scene.holders[1].pid();
        // The originator has the lower port; the rule of thumb is wrong.
        let _wrong = pair("127.0.0.1:900", "127.0.0.1:40000");
        // A high port outside the ephemeral range, and no listener any more.
        let (_guess, _guessed, listener) = pair("127.0.0.1:50000", "127.0.0.1:6001");
        drop(listener);
        let (_dark, _darker, listener) = pair("127.0.0.1:2100", "127.0.0.1:6002");
        drop(listener);
        let rows = Rows::take(&[]);
        let cases = [
            (6000, 2000, json!(["remote", "listener", "inferred", "unknown", 2000, connector])),
            (2000, 6000, json!(["local", "peer", "inferred", "unknown", 2000, connector])),
            (40000, 900, json!(["remote", "listener", "inferred", "local", 900, own])),
            (900, 40000, json!(["local", "peer", "inferred", "remote", 900, own])),
            (50000, 6001, json!(["local", "port-range", "guessed", "unknown", 50000, null])),
            (6001, 50000, json!(["remote", "port-range", "guessed", "unknown", 50000, null])),
            (2100, 6002, json!(["unknown", "none", "unknown", "unknown", null, null])),
            (6002, 2100, json!(["unknown", "none", "unknown", "unknown", null, null])),
            (2005, 7004, json!(["local", "handshake", "observed", "unknown", 2005, own])),
            (7008, 2008, json!(["remote", "handshake", "observed", "unknown", 2008, own])),
            (2008, 7008, json!(["local", "peer", "observed", "unknown", 2008, own])),
            (4000, 4000, json!(["both", "handshake", "observed", "unknown", 4000, own])),
            // The originator's endpoint is in TIME_WAIT: no process holds it.
            (2009, 7009, json!(["local", "peer", "inferred", "unknown", 2009, null])),
        ];
        for (local, remote, expected) in cases {
            assert_eq!(rows.origin(local, remote), expected, "{local} to {remote}");
        }
        // Guesses use the namespace's own port range.
        tests::sysctl("net/ipv4/ip_local_port_range", "6001 6001");
        let rows = Rows::take(&[]);
        assert_eq!(rows.origin(50000, 6001)[0], "remote");
        assert_eq!(rows.origin(2100, 6002)[0], "unknown");
    });
}

#[test]
fn objects_describe_the_sockets() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let own = std::process::id();
        let rows = Rows::take(&[]);
        let netns = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert!(rows.0.iter().all(|row| format!("net:[{}]", row["netns"]) == netns.to_str().unwrap()));

        let x11 = rows.one("tcp", 6000, 0);
        assert_eq!(x11["state"], "LISTEN");
        assert_eq!((&x11["remote"], &x11["origin"]), (&Value::Null, &Value::Null));
        assert_eq!((&x11["recv_q"], &x11["send_q"]), (&json!(0), &json!(16)));
        // Two processes hold it, and the older one opened it.
        assert_eq!(x11["process"]["pid"], own);
        // A child that another test starts may hold it too for a moment, until its exec.
        let sleep = json!({"pid": scene.holders[0].pid(), "fd": 0, "comm": "sleep"});
        until("only the two hold it", || {
            let holders = Rows::take(&[]).one("tcp", 6000, 0)["holders"].as_array().unwrap().clone();
            holders.len() == 2
                && holders.contains(&sleep)
                && holders.iter().any(|holder| holder["pid"] == own)
        });
        let full = rows.one("tcp", 7004, 0);
        assert_eq!((&full["recv_q"], &full["send_q"]), (&json!(1), &json!(0)));

        let process = &rows.one("tcp", 2000, 6000)["process"];
        assert_eq!(process["pid"], scene.holders[1].pid());
        assert_eq!((&process["comm"], &process["args"]), (&json!("sleep"), &json!(["sleep", "600"])));
        assert_eq!((&process["uid"], &process["user"]), (&json!(0), &json!("root")));
        assert_eq!((&process["ppid"], &process["ancestors"][0]["pid"]), (&json!(own), &json!(own)));
        assert_eq!((&process["exe_state"], &process["kernel"]), (&json!("ok"), &json!(false)));
        assert_eq!(process.get("thread"), None);
        let pid = scene.holders[1].pid();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(process["exe"], exe.to_str().unwrap());
        assert!(process["key"].as_str().unwrap().starts_with(&format!("{pid}@")));

        let mapped = rows.one("tcp", 2002, 7002);
        assert_eq!((&mapped["family"], &mapped["mapped"]), (&json!("ipv4"), &json!(true)));
        assert_eq!(mapped["local"], json!({"ip": "127.0.0.1", "port": 2002}));
        assert_eq!(rows.one("tcp", 2001, 7001)["family"], "ipv6");
        assert_eq!(rows.one("tcp", 2001, 7001)["recv_q"], 14);
        assert_eq!(rows.one("tcp", 7009, 2009)["inode"], 0);

        let dns = rows.one("udp", 53, 0);
        assert_eq!(
            (&dns["state"], &dns["service"], &dns["origin"]),
            (&json!(""), &json!("domain"), &Value::Null)
        );
        let question = rows.one("udp", 5001, 53);
        assert_eq!(question["state"], "ESTABLISHED");
        // A snapshot shows no more than that 53 is below 1024.
        assert_eq!(question["origin"]["basis"], "port-range");
        assert_eq!(question["service"], "domain");

        let mut cookies: Vec<_> = rows.0.iter().map(|row| row["cookie"].as_u64().unwrap()).collect();
        cookies.sort_unstable();
        let all = cookies.len();
        cookies.dedup();
        assert_eq!(cookies.len(), all, "a socket came twice");
    });
}
