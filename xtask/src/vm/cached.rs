//! Kernels in the cache, one directory per release: `vmlinuz`, and `lib/modules/RELEASE` as modprobe expects it.

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
    /// As in `uname -r`.
    pub(super) release: String,
    directory: PathBuf,
}

impl Cached {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join(IMAGE)
    }

    /// Folder of its modules (`kernel/`) and their lists.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }
}

/// The release, if it is in the cache.
pub(super) fn open(kept: &Path, release: &str) -> Option<Cached> {
    let cached = Cached { release: release.to_owned(), directory: kept.join(release) };
    cached.image().is_file().then_some(cached)
}

/// The newest release in the cache.
pub(super) fn newest(kept: &Path) -> Option<Cached> {
    let names = fs::read_dir(kept).ok()?.flatten();
    names
        .filter_map(|entry| open(kept, &entry.file_name().to_string_lossy()))
        .max_by(|one, other| version::compare(&one.release, &other.release))
}

/// Removes all other releases.
pub(super) fn keep_only(kept: &Path, cached: &Cached) -> Result<()> {
    for entry in fs::read_dir(kept).context("cannot read the cache")?.flatten() {
        if open(kept, &entry.file_name().to_string_lossy())
            .is_some_and(|other| other.release != cached.release)
        {
            fs::remove_dir_all(entry.path()).context("cannot remove an old kernel from the cache")?;
        }
    }
    Ok(())
}

/// Unpacks the packages in `scratch` and moves the required files into the cache.
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
    // The dependencies of modules are not in the package; depmod computes them at installation.
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
    fn the_newest_is_returned_and_replaces_the_older() {
        let kept = tempfile::tempdir().unwrap();
        let kept = kept.path();
        assert!(newest(kept).is_none());
        keep(kept, "6.1.0-9-cloud-amd64");
        keep(kept, "6.1.0-50-cloud-amd64");
        // Left behind by an interrupted run.
        fs::create_dir(kept.join("6.1.0-99-cloud-amd64")).unwrap();
        let cached = newest(kept).unwrap();
        assert_eq!(cached.release, "6.1.0-50-cloud-amd64");
        keep_only(kept, &cached).unwrap();
        assert!(open(kept, "6.1.0-9-cloud-amd64").is_none() && open(kept, &cached.release).is_some());
    }
}
