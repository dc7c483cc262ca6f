//! Tarballs: the program with everything beside it, and its debug info in another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Job;
use crate::cargo::workspace;
use crate::exec::quietly;

/// Makes both; returns the path of the first.
pub(super) fn make(job: &Job) -> Result<PathBuf> {
    let name = format!("netwatch-{}-{}", job.version, job.arch.name());
    let work = tempfile::tempdir_in(&job.folder).context("cannot make a temporary folder")?;
    let folder = work.path().join(&name);
    fs::create_dir(&folder).context("cannot make a folder")?;
    let (checkout, staged) = (workspace()?, &job.staged.folder);
    let mut copy = Command::new("cp");
    copy.arg("-r").args(["netwatch", "man", "completions"].map(|name| staged.join(name)));
    let own = ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE", "docs"];
    copy.args(own.map(|name| checkout.join(name)));
    copy.args(["netwatch.toml", "netwatch.sysusers"].map(|name| checkout.join("packaging").join(name)));
    quietly(copy.arg(&folder), job.verbose)?;
    // What is installed by hand is not in the folders of the package manager.
    let unit = fs::read_to_string(checkout.join("packaging/netwatch.service")).context("no unit")?;
    let unit = unit.replace("/usr/bin/netwatch", "/usr/local/bin/netwatch");
    fs::write(folder.join("netwatch.service"), unit).context("cannot write the unit")?;

    let debug = work.path().join(format!("{name}-debug"));
    fs::create_dir(&debug).context("cannot make a folder")?;
    fs::copy(job.staged.debug_info(), debug.join("netwatch.debug")).context("cannot copy debug info")?;
    pack(job, work.path(), &format!("{name}-debug"))?;
    pack(job, work.path(), &name)
}

fn pack(job: &Job, work: &Path, name: &str) -> Result<PathBuf> {
    let path = job.folder.join(format!("{name}.tar.gz"));
    let plain = work.join("plain.tar");
    tar(job, work, name, &plain)?;
    quietly(Command::new("gzip").args(["-9", "-n", "--force"]).arg(&plain), job.verbose)?;
    fs::rename(work.join("plain.tar.gz"), &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A tar file in which nothing tells who made it, and when.
pub(super) fn tar(job: &Job, within: &Path, name: &str, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u+rw,go=u-w",
        "--format=ustar",
    ]);
    tar.arg(format!("--mtime=@{}", job.epoch)).arg("-C").arg(within).arg("-cf").arg(to).arg(name);
    quietly(&mut tar, job.verbose)
}
