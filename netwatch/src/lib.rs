//! The agent of netwatch. Each top-level module is a room. Data flow:
//!
//! ```text
//! kernel (ring buffer) → decode → tracker → output
//! snapshot (/proc, sock_diag) ──────┘
//! ```
//!
//! Only `commands` composes rooms. See ARCHITECTURE.md.

pub mod agent;
pub mod alert;
pub mod audit;
pub mod blocking;
pub mod boot;
pub mod bounded;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod conntrack;
pub mod decode;
pub mod engine;
pub mod enrich;
pub mod errno;
pub mod escape;
pub mod filter;
pub mod fleet;
pub mod forensics;
pub mod hash;
mod inventory;
pub mod kernel;
pub mod limits;
pub mod listeners;
pub mod loss;
pub mod model;
pub mod names;
pub mod origin;
pub mod output;
pub mod pairs;
pub mod proc;
pub mod process;
pub mod relays;
pub mod replace;
pub mod retry;
pub mod rights;
pub mod rules;
pub mod seeding;
pub mod serve;
pub mod services;
pub mod signs;
pub mod sinks;
pub mod snapshot;
pub mod stderr;
pub mod store;
pub mod stream;
pub mod top;
pub mod tracker;
pub mod unix_socket;
pub mod where_it_runs;
