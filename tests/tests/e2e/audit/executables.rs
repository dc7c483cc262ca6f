//! The executable file of a program that has network sockets.

use std::os::unix::fs::PermissionsExt as _;

use tests::{Actor, copy_program, in_fresh_netns, stranger_s_copy};

use super::Audit;

const CODES: [&str; 4] = ["exe-deleted", "exe-memfd", "exe-replaced", "exe-world-writable"];

/// A program of no package, in a folder that only its owner may write to, listens.
fn listening(name: &str) -> (tempfile::TempDir, std::path::PathBuf, Actor) {
    let (folder, path) = stranger_s_copy(Actor::program().as_ref(), name);
    let mut server = Actor::start(&path);
    server.say("listen 127.0.0.1:5000 8");
    (folder, path, server)
}

/// There is this finding, and none of the others.
#[track_caller]
fn only(code: &str, severity: &str, server: &Actor) {
    let audit = Audit::take(&[]);
    for other in CODES.iter().filter(|other| **other != code) {
        audit.has_no(other);
    }
    let finding = audit.finding(code);
    assert_eq!((&finding["severity"], &finding["process"]["pid"]), (&severity.into(), &server.pid().into()));
}

#[test]
fn unchanged_or_moved_file_is_no_finding() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("sound");
        let audit = Audit::take(&[]);
        CODES.iter().for_each(|code| audit.has_no(code));
        // Renaming the file is no finding.
        std::fs::rename(&path, path.with_extension("moved")).unwrap();
        let audit = Audit::take(&[]);
        CODES.iter().for_each(|code| audit.has_no(code));
        let port = audit.port("127.0.0.1:5000");
        assert_eq!((&port["explained"], &port["process"]["pid"]), (&false.into(), &server.pid().into()));
    });
}

#[test]
fn deleted_file_is_a_high_finding() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("deleted");
        std::fs::remove_file(&path).unwrap();
        only("exe-deleted", "high", &server);
    });
}

#[test]
fn replaced_file_is_a_medium_finding() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("replaced");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        only("exe-replaced", "medium", &server);
    });
}

#[test]
fn memfd_is_a_critical_finding() {
    in_fresh_netns(|| {
        let file = crate::disguise::memfd();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
        let mut server = Actor::start(&path);
        server.say("listen 127.0.0.1:5000 8");
        only("exe-memfd", "critical", &server);
    });
}

#[test]
fn file_in_a_world_writable_folder_is_a_high_finding() {
    in_fresh_netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("actor");
        copy_program(Actor::program().as_ref(), &path);
        // As /tmp is.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let mut server = Actor::start(&path);
        server.say("listen 127.0.0.1:5000 8");
        only("exe-world-writable", "high", &server);
    });
}
