//! Seals: at the end of each epoch the newest link is authenticated with a key, and the key is replaced by the next one,
//! from which it cannot be computed. Who steals the key cannot alter what was sealed before. The first key is kept
//! elsewhere, and verifies all seals. The same idea as systemd's journal: <https://eprint.iacr.org/2013/397>.
//!
//! The key is BLAKE3's: `derive_key` for the next one, `keyed_hash` for a seal.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _};
use zeroize::Zeroizing;

use super::StoreError;
use super::chain::Link;
use super::files::beside;
use crate::limits;

/// The first line of the file.
const HEAD: &str = "netwatch: the key for the next seal; `verify --new-key` made it\n";

/// Its length: it is always overwritten as a whole.
const LENGTH: usize = 512;

const NEXT: &str = "netwatch 2026-11 seal: key of the next epoch";
const SERIES: &str = "netwatch 2026-11 seal: name of the series";

/// The key of an epoch. Erased from memory when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text.trim());
        let hash = hash.map_err(
            |_| "not a verification key: 64 hexadecimal digits, as `verify --new-key` prints them",
        )?;
        Ok(Self(Zeroizing::new(*hash.as_bytes())))
    }
}

impl Key {
    fn random() -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let length = rustix::rand::getrandom(&mut *key, rustix::rand::GetRandomFlags::empty())?;
        if length == key.len() { Ok(Self(key)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// For the user, once.
    fn spelled(&self) -> Zeroizing<String> {
        Zeroizing::new(blake3::Hash::from_bytes(*self.0).to_hex().to_string())
    }

    /// The key of the next epoch.
    pub(super) fn advance(&mut self) {
        *self.0 = blake3::derive_key(NEXT, &*self.0);
    }

    /// What the series that begins with this key is called.
    pub(super) fn series(&self) -> [u8; 8] {
        let name = blake3::derive_key(SERIES, &*self.0);
        name.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn mac(&self, seal: &Sealed) -> Link {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for number in [seal.epoch, seal.ts, seal.batch] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(seal.link.bytes());
        Link(hasher.finalize())
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        // In constant time.
        blake3::Hash::from_bytes(*self.0) == blake3::Hash::from_bytes(*other.0)
    }
}

/// What a seal authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) epoch: i64,
    /// Nanoseconds since the epoch of the clock.
    pub(super) ts: i64,
    pub(super) batch: i64,
    pub(super) link: Link,
}

/// The state in the file.
pub(super) struct State {
    pub(super) series: [u8; 8],
    pub(super) epoch: i64,
    pub(super) key: Key,
}

impl State {
    fn read(file: &File) -> io::Result<Self> {
        let mut text = Zeroizing::new(vec![0; LENGTH]);
        let length = file.read_at(&mut text, 0)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is not a sealing key");
        let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
        let mut words = text.and_then(|text| text.strip_prefix(HEAD)).ok_or_else(invalid)?.split_whitespace();
        let mut word = || words.next().ok_or_else(invalid);
        let series = u64::from_str_radix(word()?, 16).map_err(|_| invalid())?.to_be_bytes();
        let epoch = word()?.parse().map_err(|_| invalid())?;
        let key = word()?.parse().map_err(|_| invalid())?;
        Ok(Self { series, epoch, key })
    }

    /// Overwrites the key before.
    fn write(&self, file: &File) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(HEAD);
        // Writing to a String cannot fail.
        let _ =
            write!(text, "{:016x} {} {}", u64::from_be_bytes(self.series), self.epoch, *self.key.spelled());
        while text.len() < LENGTH {
            text.push('\n');
        }
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_all()
    }
}

fn path_of(store: &Path) -> PathBuf {
    beside(store, "-seal")
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Open { path, source }
}

/// Makes a key for the store at `store`, and returns the verification key. An existing one is not replaced.
///
/// # Errors
/// If there is one, or the file cannot be written.
pub fn new_key(store: &Path) -> Result<Zeroizing<String>, StoreError> {
    let path = path_of(store);
    let key = Key::random().map_err(failed(&path))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed(&path))?;
    let shown = key.spelled();
    let state = State { series: key.series(), epoch: 0, key };
    if let Err(error) = state.write(&file) {
        let _ = fs::remove_file(&path);
        return Err(failed(&path)(error));
    }
    Ok(shown)
}

/// The sealing key beside a store, for verification.
pub struct SealFile(pub(super) Option<State>);

impl std::fmt::Debug for SealFile {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealFile").field(&self.0.as_ref().map(|state| state.epoch)).finish()
    }
}

impl SealFile {
    /// Reads it, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn read(store: &Path) -> Result<Self, StoreError> {
        let path = path_of(store);
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Ok(file) => State::read(&file).map(|state| Self(Some(state))).map_err(failed(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(failed(&path)(error)),
        }
    }
}

/// Makes seals.
pub(super) struct Sealer {
    file: File,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// When the last seal was made, in nanoseconds since boot.
    last: Option<i64>,
    /// The seal of this epoch is in the store, so its key is to be erased once the store is synced.
    is_sealed: bool,
    /// The key of an epoch is in the file still, since it could not be overwritten.
    is_left: bool,
}

impl Sealer {
    /// Reads the key of the store at `store`, which is open in `db`.
    pub(super) fn open(store: &Path, db: &Connection) -> Result<Arc<Self>, StoreError> {
        let path = path_of(store);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoKey(path)),
            Err(error) => return Err(failed(&path)(error)),
        };
        let found = file.metadata().map_err(failed(&path))?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_file() || found.uid() != own || found.mode() & 0o077 != 0 {
            let why = "can be read or written by other users".into();
            return Err(StoreError::Untrusted { path, why });
        }
        let state = State::read(&file).map_err(failed(&path))?;
        let newest = "SELECT epoch, ts, batch, link, mac FROM seal WHERE series = ? ORDER BY id DESC LIMIT 1";
        let newest = db.query_row(newest, [state.series], read).optional()?;
        let is_sealed = match newest.flatten() {
            Some((seal, mac)) if seal.epoch == state.epoch => state.key.mac(&seal) == mac,
            Some((seal, _)) if seal.epoch > state.epoch => {
                let why = "is older than the seals in the store".into();
                return Err(StoreError::Untrusted { path, why });
            }
            _ => false,
        };
        let inner = Mutex::new(Inner { state, last: None, is_sealed, is_left: false });
        Ok(Arc::new(Self { file, inner }))
    }

    /// Inserts a seal of the newest link if the epoch is over, or `is_last`. Returns whether it did: see
    /// [`Sealer::sealed`]. Never waits.
    pub(super) fn seal(
        &self,
        db: &Connection,
        (batch, link): (i64, Link),
        (ts, boot): (i64, i64),
        is_last: bool,
    ) -> Result<bool, StoreError> {
        // Another thread is erasing a key.
        let Ok(mut inner) = self.inner.try_lock() else { return Ok(false) };
        let last = *inner.last.get_or_insert(boot);
        let is_over =
            u128::from(boot.saturating_sub(last).max(0).cast_unsigned()) >= limits::SEAL_EPOCH.as_nanos();
        if inner.is_sealed || inner.is_left || !(is_over || is_last) {
            return Ok(false);
        }
        let seal = Sealed { epoch: inner.state.epoch, ts, batch, link };
        let mac = inner.state.key.mac(&seal);
        let insert = "INSERT INTO seal (series, epoch, ts, batch, link, mac) VALUES (?, ?, ?, ?, ?, ?)";
        db.prepare_cached(insert)?.execute((
            inner.state.series,
            seal.epoch,
            ts,
            batch,
            link.bytes(),
            mac.bytes(),
        ))?;
        Ok(true)
    }

    /// The seal was committed.
    pub(super) fn sealed(&self, boot: i64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.is_sealed, inner.last) = (true, Some(boot));
    }

    /// Whether a committed seal waits for a sync. Asked before the sync begins.
    pub(super) fn is_waiting(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_sealed || inner.is_left
    }

    /// Erases the key of the epoch, whose seal is on the disk.
    pub(super) fn advance(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_sealed {
            inner.state.key.advance();
            inner.state.epoch += 1;
            (inner.is_sealed, inner.is_left) = (false, true);
        }
        if inner.is_left {
            inner.state.write(&self.file)?;
            inner.is_left = false;
        }
        Ok(())
    }
}

/// A row of `seal`, from `epoch` on; `None` if it is none.
pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<(Sealed, Link)>> {
    let (link, mac): (Vec<u8>, Vec<u8>) = (row.get(3)?, row.get(4)?);
    let (epoch, ts, batch) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Link::from_bytes(&link)
        .zip(Link::from_bytes(&mac))
        .map(|(link, mac)| (Sealed { epoch, ts, batch, link }, mac)))
}
