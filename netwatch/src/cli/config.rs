//! The configuration file of `netwatch record`. Every long option is a key, and clap validates its value, so that the
//! file and the command line accept the same values. The command line takes precedence over the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, Parser as _};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::record::RecordArgs;
use super::values::plain;
use super::{Cli, Sub};
use crate::{blocking, limits};

/// Read if it exists and `--config` is not given.
const DEFAULT: &str = "/etc/netwatch/netwatch.toml";

/// Merges the configuration file into the arguments of `netwatch record`. `arguments`: the whole command line, from
/// which `record` was parsed.
pub(super) fn complete(record: RecordArgs, arguments: &[OsString]) -> Result<RecordArgs, clap::Error> {
    let (path, is_asked_for) = match &record.config {
        Some(path) => (path.clone(), true),
        None => (PathBuf::from(DEFAULT), false),
    };
    let text = match blocking::text(&path, limits::CONFIG_FILE, limits::READ_WAIT) {
        Ok(text) => text,
        Err(error) if !is_asked_for && error.kind() == std::io::ErrorKind::NotFound => return Ok(record),
        Err(error) => return Err(wrong(&format!("{}: cannot be read: {error}", path.display()))),
    };
    let options = read(&text).map_err(|error| wrong(&format!("{}:{error}", path.display())))?;
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let given = matches.subcommand_matches("record");
    let mut all: Vec<OsString> = arguments.iter().take(2).cloned().collect();
    all.extend(
        options.into_iter().filter(|option| !is_given(&option.id, given)).flat_map(|option| option.words),
    );
    all.extend(arguments.iter().skip(2).cloned());
    match Cli::try_parse_from(all).map_err(|error| in_file(&path, &error))?.command {
        Sub::Record(record) => Ok(*record),
        _ => Ok(record),
    }
}

/// The option whose values may be tables.
const OUTPUT: &str = "output";

/// Options that may be together in a table.
const SHIP: &str = "ship";

/// Options that set the same value.
const SAME: [[&str; 2]; 1] = [["format", "json"]];

/// Whether the command line sets this option, or one that sets the same value.
fn is_given(id: &str, given: Option<&ArgMatches>) -> bool {
    let same = SAME.iter().filter(|pair| pair.contains(&id)).flatten().copied();
    given.is_some_and(|given| {
        std::iter::once(id).chain(same).any(|id| given.value_source(id) == Some(ValueSource::CommandLine))
    })
}

/// A key with its values, as command line arguments.
struct ReadOption {
    id: String,
    words: Vec<OsString>,
}

/// The options of a file. Errors have the form `LINE: KEY: WHAT`.
fn read(text: &str) -> Result<Vec<ReadOption>, String> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("{}: {}", line(at), one_line(error.message()))
    })?;
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let command = Cli::command();
    let record = command.find_subcommand("record").ok_or("0: no such command")?;
    let mut options = Vec::new();
    for (key, value) in unfolded(pairs) {
        let name = &*key.name;
        let at = |span: std::ops::Range<usize>, what: &str| format!("{}: {name}: {what}", line(span.start));
        let known = record.get_arguments().find(|arg| arg.get_long() == Some(name) && is_key(arg));
        let known =
            known.ok_or_else(|| at(key.span.clone(), "no such option: see `netwatch record --help`"))?;
        let mut words = Vec::new();
        for (span, word) in words_of(known, name, value).map_err(|(span, what)| at(span, &what))? {
            let mut alone = vec!["netwatch".into(), "record".into(), word.clone()];
            if name.starts_with("ship-") {
                // They make sense with it only.
                alone.push("--ship=http://localhost".into());
            }
            if let Err(error) = Cli::try_parse_from(alone) {
                return Err(at(span, &complaint(&error)));
            }
            words.push(word);
        }
        options.push(ReadOption { id: known.get_id().to_string(), words });
    }
    Ok(options)
}

/// A key of the file as the option that it sets.
struct Key {
    name: String,
    span: Span,
}

/// A table `[ship]` has the options that begin with its name, and `url`.
fn unfolded<'t, 'd>(
    pairs: Vec<(&'t Spanned<DeString<'d>>, &'t Spanned<DeValue<'d>>)>,
) -> Vec<(Key, &'t Spanned<DeValue<'d>>)> {
    let mut all = Vec::new();
    for (key, value) in pairs {
        let name: &str = key.get_ref();
        match value.get_ref() {
            DeValue::Table(table) if name == SHIP => {
                let start = all.len();
                for (inner, value) in table.iter() {
                    let option: &str = inner.get_ref();
                    let name = if option == "url" { name.to_owned() } else { format!("{name}-{option}") };
                    all.push((Key { name, span: inner.span() }, value));
                }
                if let Some(new) = all.get_mut(start..) {
                    new.sort_by_key(|(key, _)| key.span.start);
                }
            }
            _ => all.push((Key { name: name.to_owned(), span: key.span() }, value)),
        }
    }
    all
}

/// Excludes options that only make sense on the command line, and those for tests.
fn is_key(arg: &Arg) -> bool {
    let is_other = matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort);
    !arg.is_hide_set() && !is_other && arg.get_long() != Some("config")
}

/// A place in the file, in bytes.
type Span = std::ops::Range<usize>;

/// The arguments of a key, each with its place.
fn words_of(
    arg: &Arg,
    name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<(Span, OsString)>, (Span, String)> {
    let takes_value = arg.get_action().takes_values();
    let (span, wrong) = (value.span(), |what: &str| (value.span(), what.to_owned()));
    let word = |value: String| format!("--{name}={value}").into();
    match value.get_ref() {
        DeValue::Boolean(is_set) if !takes_value => {
            Ok(if *is_set { vec![(span, format!("--{name}").into())] } else { Vec::new() })
        }
        _ if !takes_value => Err(wrong("expected true or false")),
        DeValue::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
                DeValue::Table(table) if name == OUTPUT => {
                    Ok((value.span(), word(super::output::of_table(table)?)))
                }
                _ => match plain(value.get_ref()) {
                    Some(plain) => Ok((value.span(), word(plain))),
                    None => Err(wrong("expected strings or numbers")),
                },
            };
            values.iter().map(one).collect()
        }
        value => Ok(vec![(span, word(plain(value).ok_or(wrong("expected a string or a number"))?))]),
    }
}

/// clap's message about a value, without its prefix and suffix, since the caller adds file and line.
fn complaint(error: &clap::Error) -> String {
    let message = super::one_line(error);
    let message = message.strip_prefix("netwatch: ").unwrap_or(&message);
    message.split("; see `netwatch").next().unwrap_or(message).to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrong(what: &str) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, what)
}

/// An error about options of file and command line that conflict.
fn in_file(path: &Path, error: &clap::Error) -> clap::Error {
    wrong(&format!("{} and the command line: {}", path.display(), complaint(error)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::{Command, parse};
    use crate::commands::record::RecordOptions;
    use crate::output::Format;

    fn record(file: &str, line: &str) -> Result<RecordOptions, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("netwatch.toml");
        std::fs::write(&path, file).unwrap();
        let words = line.split_whitespace().map(OsString::from);
        let start = ["netwatch", "record", "--config"].map(OsString::from);
        let all = start.into_iter().chain([path.clone().into_os_string()]).chain(words);
        match parse(all) {
            Ok(Command::Record(options)) => Ok(*options),
            Ok(_) => panic!("another command"),
            Err(error) => Err(super::super::one_line(&error).replace(path.to_str().unwrap(), "FILE")),
        }
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let file = "# of a test\nstore = '/x/y.db'\nretain = \"7d\"\nmax-size = '1GiB'\nprint = true\nport = [22, 0x50]\n\
                    origin = 'local'\nring = 1_048_576\njson = true\nnetns = 'all'\n";
        let options = record(file, "").unwrap();
        assert_eq!(options.store, Path::new("/x/y.db"));
        assert_eq!(options.retention.age.as_secs(), 7 * 86_400);
        assert_eq!((options.retention.size, options.kernel.ring_bytes), (1 << 30, 1 << 20));
        assert_eq!(options.filter.to_string(), "port:22,80 origin:local");
        assert_eq!(options.print.unwrap().format, Format::Json);
        assert_eq!(options.filter_words.as_deref(), Some("--port 22,80 --origin local"));
        assert!(record("print = false", "").unwrap().print.is_none());
    }

    #[test]
    fn an_expression_is_a_value() {
        let options = record("filter = 'process:curl !port:53'\nuser = 0", "").unwrap();
        assert_eq!(options.filter.to_string(), "user:0 process:curl !port:53");
        assert_eq!(options.filter_words.as_deref(), Some("--user 0 --filter 'process:curl !port:53'"));
        let error = record("\nfilter = 'port:x'", "").map(|_| ()).unwrap_err();
        assert!(
            error.starts_with("netwatch: FILE:2: filter: ") && error.contains("`port:x`: expected"),
            "{error}"
        );
    }

    #[test]
    fn the_command_line_takes_precedence() {
        let options = record("port = 22\nprint = true\njson = true", "--port 80 --format text").unwrap();
        assert_eq!(options.filter.to_string(), "port:80");
        assert_eq!(options.print.unwrap().format, Format::Text);
    }

    #[test]
    fn errors_name_the_line() {
        for (file, expected) in [
            ("prot = 22", "FILE:1: prot: no such option"),
            ("print = true\n\nport = 99999", "FILE:3: port: "),
            ("port = 'x'", "FILE:1: port: "),
            ("\nretain = 'soon'", "FILE:2: retain: "),
            ("print = 'yes'", "FILE:1: print: expected true or false"),
            ("store = true", "FILE:1: store: expected a string or a number"),
            ("origin = ['local']", "FILE:1: origin: expected a string or a number"),
            ("port = [[1]]", "FILE:1: port: expected strings or numbers"),
            ("[record]\nport = 22", "FILE:1: record: no such option"),
            ("port = 22\nport = 23", "FILE:2: "),
            ("port = ", "FILE:1: "),
            ("config = 'x'", "FILE:1: config: no such option"),
            ("help = true", "FILE:1: help: no such option"),
            ("sabotage = 'x'", "FILE:1: sabotage: no such option"),
        ] {
            let error = record(file, "").map(|_| ()).unwrap_err();
            assert!(error.starts_with(&format!("netwatch: {expected}")), "{file}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn outputs_are_tables_or_strings() {
        let file = "port = 22\n[[output]]\nkind = 'file'\nto = '/x,y'\nfilter = 'port:22,80'\nkeep = 2\n\n\
                    [[output]]\nkind = 'file'\nto = '/z'\ncommunity-id = true\n";
        let names = |options: RecordOptions| -> Vec<_> {
            options.outputs.iter().map(|output| output.target.to_string()).collect()
        };
        let options = record(file, "").unwrap();
        assert_eq!(options.outputs.iter().map(|o| o.log.community_id).collect::<Vec<_>>(), [false, true]);
        assert_eq!(options.outputs.first().unwrap().log.filter.to_string(), "port:22,80");
        assert_eq!(names(options), ["file:/x,y", "file:/z"]);
        assert_eq!(names(record(file, "--output file:/other").unwrap()), ["file:/other"]);
        let strings = "output = ['file:/a', 'file:/b,keep=1']";
        assert_eq!(names(record(strings, "").unwrap()), ["file:/a", "file:/b"]);
        for (file, expected) in [
            ("\n[[output]]\nkind = 'file'\nto = '/x'\nkepe = 1\n", "2: output: invalid value"),
            (
                "[[output]]\nkind = 'file'\nto = '/x'\n\n[[output]]\nkind = 'fiel'\n",
                "5: output: invalid value",
            ),
            ("[[output]]\nkind = 'file'\nto = ['/x']\n", "3: output: expected a string"),
            ("[[output]]\nkind = 'file'\nTo = '/x'\n", "3: output: `To`: no such option"),
            ("[output]\nkind = 'file'\nto = '/x'\n", "1: output: expected a string or a number"),
            ("\noutput = ['file:/a',\n'fiel:/b']", "3: output: invalid value 'fiel:/b'"),
        ] {
            let error = record(file, "").map(|_| ()).unwrap_err();
            assert!(error.starts_with(&format!("netwatch: FILE:{expected}")), "{file}: {error}");
        }
    }

    #[test]
    fn a_table_has_the_options_of_shipping() {
        let file = "port = 22\n[ship]\nurl = 'http://db1/x'\nuser = 'agent'\npassword-file = '/p'\nrate = '1MiB'\n\
                    label = ['a=b', 'c=d']\n";
        let ship = record(file, "").unwrap().ship.unwrap();
        assert_eq!(ship.server.url.to_string(), "http://db1:8123/x");
        assert_eq!((ship.server.user.as_deref(), ship.rate), (Some("agent"), Some(1 << 20)));
        assert_eq!(ship.labels, ["a=b", "c=d"]);
        let ship = record(file, "--ship https://db2").unwrap().ship.unwrap();
        assert_eq!(ship.server.url.to_string(), "https://db2:8443/netwatch");
        for (file, expected) in [
            ("\n[ship]\nurl = 'db1'\n", "3: ship: invalid value"),
            ("[ship]\nurl = 'http://a'\nlabel = ['x']", "3: ship-label: invalid value"),
            ("[ship]\nname = 'a'\n", " and the command line: the following required arguments"),
            ("[ship]\ncolour = 'red'\n", "2: ship-colour: no such option"),
        ] {
            let error = record(file, "").map(|_| ()).unwrap_err();
            assert!(
                error
                    .contains(&format!("FILE{}{expected}", if expected.starts_with(' ') { "" } else { ":" })),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_over_the_limit_is_an_error() {
        let of_length = |length: usize| record(&format!("#{}", "x".repeat(length - 1)), "").map(|_| ());
        assert_eq!(of_length(limits::CONFIG_FILE), Ok(()));
        let error = of_length(limits::CONFIG_FILE + 1).unwrap_err();
        assert!(error.starts_with("netwatch: FILE: cannot be read: larger than 1 MiB"), "{error}");
        let Err(error) = parse(["netwatch", "record", "--config", "/dev/zero"].map(OsString::from)) else {
            panic!("it was read")
        };
        assert!(super::super::one_line(&error).contains("/dev/zero: cannot be read: larger than 1 MiB"));
    }

    proptest! {
        #[test]
        fn no_file_panics(text in r#"(print|port|store|x|=|\[|\]|true|[0-9]{1,3}|'|"|\n| |\.|\{|\}){0,24}"#) {
            let _ = read(&text);
        }
    }
}
