//! What the contract says of both endpoints of a TCP connection, however it was made, except the processes that use
//! them and `via`.

use serde_json::{Value, json};
use tests::{Actor, Endpoint, Log, Watch, assert_has, endpoint, netns, service};

use crate::{address, port_of};

/// A connection from one address to another within the calling thread's namespace, both above 1024.
#[derive(Clone, Copy)]
pub(crate) struct Conn<'a> {
    pub(crate) client: &'a str,
    pub(crate) server: &'a str,
}

/// The connection of tests that need only one.
pub(crate) const CONN: Conn = Conn { client: "127.0.0.1:2000", server: "127.0.0.1:6000" };

/// The process that has the socket, and why it is named.
pub(crate) fn used_by(process: &Value, basis: &str) -> Value {
    json!({"process": process, "process_basis": basis})
}

/// The call was not a plain one; `None`: it was, and there is no `via`.
#[track_caller]
pub(crate) fn assert_via(event: &Value, via: Option<&str>) {
    assert_eq!(event.get("via").and_then(Value::as_str), via, "{event:#}");
    assert_eq!(event.get("via").is_some(), via.is_some(), "{event:#}");
}

impl Conn<'_> {
    pub(crate) fn client_endpoint(&self) -> Endpoint {
        endpoint(port_of(self.client), port_of(self.server))
    }

    pub(crate) fn server_endpoint(&self) -> Endpoint {
        endpoint(port_of(self.server), port_of(self.client))
    }

    /// Every event of the client's endpoint that has an origin: the connector never changes.
    pub(crate) fn at_client(&self, connector: &Value) -> Value {
        let origin = self.origin("local", "connect", connector);
        self.record(self.client, self.server, &origin)
    }

    /// Every event of the server's endpoint from its `accept` on.
    pub(crate) fn at_server(&self, connector: &Value) -> Value {
        let origin = self.origin("remote", "accept", connector);
        self.record(self.server, self.client, &origin)
    }

    /// The server's endpoint before that.
    pub(crate) fn at_birth(&self, connector: &Value) -> Value {
        let origin = self.origin("remote", "handshake", connector);
        self.record(self.server, self.client, &origin)
    }

    fn origin(&self, side: &str, basis: &str, connector: &Value) -> Value {
        json!({
            "side": side,
            "basis": basis,
            "confidence": "observed",
            "endpoint": address(self.client),
            "process": connector,
            "port_rule": "unknown",
        })
    }

    fn record(&self, local: &str, remote: &str, origin: &Value) -> Value {
        json!({
            "proto": "tcp",
            "family": if address(local)["ip"].as_str().unwrap().contains(':') { "ipv6" } else { "ipv4" },
            "netns": netns(),
            "local": address(local),
            "remote": address(remote),
            "service": service(port_of(self.server), "tcp"),
            "origin": origin,
            "errno": null,
        })
    }

    pub(crate) fn listens(&self, server: &mut Actor) {
        server.say(&format!("listen {} 16", self.server));
    }

    /// `how` precedes `connect`.
    pub(crate) fn connects(&self, client: &mut Actor, how: &str) {
        client.say(&format!("{how}connect {} {}", self.client, self.server));
    }

    /// Closes both endpoints, the client's first, and returns their last events in this order.
    pub(crate) fn closes(&self, watch: &mut Watch, client: &mut Actor, server: &mut Actor) -> [Value; 2] {
        client.say("close");
        server.say("close");
        [watch.at("close", self.client_endpoint()), watch.at("close", self.server_endpoint())]
    }

    /// Checks the kinds of the events at the client's endpoint and at the server's, and that they are of one
    /// connection.
    #[track_caller]
    pub(crate) fn kinds(&self, log: &Log, client: &[&str], server: &[&str]) {
        assert_eq!(log.kinds(self.client_endpoint()), client);
        assert_eq!(log.kinds(self.server_endpoint()), server);
        let of = |endpoint: Endpoint| log.events.iter().filter(move |event| endpoint.of(event));
        let first = of(self.client_endpoint()).chain(of(self.server_endpoint())).next().unwrap();
        for endpoint in [self.client_endpoint(), self.server_endpoint()] {
            let id = of(endpoint).next().map_or(&Value::Null, |event| &event["id"]);
            for event in of(endpoint) {
                assert_has(event, json!({"id": id, "flow": first["flow"]}));
            }
        }
    }
}
