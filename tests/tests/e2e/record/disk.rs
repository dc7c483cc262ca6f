//! Disks that do not keep what they were given, and file systems without inodes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tests::{Recorder, Store, binary, forced, in_fresh_netns, kind, output, skip, until};

use crate::actor;

/// A library for LD_PRELOAD: the next sync of a file whose name ends as the first line of the file TRIGGER fails. If the
/// second line is `lose`, the end of the file is lost as well, as when the page was dropped from memory.
const PRELOAD: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096], ends[64] = "", mode[64] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *trigger = getenv("TRIGGER");
    FILE *file = trigger ? fopen(trigger, "r") : NULL;
    if (length < 0 || !file) return 0;
    path[length] = 0;
    int words = fscanf(file, "%63s %63s", ends, mode);
    fclose(file);
    size_t tail = strlen(ends);
    if (words < 1 || (size_t)length < tail || strcmp(path + length - tail, ends)) return 0;
    unlink(trigger);
    if (!strcmp(mode, "lose")) {
        struct stat found;
        static char zeros[4096];
        if (!fstat(fd, &found)) pwrite(fd, zeros, sizeof zeros, found.st_size - sizeof zeros);
    }
    errno = EIO;
    return 1;
}

int fdatasync(int fd) { return fails(fd) ? -1 : syscall(SYS_fdatasync, fd); }
int fsync(int fd) { return fails(fd) ? -1 : syscall(SYS_fsync, fd); }
"#;

/// The library, or `None` if there is no C compiler.
fn preload(store: &Store) -> Option<PathBuf> {
    let (source, library) = (store.beside("fail.c"), store.beside("fail.so"));
    std::fs::write(&source, PRELOAD).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&source);
    match compiler.status() {
        Ok(status) => {
            assert!(status.success());
            Some(library)
        }
        Err(_) => None,
    }
}

/// A recorder one of whose syncs fails: what it says then, and whether all attempts are recorded.
fn with_failing_sync(test: &str, trigger: &str, check: fn(Recorder, &Store, &dyn Fn() -> usize, usize)) {
    in_fresh_netns(|| {
        let store = Store::new();
        let Some(library) = preload(&store) else { return skip(test, "there is no C compiler") };
        let mut command = Command::new(binary());
        command.args(["record", "--netns", "self", "--max-size", "16MiB", "--store"]).arg(store.path());
        command.args(forced()).env("LD_PRELOAD", &library).env("TRIGGER", store.beside("trigger"));
        let mut recorder = Recorder::of(command.stdin(Stdio::null()).stdout(Stdio::null()));
        recorder.says("recording to");
        let fails = || store.log(&[]).iter().filter(|event| kind(event) == "fail").count();
        let mut client = actor();
        let mut attempt = |times: usize| {
            (0..times)
                .for_each(|_| assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err()));
        };
        attempt(10);
        until("all is recorded", || fails() == 10);
        // In whole, so that it is not read half written.
        std::fs::write(store.beside("next"), trigger).unwrap();
        std::fs::rename(store.beside("next"), store.beside("trigger")).unwrap();
        // Enough for a checkpoint.
        attempt(2000);
        check(recorder, &store, &fails, 2010);
    });
}

fn ends_well(recorder: Recorder, store: &Store) -> Vec<String> {
    recorder.signal(Signal::SIGTERM);
    let (status, said) = recorder.ended();
    assert_eq!(status.code(), Some(0), "{said:?}");
    let (status, text) = store.verify(&[]);
    assert_eq!(status, Some(0), "{text}");
    said
}

#[test]
fn log_is_read_back_after_a_sync_that_failed_once() {
    with_failing_sync(
        "record::disk::log_is_read_back_after_a_sync_that_failed_once",
        "-wal",
        |mut recorder, store, fails, all| {
            // Told by this line alone if it is mended before the recorder looks again.
            recorder.says("was written again, synced, and read back from the disk");
            until("nothing is missing", || fails() == all);
            ends_well(recorder, store);
        },
    );
}

#[test]
fn what_a_failed_sync_lost_is_counted() {
    with_failing_sync(
        "record::disk::what_a_failed_sync_lost_is_counted",
        "-wal lose",
        |mut recorder, store, fails, all| {
            let said = recorder.says("events that were recorded in this run are lost");
            assert!(
                said.contains("-wal was not written to the disk while it was being recorded to"),
                "{said}"
            );
            let kinds = |store: &Store| {
                let log = store.log(&[]);
                let lost = log.iter().find(|event| kind(event) == "loss");
                lost.and_then(|loss| loss["kinds"]["fail"].as_u64()).unwrap_or(0)
            };
            until("all but what was lost is recorded", || fails() as u64 + kinds(store) == all as u64);
            assert!(kinds(store) > 0);
            let said = ends_well(recorder, store);
            let losses = store.log(&[]).iter().filter(|event| event["event"] == "loss").count();
            assert!(
                losses == 1 && !said.iter().any(|line| line.contains("and read back from the disk")),
                "{losses} {said:?}"
            );
        },
    );
}

#[test]
fn database_is_written_again_after_a_sync_that_failed_once() {
    with_failing_sync(
        "record::disk::database_is_written_again_after_a_sync_that_failed_once",
        ".db",
        |mut recorder, store, fails, all| {
            let said = recorder.says("recording goes on in the store; 0 events");
            assert!(said.contains(".db was not written to the disk"), "{said}");
            until("nothing is missing", || fails() == all);
            ends_well(recorder, store);
        },
    );
}

#[test]
fn file_system_without_inodes_is_named_and_left_without_a_store() {
    in_fresh_netns(|| {
        // The folder itself, and the database.
        let store = Store::with_inodes(2);
        let (status, said) = Recorder::begin(&store.path(), &[]).ended();
        assert_eq!((status.code(), said.len()), (Some(1), 1), "{said:?}");
        assert!(said[0].contains("netwatch.db-wal: the file system has no inode left"), "{said:?}");
        assert!(!store.path().exists() && std::fs::read_dir(store.beside(".")).unwrap().count() == 0);
    });
}

#[test]
fn planted_files_do_not_become_stores() {
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
    let store = Store::new();
    let refused = |says: &str| {
        let (status, said) = Recorder::begin(&store.path(), &[]).ended();
        assert_eq!((status.code(), said.len()), (Some(1), 1), "{said:?}");
        assert!(said[0].contains(says), "{said:?}");
    };
    std::fs::write(store.path(), "").unwrap();
    refused("is empty, and no netwatch store");
    std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    refused("can be written by other users (mode 0666)");
    std::fs::rename(store.path(), store.beside("empty")).unwrap();
    symlink(store.beside("empty"), store.path()).unwrap();
    lchown(store.path(), Some(65_534), None).unwrap();
    refused("is a symbolic link of user 65534");
    assert_eq!(std::fs::metadata(store.beside("empty")).unwrap().len(), 0);
    let output = output(Command::new(binary()).args(["log", "--store"]).arg(store.beside("\u{1b}[2J\n")));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\\x1b[2J\\x0a") && said.lines().count() == 1, "{said}");
}
