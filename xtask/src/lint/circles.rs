//! Cyclic imports between the children of one module: between rooms, or between the files of a room.
//!
//! An import between two modules counts as one between their ancestors that are siblings. If one module is an ancestor
//! of the other it does not count: a parent and its children may import each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::imports::Import;

/// Siblings, each of which imports the next, and the last imports the first; with the import of each.
pub(super) type Circle<'a> = Vec<(String, &'a Import)>;

/// The siblings that an import is between.
pub(super) fn siblings(import: &Import) -> Option<(String, String)> {
    let (mut from, mut to) = (import.from.split("::"), import.to.split("::"));
    let mut common = Vec::new();
    loop {
        let (one, other) = (from.next()?, to.next()?);
        let path = |last| common.iter().copied().chain([last]).collect::<Vec<_>>().join("::");
        if one != other {
            return Some((path(one), path(other)));
        }
        common.push(one);
    }
}

/// The shortest circle of each import that is part of one. Each circle is returned once.
pub(super) fn all<'a>(imports: impl Iterator<Item = &'a Import>) -> Vec<Circle<'a>> {
    let mut edges: BTreeMap<String, BTreeMap<String, &Import>> = BTreeMap::new();
    for import in imports {
        if let Some((from, to)) = siblings(import) {
            edges.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut circles = BTreeMap::new();
    for (from, next) in &edges {
        for to in next.keys() {
            if let Some(way) = shortest(&edges, to, from) {
                let members: BTreeSet<_> = way.iter().cloned().collect();
                circles.entry(members).or_insert_with(|| circle(&edges, &way));
            }
        }
    }
    circles.into_values().collect()
}

/// The modules on the shortest path, both ends included.
fn shortest(
    edges: &BTreeMap<String, BTreeMap<String, &Import>>,
    from: &str,
    to: &str,
) -> Option<Vec<String>> {
    let mut before: HashMap<&str, &str> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let back = std::iter::successors(Some(at), |at| before.get(at).copied());
            let mut way: Vec<_> = back.map(str::to_owned).collect();
            way.reverse();
            return Some(way);
        }
        for next in edges.get(at).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next.as_str()) {
                before.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

fn circle<'a>(edges: &BTreeMap<String, BTreeMap<String, &'a Import>>, way: &[String]) -> Circle<'a> {
    let pairs = way.iter().zip(way.iter().cycle().skip(1));
    pairs.filter_map(|(from, to)| Some((from.clone(), *edges.get(from)?.get(to)?))).collect()
}
