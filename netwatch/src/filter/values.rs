//! Values of conditions, the same in options and expressions.

use globset::{Glob, GlobMatcher};

use crate::model::{Family, Proto};
use crate::origin::{Basis, Confidence, Side};
use crate::signs::Sign;
use crate::tracker::EventKind;

use super::Condition;

/// A pattern of names.
///
/// # Errors
/// What is wrong with it.
pub fn glob(text: &str) -> Result<GlobMatcher, String> {
    Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

/// A pattern of names of hosts, which have no upper case and no dot at the end.
///
/// # Errors
/// What is wrong with it.
pub fn host(text: &str) -> Result<GlobMatcher, String> {
    glob(&text.strip_suffix('.').unwrap_or(text).to_lowercase())
}

/// An originating side.
///
/// # Errors
/// The names that there are, as with the other values.
pub fn side(text: &str) -> Result<Side, String> {
    one_of(text, &[Side::Local, Side::Remote, Side::Both, Side::Unknown], |side| side.name())
}

/// A kind of event.
///
/// # Errors
/// See [`side`].
pub fn kind(text: &str) -> Result<Condition, String> {
    let kinds = EventKind::ALL.into_iter().map(Condition::Event).chain([Condition::Alert]);
    one_of(text, &kinds.collect::<Vec<_>>(), Condition::kind)
}

/// Protocols of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protos {
    /// This one.
    One(Proto),
    /// Those of all raw and ping sockets.
    Raw,
}

impl Protos {
    /// How the filter says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One(proto) => proto.name(),
            Self::Raw => "raw",
        }
    }

    pub(super) fn have(self, proto: Proto) -> bool {
        match self {
            Self::One(one) => one == proto,
            Self::Raw => proto.is_raw(),
        }
    }
}

/// Protocols.
///
/// # Errors
/// See [`side`].
pub fn protos(text: &str) -> Result<Protos, String> {
    if let Some(number) = text.strip_prefix("raw:") {
        let number = number.parse().map_err(|_| "raw:N has an IP protocol number up to 255".to_owned())?;
        return Ok(Protos::One(Proto::of_raw(number)));
    }
    let known: Vec<_> = Proto::NAMED.map(Protos::One).into_iter().chain([Protos::Raw]).collect();
    one_of(text, &known, |protos| protos.name())
}

pub(super) fn basis(text: &str) -> Result<Basis, String> {
    one_of(text, &Basis::ALL, |basis| basis.name())
}

pub(super) fn confidence(text: &str) -> Result<Confidence, String> {
    one_of(text, &Confidence::ALL, |confidence| confidence.name())
}

pub(super) fn sign(text: &str) -> Result<Sign, String> {
    one_of(text, &Sign::ALL, |sign| sign.name())
}

pub(super) fn family(text: &str) -> Result<Family, String> {
    match text {
        "4" | "ipv4" => Ok(Family::Ipv4),
        "6" | "ipv6" => Ok(Family::Ipv6),
        _ => Err("4 or 6".into()),
    }
}

/// The value with this name, or the names that there are.
fn one_of<T: Clone>(text: &str, all: &[T], name: impl Fn(&T) -> &'static str) -> Result<T, String> {
    all.iter().find(|one| name(one) == text).cloned().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(name).collect();
        match names.split_last() {
            Some(_) if names.len() > 4 => format!("one of {}", names.join(", ")),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    })
}
