//! `netwatch fleet`: the record of many hosts, on a ClickHouse server.

mod log;
mod trace;

use std::io::Write;

use anyhow::Result;
use globset::GlobMatcher;

use crate::escape;
use crate::fleet::{self, Dialect, Place, Server, ServerOptions};

pub use log::FleetLogOptions;
pub use trace::FleetTraceOptions;

/// What to do.
#[derive(Debug)]
pub enum FleetOptions {
    /// Print the statements that make the tables.
    Schema(Dialect, Place),
    /// Make the tables.
    Setup(ServerOptions, Option<String>),
    /// List the hosts.
    Hosts(ServerOptions, Option<GlobMatcher>, bool),
    /// Print events.
    Log(Box<FleetLogOptions>),
    /// Trace a connection over hosts.
    Trace(Box<FleetTraceOptions>),
}

/// Does it.
///
/// # Errors
/// If the server cannot be reached, or refuses, or `out` fails.
pub fn run(options: &FleetOptions, out: &mut dyn Write) -> Result<()> {
    match options {
        FleetOptions::Schema(dialect, place) => {
            for statement in fleet::statements(*dialect, place) {
                writeln!(out, "{statement};\n")?;
            }
            writeln!(out, "{};", fleet::note_version(&place.database))?;
            Ok(())
        }
        FleetOptions::Setup(server, cluster) => setup(server, cluster.clone(), out),
        FleetOptions::Hosts(server, which, is_json) => hosts(server, which.as_ref(), *is_json, out),
        FleetOptions::Log(options) => log::run(options),
        FleetOptions::Trace(options) => trace::run(options, out),
    }
}

fn setup(options: &ServerOptions, cluster: Option<String>, out: &mut dyn Write) -> Result<()> {
    let server = Server::new(options)?;
    let version = server.refuse_newer()?;
    let dialect = server.dialect()?;
    let keeper =
        "SELECT toString(count()) FROM system.tables WHERE database = 'system' AND name = 'zookeeper'";
    let has_keeper = server.text(keeper)?.as_deref() == Some("1");
    let place = Place { database: options.url.database.clone(), cluster, has_keeper };
    for statement in fleet::statements(dialect, &place) {
        server.execute(&statement)?;
    }
    if version.is_none() {
        server.execute(&fleet::note_version(&place.database))?;
    }
    server.check()?;
    writeln!(out, "{} has the tables of netwatch", options.url)?;
    if let Some(cluster) = place.cluster.filter(|_| !has_keeper) {
        let cluster = escape::terminal(&cluster);
        writeln!(out, "it has no keeper that tells the other nodes of {cluster}: run this for each of them")?;
    }
    Ok(())
}

fn hosts(
    options: &ServerOptions,
    which: Option<&GlobMatcher>,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let server = Server::new(options)?;
    let hosts = fleet::hosts(&server, which)?;
    if is_json {
        for host in &hosts {
            serde_json::to_writer(&mut *out, host)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    let width = hosts.iter().map(|host| host.host.chars().count()).max().unwrap_or(0).clamp(4, 40);
    for host in &hosts {
        let name = escape::terminal(&host.host);
        write!(out, "{name:width$}  seen {}", ago(host.silent))?;
        write!(out, "; netwatch {}, boot {}", escape::terminal(&host.version), escape::terminal(&host.boot))?;
        if host.clock_ahead.abs() > CLOCK {
            let way = if host.clock_ahead > 0 { "ahead" } else { "behind" };
            write!(out, "; clock {} s {way}", host.clock_ahead.abs())?;
        }
        for (count, what) in [
            (host.waiting, "batches not shipped"),
            (host.dropped, "batches dropped unshipped"),
            (host.lost, "records lost"),
        ] {
            if count > 0 {
                write!(out, "; {count} {what}")?;
            }
        }
        for label in &host.labels {
            write!(out, "; {}", escape::terminal(label))?;
        }
        writeln!(out)?;
    }
    if hosts.is_empty() {
        writeln!(out, "no host has shipped anything: start `netwatch record --ship {}`", options.url)?;
    }
    Ok(())
}

/// Seconds that two clocks may differ without being said to: the server notes whole seconds, and an insertion takes time.
const CLOCK: i64 = 3;

fn ago(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{} s ago", seconds.max(0)),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
