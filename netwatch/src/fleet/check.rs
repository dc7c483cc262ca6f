//! Whether the tables of a server are those of this netwatch.

use super::binary::Bytes;
use super::dialect::{Dialect, quoted};
use super::server::{Server, ServerError};
use super::tables::{TABLES, VERSION};

impl Server {
    /// The version of its tables; `None`: it has none.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses.
    pub fn version(&self) -> Result<Option<u32>, ServerError> {
        let database = &self.url.database;
        let has = format!(
            "SELECT toString(count()) FROM system.tables WHERE database = {} AND name = 'schema_version'",
            quoted(database)
        );
        if self.text(&has)?.as_deref() != Some("1") {
            return Ok(None);
        }
        let version = self.text(&format!("SELECT toString(max(version)) FROM {database}.schema_version"))?;
        Ok(version.and_then(|version| version.parse().ok()).filter(|version| *version > 0))
    }

    /// An error unless its tables are of a version that this netwatch may change.
    ///
    /// # Errors
    /// If they are newer, or the server cannot be asked.
    pub fn refuse_newer(&self) -> Result<Option<u32>, ServerError> {
        let version = self.version()?;
        if let Some(newer) = version.filter(|version| *version > VERSION) {
            let why = format!(
                "its tables were made by a newer netwatch (version {newer}, this one supports {VERSION}): use the newer one"
            );
            return Err(ServerError::Schema { url: self.url.clone(), why });
        }
        Ok(version)
    }

    /// Compares its tables with those of this netwatch, whose rows the server would take apart wrongly otherwise.
    ///
    /// # Errors
    /// If they differ, or the server cannot be asked.
    pub fn check(&self) -> Result<Checked, ServerError> {
        let wrong = |why: String| ServerError::Schema { url: self.url.clone(), why };
        if self.refuse_newer()?.is_none() {
            return Err(wrong("it has no tables of netwatch: make them with `netwatch fleet setup`".into()));
        }
        self.dialect.set(None);
        let dialect = self.dialect()?;
        let database = quoted(&self.url.database);
        let bytes =
            self.fetch(&format!("SELECT table, name, type FROM system.columns WHERE database = {database}"))?;
        let (mut bytes, mut types) = (Bytes(&bytes), std::collections::HashMap::new());
        while let (Some(table), Some(name), Some(of)) = (bytes.text(), bytes.text(), bytes.text()) {
            types.insert((table, name), of);
        }
        for table in &TABLES {
            for (name, expected) in dialect.types(table) {
                let has = types.get(&(table.name.to_owned(), name.to_owned()));
                if has != Some(&expected) {
                    return Err(wrong(format!(
                        "column {}.{name} is {}, not {expected}: select another database, or move it away and run \
                         `netwatch fleet setup`",
                        table.name,
                        has.map_or("missing", |has| has)
                    )));
                }
            }
        }
        let engine =
            format!("SELECT engine FROM system.tables WHERE database = {database} AND name = 'ends'");
        let is_distributed = self.text(&engine)?.as_deref() == Some("Distributed");
        Ok(Checked { dialect, is_distributed })
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What the server understands.
    pub dialect: Dialect,
    /// Its tables are spread over a cluster.
    pub is_distributed: bool,
}
