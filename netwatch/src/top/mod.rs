//! The live screen: a value that takes items of the stream and keys, each with a time, and its drawing. Pure, but for
//! `terminal`, which puts the terminal into the mode that a screen needs, and back.
//!
//! `table` has the connections, `groups` what they add up to, `state` what is shown of both; `keys` is the table of keys
//! and `act` what they do; `find` is what is typed after `/`; `draw` makes the screen from a state and a size, one file
//! for each part.

mod act;
mod cells;
mod details;
mod draw;
mod groups;
mod keys;
mod layout;
mod losses;
mod order;
mod past;
mod prompt;
mod shell;
mod sight;
mod state;
mod table;
pub mod terminal;
#[cfg(test)]
mod tests;

pub use draw::render;
pub use keys::Key;
pub use state::{Options, Request, Source, State};
