//! What values of options look like, where clap does not know.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;

use crate::commands::list::Namespaces;
use crate::output::Format;

#[derive(Args)]
pub(super) struct FormatArgs {
    /// How to print
    #[arg(long, value_name = "FORMAT", value_parser = format, default_value = "text")]
    format: Format,
    /// Short for --format json: one object a line
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArgs {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    pub(super) fn is_json(&self) -> bool {
        self.format() == Format::Json
    }

    /// Whether to colour what goes to stdout.
    pub(super) fn colour(&self) -> bool {
        self.format() == Format::Text && colour()
    }
}

/// Whether text on stdout may have colours.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json"),
    }
}

pub(super) fn namespaces(text: &str) -> Result<Namespaces, &'static str> {
    match text {
        "self" => Ok(Namespaces::Own),
        "all" => Ok(Namespaces::All),
        inum => inum.parse().map(Namespaces::Inum).map_err(|_| "an inode number, `self` or `all`"),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| "a time, like 10s, 5m or 1h30m")?;
    parsed.try_into().map_err(|_| "a time that is not negative".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-5s").is_err() && duration("soon").is_err() && duration("").is_err());
    }
}
