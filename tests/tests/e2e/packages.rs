//! Packages, as `cargo xtask package --test` made them: installed into a Debian of the test, read by users of it, removed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::{Debian, Presence, Recorder, output, skip};

const STORE: &str = "/var/lib/netwatch";
const DATABASE: &str = "/var/lib/netwatch/netwatch.db";
const CONFIGURATION: &str = "/etc/netwatch/netwatch.toml";

/// The package with this ending.
fn package(test: &str, ending: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("NETWATCH_PACKAGES") else {
        skip(test, "no packages were made for this run: cargo xtask package --test");
        return None;
    };
    let mut all = fs::read_dir(folder).expect("the folder of packages").map(|entry| entry.unwrap().path());
    Some(all.find(|path| path.to_string_lossy().ends_with(ending)).expect("a package of this kind"))
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn run(words: &[&str]) -> Output {
    output(&mut command(words))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program prints that succeeds, errors included.
#[track_caller]
fn says(words: &[&str]) -> String {
    let output = run(words);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    said
}

/// Owner, group by name, and mode.
fn owned(path: &str) -> String {
    says(&["stat", "-c", "%U %G %a", path]).trim().to_owned()
}

/// A Debian with a copy of the package in /tmp.
fn debian_with(test: &str, ending: &str) -> Option<(Debian, String)> {
    let package = package(test, ending)?;
    let debian = Debian::of_this_run(test)?;
    let bytes = fs::read(package).unwrap();
    let copy = format!("/tmp/netwatch{ending}");
    debian.inside(|| fs::write(&copy, bytes).unwrap());
    Some((debian, copy))
}

/// What `log` says to a user of that name, made here.
fn log_of(user: &str) -> Output {
    run(&["su", "-s", "/bin/sh", user, "-c", "netwatch log --since 5m --json"])
}

#[test]
fn deb_is_installed_used_removed_and_purged() {
    let Some((debian, deb)) = debian_with("deb", "_amd64.deb") else { return };
    // Its recorder sees what other tests do.
    let _presence = Presence::alone();
    debian.inside(|| {
        // As the README says it.
        says(&["apt-get", "install", "--yes", "--no-install-recommends", &deb]);
        for (path, is) in [
            ("/usr/bin/netwatch", "root root 755"),
            (CONFIGURATION, "root root 644"),
            (STORE, "root netwatch 2750"),
            ("/usr/share/man/man1/netwatch-record.1.gz", "root root 644"),
            ("/usr/share/bash-completion/completions/netwatch", "root root 644"),
            ("/usr/share/zsh/vendor-completions/_netwatch", "root root 644"),
            ("/usr/share/fish/vendor_completions.d/netwatch.fish", "root root 644"),
        ] {
            assert_eq!(owned(path), is, "{path}");
        }
        says(&["getent", "passwd", "netwatch"]);
        assert!(says(&["getent", "group", "netwatch"]).starts_with("netwatch:"));
        let enabled = says(&["find", "/etc/systemd/system", "-name", "netwatch.service"]);
        assert!(enabled.contains("multi-user.target.wants"), "{enabled}");
        assert!(says(&["netwatch", "list", "-natup"]).contains("Proto"));
        assert!(says(&["netwatch", "--version"]).contains("features: static"));
        readers_need_no_root();

        fs::write(CONFIGURATION, "retain = \"7d\"\n").unwrap();
        says(&["dpkg", "--remove", "netwatch"]);
        assert_eq!(fs::read_to_string(CONFIGURATION).unwrap(), "retain = \"7d\"\n");
        assert!(Path::new(DATABASE).exists() && !Path::new("/usr/bin/netwatch").exists());
        let purged = says(&["dpkg", "--purge", "netwatch"]);
        assert!(purged.contains("the store is still in /var/lib/netwatch"), "{purged}");
        assert!(!Path::new("/etc/netwatch").exists() && Path::new(DATABASE).exists());
    });
}

/// Users of the Debian read a store of root's that the package made the folder for.
fn readers_need_no_root() {
    for user in ["member", "stranger"] {
        says(&["useradd", user]);
    }
    says(&["adduser", "member", "netwatch"]);
    // As the unit starts it, but for what only systemd does.
    let record =
        ["setpriv", "--regid", "netwatch", "--clear-groups", "netwatch", "record", "--netns", "self"];
    let mut command = command(&record);
    let mut recorder = Recorder::of(command.stdin(Stdio::null()).stdout(Stdio::null()));
    recorder.says("recording to");
    let read = log_of("member");
    assert!(read.status.success(), "{}", text(&read.stderr));
    recorder.finish();
    assert_eq!(owned(DATABASE), "root netwatch 640");
    let read = log_of("member");
    assert!(read.status.success(), "{}", text(&read.stderr));
    let refused = log_of("stranger");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        text(&refused.stderr),
        format!(
            "netwatch: you may not read {DATABASE}: `sudo usermod -aG netwatch stranger` gives the right, from the next login on\n"
        )
    );
    // A member whose session is older than that.
    says(&["usermod", "-aG", "netwatch", "stranger"]);
    let uid = says(&["id", "-u", "stranger"]);
    let old = run(&["setpriv", "--reuid", uid.trim(), "--clear-groups", "netwatch", "log"]);
    assert!(text(&old.stderr).contains("log in again: stranger is in the group netwatch"), "{old:?}");
}

#[test]
fn deb_does_not_use_a_folder_that_others_planted() {
    let Some((debian, deb)) = debian_with("planted", "_amd64.deb") else { return };
    debian.inside(|| {
        fs::create_dir(STORE).unwrap();
        fs::set_permissions(STORE, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(says(&["dpkg", "-i", &deb]).contains("others than root may write to it: not started"));
        assert_eq!(fs::metadata(STORE).unwrap().mode() & 0o7777, 0o777);
    });
}

#[test]
fn lintian_finds_no_error_in_the_deb() {
    let Some(deb) = package("lintian", "_amd64.deb") else { return };
    let judged = output(Command::new("lintian").args(["--fail-on", "error"]).arg(&deb));
    assert!(judged.status.success(), "{}{}", text(&judged.stdout), text(&judged.stderr));
}

#[test]
fn rpm_is_installed_and_removed() {
    let Some((debian, rpm)) = debian_with("rpm", ".x86_64.rpm") else { return };
    debian.inside(|| {
        // Debian's packages are not in rpm's database.
        says(&["rpm", "-i", "--nodeps", &rpm]);
        assert_eq!(owned("/usr/bin/netwatch"), "root root 755");
        assert_eq!(owned(STORE), "root netwatch 2750");
        assert!(says(&["rpm", "-qc", "netwatch"]).contains(CONFIGURATION));
        assert_eq!(says(&["rpm", "-V", "--nodeps", "netwatch"]), "");
        assert!(says(&["netwatch", "list"]).contains("Proto"));
        fs::write(CONFIGURATION, "retain = \"7d\"\n").unwrap();
        let removed = says(&["rpm", "-e", "netwatch"]);
        assert!(removed.contains("the store is still in /var/lib/netwatch"), "{removed}");
        assert!(!Path::new("/usr/bin/netwatch").exists());
        assert!(Path::new(&format!("{CONFIGURATION}.rpmsave")).exists());
    });
}

#[test]
fn image_has_a_root_that_the_program_runs_in() {
    let Some((debian, image)) = debian_with("image", "-x86_64.oci.tar") else { return };
    debian.inside(|| {
        says(&["mkdir", "/tmp/layout", "/tmp/root"]);
        says(&["tar", "-xf", &image, "-C", "/tmp/layout"]);
        let blob = |descriptor: &serde_json::Value| {
            let hash = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let path = format!("/tmp/layout/blobs/sha256/{hash}");
            assert!(says(&["sha256sum", &path]).starts_with(hash));
            assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
            path
        };
        let json =
            |path: &str| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
        let manifest = json(&blob(&json("/tmp/layout/index.json")["manifests"][0]));
        let layer = blob(&manifest["layers"][0]);
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        says(&["tar", "-xf", &layer, "-C", "/tmp/root"]);
        let entry = config["config"]["Entrypoint"][0].as_str().unwrap();
        assert!(says(&["chroot", "/tmp/root", entry, "--version"]).contains("features: static"));
    });
}

#[test]
fn manifest_for_kubernetes_is_valid() {
    let Some(validator) = std::env::var_os("NETWATCH_KUBERNETES") else {
        return skip("kubernetes", "no validator was installed for this run: cargo xtask package --test");
    };
    let judge = |text: &str| {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        fs::write(file.path(), text).unwrap();
        output(Command::new(&validator).arg("--strict").arg(file.path()))
    };
    let manifest = include_str!("../../../packaging/kubernetes.yaml");
    let judged = judge(manifest);
    assert!(judged.status.success(), "{judged:?}");
    assert!(!judge(&manifest.replace("hostPID", "hostPid")).status.success());
    assert!(manifest.contains(&format!("localhost/netwatch:{}", env!("CARGO_PKG_VERSION"))));
}
