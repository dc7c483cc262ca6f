//! Stores each value of a process and its image once per segment. Looked up by address in memory, which is enough for
//! most events, then by content.

use std::hash::Hash;
use std::sync::Arc;

use rusqlite::types::ValueRef;

use super::batch::Batch;
use super::chain::Table;
use super::rows::NameRows;
use super::{StoreError, words};
use crate::hash::Map;
use crate::model::{CgroupId, Cookie, Image};
use crate::names::{HostName, NameBasis, Names};
use crate::process::{Actor, Cause, ExeStatus, Process};
use crate::signs;

/// Rows that were written in this segment.
#[derive(Default)]
pub(super) struct Interner {
    /// By address; the entry keeps the value alive, so that the address is not reused.
    actors: Map<(usize, u32, Option<ExeStatus>), (Actor, i64)>,
    images: Map<usize, (Arc<Image>, i64)>,
    by_content: Map<Digest, i64>,
}

/// A hash that is long enough to identify a row.
type Digest = [u8; 16];

/// Maximum number of processes kept by address; others are found by content.
const MOST_HELD: usize = 8192;

/// Maximum number of rows kept by content; beyond it duplicates are written, which only costs space.
const MOST_REMEMBERED: usize = 1 << 17;

impl Interner {
    /// Clears everything: for a new segment, or if rows were not committed.
    pub(super) fn clear(&mut self) {
        self.actors.clear();
        self.images.clear();
        self.by_content.clear();
    }

    /// The row of `actor` with this status of its executable; written if it is new. `ts`: the current time in
    /// nanoseconds since the epoch.
    pub(super) fn actor(
        &mut self,
        actor: &Actor,
        status: Option<ExeStatus>,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<i64, StoreError> {
        if let Some(row) = self.known(actor, status) {
            return Ok(row);
        }
        // Ancestors first.
        let mut above = None;
        let mut unknown = Vec::new();
        for parent in actor.process.ancestors() {
            let parent = Actor::leader(parent.clone());
            above = self.known(&parent, None);
            if above.is_some() {
                break;
            }
            unknown.push(parent);
        }
        for parent in unknown.iter().rev() {
            above = Some(self.write(parent, None, above, ts, batch)?);
        }
        self.write(actor, status, above, ts, batch)
    }

    fn known(&self, actor: &Actor, status: Option<ExeStatus>) -> Option<i64> {
        let key = (Arc::as_ptr(&actor.process).addr(), actor.tid(), status);
        let (known, row) = self.actors.get(&key)?;
        (known.thread() == actor.thread()).then_some(*row)
    }

    fn write(
        &mut self,
        actor: &Actor,
        status: Option<ExeStatus>,
        parent: Option<i64>,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<i64, StoreError> {
        let image = self.image(&actor.process.image, batch)?;
        let cause = match &actor.process.birth {
            Some(birth) => self.cause(&birth.cause, ts, batch)?,
            None => None,
        };
        let row = self.row(Table::Process, batch, |values| {
            process_values(actor, status, Above { image, parent, cause }, ts, values);
        })?;
        let key = (Arc::as_ptr(&actor.process).addr(), actor.tid(), status);
        remember(&mut self.actors, MOST_HELD, key, (actor.clone(), row));
        Ok(row)
    }

    /// The number that stands for a cause in a row: the cookie of a socket, or the row of the last message with its sign
    /// changed. Messages are written if they are new.
    pub(super) fn cause(
        &mut self,
        cause: &Cause,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Option<i64>, StoreError> {
        let socket = cause.socket.map(|socket| socket.get().cast_signed());
        let mut last = None;
        for message in cause.messages() {
            // A process as it was when it wrote holds no message that came after, so this ends.
            let writer = self.actor(&Actor::leader(message.writer.clone()), None, ts, batch)?;
            let row = self.row(Table::Message, batch, |values| {
                values.extend([
                    number(last),
                    number(socket.filter(|_| last.is_none())),
                    Owned::Int(message.at.nanos().cast_signed()),
                    Owned::Word(message.way.name()),
                    Owned::Int(message.inode.cast_signed()),
                    text(message.path.as_deref()),
                    Owned::Int(writer),
                ]);
            })?;
            last = Some(row);
        }
        Ok(last.map(i64::wrapping_neg).or(socket))
    }

    /// The numbers that stand for the names of an endpoint in a row: the row of each, with its sign changed if a TLS client
    /// said it. They are written if they are new.
    pub(super) fn names(
        &mut self,
        names: &Names,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<NameRows, StoreError> {
        let mut row = |name: Option<&Arc<HostName>>| name.map(|name| self.name(name, ts, batch)).transpose();
        Ok(NameRows { remote: row(names.remote())?, local: row(names.local())? })
    }

    fn name(&mut self, name: &HostName, ts: i64, batch: &mut Batch<'_>) -> Result<i64, StoreError> {
        let asker = name.asked_by.as_ref().map(|asker| {
            // The status of its executable is recorded with the connections that it has.
            self.actor(&Actor::leader(asker.clone()), None, ts, batch)
        });
        let asker = asker.transpose()?;
        let row = self.row(Table::HostName, batch, |values| {
            values.extend([
                text(Some(&name.name)),
                Owned::Word(name.basis.name()),
                Owned::Int(name.at.nanos().cast_signed()),
                Owned::Int(name.candidates.into()),
                number(asker),
            ]);
        })?;
        Ok(match name.basis {
            NameBasis::DnsAnswer => row,
            NameBasis::TlsSni => row.wrapping_neg(),
        })
    }

    fn image(&mut self, image: &Arc<Image>, batch: &mut Batch<'_>) -> Result<i64, StoreError> {
        let key = Arc::as_ptr(image).addr();
        if let Some((_, row)) = self.images.get(&key) {
            return Ok(*row);
        }
        // No more than the limits on arguments allow; that some are missing is not recorded.
        let args = serde_json::to_string(&image.args).map_err(StoreError::Json)?;
        let (dev, ino) = image.file;
        let row = self.row(Table::Image, batch, |values| {
            values.extend([
                text(image.exe.as_deref()),
                Owned::Word(words::exe_state_word(image.exe_state)),
                Owned::Int(dev.cast_signed()),
                Owned::Int(ino.cast_signed()),
                Owned::Int(image.mntns.into()),
                Owned::Text(args),
            ]);
        })?;
        remember(&mut self.images, MOST_HELD, key, (image.clone(), row));
        Ok(row)
    }

    /// The row with the values that `fill` adds after id and segment; written if it is new.
    fn row(
        &mut self,
        table: Table,
        batch: &mut Batch<'_>,
        fill: impl FnOnce(&mut Vec<Owned>),
    ) -> Result<i64, StoreError> {
        let mut values = Vec::with_capacity(24);
        values.extend([Owned::Int(0), Owned::Int(batch.segment())]);
        fill(&mut values);
        let digest = digest(table, &values);
        if let Some(row) = self.by_content.get(&digest) {
            return Ok(*row);
        }
        let row = batch.next_id(table);
        if let Some(id) = values.first_mut() {
            *id = Owned::Int(row);
        }
        let values: Vec<_> = values.iter().map(Owned::value).collect();
        batch.insert(table, &values)?;
        remember(&mut self.by_content, MOST_REMEMBERED, digest, row);
        Ok(row)
    }
}

/// Adds an entry; if there are `most`, all others are forgotten.
fn remember<K: Eq + Hash, V>(map: &mut Map<K, V>, most: usize, key: K, value: V) {
    if map.len() >= most {
        map.clear();
    }
    map.insert(key, value);
}

/// A value of a row.
enum Owned {
    Null,
    Int(i64),
    /// The time of writing, which is not part of the content.
    Time(i64),
    Word(&'static str),
    Text(String),
}

impl Owned {
    fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) | Self::Time(number) => ValueRef::Integer(*number),
            Self::Word(word) => ValueRef::Text(word.as_bytes()),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }
    }
}

fn text(text: Option<&str>) -> Owned {
    text.map_or(Owned::Null, |text| Owned::Text(text.to_owned()))
}

fn number<T: Into<i64>>(number: Option<T>) -> Owned {
    number.map_or(Owned::Null, |number| Owned::Int(number.into()))
}

fn cookie(cookie: Option<u64>) -> Owned {
    number(cookie.map(u64::cast_signed))
}

/// Rows that the row of a process refers to.
#[derive(Clone, Copy)]
struct Above {
    image: i64,
    parent: Option<i64>,
    /// See [`Interner::cause`].
    cause: Option<i64>,
}

/// In the order of the table, from `ts`.
fn process_values(actor: &Actor, status: Option<ExeStatus>, above: Above, ts: i64, values: &mut Vec<Owned>) {
    let process: &Process = &actor.process;
    let signs =
        status.map(|status| signs::of_process(process, status).map(signs::Sign::name).collect::<Vec<_>>());
    values.extend([
        Owned::Time(ts),
        Owned::Int(process.key.pid.into()),
        Owned::Int(process.key.start.nanos().cast_signed()),
        number(Some(actor.tid()).filter(|tid| *tid != process.key.pid)),
        text(actor.thread().map(AsRef::as_ref)),
        text(Some(&process.comm)),
        Owned::Int(process.uid.into()),
        number(process.auid),
        Owned::Int(process.ppid.into()),
        Owned::Int(CgroupId::number(process.cgroup_id).cast_signed()),
        text(Some(&process.cgroup)),
        Owned::Int(process.kernel.into()),
        Owned::Int(above.image),
        number(above.parent),
        cookie(process.birth.as_ref().map(|birth| birth.at.nanos())),
        number(above.cause),
    ]);
    let stdio = process.stdio.iter().zip(process.streams).map(|(socket, stream)| match stream {
        Some(stream) => Owned::Int(words::stream_number(stream)),
        None => cookie(socket.map(Cookie::get)),
    });
    values.extend(stdio);
    values.extend([
        status.map_or(Owned::Null, |status| Owned::Word(words::exe_state_word(status.state))),
        signs.filter(|signs| !signs.is_empty()).map_or(Owned::Null, |signs| Owned::Text(signs.join(","))),
    ]);
}

fn digest(table: Table, values: &[Owned]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.name().as_bytes());
    for value in values {
        match value {
            Owned::Null | Owned::Time(_) => _ = hasher.update(&[0]),
            Owned::Int(number) => _ = hasher.update(&[1]).update(&number.to_le_bytes()),
            Owned::Word(_) | Owned::Text(_) => {
                let bytes = value.value().as_bytes().unwrap_or_default();
                hasher.update(&[2]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
        }
    }
    let mut digest = Digest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_remembered_are_limited() {
        let mut rows = Map::default();
        (0..MOST_REMEMBERED).for_each(|n| remember(&mut rows, MOST_REMEMBERED, n, n));
        assert_eq!(rows.len(), MOST_REMEMBERED);
        remember(&mut rows, MOST_REMEMBERED, usize::MAX, 0);
        assert_eq!(rows.len(), 1);
    }
}
