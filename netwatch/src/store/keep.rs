//! Keeps recording when the files of the store are moved, deleted or truncated: in a new file at the path, with the
//! number of events that are not in it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::entry::Entry;
use super::files::{How, Interference, Part};
use super::open::Folders;
use super::sync::Syncer;
use super::unkept::Unkept;
use super::writer::{Settings, Writer};
use super::{StoreError, faults};
use crate::bus::Missed;
use crate::loss::LossReason;
use crate::{escape, limits};

/// A store that is being written to.
pub(super) struct Keep {
    path: PathBuf,
    settings: Settings,
    /// `None` after an error.
    open: Option<Open>,
    unkept: Unkept,
    /// What this run has written to the store that is open.
    total: Missed,
    /// The last batches, each with what is in it.
    recent: VecDeque<(i64, Missed)>,
    /// The batch after which the files were not checked yet.
    unconfirmed: Option<(i64, Missed)>,
    /// What went with a store that could not be replaced.
    gone: Missed,
    /// What was written and not synced yet.
    unsynced: Missed,
}

struct Open {
    /// Dropped first: the writer checkpoints and closes the database.
    syncer: Syncer,
    writer: Writer,
}

/// How recording went on.
pub(super) struct GoneOn {
    /// For the user.
    pub(super) notice: String,
    /// Events of this run that are not in the store at the path.
    pub(super) lost: Vec<Entry>,
    /// The last batch, whose commit was not confirmed, is in the store.
    pub(super) has_last: bool,
}

impl Keep {
    /// Opens or creates the store at `path`, and writes what an earlier run could not.
    pub(super) fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let mut writer = Writer::open(path, settings.clone())?;
        let (unkept, left) = Unkept::open(path);
        let losses = losses(&left);
        let mut written = 0;
        // A store that cannot be written must fail the start, so it writes also if there is nothing.
        loop {
            written += writer.commit(losses.get(written..).unwrap_or_default())?;
            if written >= losses.len() {
                break;
            }
        }
        if !left.is_empty() {
            unkept.write(&Missed::default());
        }
        let open = Open::new(writer, &settings)?;
        Ok(Self {
            path: path.to_owned(),
            settings,
            open: Some(open),
            unkept,
            total: Missed::default(),
            recent: VecDeque::new(),
            unconfirmed: None,
            gone: Missed::default(),
            unsynced: Missed::default(),
        })
    }

    /// Writes as many entries as fit in a batch, and returns their number: see [`Writer::commit`].
    pub(super) fn commit(&mut self, entries: &[Entry]) -> Result<usize, StoreError> {
        let most = self.settings.retention.most_log();
        let Open { syncer, writer } = self.open_one()?;
        let length = writer.files().log_length().unwrap_or(0);
        if length >= most && !syncer.restart_log()? {
            return Err(StoreError::LogFull { length: length >> 20 });
        }
        let (before, _) = writer.end();
        let taken = syncer.writing(|| faults::surviving(|| writer.commit(entries)));
        if faults::happened() {
            writer.files().index_is_damaged();
        }
        let taken = taken?;
        let (batch, _) = writer.end();
        if batch != before {
            let mut counts = Missed::default();
            entries.iter().take(taken).for_each(|entry| entry.count(&mut counts));
            self.unconfirmed = Some((batch, counts));
        }
        Ok(taken)
    }

    /// The files were where they were after the last commit, or it is in the store that replaced them.
    pub(super) fn confirm(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.syncer.is_synced()) {
            self.unsynced = Missed::default();
        }
        if let Some((batch, counts)) = self.unconfirmed.take() {
            self.unsynced.merge(&counts);
            self.total.merge(&counts);
            remember(&mut self.recent, batch, counts, limits::BATCHES_COUNTED);
        }
    }

    fn open_one(&mut self) -> Result<&mut Open, StoreError> {
        self.open.as_mut().ok_or_else(|| StoreError::Missing(self.path.clone()))
    }

    /// Whether the files are where they were.
    pub(super) fn check(&self) -> Result<(), Interference> {
        self.open.as_ref().map_or(Ok(()), |open| open.writer.files().check())
    }

    /// Whether retention still has rows to delete.
    pub(super) fn has_more_to_drop(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.writer.has_more_to_drop())
    }

    /// The error of the last sync.
    pub(super) fn sync_failure(&self) -> Option<String> {
        self.open.as_ref().and_then(|open| open.syncer.failure())
    }

    /// Time of the last sync that succeeded.
    pub(super) fn last_sync(&self) -> Option<SystemTime> {
        self.open.as_ref().and_then(|open| open.syncer.last())
    }

    /// What the user must know of a sync.
    pub(super) fn sync_notice(&self) -> Option<String> {
        self.open.as_ref().and_then(|open| open.syncer.notice())
    }

    /// Goes on at the path after an interference.
    pub(super) fn go_on(&mut self, interference: &Interference) -> Result<GoneOn, StoreError> {
        let Some(Open { syncer, writer }) = self.open.take() else {
            return Err(StoreError::Missing(self.path.clone()));
        };
        let last = writer.end();
        let files = writer.files().clone();
        let (part, how) = (interference.part, interference.how);
        // The pages of the log are still there.
        let is_whole = matches!(how, How::Deleted | How::Moved) && part != Part::Index;
        if is_whole && let Err(error) = syncer.write_back() {
            log::warn!("{error}");
        }
        drop(syncer);
        faults::surviving(|| writer.abandon());
        let aside = match (part, how) {
            (Part::Database, How::Truncated) => {
                let aside = files.set_aside();
                files.remove_others(&[Part::Index]);
                Some(aside)
            }
            (Part::Database, _) => {
                files.remove_others(&[Part::Log, Part::Index]);
                None
            }
            // SQLite makes the shared memory anew from the log.
            (Part::Log | Part::Index, _) => {
                files.remove_others(&[Part::Index]);
                None
            }
        };
        // Before the new ones are opened, since closing drops locks.
        drop(files);
        let is_same = part != Part::Database;
        let mut lost = Missed::default();
        if !is_same {
            let total = std::mem::take(&mut self.total);
            self.recent.clear();
            // What was moved is still somewhere.
            if how != How::Moved {
                lost = total;
            }
        }
        let aside = aside.transpose();
        let opened = aside.and_then(|aside| {
            let writer = Writer::open_in(&self.path, self.settings.clone(), Folders::MustExist)?;
            Ok((aside, Open::new(writer, &self.settings)?))
        });
        let (aside, open) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                self.gone = lost;
                let what = interference.to_string();
                return Err(StoreError::Interfered { what, source: Box::new(source) });
            }
        };
        let now = open.writer.end();
        self.open = Some(open);
        if is_same {
            self.recent.iter().filter(|(batch, _)| *batch > now.0).for_each(|(_, counts)| lost.merge(counts));
            self.recent.retain(|(batch, _)| *batch <= now.0);
            self.total.remove(&lost);
        }
        let has_last = is_same && now == last;
        if !has_last {
            // It is written again.
            self.unconfirmed = None;
        }
        let whither = match aside {
            Some(aside) => {
                format!("it is now {}, and recording goes on in a new store", escape::path(&aside))
            }
            None if is_same => "recording goes on in the store".into(),
            None => "recording goes on in a new store there".into(),
        };
        let count = lost.of(LossReason::Store);
        let notice =
            format!("{interference}: {whither}; {count} events that were recorded in this run are lost");
        Ok(GoneOn { notice, lost: losses(&lost), has_last })
    }

    /// What went with a store that could not be replaced.
    pub(super) fn gone(&self) -> &Missed {
        &self.gone
    }

    /// Leaves the number of what could not be written to the next run. `false` if that is not possible.
    pub(super) fn leave(&self, missed: &Missed) -> bool {
        // The file may have gone with the store.
        self.unkept.write(missed) || Unkept::open(&self.path).0.write(missed)
    }

    /// Syncs and checkpoints the log and closes the database. `is_whole`: everything was written.
    pub(super) fn close(self, is_whole: bool) -> Result<(), StoreError> {
        let Self { open, unkept, unsynced, .. } = self;
        let mut failure = None;
        if let Some(Open { syncer, writer }) = open {
            failure = syncer.finish();
            writer.close();
        }
        if is_whole {
            unkept.remove();
        }
        let count = unsynced.of(LossReason::Store);
        failure.map_or(Ok(()), |why| Err(StoreError::Unsynced { count, why }))
    }
}

/// Adds a batch; if there are more than `most`, the two oldest are counted as one.
fn remember(recent: &mut VecDeque<(i64, Missed)>, batch: i64, counts: Missed, most: usize) {
    recent.push_back((batch, counts));
    if recent.len() > most
        && let Some((_, oldest)) = recent.pop_front()
        && let Some((_, next)) = recent.front_mut()
    {
        next.merge(&oldest);
    }
}

/// Entries for what was lost, noticed now.
fn losses(missed: &Missed) -> Vec<Entry> {
    let now = Timestamp::now();
    missed.losses().map(|loss| Entry::Loss(now, loss)).collect()
}

impl Open {
    fn new(writer: Writer, settings: &Settings) -> Result<Self, StoreError> {
        let syncer = Syncer::start(writer.files().clone(), settings.retention.wal_pages(), writer.sealer())?;
        writer.leave_syncing()?;
        Ok(Self { syncer, writer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_batches_are_counted_together() {
        let mut recent = VecDeque::new();
        for batch in 1..=10 {
            let mut counts = Missed::default();
            counts.add(LossReason::Store, "open", 1);
            remember(&mut recent, batch, counts, 4);
        }
        let counts = recent.iter().map(|(batch, counts)| (*batch, counts.of(LossReason::Store)));
        assert_eq!(counts.collect::<Vec<_>>(), [(7, 7), (8, 1), (9, 1), (10, 1)]);
    }
}
