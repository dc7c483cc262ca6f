//! Limits of the record of many hosts.

use std::time::Duration;

/// How long a connection to a server may take to be made. Test: `fleet::ship::` of the end-to-end tests.
pub const FLEET_CONNECT: Duration = Duration::from_secs(10);

/// How long a server may take for one answer or one insertion.
pub const FLEET_ANSWER: Duration = Duration::from_secs(120);

/// A file with a password, bytes.
pub const PASSWORD_FILE: usize = 4096;

/// The file with the state of shipping, bytes.
pub const SHIP_FILE: usize = 4096;

/// Rows of the store, of all tables together, that are shipped at once; at least one batch.
pub const SHIP_ROWS: i64 = 20_000;

/// Pause after everything was shipped.
pub const SHIP_PAUSE: Duration = Duration::from_secs(5);

/// How often a host says that it is there.
pub const SHIP_SIGN: Duration = Duration::from_secs(60);

/// How long the end of a run waits for what is left to be shipped.
pub const SHIP_END: Duration = Duration::from_secs(5);

/// Rows of ends that a page of `fleet log` has.
pub const FLEET_PAGE: usize = 2048;

/// How much later than the first event of a row its last one may be: a row has the events of one batch.
pub const FLEET_ROW: Duration = Duration::from_secs(60);

/// Other ends with the addresses of a connection that the walk over hosts compares.
pub const FLEET_CANDIDATES: usize = 64;

/// Hosts that the walk goes over at most.
pub const MOST_HOPS: usize = 64;

/// How far apart the two ends of a connection may have begun, by the clocks of their hosts and the difference of these,
/// if that is known from other connections of the two.
pub const FLEET_APART: Duration = Duration::from_secs(5);

/// The same if it is not known.
pub const FLEET_APART_AT_MOST: Duration = Duration::from_secs(2 * 3600);

/// Ends of a process that the walk considers, the newest, as in a store.
pub const FLEET_OF_PROCESS: usize = 256;
