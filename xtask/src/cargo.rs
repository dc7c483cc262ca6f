//! Calls of cargo.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::exec::answer;

/// The root of the workspace, determined at run time, since a checkout may have been moved since the build.
///
/// Cargo sets the folder of the package. If the program was not started by cargo, the working directory is used.
pub(crate) fn workspace() -> Result<PathBuf> {
    let start = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => PathBuf::from(package),
        None => env::current_dir().context("cannot find the current directory")?,
    };
    let root = root_above(&start).with_context(|| {
        format!("{} is in no checkout of netwatch: change to one, and run cargo xtask there", start.display())
    })?;
    Ok(root.to_owned())
}

fn root_above(start: &Path) -> Option<&Path> {
    start.ancestors().find(|folder| folder.join("xtask/Cargo.toml").is_file())
}

/// Cargo's home directory.
pub(crate) fn home() -> PathBuf {
    env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from)
}

/// A cargo command at the root of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Result<Command> {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace()?).args(args);
    Ok(command)
}

/// The target directory, as reported by cargo: the environment and the configuration can change it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = answer(&mut cargo(&["metadata", "--no-deps", "--format-version=1", "--offline"])?);
    let metadata = metadata.context("cargo metadata failed")?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    target.map(PathBuf::from).context("cargo metadata names no target directory")
}

/// Builds, with diagnostics on stderr, and returns the path of the executable of the target `name`.
///
/// The path is read from cargo's messages: it depends on `CARGO_TARGET_DIR` and the profile, and tests have a hash in
/// it.
pub(crate) fn build(args: &[&str], name: &str) -> Result<PathBuf> {
    let output = cargo(args)?
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed ({})", args.join(" "), output.status);
    }
    executable(&output.stdout, name).with_context(|| format!("cargo built no executable called {name}"))
}

/// Finds the executable of the target `name` in cargo's messages.
fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(name))
        .find_map(|message| message.get("executable")?.as_str().map(|path| OsStr::new(path).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_what_has_the_xtask_wherever_that_was_built() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("a checkout");
        std::fs::create_dir_all(root.join("xtask")).unwrap();
        std::fs::create_dir_all(root.join("netwatch/src")).unwrap();
        assert_eq!(root_above(&root.join("netwatch/src")), None);
        std::fs::write(root.join("xtask/Cargo.toml"), "").unwrap();
        assert_eq!(root_above(&root.join("netwatch/src")), Some(&*root));
        assert_eq!(root_above(&root.join("xtask")), Some(&*root));
        assert_eq!(root_above(place.path()), None);
    }

    #[test]
    fn executable_is_the_one_of_the_target_and_not_its_library() {
        let messages =
            br#"{"reason":"compiler-artifact","target":{"name":"netwatch","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"netwatch","kind":["bin"]},"executable":"/t/release/netwatch"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "netwatch").as_deref(), Some(Path::new("/t/release/netwatch")));
        assert_eq!(executable(messages, "absent"), None);
    }
}
