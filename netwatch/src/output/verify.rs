//! The output of `verify`: one sentence or one object.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::escape;
use crate::store::{self, Checked, Link};

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
    /// The first difference of the schema or of an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    /// The first deletion that the limits do not explain.
    #[serde(skip_serializing_if = "Option::is_none")]
    unexplained: Option<Broken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<AnchorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seals: Option<SealsView>,
}

#[derive(Serialize)]
struct SealsView {
    count: u64,
    /// The last batch that is sealed, and when.
    through: Option<i64>,
    ts: Option<String>,
    /// Batches after it.
    unsealed: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

#[derive(Serialize)]
struct Pruned {
    through: i64,
    ts: Option<String>,
    /// Whether the limits that were in force are recorded, and explain it.
    checked: bool,
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
    /// Retention deleted the batch.
    deleted: bool,
}

impl Verdict {
    /// `anchor`: the link that was searched for, if one was given.
    pub(crate) fn of(checked: &Checked, anchor: Option<Link>) -> Self {
        let broken = |broken: &store::Broken| Broken {
            batch: broken.batch,
            ts: time(broken.ts),
            why: broken.why.clone(),
        };
        Self {
            holds: checked.is_well() && (anchor.is_none() || checked.anchored.is_some()),
            batches: checked.batches,
            rows: checked.rows,
            range: checked.range,
            newest: checked.newest.map(|link| link.to_string()),
            pruned: checked.pruned.map(|(through, ts)| Pruned {
                through,
                ts: time(ts),
                checked: !checked.is_pruned_without_limits && checked.unexplained.is_none(),
            }),
            broken: checked.broken.as_ref().map(broken),
            seals: checked.seals.as_ref().map(|seals| SealsView {
                count: seals.count,
                through: seals.last.map(|(batch, _)| batch),
                ts: seals.last.and_then(|(_, ts)| time(ts)),
                unsealed: seals.unsealed,
                broken: seals.broken.clone(),
            }),
            schema: checked.schema.clone(),
            index: checked.index.clone(),
            unexplained: checked.unexplained.as_ref().map(broken),
            anchor: anchor.map(|link| AnchorView {
                link: link.to_string(),
                batch: checked.anchored.map(|anchored| anchored.batch),
                deleted: checked.anchored.is_some_and(|anchored| anchored.is_deleted),
            }),
        }
    }

    /// Writes one object, or one sentence.
    pub(crate) fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return writeln!(out);
        }
        writeln!(out, "{}", escape::terminal(&self.sentence()))
    }

    fn sentence(&self) -> String {
        if let Some(schema) = &self.schema {
            return format!("ALTERED: {schema}; nothing else was verified");
        }
        let pruned = self.pruned.as_ref().map_or_else(String::new, |pruned| {
            let when = pruned.ts.as_deref().unwrap_or("an unknown time");
            let doubt = if pruned.checked || self.unexplained.is_some() {
                ""
            } else {
                ", by limits that this version of the store did not record"
            };
            format!("; retention deleted batches up to {} at {when}{doubt}", pruned.through)
        });
        if let Some(broken) = &self.broken {
            return format!("ALTERED: batch {}{}: {}{pruned}", broken.batch, broken.when(), broken.why);
        }
        let range = self.range.map_or_else(String::new, |(from, to)| format!(" ({from} to {to})"));
        let batches = if self.batches == 1 { "batch" } else { "batches" };
        let held = format!("verified {} {batches}{range} with {} rows", self.batches, self.rows);
        if let Some(index) = &self.index {
            return format!(
                "ALTERED: {index}; the tables themselves are as they were recorded ({held}{pruned}): read them with --scan"
            );
        }
        if let Some(doubt) = &self.unexplained {
            return format!(
                "NOT EXPLAINED by the limits of retention: {} (noted in batch {}{}); the rest is consistent ({held})",
                doubt.why,
                doubt.batch,
                doubt.when()
            );
        }
        if let Some(broken) = self.seals.as_ref().and_then(|seals| seals.broken.as_ref()) {
            return format!("NOT SEALED: {broken}; the chain is consistent in itself ({held}{pruned})");
        }
        let sealed = self.seals.as_ref().map_or_else(String::new, |seals| match (seals.through, &seals.ts) {
            (Some(batch), Some(ts)) => {
                format!("; sealed up to batch {batch}, {ts}, with {} after it", seals.unsealed)
            }
            _ => "; nothing is sealed yet".to_owned(),
        });
        let pruned = format!("{pruned}{sealed}");
        match &self.anchor {
            Some(AnchorView { batch: None, .. }) => format!(
                "NOT FOUND: the anchor is not found in this chain, which is consistent in itself ({held}{pruned}): it is \
                 of another store, or the end of this one was cut off or hashed again, or it is older than the links that \
                 are kept"
            ),
            Some(AnchorView { batch: Some(batch), deleted: true, .. }) => {
                format!("{held}{pruned}; the anchor is batch {batch}, of which only the link is left")
            }
            Some(AnchorView { batch: Some(batch), .. }) => {
                format!("{held}{pruned}; the anchor is batch {batch}")
            }
            None => format!("{held}{pruned}"),
        }
    }
}

impl Broken {
    fn when(&self) -> String {
        self.ts.as_ref().map_or_else(String::new, |ts| format!(", written {ts}"))
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
