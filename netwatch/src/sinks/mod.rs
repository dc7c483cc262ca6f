//! Subscribers that hand the stream on to somewhere else: each has a thread of its own, so that it may wait.

mod print;

pub use print::{Print, PrintError};
