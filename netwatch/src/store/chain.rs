//! The hash chain: how rows and batches are hashed. Pure.
//!
//! The hash of a batch is BLAKE3 over the previous hash, the columns of the batch without the hash, and for each table
//! one hash over the rows of the batch in order of id. Values are hashed with type and length, so that different rows
//! have different input. Which columns and tables there are depends on the version that wrote the batch ([`Format`]).

use std::fmt;
use std::str::FromStr;

use rusqlite::types::ValueRef;

use super::rows::{COLUMNS, FIRST_COLUMNS};

/// The version of the tables that a batch was written in. A new column or table belongs to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    One = 1,
    Two = 2,
}

impl Format {
    /// The one that the tables of a version have.
    pub(super) fn of(version: i32) -> Self {
        if version >= Self::Two as i32 { Self::Two } else { Self::One }
    }

    pub(super) const NEWEST: Self = Self::Two;

    /// The tables that a batch covers.
    pub(super) fn tables(self) -> impl Iterator<Item = Table> {
        Table::ALL.into_iter().filter(move |table| table.since() <= self)
    }

    /// The columns of a batch that are hashed, in order.
    pub(super) fn batch_columns(self) -> Vec<String> {
        let own: &[&str] = match self {
            Self::One => &["id", "segment", "ts"],
            Self::Two => &["id", "segment", "ts", "steady"],
        };
        let ranges = self.tables().flat_map(|table| {
            let name = table.name();
            [format!("{name}_from"), format!("{name}_to")]
        });
        own.iter().map(|name| (*name).to_owned()).chain(ranges).collect()
    }
}

/// Columns of `alert`.
pub(super) const ALERT_COLUMNS: [&str; 23] = [
    "id",
    "segment",
    "ts",
    "rule",
    "title",
    "level",
    "tags",
    "code",
    "detail",
    "cookie",
    "began",
    "proto",
    "netns",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "side",
    "basis",
    "confidence",
    "process",
    "suppressed",
    "trace",
];

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Segment,
    Image,
    Process,
    Connection,
    Loss,
    Stopped,
    Pruned,
    Message,
    HostName,
    Alert,
}

impl Table {
    /// In the order of the columns of a batch.
    pub(super) const ALL: [Self; 10] = [
        Self::Segment,
        Self::Image,
        Self::Process,
        Self::Connection,
        Self::Loss,
        Self::Stopped,
        Self::Pruned,
        Self::Message,
        Self::HostName,
        Self::Alert,
    ];

    pub(super) const COUNT: usize = Self::ALL.len();

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Image => "image",
            Self::Process => "process",
            Self::Connection => "connection",
            Self::Loss => "loss",
            Self::Stopped => "stopped",
            Self::Pruned => "pruned",
            Self::Message => "message",
            Self::HostName => "host_name",
            Self::Alert => "alert",
        }
    }

    /// The version that it belongs to.
    pub(super) const fn since(self) -> Format {
        match self {
            Self::Message | Self::HostName | Self::Alert => Format::Two,
            _ => Format::One,
        }
    }

    /// Its columns in a version, `id` first.
    pub(super) fn columns(self, format: Format) -> Vec<&'static str> {
        let mut columns = self.first_columns();
        if format >= Format::Two {
            match self {
                Self::Segment => {
                    columns.extend(["max_age", "max_size", "steady", "since_boot", "step", "stood"]);
                }
                Self::Connection => columns.extend(COLUMNS.iter().skip(FIRST_COLUMNS)),
                Self::Pruned => columns.extend(["reason", "pages", "digest"]),
                _ => {}
            }
        }
        columns
    }

    /// Those of the first version.
    fn first_columns(self) -> Vec<&'static str> {
        match self {
            Self::Segment => vec![
                "id",
                "run",
                "boot",
                "started",
                "clock",
                "run_clock",
                "version",
                "kernel",
                "hostname",
                "filter",
            ],
            Self::Image => vec!["id", "segment", "exe", "exe_state", "dev", "ino", "mntns", "args"],
            Self::Process => vec![
                "id",
                "segment",
                "ts",
                "pid",
                "start",
                "tid",
                "thread",
                "comm",
                "uid",
                "auid",
                "ppid",
                "cgroup_id",
                "cgroup",
                "kernel",
                "image",
                "parent",
                "birth",
                "cause",
                "stdin",
                "stdout",
                "stderr",
                "exe_state",
                "signs",
            ],
            Self::Connection => {
                let head = ["id", "segment", "cookie", "began", "ts", "events"];
                head.into_iter()
                    .chain(COLUMNS.into_iter().take(FIRST_COLUMNS))
                    .chain(["signs", "odd"])
                    .collect()
            }
            Self::Loss => vec!["id", "segment", "ts", "reason", "kind", "count"],
            Self::Stopped => vec!["id", "segment", "ts"],
            Self::Pruned => vec!["id", "segment", "ts", "through_segment", "through_batch", "hash"],
            Self::Message => {
                vec!["id", "segment", "before", "cause", "written", "way", "inode", "path", "writer"]
            }
            Self::HostName => vec!["id", "segment", "name", "basis", "said", "candidates", "asker"],
            Self::Alert => ALERT_COLUMNS.to_vec(),
        }
    }

    pub(super) fn insert(self) -> String {
        let columns = self.columns(Format::NEWEST);
        let marks = vec!["?"; columns.len()].join(",");
        format!("INSERT INTO {} ({}) VALUES ({marks})", self.name(), columns.join(","))
    }

    /// Its columns of the first version, which every store has.
    pub(super) fn select(self) -> String {
        self.select_in(Format::One)
    }

    pub(super) fn select_in(self, format: Format) -> String {
        format!("SELECT {} FROM {}", self.columns(format).join(","), self.name())
    }
}

/// A link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(pub(super) blake3::Hash);

impl Default for Link {
    fn default() -> Self {
        Self::NONE
    }
}

impl Link {
    /// The link before the first batch.
    pub(super) const NONE: Self = Self(blake3::Hash::from_bytes([0; blake3::OUT_LEN]));

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// `None` if the bytes are not a hash.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        blake3::Hash::from_slice(bytes).ok().map(Self)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Link {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text.trim());
        hash.map(Self)
            .map_err(|_| "not a link of the chain: 64 hexadecimal digits, as `verify --anchor` prints them")
    }
}

/// Hashes the content of a batch, table by table.
pub(super) struct Contents {
    tables: [blake3::Hasher; Table::COUNT],
    row: Vec<u8>,
}

impl Contents {
    pub(super) fn new() -> Self {
        Self { tables: std::array::from_fn(|_| blake3::Hasher::new()), row: Vec::new() }
    }

    /// Adds the next row of a table.
    pub(super) fn row<'a>(&mut self, table: Table, values: impl Iterator<Item = ValueRef<'a>>) {
        self.row.clear();
        values.for_each(|value| spell(value, &mut self.row));
        let length = self.row.len() as u64;
        if let Some(hasher) = self.tables.get_mut(table as usize) {
            hasher.update(&length.to_le_bytes());
            hasher.update(&self.row);
        }
    }

    /// The link of a batch with this content and these columns, after `previous`. Input of different versions has
    /// different length.
    pub(super) fn link(&self, format: Format, previous: &Link, columns: &[i64]) -> Link {
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous.bytes());
        for column in columns {
            hasher.update(&column.to_le_bytes());
        }
        for table in format.tables() {
            if let Some(rows) = self.tables.get(table as usize) {
                hasher.update(rows.finalize().as_bytes());
            }
        }
        Link(hasher.finalize())
    }
}

fn spell(value: ValueRef<'_>, out: &mut Vec<u8>) {
    let (tag, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => {
            out.push(1);
            out.extend_from_slice(&number.to_le_bytes());
            return;
        }
        ValueRef::Real(number) => {
            out.push(2);
            out.extend_from_slice(&number.to_le_bytes());
            return;
        }
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(blob) => (4, blob),
    };
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(rows: &[(Table, Vec<ValueRef<'_>>)], columns: &[i64]) -> Link {
        let mut contents = Contents::new();
        for (table, values) in rows {
            contents.row(*table, values.iter().copied());
        }
        contents.link(Format::NEWEST, &Link::NONE, columns)
    }

    #[test]
    fn any_difference_makes_another_link() {
        use ValueRef::{Blob, Integer, Null, Text};
        let links = [
            link(&[], &[1]),
            link(&[], &[2]),
            link(&[], &[1, 0]),
            link(&[(Table::Loss, vec![])], &[1]),
            link(&[(Table::Loss, vec![Null])], &[1]),
            link(&[(Table::Image, vec![Null])], &[1]),
            link(&[(Table::Loss, vec![Text(b"")])], &[1]),
            link(&[(Table::Loss, vec![Blob(b"")])], &[1]),
            link(&[(Table::Loss, vec![Integer(0)])], &[1]),
            link(&[(Table::Loss, vec![Text(b"a"), Text(b"bc")])], &[1]),
            link(&[(Table::Loss, vec![Text(b"ab"), Text(b"c")])], &[1]),
            link(&[(Table::Loss, vec![Text(b"ab")]), (Table::Loss, vec![Text(b"c")])], &[1]),
            link(&[(Table::Loss, vec![Text(b"ab")]), (Table::Image, vec![Text(b"c")])], &[1]),
        ];
        for (n, one) in links.iter().enumerate() {
            assert!(links.iter().skip(n + 1).all(|other| other != one), "{n}");
        }
    }

    #[test]
    fn links_are_read_as_they_are_printed() {
        let one = link(&[], &[7]);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(Link::from_bytes(one.bytes()), Some(one));
        assert!("abc".parse::<Link>().is_err() && Link::from_bytes(b"abc").is_none());
    }

    #[test]
    fn a_table_has_the_columns_of_the_schema() {
        let schema = rusqlite::Connection::open_in_memory().unwrap();
        for (format, statements) in
            [(Format::One, include_str!("schema.sql")), (Format::Two, include_str!("schema-2.sql"))]
        {
            schema.execute_batch(statements).unwrap();
            for table in format.tables() {
                let statement = schema.prepare(&format!("SELECT * FROM {}", table.name())).unwrap();
                assert_eq!(statement.column_names().collect::<Vec<_>>(), table.columns(format), "{table:?}");
            }
        }
    }
}
