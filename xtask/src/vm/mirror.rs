//! The package sources of this machine. Kernels of other suites are downloaded from them too.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Suites of Debian whose name is not a codename.
const GENERAL: [&str; 4] = ["stable", "testing", "unstable", "sid"];

/// A package source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(super) suites: Vec<String>,
    /// Path of the keyring for its signatures, if the configuration has one.
    pub(crate) keyring: Option<String>,
}

/// Debian's archive and its security archive, if they are configured on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    archive: Option<Source>,
    security: Option<Source>,
}

impl Mirror {
    /// Reads apt's own configuration.
    pub(super) fn of_this_machine() -> Result<Self> {
        let release = release();
        if !release.lines().any(|line| line == "ID=debian") {
            bail!("this machine is not a Debian, so its package sources lead to no packages of Debian's");
        }
        let codename = codename(&release);
        let mut sources = one_line(&fs::read_to_string("/etc/apt/sources.list").unwrap_or_default());
        let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") else {
            return Ok(Self::among(&sources, codename));
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path).unwrap_or_default();
            match path.extension() {
                Some(extension) if extension == "list" => sources.extend(one_line(&text)),
                Some(extension) if extension == "sources" => sources.extend(stanzas(&text)),
                _ => {}
            }
        }
        Ok(Self::among(&sources, codename))
    }

    /// Selects the sources by their suites, since sources of other vendors may be configured too.
    fn among(sources: &[Source], codename: Option<&str>) -> Self {
        let is_debian_s = |suite: &str| GENERAL.contains(&suite) || Some(suite) == codename;
        let first = |fits: &dyn Fn(&str) -> bool| {
            sources.iter().find(|source| source.suites.iter().any(|suite| fits(suite))).cloned()
        };
        Self {
            archive: first(&is_debian_s),
            security: first(&|suite| suite.strip_suffix("-security").is_some_and(is_debian_s)),
        }
    }

    /// The source of the packages of a suite.
    pub(super) fn of(&self, suite: &str) -> Option<&Source> {
        if suite.ends_with("-security") { self.security.as_ref() } else { self.archive.as_ref() }
    }
}

/// The suite of this machine, and its source.
pub(super) fn own_suite() -> Result<(String, Source)> {
    let mirror = Mirror::of_this_machine()?;
    let release = release();
    let codename = codename(&release).context("this Debian does not say its codename")?;
    let source = mirror.of(codename).with_context(|| format!("the package sources lead to no {codename}"))?;
    Ok((codename.to_owned(), source.clone()))
}

fn release() -> String {
    fs::read_to_string("/etc/os-release").unwrap_or_default()
}

fn codename(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))
}

/// Parses lines of the form `deb [options] uri suite component…`.
fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(|line| of_line(line.trim())).collect()
}

fn of_line(line: &str) -> Option<Source> {
    let rest = line.strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then_some(())?;
    let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source { uri: uri.to_owned(), suites: vec![suite.to_owned()], keyring: keyring.and_then(path) })
}

/// Parses paragraphs in the deb822 format: lines with keys, separated by empty lines.
fn stanzas(text: &str) -> Vec<Source> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).filter_map(of_stanza).collect()
}

fn of_stanza(lines: &[&str]) -> Option<Source> {
    let value = |key: &str| {
        lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim())
        })
    };
    let has = |key: &str, word: &str| value(key)?.split_whitespace().find(|one| *one == word);
    has("Types", "deb")?;
    has("Components", "main")?;
    (!value("Enabled").is_some_and(|enabled| enabled.eq_ignore_ascii_case("no"))).then_some(())?;
    let suites = value("Suites")?.split_whitespace().map(str::to_owned).collect();
    let uri = value("URIs")?.split_whitespace().next()?.to_owned();
    Some(Source { uri, suites, keyring: value("Signed-By").and_then(path) })
}

/// Path of a keyring. If `Signed-By` has an inline key or several files, the machine's default keys are used.
fn path(keyring: &str) -> Option<String> {
    (Path::new(keyring).is_absolute() && !keyring.contains([' ', ','])).then(|| keyring.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suites: &[&str], keyring: Option<&str>) -> Source {
        Source {
            uri: uri.to_owned(),
            suites: suites.iter().copied().map(str::to_owned).collect(),
            keyring: keyring.map(str::to_owned),
        }
    }

    #[test]
    fn both_notations_are_read() {
        let text = "# a remark
Types: deb deb-src
# http://snapshot.invalid/
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
Enabled: no";
        let suites = ["bookworm", "bookworm-updates"];
        let keyring = Some("/usr/share/keyrings/archive.gpg");
        assert_eq!(stanzas(text), [source("http://mirror.invalid/debian", &suites, keyring)]);
        let text = "deb [arch=amd64 signed-by=/k.gpg] http://one.invalid/debian bookworm main
# deb http://off.invalid bookworm main
deb-src http://one.invalid/debian bookworm main
deb http://two.invalid/security bookworm-security non-free main
deb http://three.invalid/debian bookworm contrib";
        assert_eq!(
            one_line(text),
            [
                source("http://one.invalid/debian", &["bookworm"], Some("/k.gpg")),
                source("http://two.invalid/security", &["bookworm-security"], None),
            ]
        );
    }

    #[test]
    fn an_inline_key_is_no_path() {
        let text = "Types: deb
URIs: http://mirror.invalid/debian
Suites: sid
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----";
        assert_eq!(stanzas(text), [source("http://mirror.invalid/debian", &["sid"], None)]);
    }

    #[test]
    fn a_suite_gives_its_archive_and_not_that_of_another_vendor() {
        let sources = [
            source("http://vendor.invalid", &["tool-bookworm"], None),
            source("http://vendor.invalid", &["nodistro"], None),
            source("http://mirror.invalid/security", &["bookworm-security"], None),
            source("http://mirror.invalid/debian", &["bookworm", "bookworm-updates"], None),
        ];
        let mirror = Mirror::among(&sources, Some("bookworm"));
        let uri = |suite| mirror.of(suite).map(|source| source.uri.as_str());
        assert_eq!(uri("sid"), Some("http://mirror.invalid/debian"));
        assert_eq!(uri("bullseye-security"), Some("http://mirror.invalid/security"));
        assert_eq!(Mirror::among(&sources, Some("other")).of("sid"), None);
        let rolling = Mirror::among(&[source("http://mirror.invalid/debian", &["unstable"], None)], None);
        assert!(rolling.of("sid").is_some() && rolling.of("bullseye-security").is_none());
    }
}
