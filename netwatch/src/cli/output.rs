//! Outputs: `--output KIND[:TARGET][,KEY=VALUE]...`, and `[[output]]` of the configuration file, which is turned into the
//! same text.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::filter::expression;
use super::values::{age, format, ocsf, plain, size};
use crate::filter::Filter;
use crate::output::delivery::Facility;
use crate::output::{Format, LogOptions, OcsfVersion};
use crate::sinks::metrics::MetricsAddress;
use crate::sinks::outputs::{FileOptions, Host, OutputOptions, Target, Transport};

#[derive(Args)]
#[command(next_help_heading = "Outputs")]
pub(super) struct OutputArgs {
    /// Also deliver events to OUTPUT: KIND:TARGET, then options KEY=VALUE, separated by commas; can be repeated. Each
    /// output has a queue of its own, and none waits for another. Kinds:
    /// `file:PATH` (rotate-size, rotate-age, keep); `syslog:unix:PATH`, `syslog:udp:HOST:PORT`, `syslog:tcp:HOST:PORT`
    /// (facility).
    /// Options of all kinds: format, ocsf, community-id, and filter=EXPRESSION, which comes last.
    /// Example: 'file:/var/log/netwatch.json,rotate-size=100MiB,filter=origin:local !port:53'
    #[arg(long = "output", id = "output", value_name = "OUTPUT", value_parser = output)]
    pub(super) outputs: Vec<OutputOptions>,
    /// Serve counters for Prometheus at http://ADDRESS/metrics: a loopback address with port, or unix:PATH
    #[arg(long, value_name = "ADDRESS", value_parser = metrics)]
    pub(super) metrics: Option<MetricsAddress>,
}

fn metrics(text: &str) -> Result<MetricsAddress, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
        return Ok(MetricsAddress::Unix(path.into()));
    }
    let address: SocketAddr =
        text.parse().map_err(|_| "expected 127.0.0.1:PORT, [::1]:PORT or unix:/PATH")?;
    if !address.ip().is_loopback() {
        return Err(
            "metrics are served on loopback or a UNIX socket only; a proxy can serve them to others".into()
        );
    }
    Ok(MetricsAddress::Tcp(address))
}

/// Options of one output. Each is taken by the kind that has it; those that are left are errors.
struct Options<'a> {
    kind: &'a str,
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Options<'_> {
    fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.known.push(key);
        let Some(place) = self.left.iter().position(|(name, _)| name == key) else { return Ok(None) };
        let (_, value) = self.left.remove(place);
        read(&value).map(Some).map_err(|what| format!("{key}: {what}"))
    }

    fn finish(mut self) -> Result<(), String> {
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        self.known.sort_unstable();
        let twice = self.known.iter().any(|known| known == key);
        let what =
            if twice { "is given twice".to_owned() } else { format!("is none of {}", self.known.join(", ")) };
        Err(format!("option `{key}` of {} {what}", self.kind))
    }
}

/// Size at which a file is rotated, bytes.
const ROTATE_SIZE: u64 = 100 << 20;

/// Number of rotated files that are kept.
const KEEP: u32 = 5;

fn output(text: &str) -> Result<OutputOptions, String> {
    let (head, left) = split(text)?;
    let (kind, target) = head.split_once(':').unwrap_or((&head, ""));
    let mut options = Options { kind, left, known: Vec::new() };
    let given = options.take("format", format)?;
    let ocsf = options.take("ocsf", |text| Ok(ocsf(text)?))?;
    let community_id = options.take("community-id", yes)?;
    let filter = options.take("filter", |text| expression(text).map(|expression| expression.filter))?;
    let (target, default) = match kind {
        "file" => (Target::File(file(target, &mut options)?), Format::Json),
        "syslog" => (syslog(target, &mut options)?, Format::Text),
        _ => return Err(format!("`{kind}`: the kind is one of file, syslog")),
    };
    options.finish()?;
    let log = LogOptions {
        format: given.unwrap_or(default),
        ocsf: ocsf.unwrap_or(OcsfVersion::default()),
        community_id: community_id.unwrap_or(false),
        filter: filter.unwrap_or(Filter::default()),
        zone: TimeZone::system(),
        ..LogOptions::default()
    };
    Ok(OutputOptions { target, log })
}

fn file(target: &str, options: &mut Options<'_>) -> Result<FileOptions, String> {
    let path = PathBuf::from(target);
    if !path.is_absolute() {
        return Err("expected file:PATH with an absolute path".into());
    }
    Ok(FileOptions {
        path,
        size: options.take("rotate-size", size)?.unwrap_or(ROTATE_SIZE),
        age: options.take("rotate-age", age)?,
        keep: options.take("keep", |text| text.parse().map_err(|_| "a number".into()))?.unwrap_or(KEEP),
    })
}

fn syslog(target: &str, options: &mut Options<'_>) -> Result<Target, String> {
    let over = match target.split_once(':').unwrap_or((target, "")) {
        ("unix", path) if path.starts_with('/') => Transport::Unix(path.into()),
        ("udp", host) => Transport::Udp(Host::parse(host)?),
        ("tcp", host) => Transport::Tcp(Host::parse(host)?),
        _ => return Err("expected syslog:unix:PATH, syslog:udp:HOST:PORT or syslog:tcp:HOST:PORT".into()),
    };
    let facility = options.take("facility", Facility::parse)?.unwrap_or(Facility::DAEMON);
    Ok(Target::Syslog { over, facility })
}

fn yes(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("yes or no".into()),
    }
}

/// Splits at commas that no backslash is before. `filter` takes the rest of the text.
fn split(text: &str) -> Result<(String, Vec<(String, String)>), String> {
    let (mut rest, mut parts) = (text, Vec::new());
    let head = part(&mut rest);
    while !rest.is_empty() {
        if let Some(filter) = rest.strip_prefix("filter=") {
            parts.push(("filter".to_owned(), filter.to_owned()));
            break;
        }
        let part = part(&mut rest);
        let (key, value) = part.split_once('=').ok_or(format!("`{part}`: expected KEY=VALUE"))?;
        parts.push((key.to_owned(), value.to_owned()));
    }
    Ok((head, parts))
}

/// Takes the text up to the next comma, and the comma.
fn part(rest: &mut &str) -> String {
    let mut part = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' => {
                *rest = rest.get(at + 1..).unwrap_or_default();
                return part;
            }
            '\\' => part.extend(chars.next().map(|(_, c)| c)),
            c => part.push(c),
        }
    }
    *rest = "";
    part
}

/// An `[[output]]` as the text of the option: `kind` and `to`, then the options. An error is at a place in the file.
pub(super) fn of_table(table: &DeTable<'_>) -> Result<String, (std::ops::Range<usize>, String)> {
    let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Boolean(is_set) => Ok(if *is_set { "yes" } else { "no" }.to_owned()),
        other => plain(other).ok_or((value.span(), "expected a string, a number, true or false".to_owned())),
    };
    let (mut head, mut to, mut options, mut filter) = (String::new(), None, String::new(), String::new());
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in pairs {
        let name: &str = key.get_ref();
        let is_word = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let value = text(value)?;
        match name {
            "kind" => head = escaped(&value),
            "to" => to = Some(escaped(&value)),
            "filter" => filter = format!(",filter={value}"),
            name if is_word => options.push_str(&format!(",{name}={}", escaped(&value))),
            _ => return Err((key.span(), format!("`{name}`: no such option"))),
        }
    }
    let to = to.map(|to| format!(":{to}")).unwrap_or_default();
    Ok(format!("{head}{to}{options}{filter}"))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_has_defaults() {
        let OutputOptions { target, log } = output("file:/var/log/netwatch.json").unwrap();
        let file =
            FileOptions { path: "/var/log/netwatch.json".into(), size: ROTATE_SIZE, age: None, keep: KEEP };
        assert_eq!((target, log.format), (Target::File(file), Format::Json));
        assert_eq!(log.filter.to_string(), "");
    }

    #[test]
    fn options_are_read() {
        let text =
            r"file:/x\,y,format=ecs,rotate-size=1GiB,rotate-age=1d,keep=0,filter=port:22,80 !process:curl";
        let OutputOptions { target, log } = output(text).unwrap();
        let age = Some(Duration::from_secs(86_400));
        let file = FileOptions { path: "/x,y".into(), size: 1 << 30, age, keep: 0 };
        assert_eq!((target, log.format), (Target::File(file), Format::Ecs));
        assert_eq!(log.filter.to_string(), "port:22,80 !process:curl");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in [
            ("", "kind"),
            ("carrier-pigeon:/x", "`carrier-pigeon`: the kind is one of"),
            ("file", "absolute path"),
            ("file:x", "absolute path"),
            ("file:/x,keep", "expected KEY=VALUE"),
            ("file:/x,keep=many", "keep: a number"),
            ("file:/x,keep=1,keep=2", "option `keep` of file is given twice"),
            ("file:/x,rotate=1", "option `rotate` of file is none of community-id, filter, format, keep"),
            ("file:/x,rotate-size=1", "rotate-size: at least 1MiB"),
            ("syslog", "expected syslog:unix:PATH"),
            ("syslog:unix:log", "expected syslog:unix:PATH"),
            ("syslog:sctp:h:1", "expected syslog:unix:PATH"),
            ("syslog:tcp:h", "`h`: expected HOST:PORT"),
            ("syslog:udp:h:0", "expected HOST:PORT"),
            ("syslog:udp:h:1,facility=sun", "facility: one of user, daemon"),
            ("syslog:udp:h:1,keep=1", "option `keep` of syslog is none of community-id, facility"),
            ("file:/x,format=xml", "format: one of text, json"),
            ("file:/x,filter=port:x", "filter: `port:x`: expected a port number"),
        ] {
            let error = output(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_of_a_table_is_read_as_it_was(path in "/[a-z,\\\\=: \"]{0,12}", filter in "(port:[1-9],[1-9])?") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let table = format!("kind = \"file\"\nto = \"{}\"\nfilter = \"{filter}\"\nkeep = 3", quoted(&path));
            let text = of_table(DeTable::parse(&table).unwrap().get_ref()).unwrap();
            let options = output(&text).unwrap();
            let Target::File(file) = options.target else { panic!("{text}") };
            assert_eq!((file.path, file.keep), (path.into(), 3));
            assert_eq!(options.log.filter.to_string(), filter);
        }
    }
}
