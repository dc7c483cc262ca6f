//! The modules that the tests need, with their dependencies.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cached::Cached;
use crate::exec::{find, quietly};

/// Built into some kernels, a module in others, missing from some.
const WANTED: &[&str] =
    &["veth", "tun", "sch_tbf", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "mptcp_diag", "nfsv4"];

/// Lists that depmod reads in addition to the modules.
const LISTS: [&str; 3] = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];

/// Copies them to the folder of modprobe in `root`, so that the kernel loads them on demand.
pub(super) fn install(kernel: &Cached, root: &Path, verbose: bool) -> Result<()> {
    let (from, to) = (kernel.modules(), root.join("lib/modules").join(&kernel.release));
    let dependencies = fs::read_to_string(from.join("modules.dep")).context("cannot read modules.dep")?;
    let modules = needed(&dependencies, WANTED);
    for file in modules.into_iter().chain(LISTS) {
        let (from, to) = (from.join(file), to.join(file));
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(root)).context("cannot make a directory")?;
        fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let depmod = find("depmod").unwrap_or_else(|| "depmod".into());
    quietly(Command::new(depmod).arg("-b").arg(root).arg(&kernel.release), verbose)
}

/// Parses modules.dep, which has a line `path: path…` with all dependencies of each module.
fn needed<'a>(dependencies: &'a str, wanted: &[&str]) -> BTreeSet<&'a str> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(path, _)| wanted.contains(&name(path).as_str()))
        .flat_map(|(path, others)| std::iter::once(path).chain(others.split_whitespace()))
        .collect()
}

/// `tcp_diag` of `kernel/net/ipv4/tcp-diag.ko.xz`: a file name may have a hyphen or an underscore.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_all_that_it_needs() {
        let dependencies = "kernel/drivers/net/veth.ko.xz:
kernel/net/ipv4/tcp-diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz kernel/net/base.ko.xz
kernel/net/ipv4/inet_diag.ko.xz: kernel/net/base.ko.xz
kernel/net/ipv4/tcp_diag_other.ko: kernel/net/other.ko
";
        let found: Vec<_> = needed(dependencies, &["tcp_diag", "veth", "absent"]).into_iter().collect();
        assert_eq!(
            found,
            [
                "kernel/drivers/net/veth.ko.xz",
                "kernel/net/base.ko.xz",
                "kernel/net/ipv4/inet_diag.ko.xz",
                "kernel/net/ipv4/tcp-diag.ko.xz",
            ]
        );
    }
}
