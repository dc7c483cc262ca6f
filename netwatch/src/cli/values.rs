//! Parsers for option values that clap does not provide.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use toml::de::DeValue;

use crate::commands::list::Namespaces;
use crate::filter::Filter;
use crate::model::NetnsId;
use crate::output::{Format, LogOptions, OcsfVersion, ProcessForm};

#[derive(Args)]
pub(super) struct FormatArgs {
    /// Output format: text or json
    #[arg(long, value_name = "FORMAT", value_parser = text_or_json, default_value = "text")]
    format: Format,
    /// Short for --format json: one object per line
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

    /// Whether to use colours on stdout.
    pub(super) fn colour(&self) -> bool {
        self.format() == Format::Text && colour()
    }
}

/// The part of a record.
#[derive(Args)]
pub(super) struct RangeArgs {
    /// Show events at or after this time: 2h (ago), yesterday, 2026-11-24, 2026-11-24T10:00, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<Timestamp>,
    /// Show events before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) until: Option<Timestamp>,
    /// Show only the last N events
    #[arg(long, value_name = "N")]
    pub(super) count: Option<usize>,
}

/// Output options of the commands that print events.
#[derive(Args)]
pub(super) struct LinesArgs {
    /// Output format: text, json, ecs (Elastic Common Schema), ocsf, zeek (conn.log), zeek-json or sysmon
    #[arg(long, value_name = "FORMAT", value_parser = format, default_value = "text")]
    format: Format,
    /// Short for --format json: one object per line
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Version of the schema that --format ocsf follows: 1.8, or 1.9, which has `initiator_id`
    #[arg(long, value_name = "VERSION", value_parser = ocsf, default_value = "1.8")]
    ocsf: OcsfVersion,
    /// How JSON names processes: `full` puts the whole object in every event; `once` puts the process key in events,
    /// and emits the whole object once, before the first event that refers to it; `key` puts only the key
    #[arg(long, value_name = "FORM", value_parser = processes, default_value = "full")]
    processes: ProcessForm,
    /// Add the Community ID of each connection to JSON, by which other tools name the same connection
    #[arg(long)]
    community_id: bool,
}

impl LinesArgs {
    pub(super) fn log(&self, filter: Filter, limit: Option<u64>) -> LogOptions {
        let format = if self.json { Format::Json } else { self.format };
        let colour = format == Format::Text && colour();
        LogOptions {
            format,
            ocsf: self.ocsf,
            processes: self.processes,
            community_id: self.community_id,
            colour,
            filter,
            limit,
            zone: TimeZone::system(),
        }
    }
}

fn processes(text: &str) -> Result<ProcessForm, &'static str> {
    match text {
        "full" => Ok(ProcessForm::Full),
        "once" => Ok(ProcessForm::Once),
        "key" => Ok(ProcessForm::Key),
        _ => Err("full, once or key"),
    }
}

/// Whether text on stdout may have colours.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn text_or_json(text: &str) -> Result<Format, &'static str> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json"),
    }
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    let known = Format::ALL.into_iter().find(|(name, _)| *name == text);
    known.map(|(_, format)| format).ok_or_else(|| {
        let names = Format::ALL.map(|(name, _)| name);
        format!("one of {}", names.join(", "))
    })
}

pub(super) fn ocsf(text: &str) -> Result<OcsfVersion, &'static str> {
    match text {
        "1.8" | "1.8.0" => Ok(OcsfVersion::V1_8),
        "1.9" | "1.9.0" => Ok(OcsfVersion::V1_9),
        _ => Err("1.8 or 1.9"),
    }
}

pub(super) fn namespaces(text: &str) -> Result<Namespaces, &'static str> {
    match text {
        "self" => Ok(Namespaces::Own),
        "all" => Ok(Namespaces::All),
        inum => inum
            .parse()
            .map(|inode| Namespaces::Inum(NetnsId::new(inode)))
            .map_err(|_| "an inode number, `self` or `all`"),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| "a time, like 10s, 5m or 1h30m")?;
    parsed.try_into().map_err(|_| "a time that is not negative".into())
}

/// As [`duration`], and also in days and weeks.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 86_400;
    let long = [('d', DAY), ('w', 7 * DAY)];
    let found = long.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?.trim(), seconds)));
    let Some((number, seconds)) = found else {
        return duration(text).map_err(|_| "a time, like 30d, 12h or 4w".into());
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "a time, like 30d, 12h or 4w".into())
}

/// The smallest size limit of a store, in bytes.
const SMALLEST: u64 = 1 << 20;

/// A size on disk, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const FORM: &str = "a size, like 2GiB, 500MB or a number of bytes";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(FORM.into()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(FORM)?;
    if bytes < SMALLEST { Err("at least 1MiB".into()) } else { Ok(bytes) }
}

/// A point in time: RFC 3339; a local date, or date and time; `today`, `yesterday`, `now`; or an age.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_by(text, &ZonedDateTime::now())
}

fn moment_by(text: &str, now: &ZonedDateTime) -> Result<Timestamp, String> {
    let wrong = || "a time, like 2026-11-24T10:00:00Z, 2026-11-24, yesterday or 2h (ago)".to_owned();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let day = match text {
        "now" => return Ok(now.timestamp()),
        "today" => Some(now.date()),
        "yesterday" => Some(now.date().yesterday().map_err(|_| wrong())?),
        // A date with a time of day is parsed below.
        _ => text.parse::<Date>().ok().filter(|_| !text.contains([':', 'T'])),
    };
    let local = match day {
        Some(day) => Some(day.to_datetime(Time::midnight())),
        None => text.parse::<DateTime>().ok(),
    };
    if let Some(local) = local {
        let zoned = local.to_zoned_datetime(now.time_zone().clone()).map_err(|_| wrong())?;
        return Ok(zoned.timestamp());
    }
    let ago = age(text).map_err(|_| wrong())?;
    now.timestamp().checked_sub(ago).map_err(|_| wrong())
}

/// The value as it would be written on the command line; `None` if it has no such form.
pub(super) fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
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

    #[test]
    fn long_times() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("2w"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(age("90m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "d", "-1d", "1x", "99999999999999999999d"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!((size("2GiB"), size("2G")), (Ok(2 << 30), Ok(2 << 30)));
        assert_eq!((size("500MB"), size("1048576")), (Ok(500_000_000), Ok(1 << 20)));
        for bad in ["", "GiB", "1", "2XB", "-2GiB", "99999999999999999999", "99999999999TB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        let now: ZonedDateTime = "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let at = |text| moment_by(text, &now).map(|time| time.to_string());
        for (text, expected) in [
            ("2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z"),
            ("2026-11-24T10:00:00.5+01:00", "2026-11-24T09:00:00.5Z"),
            ("2026-01-24T10:00", "2026-01-24T09:00:00Z"),
            ("2026-01-24 10:00:05", "2026-01-24T09:00:05Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            // The change to summer time: this day has 23 hours.
            ("today", "2026-03-28T23:00:00Z"),
            ("yesterday", "2026-03-27T23:00:00Z"),
            ("now", "2026-03-29T10:00:00Z"),
            ("2h", "2026-03-29T08:00:00Z"),
            ("1d", "2026-03-28T10:00:00Z"),
            ("90", "2026-03-29T09:58:30Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "soon", "2026-13-01", "-2h", "25:00", "2026-11-24T", "tomorrow"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in r"[0-9TZdhmswGiBk:.+ -]{0,24}") {
            let _ = (moment(&text), age(&text), size(&text), duration(&text));
        }
    }
}
