//! Limits of the record of many hosts.

use std::time::Duration;

/// How long a connection to a server may take to be made. Test: `fleet::ship::a_server_that_is_away_gets_everything_once`
/// of the end-to-end tests.
pub const FLEET_CONNECT: Duration = Duration::from_secs(10);

/// How long a server may take for one answer or one insertion. Test: `fleet::ship::tests::times_are_in_order`.
pub const FLEET_ANSWER: Duration = Duration::from_secs(120);

/// A file with a password, bytes. Test: `fleet::server::tests::password_over_the_limit_is_an_error`.
pub const PASSWORD_FILE: usize = 4096;

/// The file with the state of shipping, bytes. Test: `fleet::shipment::tests::rows_of_a_shipment_are_limited`.
pub const SHIP_FILE: usize = 4096;

/// Rows of the store, of all tables together, that are shipped at once; at least one batch. Test:
/// `fleet::shipment::tests::rows_of_a_shipment_are_limited`.
pub const SHIP_ROWS: i64 = 20_000;

/// Pause after everything was shipped. Test: `fleet::ship::tests::times_are_in_order`.
pub const SHIP_PAUSE: Duration = Duration::from_secs(5);

/// How often a host says that it is there. Test: `fleet::ship::tests::times_are_in_order`.
pub const SHIP_SIGN: Duration = Duration::from_secs(60);

/// How long the end of a run waits for what is left to be shipped. Test: `fleet::ship::tests::times_are_in_order`.
pub const SHIP_END: Duration = Duration::from_secs(5);

/// How much later than the first event of a row its last one may be: a row has the events of one batch. Test:
/// `fleet::ship::tests::times_are_in_order`.
pub const FLEET_ROW: Duration = Duration::from_secs(60);

/// How far apart the two ends of a connection may have begun, by the clocks of their hosts and the difference of these,
/// if that is known from other connections of the two. Test: `fleet::ship::tests::times_are_in_order`.
pub const FLEET_APART: Duration = Duration::from_secs(5);

/// The same if it is not known. Test: `fleet::ship::tests::times_are_in_order`.
pub const FLEET_APART_AT_MOST: Duration = Duration::from_secs(2 * 3600);
