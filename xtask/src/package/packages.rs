//! Packages of distributions: their content is in netwatch/Cargo.toml, their scripts in packaging/.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Job;
use crate::cargo::{cargo, target_directory};
use crate::exec::quietly;

/// Makes the deb.
pub(super) fn deb(job: &Job) -> Result<PathBuf> {
    let path = job.folder.join(format!("netwatch_{}-1_{}.deb", job.version, job.arch.debian()));
    let mut command = cargo(&["deb", "--package=netwatch", "--no-build", "--no-strip", "--profile=dist"])?;
    command.args(["--target", job.arch.target(), "--maintainer", &job.maintainer, "--output"]).arg(&path);
    command.env("SOURCE_DATE_EPOCH", &job.epoch);
    quietly(&mut command, job.verbose).context("cannot make a deb")?;
    Ok(path)
}

/// Makes the rpm.
pub(super) fn rpm(job: &Job) -> Result<PathBuf> {
    let path = job.folder.join(format!("netwatch-{}-1.{}.rpm", job.version, job.arch.name()));
    let mut command = cargo(&["generate-rpm", "--package=netwatch", "--profile=dist"])?;
    command.args(["--target", job.arch.target(), "--arch", job.arch.name(), "--source-date", &job.epoch]);
    command.arg("--target-dir").arg(target_directory()?).arg("--output").arg(&path);
    quietly(&mut command, job.verbose).context("cannot make an rpm")?;
    Ok(path)
}
