//! What `list` prints: netstat's table, or one object a line. Pure: every name and process is passed in.

mod json;
mod text;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Holder, ProcessRow, Proto, SocketRow, State};
use crate::seeding;
use crate::services::Services;

pub(crate) use json::write as write_json;
pub(crate) use text::write as write_text;

/// A socket with what belongs to it.
pub(crate) struct Row<'a> {
    pub(crate) socket: &'a SocketRow,
    pub(crate) origin: Option<seeding::Inferred>,
    /// Its owner: see [`crate::model::Holders::owner`].
    pub(crate) process: Option<&'a ProcessRow>,
    /// The owner of the end that began it.
    pub(crate) initiator: Option<&'a ProcessRow>,
    /// By pid.
    pub(crate) holders: &'a [Holder],
    /// The holder of the lowest pid.
    pub(crate) first: Option<&'a ProcessRow>,
}

/// What the table has: its title names the rows that were chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    /// Servers and the others.
    pub(crate) all: bool,
    /// Of the two, servers alone.
    pub(crate) listening: bool,
    /// A column for the process.
    pub(crate) programs: bool,
    /// A column for the network namespace.
    pub(crate) netns: bool,
    /// Names in place of numbers.
    pub(crate) names: Option<Names<'a>>,
}

/// Names of hosts and services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// Of every address in the table that is no wildcard.
    pub(crate) hosts: &'a HashMap<IpAddr, String>,
    pub(crate) services: &'a Services,
}

/// As netstat spells it: UDP that is not connected has no state.
fn state_name(socket: &SocketRow) -> &'static str {
    match (socket.proto, socket.state) {
        (Proto::Udp, State::Close) => "",
        (_, state) => state.name(),
    }
}
