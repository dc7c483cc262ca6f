//! The netwatch command.

fn main() {}
