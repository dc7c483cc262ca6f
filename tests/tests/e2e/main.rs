//! The real binary (`NETWATCH_BIN`), real processes, real connections. As root. A module a subject.

#![cfg(test)]

mod list;
