//! Compares the tables, indexes, views and triggers of a store with those of its version.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::store::{StoreError, open};

/// What an object is, and the statement that made it.
type Objects = BTreeMap<(String, String), (String, Option<String>)>;

fn objects(db: &Connection) -> Result<Objects, StoreError> {
    let mut select = db.prepare("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")?;
    let rows = select.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first difference.
pub(super) fn difference(db: &Connection, version: i32) -> Result<Option<String>, StoreError> {
    let (own, mut there) = (objects(&open::reference(version)?)?, objects(db)?);
    // `ANALYZE` and `PRAGMA optimize` make these. They change how fast a query is, not what it finds.
    there.retain(|(_, name), _| !matches!(&**name, "sqlite_stat1" | "sqlite_stat4"));
    for ((kind, name), object) in &own {
        match there.remove(&(kind.clone(), name.clone())) {
            Some(found) if found == *object => {}
            Some(_) => return Ok(Some(format!("{kind} {name} is not that of a store of version {version}"))),
            None => return Ok(Some(format!("{kind} {name} is missing"))),
        }
    }
    let more = there.into_keys().next();
    Ok(more.map(|(kind, name)| format!("{kind} {name} does not belong to a store of version {version}")))
}
