//! The output of `verify`: one sentence or one object.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::store::{Checked, Link};

/// Result of the verification.
#[derive(Serialize)]
pub(crate) struct Verdict {
    pub(crate) holds: bool,
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
    anchor: Option<AnchorView>,
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
struct AnchorView {
    link: String,
    /// `None`: the link is not in the chain.
    batch: Option<i64>,
}

impl Verdict {
    /// `anchor`: the link that was searched for, if one was given.
    pub(crate) fn of(checked: &Checked, anchor: Option<Link>) -> Self {
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
            anchor: anchor.map(|link| AnchorView { link: link.to_string(), batch: checked.anchored }),
        }
    }

    /// As one object.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes one sentence.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.sentence())
    }

    fn sentence(&self) -> String {
        let pruned = self.pruned.as_ref().map_or_else(String::new, |pruned| {
            let when = pruned.ts.as_deref().unwrap_or("an unknown time");
            format!("; retention deleted batches up to {} at {when}", pruned.through)
        });
        if let Some(broken) = &self.broken {
            let when = broken.ts.as_ref().map_or_else(String::new, |ts| format!(", written {ts}"));
            return format!("ALTERED: batch {}{when}: {}{pruned}", broken.batch, broken.why);
        }
        let range = self.range.map_or_else(String::new, |(from, to)| format!(" ({from} to {to})"));
        let batches = if self.batches == 1 { "batch" } else { "batches" };
        let held = format!("verified {} {batches}{range} with {} rows", self.batches, self.rows);
        match &self.anchor {
            Some(AnchorView { batch: None, .. }) => format!(
                "ALTERED: the anchor is not in the chain, although the chain is consistent ({held}{pruned}): the store \
                 was truncated or hashed again, or the anchor is older than the oldest record kept"
            ),
            Some(AnchorView { batch: Some(batch), .. }) => {
                format!("{held}{pruned}; the anchor is batch {batch}")
            }
            None => format!("{held}{pruned}"),
        }
    }
}

/// The newest link of the chain.
pub(crate) struct Newest {
    pub(crate) link: Link,
    pub(crate) batch: i64,
    /// Nanoseconds since the epoch; 0 if not known.
    pub(crate) ts: i64,
}

impl Newest {
    /// As one object.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { link, batch, ts } = self;
        let anchor = serde_json::json!({"anchor": link.to_string(), "batch": batch, "ts": time(*ts)});
        writeln!(out, "{anchor}")
    }

    /// Writes the link.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.link)
    }
}

fn time(ts: i64) -> Option<String> {
    let time = Timestamp::from_nanosecond(ts.into()).ok().filter(|_| ts != 0)?;
    Some(format!("{time:.3}"))
}
