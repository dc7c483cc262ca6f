//! Where a process runs: its container, its systemd unit, and who logged in to start it.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Actor, Cgroup, Running, Tree, Watch, assert_has, endpoint, in_fresh_netns, kind, skip};

use crate::actor;
use crate::expect::{CONN, used_by};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER_ID: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// The hierarchies that are mounted; if there is none, prints a skip line for `test`.
fn trees(test: &str) -> Vec<Tree> {
    let (has, lacks) = [Tree::Unified, Tree::Systemd].into_iter().partition(|tree| tree.root().is_some());
    // One is enough.
    if Vec::is_empty(&has) {
        skip(test, &format!("no tree of control groups of these is mounted: {lacks:?}"));
    }
    has
}

fn unified(test: &str) -> bool {
    let has = Tree::Unified.root().is_some();
    if !has {
        skip(test, "cgroup v2 is not mounted");
    }
    has
}

/// A refused attempt, which is enough to get the place of a process.
fn attempt(client: &mut Actor, port: u16, watch: &mut Watch) -> Value {
    let connect = format!("connect 127.0.0.1:{port} 127.0.0.1:6000");
    assert_eq!(client.try_say(&connect), Err("ECONNREFUSED".to_owned()));
    let fail = watch.at("fail", endpoint(port, 6000));
    assert_has(&fail["origin"], json!({"side": "local", "basis": "connect", "process": fail["process"]}));
    fail["process"].clone()
}

fn place(group: &Cgroup, container: Option<&str>, unit: Option<&str>) -> Value {
    json!({"cgroup": group.path(), "container": container, "unit": unit})
}

#[test]
fn container_and_unit_come_from_the_cgroup() {
    // Docker with and without systemd, containerd and CRI-O under Kubernetes, podman, nspawn; and cgroups that are not
    // containers.
    let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice";
    let scope = |prefix: &str| format!("{prefix}-{ID}.scope");
    let (docker, containerd, crio, podman) =
        (scope("docker"), scope("cri-containerd"), scope("crio"), scope("libpod"));
    let cases = [
        (format!("docker/{ID}"), Some(ID), None),
        (format!("system.slice/{docker}"), Some(ID), Some(docker.as_str())),
        (format!("{pod}/{containerd}"), Some(ID), Some(&containerd)),
        (format!("{pod}/{crio}"), Some(ID), Some(&crio)),
        (format!("machine.slice/{podman}"), Some(ID), Some(&podman)),
        ("machine.slice/machine-web.scope".to_owned(), Some("web"), Some("machine-web.scope")),
        ("system.slice/x.service".to_owned(), None, Some("x.service")),
        ("user.slice/user-0.slice/session-3.scope".to_owned(), None, Some("session-3.scope")),
        // An id, but not where a runtime puts its containers.
        (format!("something/{ID}"), None, None),
    ];
    for tree in trees("where_it_runs::container_and_unit_come_from_the_cgroup") {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            for (port, (path, container, unit)) in (2000..).zip(&cases) {
                let group = Cgroup::new(tree, path);
                let mut client = actor();
                group.takes(client.pid());
                let process = attempt(&mut client, port, &mut watch);
                assert_has(&process, client.object());
                assert_has(&process, place(&group, *container, *unit));
            }
        });
    }
}

/// It forks there, and is moved to another one; each event has the one at its time.
#[test]
fn cgroup_is_that_of_the_event() {
    if !unified("where_it_runs::cgroup_is_that_of_the_event") {
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let groups = [ID, OTHER_ID].map(|id| Cgroup::new(Tree::Unified, &format!("docker/{id}")));
        let mut client = actor();
        groups[0].takes(client.pid());
        client.fork();
        let first = attempt(&mut client, 2000, &mut watch);
        assert_has(&first, place(&groups[0], Some(ID), None));
        groups[1].takes(client.pid());
        let second = attempt(&mut client, 2001, &mut watch);
        assert_has(&second, place(&groups[1], Some(OTHER_ID), None));
        assert_eq!(first["key"], second["key"]);
    });
}

/// systemd since version 255 creates the processes of units in their cgroups (`CLONE_INTO_CGROUP`), so no record says
/// that they moved. Parent and cgroup are older than netwatch.
#[test]
fn child_created_in_a_cgroup_is_in_it() {
    if !unified("where_it_runs::child_created_in_a_cgroup_is_in_it") {
        return;
    }
    in_fresh_netns(|| {
        let groups = ["init.scope", "system.slice/web.service"].map(|path| Cgroup::new(Tree::Unified, path));
        let mut client = actor();
        groups[0].takes(client.pid());
        let mut watch = Watch::start(&[]);
        client.fork_into(&groups[1].directory());
        let process = attempt(&mut client, 2000, &mut watch);
        assert_has(&process, place(&groups[1], None, Some("web.service")));
        // Its own child is in the same one.
        client.fork();
        assert_has(&attempt(&mut client, 2001, &mut watch), place(&groups[1], None, Some("web.service")));
    });
}

/// A short-lived container: process and cgroup are gone before they can be read.
#[test]
fn removed_container_is_named() {
    if !unified("where_it_runs::removed_container_is_named") {
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let group = Cgroup::new(Tree::Unified, &format!("docker/{ID}"));
        let script = format!("echo $$ > {}; exec \"$0\" \"$1\"", group.procs().display());
        let connect = "connect 127.0.0.1:2000 127.0.0.1:6000";
        let mut shell = Running::start(Command::new("sh").args(["-c", &script, Actor::program(), connect]));
        let pid = shell.pid();
        assert!(shell.ended("the client ends").success());
        let expected = place(&group, Some(ID), None);
        drop(group);
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_has(&process, expected);
        assert_has(&process, json!({"pid": pid, "comm": "actor", "args": [Actor::program(), connect]}));
    });
}

#[test]
fn both_endpoints_have_their_container() {
    if !unified("where_it_runs::both_endpoints_have_their_container") {
        return;
    }
    in_fresh_netns(|| {
        let groups = [ID, OTHER_ID].map(|id| Cgroup::new(Tree::Unified, &format!("docker/{id}")));
        let mut watch = Watch::shared();
        let mut only = Watch::start(&["--container", OTHER_ID]);
        let (mut client, mut server) = (actor(), actor());
        groups[0].takes(client.pid());
        groups[1].takes(server.pid());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let (mut connector, mut acceptor) = (client.object(), server.object());
        connector["container"] = ID.into();
        acceptor["container"] = OTHER_ID.into();
        let open = watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&connector));
        assert_has(&open, used_by(&connector, "connect"));
        let accept = watch.at("accept", CONN.server_endpoint());
        assert_has(&accept, CONN.at_server(&connector));
        assert_has(&accept, used_by(&acceptor, "accept"));
        assert_has(&accept, json!({"listener": {"process": acceptor}, "peer": {"process": connector}}));
        // A later netwatch reports it as well.
        let mut late = Watch::start(&[]);
        assert_has(&late.at("seed", CONN.client_endpoint()), json!({"process": connector}));
        assert_has(&late.at("seed", CONN.server_endpoint()), json!({"process": acceptor}));
        CONN.closes(&mut watch, &mut client, &mut server);

        // The filter shows events of one of them, with the other as its peer.
        let shown = only.at("close", CONN.server_endpoint());
        assert_has(&shown, CONN.at_server(&connector));
        assert_has(&shown["peer"], json!({"process": connector}));
        let log = only.finish();
        assert_eq!(log.kinds(endpoint(6000, 0)), ["listen"]);
        assert_eq!(log.kinds(CONN.server_endpoint()), ["open", "accept", "close"]);
        for event in log.events.iter().filter(|event| kind(event) != "ready") {
            assert_eq!(event["process"]["container"], OTHER_ID, "{event:#}");
        }
    });
}

/// All descendants inherit it.
#[test]
fn login_uid_is_inherited() {
    const UID: u32 = 4_242;
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        if let Err(error) = client.try_say(&format!("loginuid {UID}")) {
            return skip(
                "where_it_runs::login_uid_is_inherited",
                &format!("the login uid cannot be set here: {error}"),
            );
        }
        let process = attempt(&mut client, 2000, &mut watch);
        assert_has(&process, json!({"auid": UID, "uid": 0, "user": "root"}));
        client.fork();
        let process = attempt(&mut client, 2001, &mut watch);
        assert_has(&process, json!({"pid": client.pid(), "auid": UID, "uid": 0}));
    });
}
