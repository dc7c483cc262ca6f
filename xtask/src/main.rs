//! Set-up, build, run, test and bench.

fn main() {}
