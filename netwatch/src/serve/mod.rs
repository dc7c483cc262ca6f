//! The record in a browser: pages that are made here and read without a script. This room has the rules of who may ask,
//! and the pages, which are pure functions of JSON objects as [`crate::output`] writes them; what answers the questions is
//! behind [`Record`].

mod ask;
mod assets;
mod guard;
pub mod limits;
mod listen;
mod pages;
mod routes;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use serde_json::Value;

pub use ask::{Question, moment};
pub use guard::Own;
pub use listen::{Listener, serve};
pub use routes::router;
pub use token::Token;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The question makes no sense: a line for who asked.
    Wrong(String),
    /// There is no such thing in the record.
    Missing(String),
    /// The answer would take too long, or too many are asked for at once.
    Busy(String),
    /// The record cannot be read.
    Failed(String),
}

/// Whether nobody waits for an answer any more.
pub type IsGone = Arc<dyn Fn() -> bool + Send + Sync>;

/// Connections that match a question.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The last event of each endpoint, the newest first.
    pub events: Vec<Value>,
    /// Where the next page ends, if there is one: a time as in `ts`.
    pub more: Option<String>,
}

/// How many endpoints were recorded in each part of a time.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Start of the first part and of what follows the last, nanoseconds since the epoch.
    pub span: (i64, i64),
    /// Parts of equal length.
    pub counts: Vec<u64>,
}

/// State of the record.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Path of the store.
    pub store: String,
    /// Newest link of the chain, if there is one.
    pub link: Option<String>,
    /// Losses, the newest first, as events.
    pub losses: Vec<Value>,
}

/// What answers.
pub trait Record: Send + Sync {
    /// Connections.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn search(&self, question: &Question, is_gone: IsGone) -> Result<Found, Refusal>;

    /// How many there are over time.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn histogram(&self, question: &Question, is_gone: IsGone) -> Result<Histogram, Refusal>;

    /// All events of a connection, at both ends, the oldest first; of nothing else.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn connection(&self, id: &str, is_gone: IsGone) -> Result<Vec<Value>, Refusal>;

    /// The walk back from a connection, as `trace --format json` has a match.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn walk(&self, id: &str, is_gone: IsGone) -> Result<Value, Refusal>;

    /// Losses and the chain.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn state(&self, is_gone: IsGone) -> Result<State, Refusal>;
}
