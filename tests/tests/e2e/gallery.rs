//! Break-ins whose request changes hands on this host, traced after all processes are gone. In each one a neighbour is
//! connected meanwhile, who has nothing to do with it and is never named.

mod hands;
mod shells;
mod web;

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Actor, Far, FarSocket};

use crate::actor;
use crate::trace::{answered, came_from, listens};

/// Kinds of the steps, from the connection backwards.
fn kinds(found: &Value) -> Vec<&str> {
    let chain = found["chain"].as_array().expect("a chain");
    chain.iter().filter_map(|step| step["kind"].as_str()).collect()
}

/// A folder for sockets, and the path of one in it.
fn socket(name: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join(name);
    (folder, path.to_str().expect("UTF-8").to_owned())
}

/// A server with a client and a neighbour, who sent nothing; both were accepted, the client last.
fn with_clients(far: &Far) -> (Actor, FarSocket, FarSocket) {
    let mut server = actor();
    let at = listens(&mut server);
    let neighbour = far.connect(at);
    server.say("accept");
    let client = far.connect(at);
    server.say("accept");
    (server, client, neighbour)
}
