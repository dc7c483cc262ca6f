//! `netwatch trace`

use std::path::PathBuf;

use clap::Args;

use super::values::colour;
use crate::commands::trace::TraceOptions;
use crate::forensics::Selector;
use crate::output::trace::TraceFormat;

#[derive(Args)]
pub(super) struct TraceArgs {
    /// Connections to trace: :PORT, IP, IP:PORT, [IP6]:PORT, pid:N, exe:PATH, comm:NAME, HOST.NAME, name:HOST, id:CONN
    #[arg(value_name = "SELECTOR")]
    selector: Selector,
    /// Path of the store [default: the standard store, or the open connections if it does not exist]
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// Read the tables without the indexes and views of the store, which may have been altered; slower
    #[arg(long)]
    scan: bool,
    /// Trace at most N connections, the newest
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    count: u32,
    /// Output format: text, json, or dot (for Graphviz)
    #[arg(long, value_name = "FORMAT", value_parser = format, default_value = "text")]
    format: TraceFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

fn format(text: &str) -> Result<TraceFormat, &'static str> {
    match text {
        "text" => Ok(TraceFormat::Text),
        "json" => Ok(TraceFormat::Json),
        "dot" => Ok(TraceFormat::Dot),
        _ => Err("text, json or dot"),
    }
}

impl TraceArgs {
    pub(super) fn options(self) -> TraceOptions {
        let format = if self.json { TraceFormat::Json } else { self.format };
        TraceOptions {
            selector: self.selector,
            store: self.store,
            scan: self.scan,
            most: self.count as usize,
            format,
            colour: format == TraceFormat::Text && colour(),
        }
    }
}
