//! `netwatch audit`: every listening port explained.

pub mod packages;
pub mod portmap;
