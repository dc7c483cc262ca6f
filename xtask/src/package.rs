//! `cargo xtask package`: one static program, and the packages that contain it, in `target/package`.
//!
//! The program is linked with musl: it runs on every distribution, and asks no name service. The same commit gives the
//! same bytes wherever the checkout is, which `--check-reproducible` compares.

mod build;
mod image;
mod packages;
mod reproducible;
mod staged;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::cargo;
use crate::exec::{answer, step};
use crate::{setup, test};
pub(crate) use build::Arch;
use staged::Staged;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to make [default: all]
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// Architecture that it is for [default: this machine's]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Only build the program twice, in two folders, and compare
    #[arg(long)]
    check_reproducible: bool,
    /// Then install the packages into a Debian of the tests, and check them
    #[arg(long)]
    test: bool,
    /// Who is named as the maintainer of the deb [default: DEBFULLNAME and DEBEMAIL, or git's user]
    #[arg(long, value_name = "NAME <ADDRESS>")]
    maintainer: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// For Debian and Ubuntu
    Deb,
    /// For Fedora, openSUSE and their relatives
    Rpm,
    /// For any distribution
    Tarball,
    /// OCI image with nothing but the program
    Image,
}

/// What all kinds are made from.
struct Job {
    arch: Arch,
    staged: Staged,
    version: String,
    /// Time of the commit, of which all files in packages are.
    epoch: String,
    maintainer: String,
    /// Where the packages are put.
    folder: PathBuf,
    verbose: bool,
}

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    let arch = args.arch.map_or_else(Arch::own, Ok)?;
    setup::ensure_for_packages(arch, verbose)?;
    if args.check_reproducible {
        return reproducible::check(arch).map(|()| ExitCode::SUCCESS);
    }
    let program = build::program(arch, &cargo::workspace()?, &cargo::target_directory()?)?;
    let folder = cargo::target_directory()?.join("package");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let version = version()?;
    let epoch = build::epoch(&cargo::workspace()?);
    let maintainer = args.maintainer.clone().unwrap_or_else(maintainer);
    let staged = Staged::of(&program, arch, &version, &epoch, &maintainer, verbose)?;
    let job = Job { arch, staged, version, epoch, maintainer, folder, verbose };
    let all = [Kind::Deb, Kind::Rpm, Kind::Tarball, Kind::Image];
    for kind in all.into_iter().filter(|kind| args.kinds.is_empty() || args.kinds.contains(kind)) {
        let made = match kind {
            Kind::Deb => packages::deb(&job)?,
            Kind::Rpm => packages::rpm(&job)?,
            Kind::Tarball => tarball::make(&job)?,
            Kind::Image => image::make(&job)?,
        };
        step(&format!("made {} ({})", made.display(), size(&made)));
    }
    if args.test { test::packages(&job.folder, job.staged.program(), verbose) } else { Ok(ExitCode::SUCCESS) }
}

/// The version of the workspace.
fn version() -> Result<String> {
    let id = answer(&mut cargo::cargo(&["pkgid", "-p", "netwatch", "--offline"])?)
        .context("cargo pkgid failed")?;
    Ok(id.rsplit(['#', '@']).next().unwrap_or_default().to_owned())
}

/// As Debian's own tools name whoever builds a package, or as git does.
fn maintainer() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let git = |key: &str| answer(Command::new("git").args(["config", key])).filter(|value| !value.is_empty());
    let name =
        variable("DEBFULLNAME").or_else(|| git("user.name")).unwrap_or_else(|| "netwatch maintainers".into());
    match variable("DEBEMAIL").or_else(|| git("user.email")) {
        Some(address) => format!("{name} <{address}>"),
        None => name,
    }
}

fn size(path: &Path) -> String {
    let bytes = fs::metadata(path).map_or(0, |found| found.len());
    format!("{:.1} MB", bytes as f64 / 1e6)
}
