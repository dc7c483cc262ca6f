//! Saves the full output of each program of a test run in a file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cargo;

/// In the target directory.
const FOLDER: &str = "test-output";

/// The folder with those files.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    folder: PathBuf,
}

impl Output {
    /// Removes the files of earlier runs.
    pub(crate) fn new() -> Result<Self> {
        Self::at(cargo::target_directory()?.join(FOLDER))
    }

    pub(crate) fn at(folder: PathBuf) -> Result<Self> {
        let failed = || {
            let folder = folder.display();
            format!("cannot write to {folder}: remove it as the user who made it, who may be root")
        };
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
            _ => fs::create_dir_all(&folder).with_context(failed)?,
        }
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file, which ends in `.log`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// A new file and its path.
    pub(crate) fn create(&self, name: &str) -> Result<(File, PathBuf)> {
        let path = self.file(name);
        let file = File::create(&path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok((file, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_left_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("target/test-output");
        let (_, path) = Output::at(folder.clone()).unwrap().create("e2e").unwrap();
        assert_eq!(path, folder.join("e2e.log"));
        assert!(path.exists());
        Output::at(folder).unwrap();
        assert!(!path.exists());
    }
}
