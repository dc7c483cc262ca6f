//! Tables by hash. The standard hasher costs more than the look-up where there are a hundred thousand sockets; this one
//! is seeded anew in each run as well, so that nobody who chooses ports can choose collisions.

use foldhash::fast::RandomState;

/// A map.
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A set.
pub type Set<K> = std::collections::HashSet<K, RandomState>;
