//! What the contract says of both ends of a TCP connection, whichever way it came about: everything but who
//! uses them, and by what way.

use serde_json::{Value, json};
use tests::{Actor, End, Log, Watch, assert_has, end, netns, service};

use crate::{endpoint, port_of};

/// A connection from one address to another within the calling thread's namespace, both above 1024.
#[derive(Clone, Copy)]
pub(crate) struct Conn<'a> {
    pub(crate) client: &'a str,
    pub(crate) server: &'a str,
}

/// The one of the tests that need but one.
pub(crate) const CONN: Conn = Conn { client: "127.0.0.1:2000", server: "127.0.0.1:6000" };

/// Who has the socket, and how it came to it.
pub(crate) fn used_by(process: &Value, basis: &str) -> Value {
    json!({"process": process, "process_basis": basis})
}

/// The call was not a plain one; `None`: it was, and nothing is said of it.
#[track_caller]
pub(crate) fn assert_via(event: &Value, via: Option<&str>) {
    assert_eq!(event.get("via").and_then(Value::as_str), via, "{event:#}");
    assert_eq!(event.get("via").is_some(), via.is_some(), "{event:#}");
}

impl Conn<'_> {
    pub(crate) fn client_end(&self) -> End {
        end(port_of(self.client), port_of(self.server))
    }

    pub(crate) fn server_end(&self) -> End {
        end(port_of(self.server), port_of(self.client))
    }

    /// Every event of the client's end that says how it began: `connector` is never another.
    pub(crate) fn at_client(&self, connector: &Value) -> Value {
        let origin = self.origin("local", "connect", connector);
        self.record(self.client, self.server, &origin)
    }

    /// Every event of the server's end from its `accept` on.
    pub(crate) fn at_server(&self, connector: &Value) -> Value {
        let origin = self.origin("remote", "accept", connector);
        self.record(self.server, self.client, &origin)
    }

    /// The server's end before that.
    pub(crate) fn at_birth(&self, connector: &Value) -> Value {
        let origin = self.origin("remote", "handshake", connector);
        self.record(self.server, self.client, &origin)
    }

    fn origin(&self, side: &str, basis: &str, connector: &Value) -> Value {
        json!({
            "side": side,
            "basis": basis,
            "confidence": "observed",
            "endpoint": endpoint(self.client),
            "process": connector,
            "port_rule": "unknown",
        })
    }

    fn record(&self, local: &str, remote: &str, origin: &Value) -> Value {
        json!({
            "proto": "tcp",
            "family": if endpoint(local)["ip"].as_str().unwrap().contains(':') { "ipv6" } else { "ipv4" },
            "netns": netns(),
            "local": endpoint(local),
            "remote": endpoint(remote),
            "service": service(port_of(self.server), "tcp"),
            "origin": origin,
            "errno": null,
        })
    }

    pub(crate) fn listens(&self, server: &mut Actor) {
        server.say(&format!("listen {} 16", self.server));
    }

    /// `how` stands before `connect`.
    pub(crate) fn connects(&self, client: &mut Actor, how: &str) {
        client.say(&format!("{how}connect {} {}", self.client, self.server));
    }

    /// Closes both ends, the client's first, and awaits their last events: the client's first.
    pub(crate) fn closes(&self, watch: &mut Watch, client: &mut Actor, server: &mut Actor) -> [Value; 2] {
        client.say("close");
        server.say("close");
        [watch.at("close", self.client_end()), watch.at("close", self.server_end())]
    }

    /// Kinds of the events at the client's end and at the server's, and that they are of one connection.
    #[track_caller]
    pub(crate) fn kinds(&self, log: &Log, client: &[&str], server: &[&str]) {
        assert_eq!(log.kinds(self.client_end()), client);
        assert_eq!(log.kinds(self.server_end()), server);
        let of = |end: End| log.events.iter().filter(move |event| end.of(event));
        let first = of(self.client_end()).chain(of(self.server_end())).next().unwrap();
        for end in [self.client_end(), self.server_end()] {
            let id = of(end).next().map_or(&Value::Null, |event| &event["id"]);
            for event in of(end) {
                assert_has(event, json!({"id": id, "flow": first["flow"]}));
            }
        }
    }
}
