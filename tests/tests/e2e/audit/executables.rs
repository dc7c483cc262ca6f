//! What became of the file of a program that has network sockets.

use std::os::unix::fs::PermissionsExt as _;

use tests::{Actor, copy_program, in_fresh_netns, stranger_s_copy};

use super::Audit;

const CODES: [&str; 4] = ["exe-deleted", "exe-memfd", "exe-replaced", "exe-world-writable"];

/// A program of nobody's, in a folder that only its owner may write to, listens.
fn listening(name: &str) -> (tempfile::TempDir, std::path::PathBuf, Actor) {
    let (folder, path) = stranger_s_copy(Actor::program().as_ref(), name);
    let mut server = Actor::start(&path);
    server.say("listen 127.0.0.1:5000 8");
    (folder, path, server)
}

/// Has this finding, and none of the others.
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
fn a_file_that_is_where_it_was_is_none() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("sound");
        let audit = Audit::take(&[]);
        CODES.iter().for_each(|code| audit.has_no(code));
        // It is moved, and that is no loss.
        std::fs::rename(&path, path.with_extension("moved")).unwrap();
        let audit = Audit::take(&[]);
        CODES.iter().for_each(|code| audit.has_no(code));
        let port = audit.port("127.0.0.1:5000");
        assert_eq!((&port["explained"], &port["process"]["pid"]), (&false.into(), &server.pid().into()));
    });
}

#[test]
fn a_file_that_was_deleted() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("deleted");
        std::fs::remove_file(&path).unwrap();
        only("exe-deleted", "high", &server);
    });
}

#[test]
fn a_file_that_was_replaced() {
    in_fresh_netns(|| {
        let (_folder, path, server) = listening("replaced");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        only("exe-replaced", "medium", &server);
    });
}

#[test]
fn a_file_that_never_had_a_name() {
    in_fresh_netns(|| {
        let file = crate::disguise::memfd();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
        let mut server = Actor::start(&path);
        server.say("listen 127.0.0.1:5000 8");
        only("exe-memfd", "critical", &server);
    });
}

#[test]
fn a_file_where_everybody_may_write() {
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
