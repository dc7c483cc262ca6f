//! The statements that make the tables, in two dialects: that of old servers, such as Debian's 18.16, and that of
//! servers that have codecs, addresses, times, limits on age and indexes of values. A row has the same bytes in both.

use std::fmt::Write as _;

use super::column::{Column, Kind};
use super::tables::{HOST, TABLES, Table, VERSION};

/// What a server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Since 18.16.
    Old,
    /// Since 22.3.
    Modern,
}

/// The first version of the modern dialect.
const MODERN: (u32, u32) = (22, 3);

/// How long a server keeps rows, in days, where it can delete them by itself.
const KEPT: u32 = 90;

impl Dialect {
    /// That of a server of this version, as `version()` says it.
    #[must_use]
    pub fn of_version(version: &str) -> Self {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version >= MODERN { Self::Modern } else { Self::Old }
    }

    /// The type of a column.
    #[must_use]
    pub fn type_of(self, kind: Kind, is_null: bool) -> String {
        let is_modern = self == Self::Modern;
        let number = match kind {
            Kind::Int64 => "Int64".to_owned(),
            Kind::UInt(bits) => format!("UInt{bits}"),
            Kind::Tuple => "UInt64".into(),
            Kind::Time => return if is_modern { "DateTime64(9, 'UTC')" } else { "Int64" }.into(),
            Kind::Ip => return if is_modern { "IPv6" } else { "FixedString(16)" }.into(),
            Kind::Text => return "String".into(),
            Kind::Few | Kind::Word(_) => {
                return if is_modern { "LowCardinality(String)" } else { "String" }.into();
            }
            Kind::List => return "Array(String)".into(),
        };
        if is_null { format!("Nullable({number})") } else { number }
    }

    /// The name and the type of each column of a table.
    #[must_use]
    pub fn types(self, table: &Table) -> Vec<(&'static str, String)> {
        let own = table.columns.iter().map(|column| (column.name, self.type_of(column.kind, column.is_null)));
        HOST.iter().map(|(name, kind)| (*name, self.type_of(*kind, false))).chain(own).collect()
    }

    fn codec(self, column: &Column) -> &'static str {
        if self == Self::Old {
            return "";
        }
        match column.kind {
            Kind::Time => " CODEC(DoubleDelta, ZSTD(1))",
            Kind::UInt(64) | Kind::Int64 if !column.is_null => " CODEC(Delta, ZSTD(1))",
            _ => " CODEC(ZSTD(1))",
        }
    }
}

/// Where the tables are made.
#[derive(Clone, Debug)]
pub struct Place {
    /// The database.
    pub database: String,
    /// The cluster, if the tables are spread over its shards by host.
    pub cluster: Option<String>,
    /// Whether the cluster has a keeper, by which statements reach all its nodes and replicas are kept equal.
    pub has_keeper: bool,
}

/// A name or a text in a statement.
#[must_use]
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The statements, in order. Each can be repeated.
#[must_use]
pub fn statements(dialect: Dialect, place: &Place) -> Vec<String> {
    let Place { database, cluster, has_keeper } = place;
    let on = match cluster {
        Some(cluster) if *has_keeper => format!(" ON CLUSTER {}", quoted(cluster)),
        _ => String::new(),
    };
    let mut all = vec![format!("CREATE DATABASE IF NOT EXISTS {database}{on}")];
    for table in &TABLES {
        let local = if cluster.is_some() { format!("{}_local", table.name) } else { table.name.to_owned() };
        let replicated =
            has_keeper.then(|| format!("'/clickhouse/tables/{{shard}}/{database}/{local}', '{{replica}}'"));
        let replicated = replicated.filter(|_| cluster.is_some());
        all.push(create(dialect, database, table, &local, &on, replicated.as_deref()));
        if let Some(cluster) = cluster {
            all.push(format!(
                "CREATE TABLE IF NOT EXISTS {database}.{0}{on} AS {database}.{local}\n\
                 ENGINE = Distributed({1}, {2}, {3}, sipHash64(host_id))",
                table.name,
                quoted(cluster),
                quoted(database),
                quoted(&local)
            ));
        }
    }
    all.push(connections(dialect, database, &on));
    all.push(format!(
        "CREATE TABLE IF NOT EXISTS {database}.schema_version{on} (version UInt32, made DateTime DEFAULT now())\n\
         ENGINE = TinyLog"
    ));
    all
}

/// The statement that notes the version, where it is not noted.
#[must_use]
pub fn note_version(database: &str) -> String {
    format!("INSERT INTO {database}.schema_version (version) VALUES ({VERSION})")
}

fn create(
    dialect: Dialect,
    database: &str,
    table: &Table,
    name: &str,
    on: &str,
    replicated: Option<&str>,
) -> String {
    let is_modern = dialect == Dialect::Modern;
    let mut text = format!("CREATE TABLE IF NOT EXISTS {database}.{name}{on} (\n");
    for (name, kind) in HOST {
        let column = Column { name, kind, is_null: false, of: "", back: None };
        let codec = if kind == Kind::Few && is_modern { " CODEC(ZSTD(1))" } else { "" };
        _ = writeln!(text, "    {name} {}{codec},", dialect.type_of(column.kind, false));
    }
    for column in table.columns {
        let kind = dialect.type_of(column.kind, column.is_null);
        _ = writeln!(text, "    {} {kind}{},", column.name, dialect.codec(column));
    }
    if table.store.is_empty() {
        text.push_str("    received DateTime DEFAULT now(),\n");
    }
    for column in table.indexed.iter().filter(|_| is_modern) {
        _ = writeln!(text, "    INDEX by_{column} {column} TYPE bloom_filter(0.01) GRANULARITY 4,");
    }
    text.truncate(text.trim_end_matches(",\n").len());
    let engine = match replicated {
        Some(path) => format!("ReplicatedReplacingMergeTree({path})"),
        None => "ReplacingMergeTree()".into(),
    };
    let (day, ttl) = match dialect {
        Dialect::Modern => (
            "toDate(ts)",
            format!("\nTTL toDateTime(ts) + INTERVAL {KEPT} DAY\nSETTINGS ttl_only_drop_parts = 1"),
        ),
        Dialect::Old => ("toYYYYMMDD(toDateTime(intDiv(ts, 1000000000), 'UTC'))", String::new()),
    };
    let order = if table.store.is_empty() { "host_id, store, ts" } else { "host_id, ts, store, row" };
    _ = write!(text, "\n) ENGINE = {engine}\nPARTITION BY {day}\nORDER BY ({order}){ttl}");
    text
}

/// One row an end, in its last state, as the view of a store has it.
fn connections(dialect: Dialect, database: &str, on: &str) -> String {
    let id = |cookie: &str, began: &str| {
        let hex = |number: &str| format!("replaceRegexpOne(lower(hex({number})), '^0+', '')");
        format!("concat(boot, '-', {}, '-', {})", hex(cookie), hex(began))
    };
    let ip = |name: &str| match dialect {
        Dialect::Modern => format!("replaceOne(toString({name}), '::ffff:', '')"),
        Dialect::Old => format!("replaceOne(IPv6NumToString({name}), '::ffff:', '')"),
    };
    let address = |name: &str| format!("{} AS {name}_text", ip(name));
    format!(
        "CREATE VIEW IF NOT EXISTS {database}.connections{on} AS\n\
         SELECT host, host_id, {} AS conn,\n    {} AS flow,\n    proto, {}, local_ip, local_port, {}, remote_ip, \
         remote_port,\n    netns, state, side, basis, confidence, opened, ts, over, pid, comm, exe, uid, process_basis, \
         originator_pid, originator_comm,\n    errno, intDiv(handshake, 1000) AS handshake_us, intDiv(duration, 1000) \
         AS duration_us, sent, received, closed_by, via,\n    remote_host, local_host, device, signs, tuple, store, \
         segment, row\nFROM {database}.ends\nORDER BY host_id, store, boot, cookie, began, row DESC\n\
         LIMIT 1 BY host_id, store, boot, cookie, began",
        id("cookie", "began"),
        id("ifNull(flow_cookie, cookie)", "ifNull(flow_began, began)"),
        address("local_ip"),
        address("remote_ip"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_have_the_same_columns() {
        for table in &TABLES {
            let [old, modern] = [Dialect::Old, Dialect::Modern].map(|dialect| dialect.types(table));
            let names =
                |types: &[(&'static str, String)]| types.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            assert_eq!(names(&old), names(&modern));
            assert_eq!(names(&old), table.names());
            let mut sorted = names(&old);
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), old.len(), "{}", table.name);
            assert!(table.indexed.iter().all(|column| sorted.contains(column)), "{}", table.name);
        }
        assert_eq!(
            [Dialect::of_version("18.16.1"), Dialect::of_version("22.3.2.1")],
            [Dialect::Old, Dialect::Modern]
        );
        assert_eq!(Dialect::of_version("26.9"), Dialect::Modern);
    }

    #[test]
    fn statements_fit_the_server() {
        let place = |cluster: Option<&str>| Place {
            database: "d".into(),
            cluster: cluster.map(str::to_owned),
            has_keeper: cluster.is_some(),
        };
        let old = statements(Dialect::Old, &place(None)).join("\n");
        for lacked in
            ["CODEC", "TTL", "IPv6,", "DateTime64", "LowCardinality", "INDEX", "CLUSTER", "Distributed"]
        {
            assert!(!old.contains(lacked), "{lacked}");
        }
        let modern = statements(Dialect::Modern, &place(Some("it's"))).join("\n");
        for had in [
            "ON CLUSTER 'it\\'s'",
            "INDEX by_tuple tuple TYPE bloom_filter",
            "remote_ip IPv6 CODEC",
            "ENGINE = Distributed('it\\'s', 'd', 'ends_local', sipHash64(host_id))",
            "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/d/ends_local', '{replica}')",
            "TTL toDateTime(ts) + INTERVAL 90 DAY",
        ] {
            assert!(modern.contains(had), "{had}");
        }
    }
}
