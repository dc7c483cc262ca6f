//! Programs of PyPI that read the formats which netwatch prints, in a virtual environment in the cache: for the
//! end-to-end tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::exec::{find, quietly, step, succeeds};
use crate::{setup, vm};

/// With everything that they need, at fixed versions.
const PACKAGES: [&str; 8] = [
    "ocsf-json-schema==1.2.0",
    "parsezeeklogs==3.0.1",
    "jsonschema==4.26.0",
    "attrs==26.1.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing_extensions==4.16.0",
];

/// What validates manifests for Kubernetes, with everything that it needs.
const KUBERNETES: [&str; 10] = [
    "kubernetes-validate==1.37.0",
    "PyYAML==6.0.4",
    "jsonschema==4.26.0",
    "attrs==26.1.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing_extensions==4.16.0",
    "importlib_resources==7.1.0",
    "packaging==26.4",
];

/// File in the environment with the packages that are installed.
const RECIPE: &str = "netwatch-recipe";

/// The Python of the environment. Makes it if it is missing, which takes some seconds.
pub(crate) fn python(verbose: bool) -> Result<PathBuf> {
    environment("judges", &PACKAGES, verbose)
}

/// The program that validates manifests for Kubernetes, in an environment of its own.
pub(crate) fn kubernetes(verbose: bool) -> Result<PathBuf> {
    Ok(environment("judges-kubernetes", &KUBERNETES, verbose)?.with_file_name("kubernetes-validate"))
}

fn environment(name: &str, packages: &[&str], verbose: bool) -> Result<PathBuf> {
    let folder = vm::cache()?.join(name);
    let python = folder.join("bin/python3");
    let recipe = packages.join("\n");
    let is_made = fs::read_to_string(folder.join(RECIPE)).is_ok_and(|made| made == recipe);
    if is_made && succeeds(Command::new(&python).arg("--version")) {
        return Ok(python);
    }
    make(&folder, &python, packages, verbose).context("no judges of formats from PyPI")?;
    fs::write(folder.join(RECIPE), recipe).context("cannot write to the cache")?;
    Ok(python)
}

fn make(folder: &Path, python: &Path, packages: &[&str], verbose: bool) -> Result<()> {
    let has_venv = || {
        let own = find("python3")?;
        succeeds(Command::new(&own).args(["-c", "import venv, ensurepip"])).then_some(own)
    };
    let own = match has_venv() {
        Some(own) => own,
        None => {
            setup::install(&["python3-venv"], "programs that judge formats run in it", verbose)?;
            let Some(own) = has_venv() else { bail!("python3 cannot make a virtual environment") };
            own
        }
    };
    step(&format!(
        "installing {} from PyPI in {}: tests judge formats with them",
        packages.iter().take(2).copied().collect::<Vec<_>>().join(" and "),
        folder.display()
    ));
    quietly(Command::new(own).args(["-m", "venv", "--clear"]).arg(folder), verbose)?;
    let mut pip = Command::new(python);
    // Fails soon if there is no network.
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=1",
        "--timeout=20",
    ]);
    quietly(pip.arg("--no-deps").args(packages), verbose)
}
