//! `netwatch verify`: whether the store is what was written.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::store::{self, Checked, Link, Reader};

/// What to check.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The database.
    pub store: PathBuf,
    /// Against what.
    pub anchor: Anchor,
    /// One object instead of a sentence.
    pub json: bool,
}

/// What to do with a link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing.
    None,
    /// The newest is printed.
    Print,
    /// This one has to be there.
    Check(Link),
}

/// Something was found.
pub(super) const FOUND: u8 = 3;

/// Checks, and prints what was found.
///
/// # Errors
/// Where the store cannot be read, or `out` fails.
pub fn run(options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let reader = Reader::open(&options.store)?;
    let anchor = match options.anchor {
        Anchor::Print => return print_newest(&reader, options, out),
        Anchor::Check(link) => Some(link),
        Anchor::None => None,
    };
    let checked = store::verify(&reader, anchor)?;
    let verdict = Verdict::of(&checked, anchor);
    if options.json {
        serde_json::to_writer(&mut *out, &verdict)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", verdict.sentence())?;
    }
    Ok(if verdict.holds { ExitCode::SUCCESS } else { FOUND.into() })
}

fn print_newest(reader: &Reader, options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let Some((link, batch, ts)) = store::newest(reader)? else {
        anyhow::bail!("nothing was recorded yet: there is no link to keep");
    };
    if options.json {
        let anchor = serde_json::json!({"anchor": link.to_string(), "batch": batch, "ts": time(ts)});
        writeln!(out, "{anchor}")?;
    } else {
        writeln!(out, "{link}")?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Verdict {
    holds: bool,
    batches: u64,
    rows: u64,
    /// First and last batch.
    range: Option<(i64, i64)>,
    newest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<Pruned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Broken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<AnchorFound>,
}

#[derive(Serialize)]
struct Pruned {
    through: i64,
    ts: Option<String>,
}

#[derive(Serialize)]
struct Broken {
    batch: i64,
    ts: Option<String>,
    why: String,
}

#[derive(Serialize)]
struct AnchorFound {
    link: String,
    batch: Option<i64>,
}

fn time(ts: i64) -> Option<String> {
    let time = Timestamp::from_nanosecond(ts.into()).ok().filter(|_| ts != 0)?;
    Some(format!("{time:.3}"))
}

impl Verdict {
    fn of(checked: &Checked, anchor: Option<Link>) -> Self {
        Self {
            holds: checked.broken.is_none() && (anchor.is_none() || checked.anchored.is_some()),
            batches: checked.batches,
            rows: checked.rows,
            range: checked.range,
            newest: checked.newest.map(|link| link.to_string()),
            pruned: checked.pruned.map(|(through, ts)| Pruned { through, ts: time(ts) }),
            broken: checked.broken.as_ref().map(|broken| Broken {
                batch: broken.batch,
                ts: time(broken.ts),
                why: broken.why.clone(),
            }),
            anchor: anchor.map(|link| AnchorFound { link: link.to_string(), batch: checked.anchored }),
        }
    }

    fn sentence(&self) -> String {
        let pruned = self.pruned.as_ref().map_or_else(String::new, |pruned| {
            let when = pruned.ts.as_deref().unwrap_or("some time");
            format!("; retention dropped all through batch {} at {when}", pruned.through)
        });
        if let Some(broken) = &self.broken {
            let when = broken.ts.as_ref().map_or_else(String::new, |ts| format!(", written {ts}"));
            return format!("ALTERED: batch {}{when}: {}{pruned}", broken.batch, broken.why);
        }
        let range = self.range.map_or_else(String::new, |(from, to)| format!(" ({from} to {to})"));
        let held = format!("{} batches{range} with {} rows hold", self.batches, self.rows);
        match &self.anchor {
            Some(AnchorFound { batch: None, .. }) => format!(
                "ALTERED: the anchor is not in the chain{pruned}, though {held}: the store was cut, or \
                 hashed anew, or the anchor is older than what is kept"
            ),
            Some(AnchorFound { batch: Some(batch), .. }) => {
                format!("{held}{pruned}; the anchor is batch {batch}")
            }
            None => format!("{held}{pruned}"),
        }
    }
}
