//! Harness of the end-to-end tests: network namespaces for each test, real processes that execute commands ([`Actor`]),
//! and netwatch itself ([`Watch`]). Whatever it starts or creates is removed with its guard.
//!
//! Nothing here sleeps until something has happened: it waits with a deadline. Deadlines are far longer than what is
//! waited for, so they do not depend on the speed of the machine.

#![expect(clippy::indexing_slicing, reason = "a missing key is null to serde_json, and a harness may panic")]

mod actor;
mod cgroup;
mod checks;
mod coverage;
mod debian;
mod ecs;
mod event;
mod far;
mod hanging;
mod judges;
mod lines;
mod log;
mod mptcp;
mod netns;
mod presence;
mod program;
mod schema;
mod shared;
mod store;
mod wait;
mod watch;

pub use actor::Actor;
pub use cgroup::{Cgroup, Tree};
pub use coverage::{cannot_detect_via, doctor, doctor_says, is_emulated, kernel, mptcp_bytes};
pub use debian::Debian;
pub use ecs::check_ecs;
pub use event::{Endpoint, assert_has, endpoint, kind, port, service};
pub use far::{Far, FarSocket};
pub use hanging::Hanging;
pub use judges::Judge;
pub use lines::{Lines, first_line};
pub use log::Log;
pub use mptcp::mptcp_socket;
pub use netns::{Netns, Wire, counter, in_fresh_netns, ip, loses, netns, sysctl, tool};
pub use presence::Presence;
pub use program::{Running, binary, copy_program, netwatch, output, stranger_s_copy};
pub use schema::{documented_kinds, validate};
pub use store::{Recorder, Store};
pub use wait::{PATIENCE, skip, until};
pub use watch::{Watch, forced};
