//! Which device or subsystem of the kernel has a socket that no process has open: tunnels by rtnetlink and generic
//! netlink, servers in the kernel by what their configuration in configfs and nfsd's file system says.

use std::fmt::Write as _;
use std::path::Path;

use super::held::Held;
use crate::hash::{Map, Set};
use crate::model::{NetnsId, Proto, SocketRow};
use crate::snapshot::links::{self, Link};
use crate::snapshot::netns::{self, Netns};
use crate::snapshot::tunnels::{self, Tunnel};
use crate::{bounded, limits};

/// A port of the kernel, and whose it is in words.
type Owned = (Proto, u16, String);

/// The owners of ports.
#[derive(Debug, Default)]
pub(super) struct KernelOwned {
    /// By the network namespace of the socket.
    here: Map<NetnsId, Vec<Owned>>,
    /// Of devices that were moved to another namespace than that of their socket.
    moved: Vec<Owned>,
}

impl KernelOwned {
    /// Asks in the namespaces that have a socket without a process.
    pub(super) fn of(rows: &[&SocketRow], held: &Held, notes: &mut Vec<String>) -> Self {
        let without =
            |row: &&&SocketRow| row.is_server() && row.local.port != 0 && held.owner(row.inode).is_none();
        let wanted: Set<NetnsId> = rows.iter().filter(without).map(|row| row.netns).collect();
        let mut owned = Self::default();
        if wanted.is_empty() {
            return owned;
        }
        let Ok(all) = netns::all() else { return owned };
        // In every namespace: a device may have been moved from the namespace of its socket.
        let asked = netns::inside_each(&all, |Netns { inum, .. }, entered| {
            let links = entered.and_then(|()| links::own());
            let links =
                links.inspect_err(|error| log::debug!("interfaces of {inum}: {error}")).unwrap_or_default();
            let tunnels = tunnels::own(&links);
            (*inum, links, tunnels)
        });
        match asked {
            Ok(asked) => {
                asked.into_iter().for_each(|(netns, links, tunnels)| owned.add(netns, &links, tunnels));
            }
            Err(error) => notes.push(format!("cannot list the devices of the kernel: {error}")),
        }
        if let Ok(own) = netns::own() {
            owned.here.entry(own).or_default().extend(configured(Path::new("/")));
        }
        owned
    }

    fn add(&mut self, netns: NetnsId, links: &[Link], tunnels: Vec<Tunnel>) {
        let of_links = links.iter().filter_map(|link| {
            let (kind, port) = link.tunnel?;
            Some((Tunnel { kind, port, device: Some(link.name), proto: Proto::Udp }, link.is_moved))
        });
        let of_tunnels = tunnels.into_iter().map(|tunnel| {
            let is_moved = links.iter().any(|link| Some(link.name) == tunnel.device && link.is_moved);
            (tunnel, is_moved)
        });
        for (tunnel, is_moved) in of_links.chain(of_tunnels) {
            let mut words = tunnel.kind.to_owned();
            if let Some(device) = tunnel.device {
                // Writing to a String cannot fail.
                let _ = write!(words, " {device}");
            }
            if is_moved {
                let _ = write!(words, " in network namespace {netns}");
                self.moved.push((tunnel.proto, tunnel.port, words));
            } else {
                self.here.entry(netns).or_default().push((tunnel.proto, tunnel.port, words));
            }
        }
    }

    /// Who has this socket.
    pub(super) fn owner(&self, row: &SocketRow) -> Option<String> {
        // What a process holds, or held, is not the kernel's.
        if row.kernel == Some(false) {
            return None;
        }
        let here = self.here.get(&row.netns).into_iter().flatten();
        let mut fits =
            here.chain(&self.moved).filter(|(proto, port, _)| (*proto, *port) == (row.proto, row.local.port));
        fits.next().map(|(_, _, words)| words.clone())
    }
}

/// The port of RDS over TCP: RDS_TCP_PORT in net/rds/tcp.h.
const RDS_PORT: u16 = 16385;

/// The port of the distributed lock manager: DEFAULT_TCP_PORT in fs/dlm/config.c.
const DLM_PORT: u16 = 21064;

/// Ports by the files of subsystems under this root. What cannot be read explains nothing.
fn configured(root: &Path) -> Vec<Owned> {
    let mut owned = Vec::new();
    // `PROTO PORT` for each socket of nfsd in the namespace of the mount (fs/nfsd/nfsctl.c, write_ports(), v6.12).
    let ports = text(&root.join("proc/fs/nfsd/portlist"));
    for line in ports.lines() {
        let mut words = line.split_ascii_whitespace();
        let proto = match words.next() {
            Some("tcp" | "tcp6") => Proto::Tcp,
            Some("udp" | "udp6") => Proto::Udp,
            _ => continue,
        };
        owned
            .extend(words.next().and_then(|port| port.parse().ok()).map(|port| (proto, port, "nfsd".into())));
    }
    let config = root.join("sys/kernel/config");
    // iSCSI: target/iscsi/IQN/tpgt_N/np/ADDRESS:PORT (drivers/target/iscsi/iscsi_target_configfs.c, v6.12).
    for name in folders(&config.join("target/iscsi")) {
        let iqn = name.clone();
        for group in folders(&config.join("target/iscsi").join(&name)) {
            let portals = config.join("target/iscsi").join(&name).join(&group).join("np");
            for portal in folders(&portals) {
                let port = portal.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                owned.extend(port.map(|port| (Proto::Tcp, port, format!("iscsi {iqn}"))));
            }
        }
    }
    // NVMe over TCP: nvmet/ports/N (drivers/nvme/target/configfs.c, v6.12).
    for name in folders(&config.join("nvmet/ports")) {
        let port = config.join("nvmet/ports").join(&name);
        if text(&port.join("addr_trtype")).trim() == "tcp"
            && let Ok(number) = text(&port.join("addr_trsvcid")).trim().parse()
        {
            owned.push((Proto::Tcp, number, format!("nvmet port {name}")));
        }
    }
    let dlm = config.join("dlm/cluster");
    if dlm.is_dir() {
        let port = text(&dlm.join("tcp_port")).trim().parse().unwrap_or(DLM_PORT);
        owned.push((Proto::Tcp, port, "dlm".into()));
    }
    // OCFS2's node manager: cluster/NAME/node/NAME (fs/ocfs2/cluster/nodemanager.c, v6.12).
    for cluster in folders(&config.join("cluster")) {
        let nodes = config.join("cluster").join(&cluster).join("node");
        for node in folders(&nodes) {
            let is_local = text(&nodes.join(&node).join("local")).trim() == "1";
            let port = text(&nodes.join(&node).join("ipv4_port")).trim().parse().ok();
            owned
                .extend(port.filter(|_| is_local).map(|port| (Proto::Tcp, port, format!("ocfs2 {cluster}"))));
        }
    }
    let has_module = |name: &str| root.join("sys/module").join(name).is_dir();
    if has_module("rds_tcp") {
        owned.push((Proto::Tcp, RDS_PORT, "rds".into()));
    }
    let callback = text(&root.join("sys/module/nfs/parameters/callback_tcpport"));
    // 0: any port.
    let callback = callback.trim().parse().ok().filter(|port: &u16| *port != 0);
    owned.extend(callback.map(|port| (Proto::Tcp, port, "nfs callback".into())));
    owned
}

fn text(path: &Path) -> String {
    bounded::text(path, limits::PROC_FILE).unwrap_or_default()
}

fn folders(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    names.take(limits::MOST_LINKS).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::example;
    use crate::model::{DeviceName, SockAddr, Socket};

    fn row(netns: u32, proto: Proto, port: u16, kernel: Option<bool>) -> SocketRow {
        let local = SockAddr { port, ..example().local };
        let socket = Socket { netns: NetnsId::new(netns), proto, local, remote: None, ..example().socket };
        SocketRow { socket, kernel, ..example() }
    }

    fn link(name: &str, tunnel: Option<(&'static str, u16)>, is_moved: bool) -> Link {
        let name = DeviceName::new(name);
        Link { index: 2, name, is_loopback: false, tunnel, is_moved, is_wireguard: false }
    }

    #[test]
    fn sockets_of_tunnels_have_their_device() {
        let mut owned = KernelOwned::default();
        let links =
            [link("flannel.1", Some(("vxlan", 8472)), false), link("gen0", Some(("geneve", 6081)), true)];
        let wireguard = Tunnel {
            kind: "wireguard",
            port: 51820,
            device: Some(DeviceName::new("wg0")),
            proto: Proto::Udp,
        };
        owned.add(NetnsId::new(1), &links, vec![wireguard]);
        let owner = |netns, proto, port, kernel| owned.owner(&row(netns, proto, port, kernel));
        assert_eq!(owner(1, Proto::Udp, 8472, Some(true)).as_deref(), Some("vxlan flannel.1"));
        assert_eq!(owner(1, Proto::Udp, 51820, None).as_deref(), Some("wireguard wg0"));
        // Elsewhere, by another protocol, or not a socket of the kernel.
        assert_eq!(owner(2, Proto::Udp, 8472, Some(true)), None);
        assert_eq!(owner(1, Proto::Tcp, 8472, Some(true)), None);
        assert_eq!(owner(1, Proto::Udp, 8472, Some(false)), None);
        assert_eq!(
            owner(2, Proto::Udp, 6081, Some(true)).as_deref(),
            Some("geneve gen0 in network namespace 1")
        );
    }

    #[test]
    fn servers_in_the_kernel_are_read_from_their_configuration() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(configured(root.path()), []);
        write("proc/fs/nfsd/portlist", "rdma 20049\ntcp 2049\nudp 2049\n");
        write("sys/kernel/config/target/iscsi/iqn.x/tpgt_1/np/[::]:3260/iser", "0\n");
        write("sys/kernel/config/nvmet/ports/1/addr_trtype", "tcp\n");
        write("sys/kernel/config/nvmet/ports/1/addr_trsvcid", "4420\n");
        write("sys/kernel/config/nvmet/ports/2/addr_trtype", "rdma\n");
        write("sys/kernel/config/nvmet/ports/2/addr_trsvcid", "4421\n");
        write("sys/kernel/config/dlm/cluster/tcp_port", "21065\n");
        write("sys/kernel/config/cluster/c/node/a/local", "1\n");
        write("sys/kernel/config/cluster/c/node/a/ipv4_port", "7777\n");
        write("sys/kernel/config/cluster/c/node/b/local", "0\n");
        write("sys/kernel/config/cluster/c/node/b/ipv4_port", "7778\n");
        write("sys/module/rds_tcp/refcnt", "1\n");
        write("sys/module/nfs/parameters/callback_tcpport", "0\n");
        let mut found = configured(root.path());
        found.sort();
        let tcp = |port, words: &str| (Proto::Tcp, port, words.to_owned());
        let expected = [
            tcp(2049, "nfsd"),
            tcp(3260, "iscsi iqn.x"),
            tcp(4420, "nvmet port 1"),
            tcp(7777, "ocfs2 c"),
            tcp(16385, "rds"),
            tcp(21065, "dlm"),
            (Proto::Udp, 2049, "nfsd".into()),
        ];
        assert_eq!(found, expected);
    }
}
