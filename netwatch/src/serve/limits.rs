//! Limits of the server: anybody who can connect may send anything.

use std::time::Duration;

/// Clients of `serve` at once. Others are closed at once. Test: `serve::clients_are_limited` of the end-to-end tests.
pub const SERVED_CLIENTS: usize = 64;

/// How long a client of `serve` may be connected. Test: `serve::tests::times_are_in_order`.
pub const SERVED_AT_MOST: Duration = Duration::from_secs(600);

/// How long `serve` waits for the headers of a request. Test: `serve::tests::times_are_in_order`.
pub const SERVED_HEADER_WAIT: Duration = Duration::from_secs(10);

/// Headers of a request to `serve`; of more, 431 is the answer. Test: `serve::header_bomb_is_refused` of the end-to-end tests.
pub const SERVED_HEADERS: usize = 64;

/// Bytes of the head of a request to `serve`; of more, 431 is the answer. Test: `serve::header_bomb_is_refused` of the
/// end-to-end tests.
pub const SERVED_BUFFER: usize = 64 << 10;

/// Pause of `serve` if a client cannot be accepted. Test: `serve::tests::times_are_in_order`.
pub const SERVED_PAUSE: Duration = Duration::from_millis(100);

/// Questions that `serve` answers at once, each on a thread. Others wait. Test:
/// `serve::tests::questions_are_answered_a_few_at_a_time`.
pub const SERVED_AT_ONCE: usize = 4;

/// How long `serve` looks for an answer. Test: `commands::serve::record::tests::late_answer_is_refused`.
pub const SERVED_ANSWER: Duration = Duration::from_secs(10);

/// Rows of a page or of a part of an export of `serve`. Test: `serve::ask::tests::wrong_question_is_named`.
pub const SERVED_ROWS: usize = 1000;

/// Bars of the histogram of `serve`. Test: `store::counts::tests::endpoints_are_counted_by_time`.
pub const SERVED_BARS: usize = 100;

/// Bytes of a filter in a URL of `serve`. Test: `serve::ask::tests::wrong_question_is_named`.
pub const SERVED_FILTER: usize = 4096;
