//! Replaces files as a whole, so that a full disk does not destroy what was there.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file beside `path`, and renames it to that once it is on disk.
///
/// # Errors
/// If it cannot be written; then the old file is as it was.
pub fn file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    // O_EXCL: in a world-writable directory another user may have created a file or link of this name.
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(&beside);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let written = written.and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // Best effort; the error of the write is returned.
        let _ = std::fs::remove_file(&beside);
    }
    written
}
