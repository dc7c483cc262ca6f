//! Many hosts: their records together on a ClickHouse server. See docs/fleet.md.
//!
//! ```text
//! store ──► shipment ──► server          server ──► mirror (stores in memory) ──► log, walk
//! ```
//!
//! `tables` describes the tables once; `dialect` makes the statements of it, and `binary` the bytes of rows. What is
//! read back is put into stores in memory, so that events and causes are read by the room `store`, as on one host.

mod binary;
mod check;
mod column;
mod cursor;
mod dialect;
mod hosts;
mod identity;
mod log;
mod mirror;
mod narrow;
mod past;
mod server;
mod ship;
mod shipment;
mod tables;
mod tuple;
mod url;
mod walk;

pub use dialect::{Dialect, Place, note_version, statements};
pub use hosts::{Host, hosts};
pub use log::{HostItem, Log, Question};
pub use mirror::Mirrors;
pub use server::{Server, ServerError, ServerOptions};
pub use ship::{ShipOptions, Shipper};
pub use url::{DATABASE, ServerUrl};
pub use walk::{Hop, Walk, walks};
