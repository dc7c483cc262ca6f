//! Kernels in the cache, one directory a release: `vmlinuz`, and `lib/modules/RELEASE` as modprobe wants it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{fetch, version};
use crate::exec::{find, quietly};

const IMAGE: &str = "vmlinuz";

/// A kernel that can be booted.
#[derive(Debug)]
pub(super) struct Cached {
    /// As `uname -r` has it.
    pub(super) release: String,
    directory: PathBuf,
}

impl Cached {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join(IMAGE)
    }

    /// Where its modules are, in `kernel/`, and the lists of them.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }
}

/// The release, if it is there.
pub(super) fn open(kept: &Path, release: &str) -> Option<Cached> {
    let found = Cached { release: release.to_owned(), directory: kept.join(release) };
    found.image().is_file().then_some(found)
}

/// The newest that is there.
pub(super) fn newest(kept: &Path) -> Option<Cached> {
    let names = fs::read_dir(kept).ok()?.flatten();
    names
        .filter_map(|entry| open(kept, &entry.file_name().to_string_lossy()))
        .max_by(|one, other| version::compare(&one.release, &other.release))
}

/// Removes what the newer one replaces.
pub(super) fn keep_only(kept: &Path, found: &Cached) -> Result<()> {
    for entry in fs::read_dir(kept).context("cannot read the cache")?.flatten() {
        if open(kept, &entry.file_name().to_string_lossy())
            .is_some_and(|other| other.release != found.release)
        {
            fs::remove_dir_all(entry.path()).context("cannot remove an old kernel from the cache")?;
        }
    }
    Ok(())
}

/// Unpacks the packages in `scratch` and moves what is needed of them to its place.
pub(super) fn unpack(scratch: &Path, kept: &Path, release: &str, verbose: bool) -> Result<Cached> {
    let root = scratch.join("root");
    fetch::unpack(scratch, &root, verbose)?;
    let new = Cached { release: release.to_owned(), directory: scratch.join("kernel") };
    fs::create_dir_all(new.directory.join("lib/modules")).context("cannot make a directory in the cache")?;
    // Before 6.12 in /lib, later in /usr/lib; the image is in /boot, or since 6.19 among the modules.
    let from = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place).join(release));
    let from = from.iter().find(|place| place.is_dir()).context("there are no modules in its package")?;
    fs::rename(from, new.modules()).context("cannot move the modules")?;
    let images = [new.modules().join(IMAGE), root.join(format!("boot/{IMAGE}-{release}"))];
    let image = images.iter().find(|image| image.is_file()).context("there is no image in its package")?;
    fs::rename(image, new.image()).context("cannot move the image")?;
    // What depends on what is worked out where a kernel is installed, not in the package.
    let depmod = find("depmod").unwrap_or_else(|| "depmod".into());
    quietly(Command::new(depmod).arg("-b").arg(&new.directory).arg(release), verbose)?;
    fs::rename(&new.directory, kept.join(release)).context("cannot move the kernel to its place")?;
    open(kept, release).context("the kernel is not where it was moved")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(kept: &Path, release: &str) {
        fs::create_dir_all(kept.join(release)).unwrap();
        fs::write(kept.join(release).join(IMAGE), "").unwrap();
    }

    #[test]
    fn the_newest_is_found_and_replaces_the_older() {
        let kept = tempfile::tempdir().unwrap();
        let kept = kept.path();
        assert!(newest(kept).is_none());
        keep(kept, "6.1.0-9-cloud-amd64");
        keep(kept, "6.1.0-50-cloud-amd64");
        // Left over from a run that was ended.
        fs::create_dir(kept.join("6.1.0-99-cloud-amd64")).unwrap();
        let found = newest(kept).unwrap();
        assert_eq!(found.release, "6.1.0-50-cloud-amd64");
        keep_only(kept, &found).unwrap();
        assert!(open(kept, "6.1.0-9-cloud-amd64").is_none() && open(kept, &found.release).is_some());
    }
}
