//! Filter expressions: `process:curl origin:local !port:53`.
//!
//! Terms are separated by spaces and combined with AND. A term is `KEY:VALUE[,VALUE]`, of which at least one value has to
//! match, or text that may occur anywhere. `!` before a term negates it. Double quotes hold spaces, commas and text that
//! would be a key; in them a backslash quotes the next character.

use std::fmt;
use std::net::IpAddr;

use super::{Condition, Filter, Term, values};
use crate::model::{Family, NetnsId};

/// What an expression may ask about the host.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// The id of a user, or why it is not known.
    pub user: &'a dyn Fn(&str) -> Result<u32, String>,
    /// The network namespace of netwatch, or why it is not known.
    pub own_netns: &'a dyn Fn() -> Result<NetnsId, String>,
}

impl fmt::Debug for Lookup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// An expression as it was written, with its meaning.
#[derive(Clone, Debug)]
pub struct Expression {
    /// As it was written.
    pub text: String,
    /// What it selects.
    pub filter: Filter,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// The first term that is wrong, with what is expected.
    pub fn parse(text: &str, lookup: Lookup<'_>) -> Result<Self, String> {
        let terms = words(text)?.iter().map(|word| term(word, lookup)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), filter: Filter::new(terms) })
    }
}

/// Parses an expression without asking the host: a user and a network namespace are given by number, since a question to
/// the name service would hold up who waits.
///
/// # Errors
/// A sentence about the first word that has no meaning.
pub fn by_numbers(text: &str) -> Result<Expression, String> {
    let user = |name: &str| name.parse().map_err(|_| "a user is given by id here".to_owned());
    let own_netns = || Err("a network namespace is given by number here".to_owned());
    Expression::parse(text, Lookup { user: &user, own_netns: &own_netns })
}

/// Reads the value of a key.
type Read = fn(&str, Lookup<'_>) -> Result<Condition, String>;

/// A key, what its values are if the reader does not say so, and how one is read.
type Key = (&'static str, &'static str, Read);

/// Another key needs a condition, a row here, and a row in docs/filters.md.
const KEYS: [Key; 18] = [
    ("pid", "a process id", |text, _| number(text).map(Condition::Pid)),
    ("process", "a pattern of its name or path", |text, _| values::glob(text).map(Condition::Process)),
    ("exe", "a pattern of its path or file name", |text, _| values::glob(text).map(Condition::Exe)),
    ("user", "a name or an id", |text, lookup| (lookup.user)(text).map(Condition::User)),
    ("container", "an id or a name", |text, _| Ok(Condition::Container(text.to_owned()))),
    ("port", "a port number up to 65535", |text, _| number(text).map(Condition::Port)),
    ("local", "ADDRESS, CIDR or CIDR:PORT", |text, _| address(text).map(Condition::Local)),
    ("remote", "ADDRESS, CIDR or CIDR:PORT", |text, _| address(text).map(Condition::Remote)),
    ("origin", "", |text, _| values::side(text).map(Condition::Origin)),
    ("basis", "", |text, _| values::basis(text).map(Condition::Basis)),
    ("confidence", "", |text, _| values::confidence(text).map(Condition::Confidence)),
    ("event", "", |text, _| values::kind(text)),
    ("proto", "", |text, _| values::protos(text).map(Condition::Proto)),
    ("family", "", |text, _| values::family(text).map(Condition::Family)),
    ("netns", "an inode number or `self`", netns),
    ("device", "a name or an index", |text, _| Ok(Condition::Device(text.to_owned()))),
    ("name", "a pattern of the name of a host", |text, _| values::host(text).map(Condition::Name)),
    ("sign", "", |text, _| values::sign(text).map(Condition::Sign)),
];

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| String::new())
}

fn address(text: &str) -> Result<super::AddressPattern, String> {
    text.parse().map_err(|_| String::new())
}

fn netns(text: &str, lookup: Lookup<'_>) -> Result<Condition, String> {
    match text {
        "self" => (lookup.own_netns)().map(Condition::Netns),
        inum => number(inum).map(|inum| Condition::Netns(NetnsId::new(inum))),
    }
}

/// A character of an expression, and whether it was quoted.
type Char = (char, bool);

/// Splits an expression at spaces.
fn words(text: &str) -> Result<Vec<Vec<Char>>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<Char>> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(chars.next().map(|c| (c, true))),
                        Some(c) => word.push((c, true)),
                        None => return Err(format!("`{}`: the quote is not closed", plain(word))),
                    }
                }
            }
            c => word.get_or_insert_default().push((c, false)),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Without quotes.
fn plain(chars: &[Char]) -> String {
    chars.iter().map(|(c, _)| c).collect()
}

fn term(word: &[Char], lookup: Lookup<'_>) -> Result<Term, String> {
    let negations = word.iter().take_while(|c| **c == ('!', false)).count();
    let (_, rest) = word.split_at(negations);
    let conditions = match key_and_value(rest)? {
        Some((key, value)) => alternatives(value)
            .map(|one| {
                condition(key, &plain(one), lookup).map_err(|what| format!("`{}`: {what}", plain(word)))
            })
            .collect::<Result<Vec<_>, _>>()?,
        None => alternatives(rest)
            .map(|one| {
                anywhere(one, lookup).ok_or_else(|| format!("`{}`: expected text or KEY:VALUE", plain(word)))
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    Ok(Term::any(conditions).with_negation(negations % 2 == 1))
}

/// Separates a key from its value; `None` for text.
fn key_and_value(word: &[Char]) -> Result<Option<(&'static Key, &[Char])>, String> {
    let Some(colon) = word.iter().position(|c| *c == (':', false)) else { return Ok(None) };
    let (name, value) = word.split_at(colon);
    if name.is_empty() || !name.iter().all(|(c, is_quoted)| c.is_ascii_alphabetic() && !is_quoted) {
        return Ok(None);
    }
    let name = plain(name);
    match KEYS.iter().find(|(key, ..)| *key == name) {
        Some(key) => Ok(Some((key, value.get(1..).unwrap_or_default()))),
        // An IPv6 address may begin with letters.
        None if plain(word).parse::<IpAddr>().is_ok() => Ok(None),
        None => {
            let names: Vec<_> = KEYS.iter().map(|(key, ..)| *key).collect();
            let (word, names) = (plain(word), names.join(", "));
            Err(format!("`{word}`: no key `{name}`; keys are {names}; text is searched for in double quotes"))
        }
    }
}

/// The parts between commas.
fn alternatives(value: &[Char]) -> impl Iterator<Item = &[Char]> {
    value.split(|c| *c == (',', false))
}

fn condition((_, expected, read): &Key, value: &str, lookup: Lookup<'_>) -> Result<Condition, String> {
    let read =
        if value.is_empty() && !expected.is_empty() { Err(String::new()) } else { read(value, lookup) };
    read.map_err(|what| match (*expected, &*what) {
        ("", names) => format!("expected {names}"),
        (expected, "") => format!("expected {expected}"),
        (_, what) => what.to_owned(),
    })
}

/// `None` for a text without a character.
fn anywhere(word: &[Char], lookup: Lookup<'_>) -> Option<Condition> {
    let text = plain(word);
    let is_quoted = word.iter().any(|(_, is_quoted)| *is_quoted);
    match &*text {
        "" => None,
        "4" if !is_quoted => Some(Condition::Family(Family::Ipv4)),
        "6" if !is_quoted => Some(Condition::Family(Family::Ipv6)),
        _ => {
            let may_be_user = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
            // A number is part of an address rather than a user.
            let is_user = may_be_user && text.parse::<u32>().is_err();
            let user = is_user.then(|| (lookup.user)(&text).ok()).flatten();
            Some(Condition::Text(text.to_lowercase(), user))
        }
    }
}

impl Condition {
    /// Key and value; text has no key.
    fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Pid(pid) => ("pid", pid.to_string()),
            Self::Process(glob) => ("process", glob.glob().to_string()),
            Self::Exe(glob) => ("exe", glob.glob().to_string()),
            Self::User(uid) => ("user", uid.to_string()),
            Self::Port(port) => ("port", port.to_string()),
            Self::Local(pattern) => ("local", pattern.to_string()),
            Self::Remote(pattern) => ("remote", pattern.to_string()),
            Self::Origin(side) => ("origin", side.name().into()),
            Self::Basis(basis) => ("basis", basis.name().into()),
            Self::Confidence(confidence) => ("confidence", confidence.name().into()),
            Self::Event(_) | Self::Alert => ("event", self.kind().into()),
            Self::Proto(proto) => ("proto", proto.name().into()),
            Self::Family(Family::Ipv4) => ("family", "4".into()),
            Self::Family(Family::Ipv6) => ("family", "6".into()),
            Self::Container(id) => ("container", id.clone()),
            Self::Netns(netns) => ("netns", netns.to_string()),
            Self::Device(device) => ("device", device.clone()),
            Self::Name(glob) => ("name", glob.glob().to_string()),
            Self::Sign(sign) => ("sign", sign.name().into()),
            Self::Text(text, _) => ("", text.clone()),
        }
    }

    /// The kind of event that it selects; empty for another condition.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Event(kind) => kind.name(),
            Self::Alert => "alert",
            _ => "",
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.parts().0
    }
}

/// As it is written in an expression.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_negated {
            f.write_str("!")?;
        }
        for (nth, condition) in self.any.iter().enumerate() {
            let (key, value) = condition.parts();
            match nth {
                0 if !key.is_empty() => write!(f, "{key}:")?,
                0 => {}
                _ => f.write_str(",")?,
            }
            let is_safe = |c: char| c.is_alphanumeric() || "._:/@*?[]{}-".contains(c);
            if !key.is_empty() && !value.is_empty() && value.chars().all(is_safe) {
                f.write_str(&value)?;
            } else {
                write!(f, "\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}
