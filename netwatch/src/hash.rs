//! Hash maps and sets with a fast hasher: the standard one costs more than the lookup with a hundred thousand sockets.
//! The hasher is seeded randomly in each run, so that remote hosts cannot cause collisions.

use foldhash::fast::RandomState;

/// A hash map.
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A hash set.
pub type Set<K> = std::collections::HashSet<K, RandomState>;
