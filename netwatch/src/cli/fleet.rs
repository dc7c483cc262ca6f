//! `netwatch fleet`, and the options of `record` that ship.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use globset::GlobMatcher;

use super::filter::FilterArgs;
use super::values::{self, FormatArgs, colour, size};
use crate::commands::fleet::{FleetLogOptions, FleetOptions, FleetTraceOptions};
use crate::filter::glob;
use crate::fleet::{DATABASE, Dialect, Place, ServerOptions, ServerUrl, ShipOptions};
use crate::forensics::Selector;

#[derive(Args)]
#[command(arg_required_else_help = false)]
pub(super) struct FleetCommand {
    #[command(subcommand)]
    command: FleetSub,
}

#[derive(Subcommand)]
enum FleetSub {
    /// Make the tables on a ClickHouse server
    Setup(SetupArgs),
    /// Print the statements that make the tables
    Schema(SchemaArgs),
    /// List the hosts: when they were seen, how far behind they are, what they lost
    Hosts(HostsArgs),
    /// Print and search recorded events of all hosts
    Log(Box<FleetLogArgs>),
    /// Trace a connection back over hosts
    Trace(FleetTraceArgs),
}

#[derive(Args)]
struct AccessArgs {
    /// User of the server
    #[arg(long, value_name = "NAME")]
    server_user: Option<String>,
    /// File with the password of the user
    #[arg(long, value_name = "FILE")]
    server_password_file: Option<PathBuf>,
    /// Trust the certificate authorities in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    server_ca: Option<PathBuf>,
}

impl AccessArgs {
    fn of(self, url: ServerUrl) -> ServerOptions {
        ServerOptions {
            url,
            user: self.server_user,
            password_file: self.server_password_file,
            ca: self.server_ca,
        }
    }
}

#[derive(Args)]
struct ServerArgs {
    /// The server: http://HOST[:PORT][/DATABASE], or https
    #[arg(long, value_name = "URL")]
    server: ServerUrl,
    #[command(flatten)]
    access: AccessArgs,
}

impl ServerArgs {
    fn options(self) -> ServerOptions {
        self.access.of(self.server)
    }
}

#[derive(Args)]
struct SetupArgs {
    /// The server: http://HOST[:PORT][/DATABASE], or https
    #[arg(value_name = "URL")]
    url: ServerUrl,
    /// Spread the tables over the shards of this cluster of the server's configuration, by host
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Args)]
struct SchemaArgs {
    /// For servers since 18.16 (old), or since 22.3 (modern)
    #[arg(long, value_name = "old|modern", value_parser = dialect, default_value = "modern")]
    dialect: Dialect,
    /// Spread the tables over the shards of this cluster, by host
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

fn dialect(text: &str) -> Result<Dialect, &'static str> {
    match text {
        "old" => Ok(Dialect::Old),
        "modern" => Ok(Dialect::Modern),
        _ => Err("old or modern"),
    }
}

#[derive(Args)]
struct HostsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// List hosts whose name matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    host: Option<GlobMatcher>,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args)]
struct FleetLogArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Show events of hosts whose name matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    host: Option<GlobMatcher>,
    #[command(flatten)]
    range: values::RangeArgs,
    #[command(flatten)]
    format: values::LinesArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Args)]
struct FleetTraceArgs {
    /// The host, by its name or a pattern of it, and the connections to trace there, as `netwatch trace` takes them
    #[arg(value_name = "HOST:SELECTOR")]
    selector: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Trace at most N connections, the newest
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    #[command(flatten)]
    format: FormatArgs,
}

impl FleetCommand {
    pub(super) fn options(self) -> Result<FleetOptions> {
        Ok(match self.command {
            FleetSub::Schema(SchemaArgs { dialect, cluster }) => {
                let has_keeper = cluster.is_some();
                FleetOptions::Schema(dialect, Place { database: DATABASE.into(), cluster, has_keeper })
            }
            FleetSub::Setup(SetupArgs { url, cluster, access }) => {
                FleetOptions::Setup(access.of(url), cluster)
            }
            FleetSub::Hosts(hosts) => {
                FleetOptions::Hosts(hosts.server.options(), hosts.host, hosts.format.is_json())
            }
            FleetSub::Log(log) => FleetOptions::Log(Box::new(FleetLogOptions {
                server: log.server.options(),
                host: log.host,
                since: log.range.since,
                until: log.range.until,
                count: log.range.count,
                log: log.format.log(log.filter.filter()?, None),
            })),
            FleetSub::Trace(trace) => {
                let form = || {
                    anyhow!("`{}`: expected HOST:SELECTOR, such as web1::8080 or web*:pid:7", trace.selector)
                };
                let (host, selector) = trace.selector.split_once(':').ok_or_else(form)?;
                let selector: Selector = selector.parse().map_err(anyhow::Error::msg).with_context(form)?;
                FleetOptions::Trace(Box::new(FleetTraceOptions {
                    host: glob(host).map_err(anyhow::Error::msg)?,
                    selector,
                    most: trace.count.into(),
                    json: trace.format.is_json(),
                    colour: colour(),
                    server: trace.server.options(),
                }))
            }
        })
    }
}

/// Options of `record` that ship what is recorded.
#[derive(Args)]
#[command(next_help_heading = "Shipping to a ClickHouse server")]
pub(super) struct ShipArgs {
    /// Ship what is recorded to this server: http://HOST[:PORT][/DATABASE], or https; `netwatch fleet setup` makes its
    /// tables
    #[arg(long, value_name = "URL")]
    ship: Option<ServerUrl>,
    /// User of the server
    #[arg(long, value_name = "NAME", requires = "ship")]
    ship_user: Option<String>,
    /// File with the password of the user
    #[arg(long, value_name = "FILE", requires = "ship")]
    ship_password_file: Option<PathBuf>,
    /// Trust the certificate authorities in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE", requires = "ship")]
    ship_ca: Option<PathBuf>,
    /// Ship at most this many bytes a second, before compression: 1MiB, 500kB, or a number of bytes
    #[arg(long, value_name = "BYTES", value_parser = rate, requires = "ship")]
    ship_rate: Option<u64>,
    /// Name of this host on the server, instead of the host name; copies of one machine are told apart by it
    #[arg(long, value_name = "NAME", requires = "ship")]
    ship_name: Option<String>,
    /// Label of this host on the server; several are possible
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, requires = "ship")]
    ship_label: Vec<String>,
}

fn rate(text: &str) -> Result<u64, String> {
    text.parse().map_or_else(|_| size(text), Ok)
}

fn label(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE"),
    }
}

impl ShipArgs {
    pub(super) fn options(self) -> Option<ShipOptions> {
        let server = ServerOptions {
            url: self.ship?,
            user: self.ship_user,
            password_file: self.ship_password_file,
            ca: self.ship_ca,
        };
        Some(ShipOptions { server, rate: self.ship_rate, name: self.ship_name, labels: self.ship_label })
    }
}
