//! Downloads kernels and the emulator into the cache, by an apt with its own configuration, which needs no root and
//! does not change the host's.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

use super::cached::{self, Cached};
use super::kernels::{Candidate, Kernel, newest_first};
use super::mirror::{Mirror, Source};
use crate::exec::{find, quietly, step};

/// Messages of apt if it has no key for a signature: with gpgv, and with sqv in newer releases.
const NO_KEY: [&str; 2] = ["NO_PUBKEY", "Missing key"];

/// The cache of kernels. It is not in the target directory, so that other clones can use it.
pub(super) fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("NETWATCH_VM_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("netwatch-vm")
    });
    // It must be absolute, since programs with another working directory use it.
    std::path::absolute(cache).context("the cache has no path")
}

/// A kernel that can be booted: the newest that can be downloaded, else one from an earlier run.
pub(super) fn obtain(kernel: &Kernel, mirror: &Mirror, cache: &Path, verbose: bool) -> Result<Cached> {
    let mut candidates = Vec::new();
    let mut why = Vec::new();
    for suite in kernel.suites {
        match Suite::open(suite, mirror, cache, verbose).and_then(|suite| suite.candidates(kernel)) {
            Ok(found) => candidates.extend(found),
            Err(error) => why.push(error),
        }
    }
    newest_first(&mut candidates);
    let kept = cache.join("kernels").join(kernel.name);
    for candidate in &candidates {
        match take(candidate, mirror, cache, &kept, verbose) {
            Ok(found) => {
                cached::keep_only(&kept, &found)?;
                return Ok(found);
            }
            Err(error) => {
                step(&format!("{error:#}; trying the next older"));
                why.push(error);
            }
        }
    }
    let why = why.pop().unwrap_or_else(|| anyhow!("no suite of {} has it", kernel.suites.join(", ")));
    match cached::newest(&kept) {
        Some(found) => {
            step(&format!("kernel {}: taking {} of an earlier run: {why:#}", kernel.name, found.release));
            Ok(found)
        }
        None => Err(why),
    }
}

/// The release in the cache; downloads it if it is missing.
fn take(candidate: &Candidate, mirror: &Mirror, cache: &Path, kept: &Path, verbose: bool) -> Result<Cached> {
    if let Some(found) = cached::open(kept, &candidate.release) {
        return Ok(found);
    }
    step(&format!("downloading {}", candidate.packages.join(" ")));
    fs::create_dir_all(kept).with_context(|| format!("cannot make {}", kept.display()))?;
    // In the same folder, so that the final rename is atomic.
    let scratch = tempfile::tempdir_in(kept).context("cannot make a temporary directory in the cache")?;
    let suite = Suite::at(candidate.suite, mirror, cache)?;
    let mut download = suite.apt("apt-get");
    download.current_dir(scratch.path()).arg("download").args(&candidate.packages);
    said(&mut download, verbose)
        .with_context(|| format!("cannot download {}", candidate.packages.join(" ")))?;
    cached::unpack(scratch.path(), kept, &candidate.release, verbose)
}

/// Unpacks the packages in a folder.
pub(super) fn unpack(packages: &Path, into: &Path, verbose: bool) -> Result<()> {
    for entry in fs::read_dir(packages).context("cannot read what apt fetched")?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            quietly(Command::new("dpkg").arg("-x").arg(entry.path()).arg(into), verbose)?;
        }
    }
    Ok(())
}

/// The packages of one suite, by an apt that has only this source.
pub(super) struct Suite<'a> {
    name: &'static str,
    source: &'a Source,
    directory: PathBuf,
}

impl<'a> Suite<'a> {
    fn at(name: &'static str, mirror: &'a Mirror, cache: &Path) -> Result<Self> {
        let source =
            mirror.of(name).with_context(|| format!("the package sources here lead to no {name}"))?;
        Ok(Self { name, source, directory: cache.join("apt").join(name) })
    }

    /// Downloads the list of packages.
    pub(super) fn open(name: &'static str, mirror: &'a Mirror, cache: &Path, verbose: bool) -> Result<Self> {
        let suite = Self::at(name, mirror, cache)?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.directory.join(part)).with_context(|| {
                format!("cannot make {}: NETWATCH_VM_CACHE may name another place", suite.directory.display())
            })?;
        }
        suite.update(verbose)?;
        Ok(suite)
    }

    fn update(&self, verbose: bool) -> Result<()> {
        let signed = self.source.keyring.as_ref().map(|keyring| format!("[signed-by={keyring}] "));
        self.configure(&signed.unwrap_or_default())?;
        let Err(error) = said(self.apt("apt-get").arg("update"), verbose) else { return Ok(()) };
        let what = if lacks_key(&format!("{error:#}")) {
            format!("the keyring here lacks the key of {}: update the package {KEYRING}", self.name)
        } else {
            format!("cannot fetch the package list of {}", self.name)
        };
        Err(error.context(what))
    }

    fn configure(&self, options: &str) -> Result<()> {
        let line = format!("deb {options}{} {} main\n", self.source.uri, self.name);
        fs::write(self.sources(), line).context("cannot write to the cache")
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    fn candidates(&self, kernel: &Kernel) -> Result<Vec<Candidate>> {
        let output = self.apt("apt-cache").arg("pkgnames").output().context("cannot start apt-cache")?;
        let names = String::from_utf8_lossy(&output.stdout);
        Ok(kernel.candidates(self.name, &names.lines().collect::<Vec<_>>()))
    }

    pub(super) fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
        command.env("LC_ALL", "C");
        let mut option = |name: &str, value: &dyn AsRef<OsStr>| {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            command.arg("-o").arg(option);
        };
        option("Dir::Etc::SourceParts", &"/dev/null");
        option("Dir::Etc::SourceList", &self.sources());
        option("Dir::State::Lists", &self.directory.join("lists"));
        option("Dir::State::Status", &"/dev/null");
        option("Dir::Cache", &self.directory.join("cache"));
        // Only the list of packages is needed, since nothing is installed.
        option("Acquire::Languages", &"none");
        option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", &"false");
        // The cache belongs to the caller, and the user _apt cannot write there.
        option("APT::Sandbox::User", &"root");
        // By default, a list that cannot be downloaded is only a warning.
        option("APT::Update::Error-Mode", &"any");
        // Fail soon if there is no network.
        option("Acquire::Retries", &"1");
        option("Acquire::http::Timeout", &"20");
        command
    }
}

/// Runs apt, or a program that runs it. Its errors and warnings are returned as the error; the caller decides.
pub(crate) fn said(command: &mut Command, verbose: bool) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("cannot start apt")?;
    if verbose {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    if output.status.success() {
        return Ok(());
    }
    bail!(complaints(&String::from_utf8_lossy(&output.stderr)))
}

/// Errors and warnings of apt in one line, without progress messages.
fn complaints(stderr: &str) -> String {
    let lines: Vec<_> =
        stderr.lines().filter(|line| line.starts_with("E: ") || line.starts_with("W: ")).collect();
    if lines.is_empty() { stderr.trim().to_owned() } else { lines.join("; ") }
}

/// The package of Debian and its derivatives with the keys of Debian.
const KEYRING: &str = "debian-archive-keyring";

/// Whether the only error of apt is an unknown key. A missing or wrong signature is another error.
fn lacks_key(complaint: &str) -> bool {
    NO_KEY.iter().any(|message| complaint.contains(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_distinguished_from_a_missing_network_or_signature() {
        let key = complaints(
            "Reading package lists...\nW: GPG error: http://mirror.invalid sid InRelease: The following signatures \
             couldn't be verified because the public key is not available: NO_PUBKEY 0123456789ABCDEF\n\
             E: The repository 'http://mirror.invalid sid InRelease' is not signed.\n",
        );
        assert!(lacks_key(&key) && key.starts_with("W: GPG") && key.lines().count() == 1, "{key}");
        let network = complaints(
            "E: Failed to fetch http://mirror.invalid/InRelease  Could not resolve 'mirror.invalid'\n",
        );
        assert!(!lacks_key(&network), "{network}");
        let bare = "E: The repository 'http://mirror.invalid sid Release' is not signed.";
        assert!(!lacks_key(bare));
        assert_eq!(complaints("no apt here\n"), "no apt here");
    }
}
