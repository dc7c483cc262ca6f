//! A Debian of this machine's own suite, in a folder of the cache, with servers from packages: for the end-to-end tests
//! of `audit`, and of what events are delivered to. Installing the servers on the machine itself would start them there, and leave them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exec::{as_root, find, quietly, step};
use crate::setup;
use crate::vm::{self, Source};

/// Servers of a plain Debian; rpm, for the tests of its database; what relays commands to a shell; and what takes events.
const PACKAGES: &str = concat!(
    "openssh-server,rpcbind,nginx,postgresql,redis-server,rpm,",
    "openssh-client,socat,ncat,netcat-openbsd,tmux,python3-minimal,php-fpm,dbus-daemon,nftables,curl,dnsmasq-base,",
    "rsyslog,systemd,systemd-journal-remote,prometheus",
);

/// The program that builds it: among Debian's bootstraps the one that works by apt, with the machine's own settings of
/// it. It prevents services from being started (policy-rc.d, start-stop-daemon), and mounts in its own mount namespace.
const BUILDER: &str = "mmdebstrap";

/// Packs a program that listens into an rpm package, which a test may install. A shell script that mmdebstrap runs with
/// the root as its argument. The program is a copy of Redis with the name of a fork of it: it belongs to no Debian
/// package, and is a program for the service of the port.
const SAMPLE: &str = r#"set -e
mkdir "$1/var/cache/netwatch"
cat > "$1/var/cache/netwatch/sample.spec" <<'SPEC'
Name: netwatch-sample
Version: 1.2
Release: 3
Summary: A program from a package of rpm's
License: MIT
AutoReqProv: no
%description
It is there to be asked about.
%install
mkdir -p %{buildroot}/opt/netwatch-sample
cp -L /usr/bin/redis-server %{buildroot}/opt/netwatch-sample/valkey-server
%files
/opt/netwatch-sample/valkey-server
SPEC
chroot "$1" rpmbuild -bb --quiet --define '_topdir /var/cache/netwatch/build' --define '_rpmdir /var/cache/netwatch' \
    --define '_build_name_fmt sample.rpm' --define 'debug_package %{nil}' /var/cache/netwatch/sample.spec
rm -r "$1/var/cache/netwatch/build""#;

/// File in the root with the recipe that it was built from. If the recipe changes, the root is built again.
const RECIPE: &str = "var/cache/netwatch/recipe";

/// What takes the record of many hosts. Debian has it up to this suite only, so it has a root of its own, whatever the
/// machine's suite is.
const CLICKHOUSE: (&str, &str) = ("bookworm", "clickhouse-server,clickhouse-client");

/// A root to build: its name in the cache, its suite and packages, and what is done in it at the end.
struct Recipe {
    name: String,
    suite: String,
    packages: &'static str,
    hook: &'static str,
}

impl Recipe {
    /// As it is kept in the root.
    fn text(&self) -> String {
        format!("{}\n{}\n", self.packages, self.hook)
    }
}

/// The path of the root with servers. Builds it if it is missing, which takes a minute or two.
pub(crate) fn root(verbose: bool) -> Result<PathBuf> {
    let (suite, source) = vm::own_suite()?;
    let name = format!("debian-{suite}");
    made(&Recipe { name, suite, packages: PACKAGES, hook: SAMPLE }, &source, verbose)
}

/// The path of the root with ClickHouse.
pub(crate) fn clickhouse(verbose: bool) -> Result<PathBuf> {
    let (_, source) = vm::own_suite()?;
    let (suite, packages) = CLICKHOUSE;
    let name = format!("debian-{suite}-clickhouse");
    made(
        &Recipe { name, suite: suite.into(), packages, hook: "mkdir -p \"$1/var/cache/netwatch\"" },
        &source,
        verbose,
    )
}

fn made(recipe: &Recipe, source: &Source, verbose: bool) -> Result<PathBuf> {
    let cache = vm::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Prevents two runs from building it at once. The lock is released when the file is closed.
    let lock = cache.join(format!("{}.lock", recipe.name));
    let lock = File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
    lock.lock().context("cannot lock the cache")?;
    let root = cache.join(&recipe.name);
    if fs::read_to_string(root.join(RECIPE)).is_ok_and(|built| built == recipe.text()) {
        return Ok(root);
    }
    // In the same folder, so that the final rename is atomic.
    let half = cache.join(format!("{}.half", recipe.name));
    remove(&half, verbose)?;
    let built = build(recipe, source, &half, verbose);
    if built.is_err() {
        remove(&half, verbose)?;
    }
    built?;
    remove(&root, verbose)?;
    fs::rename(&half, &root).with_context(|| format!("cannot move {}", half.display()))?;
    Ok(root)
}

fn build(recipe: &Recipe, source: &Source, into: &Path, verbose: bool) -> Result<()> {
    let Recipe { suite, packages, hook, .. } = recipe;
    if find(BUILDER).is_none() {
        setup::install(&[BUILDER], "tests start servers in a Debian that it builds", verbose)?;
    }
    step(&format!("building a Debian with {packages} in {}: tests start them there", into.display()));
    let signed = source.keyring.as_ref().map(|keyring| format!("[signed-by={keyring}] "));
    let line = format!("deb {}{} {suite} main", signed.unwrap_or_default(), source.uri);
    let note = format!("cat > \"$1/{RECIPE}\" <<'RECIPE'\n{}RECIPE\n", recipe.text());
    let mut command = as_root(BUILDER, &[])?;
    command.args(["--mode=root", "--variant=minbase"]).arg(format!("--include={packages}"));
    // No fsync is needed, since an incomplete root is discarded.
    command.arg("--dpkgopt=force-unsafe-io");
    // Fail soon if there is no network.
    for option in ["Acquire::Languages \"none\"", "Acquire::Retries \"1\"", "Acquire::http::Timeout \"20\""] {
        command.arg(format!("--aptopt={option}"));
    }
    command.arg(format!("--customize-hook={hook}")).arg(format!("--customize-hook={note}"));
    vm::said(command.arg(suite).arg(into).arg(line), verbose)
        .with_context(|| format!("{BUILDER} cannot build a Debian"))
}

fn remove(root: &Path, verbose: bool) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    quietly(as_root("rm", &[])?.args(["-r", "--one-file-system"]).arg(root), verbose)
        .with_context(|| format!("cannot remove {}", root.display()))
}
