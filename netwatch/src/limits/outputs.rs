//! Limits of what events are delivered to: a receiver may be slow, down or hostile.

use std::time::Duration;

/// Items that wait for an output: some 400 bytes each, shared with the other subscribers. Test:
/// `sinks::outputs::tests::an_output_that_is_down_loses_only_what_has_no_room`.
pub const OUTPUT_ITEMS: usize = 40_960;

/// What is encoded and not delivered yet, bytes for each output: minutes of a quiet host. When it is full, items wait
/// in the queue. Test: `sinks::outputs::tests::an_output_that_is_down_loses_only_what_has_no_room`.
pub const OUTPUT_SPOOL: usize = 16 << 20;

/// What is delivered at once, bytes; collectors accept some MiB. A message that is longer goes by itself. Test:
/// `sinks::outputs::spool::tests::payloads_are_limited`.
pub const OUTPUT_PAYLOAD: usize = 512 << 10;

/// Messages that are delivered at once. Test: `sinks::outputs::spool::tests::payloads_are_limited`.
pub const OUTPUT_MESSAGES: usize = 2048;

/// How long an output may take to connect to a server, for each of its addresses. Test:
/// `sinks::outputs::net::tests::a_server_that_does_not_answer_is_given_up`.
pub const OUTPUT_CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long a delivery may take once it is connected. Test:
/// `sinks::outputs::net::tests::a_server_that_does_not_read_is_given_up`.
pub const OUTPUT_DELIVERY_WAIT: Duration = Duration::from_secs(10);

/// How long the first retry waits; each further one waits twice as long. Test:
/// `retry::tests::pauses_grow_up_to_the_limit`.
pub const OUTPUT_RETRY: Duration = Duration::from_millis(500);

/// How long a retry waits at most, also if the receiver asks for more. Test:
/// `retry::tests::pauses_grow_up_to_the_limit`.
pub const OUTPUT_RETRY_MOST: Duration = Duration::from_secs(30);

/// How long the end of a run waits for all outputs together. Test:
/// `outputs::end_does_not_wait_for_an_output_that_is_down` of the end-to-end tests.
pub const OUTPUT_WAIT: Duration = Duration::from_secs(5);

/// Events that wait to be counted for `--metrics`. Test:
/// `bus::tests::missed_items_are_reported_in_order_once_half_of_the_queue_is_free`.
pub const METRICS_ITEMS: usize = 65_536;

/// Clients of the metrics that are served at once; further ones get status 503. Test:
/// `sinks::metrics::tests::clients_are_limited`.
pub const METRICS_CLIENTS: usize = 8;

/// A request to the metrics, bytes. Test: `sinks::metrics::tests::a_request_over_the_limit_is_refused`.
pub const METRICS_REQUEST: usize = 8 << 10;

/// How long a client of the metrics may take for its request, and again for the answer. Test:
/// `sinks::metrics::tests::a_client_that_sends_nothing_is_given_up`.
pub const METRICS_WAIT: Duration = Duration::from_secs(5);
