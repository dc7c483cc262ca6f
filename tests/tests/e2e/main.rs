//! The real binary (`NETWATCH_BIN`), real processes, real connections. As root. One module per subject.

#![cfg(test)]

use serde_json::{Value, json};
use tests::Actor;

mod accept;
mod alerts;
mod attacks;
mod audit;
mod bare;
mod blocked;
mod clock;
mod close;
mod connect;
mod corners;
mod cost;
mod devices;
mod disguise;
mod doctor;
mod documented;
mod expect;
mod fail;
mod far;
mod fastopen;
mod filter;
mod fleet;
mod formats;
mod gallery;
mod handover;
mod keys;
mod limits;
mod list;
mod log;
mod loss;
mod messages;
mod mptcp;
mod names;
mod namespaces;
mod nat;
mod outputs;
mod packages;
mod preempted;
mod process;
mod processes;
mod race;
mod raw;
mod record;
mod rights;
mod run;
mod seed;
mod serve;
mod table;
mod text;
mod tools;
mod top;
mod trace;
mod udp;
mod uring;
mod usage;
mod verify;
mod ways;
mod where_it_runs;

/// A connection from port 2000 to a listener on port 6000, which both ends and then the listener close.
fn lives(client: &mut Actor, server: &mut Actor) {
    server.say("listen 127.0.0.1:6000 16");
    client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
    server.say("accept");
    client.say("close");
    server.say("eof");
    server.say("close");
    server.say("unlisten");
}

/// An actor in the calling thread's network namespace.
fn actor() -> Actor {
    Actor::start(Actor::program())
}

/// An address and port as events have it; IPv4-mapped addresses as IPv4.
fn address(address: &str) -> Value {
    let address: std::net::SocketAddr = address.parse().unwrap();
    json!({"ip": address.ip().to_canonical().to_string(), "port": address.port()})
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}
