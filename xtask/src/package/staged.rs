//! The files of all packages: the stripped program, its debug info, and what is generated from its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::build::Arch;
use crate::cargo::workspace;
use crate::exec::{quietly, succeeds};

/// A folder beside the program, where cargo-deb and cargo-generate-rpm find it as `target/release/package`.
pub(super) struct Staged {
    pub(super) folder: PathBuf,
}

/// Names of completions: as each shell looks for them.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "netwatch"), ("zsh", "_netwatch"), ("fish", "netwatch.fish")];

impl Staged {
    pub(super) fn of(
        program: &Path,
        arch: Arch,
        version: &str,
        epoch: &str,
        maintainer: &str,
        verbose: bool,
    ) -> Result<Self> {
        let folder = program.with_file_name("package");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        for name in ["man", "completions"] {
            fs::create_dir_all(folder.join(name))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let staged = Self { folder };
        staged.split(program, arch, verbose)?;
        staged.generate(arch)?;
        let date = output(Command::new("date").args(["-R", "-u", "-d", &format!("@{epoch}")]))?;
        let changes = "See /usr/share/doc/netwatch/changelog.gz.";
        let entry = format!(
            "netwatch ({version}-1) unstable; urgency=medium\n\n  * {changes}\n\n -- {maintainer}  {}\n",
            String::from_utf8_lossy(&date).trim()
        );
        staged.write("changelog", entry.as_bytes())?;
        let changes = fs::read(workspace()?.join("CHANGELOG.md")).context("no CHANGELOG.md")?;
        staged.write("CHANGELOG.md", &changes)?;
        let mut pack = Command::new("gzip");
        pack.args(["-9", "-n"]).args(["changelog", "CHANGELOG.md"].map(|name| staged.folder.join(name)));
        quietly(&mut pack, verbose)?;
        let mut touch = Command::new("find");
        touch.arg(&staged.folder).args(["-exec", "touch", "-h", "-d", &format!("@{epoch}"), "{}", "+"]);
        quietly(&mut touch, verbose)?;
        Ok(staged)
    }

    /// The program without debug info.
    pub(super) fn program(&self) -> PathBuf {
        self.folder.join("netwatch")
    }

    pub(super) fn debug_info(&self) -> PathBuf {
        self.folder.join("netwatch.debug")
    }

    fn split(&self, program: &Path, arch: Arch, verbose: bool) -> Result<()> {
        let (stripped, debug) = (self.program(), self.debug_info());
        let tool = || Command::new(arch.tool("objcopy"));
        quietly(
            tool().args(["--only-keep-debug", "--compress-debug-sections"]).arg(program).arg(&debug),
            verbose,
        )?;
        // In the folder of the debug info: the link has its name only.
        let mut strip = tool();
        strip.current_dir(&self.folder).args(["--strip-all", "--add-gnu-debuglink=netwatch.debug"]);
        quietly(strip.arg(program).arg(&stripped), verbose)
    }

    fn generate(&self, arch: Arch) -> Result<()> {
        let runner = self.runner(arch)?;
        let ask = |arguments: &[&str]| {
            let (program, first) = runner.split_first().context("nothing runs the program")?;
            output(Command::new(program).args(first).args(arguments))
        };
        for (shell, name) in COMPLETIONS {
            self.write(&format!("completions/{name}"), &ask(&["completions", shell])?)?;
        }
        let pages = String::from_utf8(ask(&["man", "--list"])?).context("names of commands are UTF-8")?;
        for page in pages.lines() {
            let (file, command) = page.split_once(' ').unwrap_or((page, ""));
            let mut arguments = vec!["man"];
            arguments.extend(command.split_whitespace());
            self.write(&format!("man/{file}"), &ask(&arguments)?)?;
            quietly(Command::new("gzip").args(["-9", "-n"]).arg(self.folder.join("man").join(file)), false)?;
        }
        Ok(())
    }

    /// What runs the program: itself, or an emulator.
    fn runner(&self, arch: Arch) -> Result<Vec<PathBuf>> {
        let program = self.program();
        if succeeds(Command::new(&program).arg("-V")) {
            return Ok(vec![program]);
        }
        let emulator = PathBuf::from(format!("qemu-{}-static", arch.name()));
        if !succeeds(Command::new(&emulator).arg(&program).arg("-V")) {
            bail!("{} does not start", program.display());
        }
        Ok(vec![emulator, program])
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The stdout of a tool that has to succeed.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot start {}", name.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", name.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
