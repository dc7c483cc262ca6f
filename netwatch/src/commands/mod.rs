//! One file a command: reads its options, joins the rooms, and prints.

pub mod list;
