//! The programs under test, and the folder in which they are tested.
//!
//! A checkout may be anywhere: below a directory that only its owner may enter, at a path with spaces, on a file system
//! that root may not read. So the tests run copies, in a folder of their own with a short path that everybody may
//! enter. A guest has them in such a folder too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::cargo;
use crate::exec::succeeds;

/// Programs of the end-to-end tests.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) netwatch: PathBuf,
    pub(crate) tests: PathBuf,
    /// The program that the tests start to make connections.
    pub(crate) actor: PathBuf,
}

impl Programs {
    /// Builds them as the caller, so that no file in the target directory belongs to root.
    pub(crate) fn build() -> Result<Self> {
        Self::with(cargo::build(
            &["build", "--release", "-p", "netwatch", "--features", "test-equipment"],
            "netwatch",
        )?)
    }

    /// The tests of a netwatch that was built.
    pub(crate) fn with(netwatch: PathBuf) -> Result<Self> {
        let tests = ["test", "--no-run", "-p", "tests", "--test", "e2e"];
        Ok(Self { netwatch, tests: cargo::build(&tests, "e2e")?, actor: cargo::build(&tests, "actor")? })
    }

    /// Their paths in `folder`.
    pub(crate) fn placed(folder: &Path) -> Self {
        let [netwatch, tests, actor] = ["netwatch", "e2e", "actor"].map(|name| folder.join(name));
        Self { netwatch, tests, actor }
    }

    /// Each of them, with its path in `to`.
    pub(crate) fn pairs<'a>(&'a self, to: &'a Self) -> [(&'a Path, &'a Path); 3] {
        [(&self.netwatch, &to.netwatch), (&self.tests, &to.tests), (&self.actor, &to.actor)]
    }

    /// Copies them to a temporary folder, which is removed when the guard is dropped.
    pub(crate) fn staged(&self) -> Result<(TempDir, Self)> {
        let folder = tempfile::Builder::new().prefix("netwatch-tests-").tempdir();
        let folder = folder.context("cannot make a temporary folder for the programs under test")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .context("cannot open the temporary folder to everybody")?;
        let staged = Self::placed(folder.path());
        for (from, to) in self.pairs(&staged) {
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("cannot make {} executable", to.display()))?;
        }
        staged.start()?;
        Ok((folder, staged))
    }

    /// Checks that the programs can be started.
    pub(crate) fn start(&self) -> Result<()> {
        for (program, option) in [(&self.netwatch, "--version"), (&self.tests, "--list")] {
            if !succeeds(Command::new(program).arg(option)) {
                bail!(
                    "{} does not start: set TMPDIR to a folder where programs may be started, and build for this \
                     machine (is CARGO_BUILD_TARGET set?)",
                    program.display()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(folder: &Path, script: &str) -> Programs {
        let programs = Programs::placed(folder);
        for program in [&programs.netwatch, &programs.tests, &programs.actor] {
            fs::write(program, script).unwrap();
            // As with a strict umask.
            fs::set_permissions(program, fs::Permissions::from_mode(0o700)).unwrap();
        }
        programs
    }

    #[test]
    fn copies_are_where_everybody_may_run_them() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a checkout");
        fs::create_dir(&folder).unwrap();
        let (guard, staged) = programs(&folder, "#!/bin/sh\nexit 0\n").staged().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(guard.path()), 0o755);
        for program in [&staged.netwatch, &staged.tests, &staged.actor] {
            assert_eq!(program.parent(), Some(guard.path()));
            assert_eq!(mode(program), 0o755);
        }
    }

    #[test]
    fn a_program_that_does_not_start_is_reported_before_any_test() {
        let place = tempfile::tempdir().unwrap();
        let error = programs(place.path(), "#!/bin/sh\nexit 1\n").staged().unwrap_err().to_string();
        assert!(error.contains("netwatch does not start: set TMPDIR"), "{error}");
    }
}
