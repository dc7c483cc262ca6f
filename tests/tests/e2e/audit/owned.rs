//! Ports that no process has: tunnels of the kernel; and ports that programs have for others: forwards.

use std::net::UdpSocket;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{Running, in_fresh_netns, ip, skip, until};

use super::{Audit, reasons};

fn by(port: &Value) -> Vec<&str> {
    port["by"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn adds(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn port_of_a_tunnel_is_the_device_s() {
    const TEST: &str = "audit::owned::port_of_a_tunnel_is_the_device_s";
    in_fresh_netns(|| {
        let mut any = false;
        for (kind, device, rest, port) in [
            ("vxlan", "flannel.1", "id 7 dstport 8472 local 127.0.0.1 dev lo", 8472),
            ("geneve", "gen7", "id 7 remote 127.0.0.2 dstport 6081", 6081),
        ] {
            if !adds(&format!("link add {device} type {kind} {rest}")) {
                continue;
            }
            any = true;
            ip(&format!("link set {device} up"));
            let audit = Audit::take(&[]);
            let ports: Vec<_> = audit.kind("port").filter(|found| found["local"]["port"] == port).collect();
            assert!(!ports.is_empty(), "{:#?}", audit.objects);
            for found in ports {
                assert_eq!(by(found), [format!("kernel ({kind} {device})")]);
                assert_eq!(found["process"], Value::Null);
            }
            audit.has_no("kernel-socket");
            ip(&format!("link del {device}"));
        }
        if !any {
            skip(TEST, "this kernel has no tunnels over UDP");
        }
    });
}

/// The device is in another namespace than its socket.
#[test]
fn port_of_a_tunnel_that_was_moved_is_the_device_s() {
    const TEST: &str = "audit::owned::port_of_a_tunnel_that_was_moved_is_the_device_s";
    let there = tests::Netns::fresh();
    in_fresh_netns(|| {
        if !adds("link add moved7 type vxlan id 9 dstport 8473 local 127.0.0.1 dev lo") {
            return skip(TEST, "this kernel has no VXLAN");
        }
        // To a namespace of a process.
        let holder = there.inside(|| Running::start(Command::new("sleep").arg("1000")));
        ip(&format!("link set moved7 netns {}", holder.pid()));
        there.inside(|| ip("link set moved7 up"));
        let audit = Audit::take(&[]);
        let words = format!("kernel (vxlan moved7 in network namespace {})", there.inum());
        let ports: Vec<_> = audit.kind("port").filter(|found| found["local"]["port"] == 8473).collect();
        assert!(!ports.is_empty() && ports.iter().all(|found| by(found) == [&words]), "{ports:#?}");
    });
}

/// A socket of the kernel without an owner: a tunnel's, whose device cannot be listed, is not explained by another port.
#[test]
fn socket_of_a_process_is_not_the_kernel_s() {
    in_fresh_netns(|| {
        if !adds("link add vx8 type vxlan id 8 dstport 8474 dev lo") {
            return skip("audit::owned::socket_of_a_process_is_not_the_kernel_s", "this kernel has no VXLAN");
        }
        // The device is down, so it has no socket, and a process has its port.
        let _own = UdpSocket::bind("127.0.0.1:8474").unwrap();
        let audit = Audit::take(&[]);
        let port = audit.port("127.0.0.1:8474");
        assert!(!by(port).iter().any(|by| by.starts_with("kernel")), "{port:#}");
    });
}

/// Which of two sockets gets the datagrams is what the kernel does.
#[test]
fn shared_port_says_who_gets_what() {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd as _;
    in_fresh_netns(|| {
        let bound = |port: u16, is_divided: bool| {
            let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            setsockopt(&fd, sockopt::ReuseAddr, &!is_divided).unwrap();
            setsockopt(&fd, sockopt::ReusePort, &is_divided).unwrap();
            bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
            UdpSocket::from(fd)
        };
        let holding = |program: &str, socket: UdpSocket| {
            let (_folder, copy) = tests::stranger_s_copy(std::path::Path::new("/bin/cat"), program);
            (super::findings::holding(copy.to_str().unwrap(), &[], socket), _folder)
        };
        // SO_REUSEADDR: the last one gets everything. Its holder started first.
        let (early, late) = (bound(7201, false), bound(7201, false));
        let late_copy = late.try_clone().unwrap();
        let _late = holding("second", late);
        let _early = holding("first", early);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"x", "127.0.0.1:7201").unwrap();
        late_copy.set_read_timeout(Some(tests::PATIENCE)).unwrap();
        late_copy.recv(&mut [0; 1]).expect("the socket that was bound last gets the datagram");
        drop(late_copy);
        let audit = Audit::take(&[]);
        let evidence = audit.finding("shared-port")["evidence"].as_str().unwrap();
        assert!(
            evidence.contains("second[") && evidence.contains("was bound last and receives all"),
            "{evidence}"
        );
        let last = evidence.split(": ").last().unwrap();
        assert!(last.starts_with("second["), "{evidence}");
    });
    in_fresh_netns(|| {
        let shared = |program: &str| {
            let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
            bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 7202)).unwrap();
            let (folder, copy) = tests::stranger_s_copy(std::path::Path::new("/bin/cat"), program);
            (super::findings::holding(copy.to_str().unwrap(), &[], UdpSocket::from(fd)), folder)
        };
        let _both = (shared("one"), shared("other"));
        let audit = Audit::take(&[]);
        let evidence = audit.finding("shared-port")["evidence"].as_str().unwrap();
        assert!(evidence.ends_with("each receives part of the traffic (SO_REUSEPORT)"), "{evidence}");
    });
}

/// ssh with a local, a remote and a dynamic forward to a real sshd, started by a login.
#[test]
fn forwards_of_ssh_say_for_whom() {
    const TEST: &str = "audit::owned::forwards_of_ssh_say_for_whom";
    let has = |path: &str| std::path::Path::new(path).exists();
    if !has("/usr/sbin/sshd") || !has("/usr/bin/ssh") || !has("/var/lib/dpkg/status") {
        return skip(TEST, "no OpenSSH of a package");
    }
    in_fresh_netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for key in ["host", "user"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]).status();
            assert!(made.unwrap().success());
        }
        std::fs::create_dir_all("/run/sshd").unwrap();
        let config = format!(
            "Port 7300\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPidFile none\n",
            path("host"),
            path("user.pub")
        );
        std::fs::write(path("config"), config).unwrap();
        let quiet = |command: &mut Command| {
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let listens = |port: u16| {
            let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            table.lines().any(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")))
        };
        let _sshd = quiet(Command::new("/usr/sbin/sshd").args(["-D", "-f", &path("config")]));
        until("sshd listens", || listens(7300));
        let options = format!(
            "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {} -p 7300 -N \
             -L 127.0.0.1:5432:127.0.0.1:22 -R 127.0.0.1:7301:127.0.0.1:22 -D 127.0.0.1:7302 root@127.0.0.1",
            path("user")
        );
        // A login sets the login uid of its processes. Where the kernel has none, no login is known.
        let login = format!("echo 0 > /proc/self/loginuid; exec ssh {options}");
        let _ssh = quiet(Command::new("sh").args(["-c", &login]));
        until("the forwards listen", || listens(5432) && listens(7301) && listens(7302));
        let audit = Audit::take(&[]);
        audit.has_no("wrong-program");
        let has_logins = std::fs::read_to_string("/proc/self/loginuid").is_ok();
        for (port, words) in [
            ("127.0.0.1:5432", "127.0.0.1:22 by ssh"),
            ("127.0.0.1:7302", "any target (SOCKS) by ssh"),
            ("127.0.0.1:7301", "the ssh session from 127.0.0.1:"),
        ] {
            let port = audit.port(port);
            assert!(reasons(port).contains(&format!("forward of {words}")), "{port:#}");
            if has_logins || words.contains("session") {
                assert!(by(port).iter().any(|by| by.starts_with(&format!("forward ({words}"))), "{port:#}");
            }
        }
    });
}
