//! What is typed after `/`: words that all have to match. `key:value` is a condition, `!` negates a word, and a word
//! without a key matches anywhere in the line.

use std::net::IpAddr;

use globset::{Glob, GlobMatcher};

use crate::filter::Filter;
use crate::model::{Family, Proto};
use crate::origin::Side;
use crate::signs;
use crate::tracker::ConnectionEvent;

/// Selects connections by the last event of each.
pub trait Find: Send {
    /// Whether it is shown.
    fn shows(&self, event: &ConnectionEvent) -> bool;

    /// The options of `netwatch log` that select the same, and the words that it has no option for.
    fn options(&self) -> (Vec<String>, Vec<String>);
}

/// Reads a filter.
///
/// # Errors
/// A sentence about the first word that has no meaning.
pub fn parse(text: &str) -> Result<Box<dyn Find>, String> {
    let words = text.split_whitespace().map(Word::parse).collect::<Result<_, _>>()?;
    Ok(Box::new(Words(words)))
}

struct Words(Vec<Word>);

struct Word {
    is_negated: bool,
    text: String,
    test: Test,
}

enum Test {
    /// A condition, and its option of `netwatch log`.
    Filter(Box<Filter>, String),
    /// In lower case.
    Anywhere(String),
}

impl Find for Words {
    fn shows(&self, event: &ConnectionEvent) -> bool {
        self.0.iter().all(|word| word.is_negated != word.test.shows(event))
    }

    fn options(&self) -> (Vec<String>, Vec<String>) {
        let (mut options, mut others) = (Vec::new(), Vec::new());
        for word in &self.0 {
            match &word.test {
                Test::Filter(_, option) if !word.is_negated => options.push(option.clone()),
                _ => others.push(word.text.clone()),
            }
        }
        (options, others)
    }
}

/// The keys, for error messages.
const KEYS: &str = "process, pid, user, port, local, remote, origin, proto, family, container, device";

impl Word {
    fn parse(text: &str) -> Result<Self, String> {
        let (is_negated, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let key = rest.split_once(':').filter(|(key, _)| {
            // An IPv6 address or a port has colons, too.
            !key.is_empty()
                && key.bytes().all(|byte| byte.is_ascii_lowercase())
                && rest.parse::<IpAddr>().is_err()
        });
        let test = match key {
            Some((key, value)) => condition(key, value)?,
            None => Test::Anywhere(rest.to_lowercase()),
        };
        Ok(Self { is_negated, text: text.to_owned(), test })
    }
}

fn condition(key: &str, value: &str) -> Result<Test, String> {
    if value.is_empty() {
        return Err(format!("{key}: has no value"));
    }
    let none = Filter::default;
    let wrong = |what: &str| format!("{key}:{value}: {what}");
    let filter = match key {
        "process" => Filter { process: Some(glob(value).map_err(|error| wrong(&error))?), ..none() },
        "pid" => Filter { pid: Some(value.parse().map_err(|_| wrong("not a number"))?), ..none() },
        "user" => Filter { uid: Some(value.parse().map_err(|_| wrong("not a user id"))?), ..none() },
        "port" => {
            let ports = value.split(',').map(str::parse).collect::<Result<_, _>>();
            Filter { ports: ports.map_err(|_| wrong("not a port up to 65535"))?, ..none() }
        }
        "local" => Filter { local: Some(value.parse().map_err(wrong)?), ..none() },
        "remote" => Filter { remote: Some(value.parse().map_err(wrong)?), ..none() },
        "origin" => {
            let sides = [Side::Local, Side::Remote, Side::Both, Side::Unknown];
            let side = sides.into_iter().find(|side| side.name() == value);
            Filter { origin: Some(side.ok_or_else(|| wrong("local, remote, both or unknown"))?), ..none() }
        }
        "proto" => {
            let proto = [Proto::Tcp, Proto::Udp].into_iter().find(|proto| proto.name() == value);
            Filter { proto: Some(proto.ok_or_else(|| wrong("tcp or udp"))?), ..none() }
        }
        "family" => {
            let (family, letter) = match value {
                "ipv4" | "4" => (Family::Ipv4, "-4"),
                "ipv6" | "6" => (Family::Ipv6, "-6"),
                _ => return Err(wrong("ipv4 or ipv6")),
            };
            let filter = Filter { family: Some(family), ..none() };
            return Ok(Test::Filter(Box::new(filter), letter.into()));
        }
        "container" => Filter { container: Some(value.into()), ..none() },
        "device" => Filter { device: Some(value.into()), ..none() },
        _ => return Err(format!("no key {key}: {KEYS}")),
    };
    Ok(Test::Filter(Box::new(filter), format!("--{key} {}", quoted(value))))
}

fn glob(text: &str) -> Result<GlobMatcher, String> {
    Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,%@+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Test {
    fn shows(&self, event: &ConnectionEvent) -> bool {
        match self {
            Self::Filter(filter, _) => filter.shows(event),
            Self::Anywhere(text) => is_anywhere(text, event),
        }
    }
}

/// Whether the text is in a name, an argument, an address, or a word about the connection.
fn is_anywhere(text: &str, event: &ConnectionEvent) -> bool {
    let endpoint = &event.endpoint;
    let has = |other: &str| other.to_lowercase().contains(text);
    let verdict = endpoint.verdict;
    let words = [
        endpoint.state.name(),
        endpoint.proto.name(),
        event.kind.name(),
        verdict.side.name(),
        verdict.basis.name(),
        verdict.confidence.name(),
        event.facts.service.unwrap_or_default(),
    ];
    if words.into_iter().any(has) || has(&endpoint.local.to_string()) {
        return true;
    }
    if endpoint.remote.is_some_and(|remote| has(&remote.to_string())) {
        return true;
    }
    let actors = endpoint.actors();
    [actors.process, actors.originator, actors.peer].into_iter().flatten().any(|actor| {
        let process = &actor.process;
        has(&process.comm)
            || process.key.pid.to_string() == text
            || process.image.exe.as_deref().is_some_and(has)
            || process.image.args.iter().any(has)
            || has(&process.cgroup)
            || signs::of_process(process, process.exe_status()).any(|sign| has(sign.text()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Verdict;
    use crate::process::Actor;
    use crate::process::tests::process;
    use crate::tracker::EventKind;
    use crate::tracker::tests::event;

    fn shows(text: &str, event: &ConnectionEvent) -> bool {
        parse(text).unwrap().shows(event)
    }

    #[test]
    fn words_have_to_match_all() {
        let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:443"));
        open.endpoint.verdict = Verdict::CONNECT;
        open.endpoint.process = Some(Actor::leader(process(77, None)));
        for (text, expected) in [
            ("", true),
            ("process:p7*", true),
            ("process:p7* origin:local port:443 !port:53", true),
            ("process:p7* origin:remote", false),
            ("!port:443", false),
            ("!origin:remote remote:10.0.0.0/24:443", true),
            ("pid:77 proto:tcp family:ipv4", true),
            ("family:ipv6", false),
            ("P77", true),
            ("77", true),
            ("10.0.0.2", true),
            (":443", true),
            ("10.0.0.3", false),
            ("!10.0.0.3 connect", true),
            ("::1", false),
            ("!::1", true),
        ] {
            assert_eq!(shows(text, &open), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in [
            ("port:70000", "65535"),
            ("nonsense:1", "process, pid"),
            ("process:[", "process:["),
            ("origin:up", "local, remote, both or unknown"),
            ("port:", "no value"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn options_of_log_select_the_same() {
        let find = parse("process:a*b port:53,80 family:6 !port:22 word").unwrap();
        let (options, others) = find.options();
        assert_eq!(options, ["--process 'a*b'", "--port 53,80", "-6"]);
        assert_eq!(others, ["!port:22", "word"]);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
