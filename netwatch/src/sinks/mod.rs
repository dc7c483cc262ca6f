//! Subscribers that output the stream. Each has a thread of its own, so that it may block.

pub mod metrics;
pub mod outputs;
mod print;

pub use print::{Print, PrintError};
