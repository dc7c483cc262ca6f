//! The output of `list`: netstat's table, or JSON with one object per line. Pure: names and processes are arguments.

mod json;
mod text;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{DeviceName, Holder, ProcessRow, Proto, SocketRow, State, Timers};
use crate::seeding;
use crate::services::Services;
use crate::stream::UserNames;

pub(crate) use json::write as write_json;
pub(crate) use text::write as write_text;

/// A socket with its processes.
pub(crate) struct Row<'a> {
    pub(crate) socket: &'a SocketRow,
    /// Name of its interface: see [`crate::model::Socket::device`].
    pub(crate) device: Option<DeviceName>,
    pub(crate) origin: Option<seeding::Inferred>,
    /// Its owner: see [`crate::model::Holders::owner`].
    pub(crate) process: Option<&'a ProcessRow>,
    /// The owner of the originator's endpoint.
    pub(crate) initiator: Option<&'a ProcessRow>,
    /// Sorted by pid.
    pub(crate) holders: &'a [Holder],
    /// The holder with the lowest pid.
    pub(crate) first: Option<&'a ProcessRow>,
}

/// Columns of the table, and the selection that its title names.
#[derive(Clone, Debug)]
pub(crate) struct Columns<'a> {
    /// Both servers and connections were selected.
    pub(crate) all: bool,
    /// Only servers were selected.
    pub(crate) listening: bool,
    /// Print the process.
    pub(crate) programs: bool,
    /// Print the network namespace.
    pub(crate) netns: bool,
    /// Print names in place of numbers.
    pub(crate) names: Option<Names<'a>>,
    /// Print user and inode number; users without a name here are printed as numbers.
    pub(crate) users: Option<Arc<UserNames>>,
    /// Print the timer.
    pub(crate) timers: Option<&'a Timers>,
    /// Use colours.
    pub(crate) colour: bool,
}

/// Names of hosts and services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// The name of every address in the table except wildcards.
    pub(crate) hosts: &'a HashMap<IpAddr, String>,
    pub(crate) services: &'a Services,
}

/// The state as netstat prints it: empty for unconnected UDP.
fn state_name(socket: &SocketRow) -> &'static str {
    match (socket.proto, socket.state) {
        (Proto::Udp | Proto::UdpLite, State::Close) => "",
        // netstat prints the number.
        (proto, State::Established) if proto.is_raw() => "1",
        (proto, _) if proto.is_raw() => "7",
        (_, state) => state.name(),
    }
}
