//! TCP states (`include/net/tcp_states.h`).

pub(crate) const ESTABLISHED: i32 = 1;
pub(crate) const SYN_SENT: i32 = 2;
pub(crate) const SYN_RECV: i32 = 3;
pub(crate) const FIN_WAIT1: i32 = 4;
pub(crate) const TIME_WAIT: i32 = 6;
pub(crate) const CLOSE: i32 = 7;
pub(crate) const CLOSE_WAIT: i32 = 8;
pub(crate) const LISTEN: i32 = 10;
