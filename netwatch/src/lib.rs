//! netwatch's agent, a room a module. What flows where:
//!
//! ```text
//! kernel (ring buffer) → decode → tracker → output
//! snapshot (/proc, sock_diag) ──────┘
//! ```
//!
//! `commands` composes; nobody else knows two neighbours at once. See ARCHITECTURE.md.

pub mod commands;
pub mod escape;
pub mod kernel;
pub mod model;
pub mod origin;
pub mod process_view;
pub mod services;
pub mod snapshot;
pub mod where_it_runs;
