//! What the server knows of each host.

use globset::GlobMatcher;
use serde::Serialize;

use super::binary::Bytes;
use super::column::Kind;
use super::mirror::MirrorError;
use super::narrow;
use super::server::Server;

/// A host, as it said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub host: String,
    /// The hash of its machine id.
    pub id: String,
    /// When the server heard of it last, in seconds since the epoch by the clock of the server.
    pub last_seen: i64,
    /// Seconds since then, by that clock.
    pub silent: i64,
    /// How much the clock of the host is ahead of that of the server, in seconds; exact to a second or two.
    pub clock_ahead: i64,
    /// Boot id.
    pub boot: String,
    /// The version of netwatch.
    pub version: String,
    /// The release of the kernel.
    pub kernel: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// The last batch that was shipped: the anchor of its chain.
    pub batch: i64,
    /// Batches that were recorded and not shipped then.
    pub waiting: i64,
    /// Batches that retention deleted before they were shipped.
    pub dropped: i64,
    /// Records and events that its recorder lost.
    pub lost: i64,
}

/// All hosts, by name.
///
/// # Errors
/// If the server does not give them.
pub fn hosts(server: &Server, which: Option<&GlobMatcher>) -> Result<Vec<Host>, MirrorError> {
    server.dialect()?;
    let database = &server.url().database;
    let condition = which.map_or("1".to_owned(), |glob| format!("match(host, {})", narrow::pattern(glob)));
    let ts = server.nanos("ts");
    let latest = |column: &str| format!("argMax({column}, {ts})");
    let columns = ["host", "boot", "version", "kernel", "labels"].map(latest).join(", ");
    let numbers =
        ["batch", "waiting", "dropped"].map(|column| format!("toInt64({})", latest(column))).join(", ");
    let query = format!(
        "SELECT host_id, {columns}, toInt64(toUInt32(max(received))), toInt64(toUInt32(now())), \
         intDiv(max({ts}), 1000000000) - toInt64(toUInt32({})), {numbers} FROM {database}.hosts WHERE {condition} \
         GROUP BY host_id ORDER BY {}, host_id",
        latest("received"),
        latest("host")
    );
    let lost = format!(
        "SELECT host_id, toInt64(sum(count)) FROM (SELECT host_id, store, row, any(count) AS count FROM \
         {database}.losses WHERE {condition} GROUP BY host_id, store, row) GROUP BY host_id"
    );
    let short = || MirrorError::Short { url: server.url().to_string() };
    let (bytes, lost) = (server.fetch(&query)?, server.fetch(&lost)?);
    let (mut bytes, mut lost, mut hosts) = (Bytes(&bytes), Bytes(&lost), Vec::new());
    let mut losses = std::collections::HashMap::new();
    while let Some((id, count)) = lost.text().zip(lost.number(Kind::Int64)) {
        losses.insert(id, count);
    }
    while !bytes.is_empty() {
        let host = (|| {
            let id = bytes.text()?;
            let [host, boot, version, kernel] = [bytes.text()?, bytes.text()?, bytes.text()?, bytes.text()?];
            let labels = bytes.list()?;
            let mut number = || bytes.number(Kind::Int64);
            let (last_seen, now, clock_ahead) = (number()?, number()?, number()?);
            let (batch, waiting, dropped) = (number()?, number()?, number()?);
            let lost = losses.get(&id).copied().unwrap_or(0);
            let silent = now - last_seen;
            Some(Host {
                host,
                id,
                last_seen,
                silent,
                clock_ahead,
                boot,
                version,
                kernel,
                labels,
                batch,
                waiting,
                dropped,
                lost,
            })
        })();
        hosts.push(host.ok_or_else(short)?);
    }
    Ok(hosts)
}
