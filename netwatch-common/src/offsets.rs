//! Offsets of members in structures of the running kernel.

/// Declares [`Offsets`] with the path of each member, so that the agent resolves exactly what the programs read.
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $path:literal $(, $optional:ident)?;)*) => {
        /// Offset of each structure member that the programs read, in bytes unless [`Need::Bit`], resolved by the agent
        /// from the BTF of the running kernel. `Offsets::MISSING` if this kernel has no such member.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $(
                $(#[$doc])*
                #[doc = concat!("`", $path, "`")]
                pub $name: u32,
            )*
        }

        impl Offsets {
            /// Every member, in the order of the fields: `structure.member.member`, and how it is needed.
            pub const MEMBERS: &'static [(&'static str, Need)] =
                &[$(($path, offsets!(@need $($optional)?))),*];

            /// All zero: the values in the object file, which the agent overrides.
            pub const ZERO: Self = Self { $($name: 0),* };

            /// Takes the offsets in the order of [`Self::MEMBERS`]; an offset that is not given is
            /// [`Self::MISSING`].
            #[must_use]
            pub fn from_members(mut offsets: impl Iterator<Item = u32>) -> Self {
                Self { $($name: offsets.next().unwrap_or(Self::MISSING)),* }
            }

            /// The offsets in the order of [`Self::MEMBERS`].
            #[must_use]
            pub const fn to_members(&self) -> [u32; Self::MEMBERS.len()] {
                [$(self.$name),*]
            }
        }
    };
    (@need optional) => { Need::Optional };
    (@need bit) => { Need::Bit };
    (@need) => { Need::Required };
}

/// How the programs need a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Required.
    Required,
    /// Optional.
    Optional,
    /// Optional; a bit-field of one bit or a bool, whose offset is in bits.
    Bit,
}

impl Offsets {
    /// The offset of a member that the running kernel does not have.
    pub const MISSING: u32 = u32::MAX;

    /// Name of the global in the object file. It contains the wire version, so that an object with another version does
    /// not load.
    pub const GLOBAL: &'static str = "OFFSETS_V6";
}

const _: () = assert!(crate::WIRE_VERSION == 6, "Offsets::GLOBAL names the version");
const _: () = assert!(size_of::<Offsets>() == 4 * Offsets::MEMBERS.len());

offsets! {
    sk_family = "sock.__sk_common.skc_family";
    sk_daddr = "sock.__sk_common.skc_daddr";
    sk_rcv_saddr = "sock.__sk_common.skc_rcv_saddr";
    sk_dport = "sock.__sk_common.skc_dport";
    sk_num = "sock.__sk_common.skc_num";
    sk_v6_daddr = "sock.__sk_common.skc_v6_daddr", optional;
    sk_v6_rcv_saddr = "sock.__sk_common.skc_v6_rcv_saddr", optional;
    sk_cookie = "sock.__sk_common.skc_cookie";
    sk_net = "sock.__sk_common.skc_net.net";
    sk_protocol = "sock.sk_protocol";
    sk_type = "sock.sk_type";
    sk_err = "sock.sk_err";
    sk_err_soft = "sock.sk_err_soft";
    sk_bound_dev_if = "sock.__sk_common.skc_bound_dev_if";
    sk_flags = "sock.__sk_common.skc_flags";
    sk_socket = "sock.sk_socket";
    sk_kern = "sock.sk_kern_sock", bit;
    sk_state = "sock.__sk_common.skc_state";
    sk_ack_backlog = "sock.sk_ack_backlog", optional;
    sk_max_ack_backlog = "sock.sk_max_ack_backlog", optional;
    sk_rmem_alloc = "sock.sk_backlog.rmem_alloc.counter", optional;
    sk_wmem_alloc = "sock.sk_wmem_alloc.refs.counter", optional;
    sk_reuseport = "sock.__sk_common.skc_reuseport", bit;
    sk_ipv6only = "sock.__sk_common.skc_ipv6only", bit;
    tw_substate = "inet_timewait_sock.tw_substate", optional;
    tcp_rcv_nxt = "tcp_sock.rcv_nxt", optional;
    tcp_copied_seq = "tcp_sock.copied_seq", optional;
    tcp_write_seq = "tcp_sock.write_seq", optional;
    tcp_snd_una = "tcp_sock.snd_una", optional;
    udp_deficit = "udp_sock.forward_deficit", optional;
    inet_sport = "inet_sock.inet_sport";
    packet_ifindex = "packet_sock.ifindex", optional;
    net_inum = "net.ns.inum";
    net_hash_mix = "net.hash_mix";
    sk_queue = "sock.sk_receive_queue.qlen";
    unix_peer = "unix_sock.peer", optional;
    unix_addr = "unix_sock.addr", optional;
    unix_addr_len = "unix_address.len", optional;
    unix_addr_name = "unix_address.name", optional;
    socket_sk = "socket.sk";
    socket_inode = "socket_alloc.vfs_inode";
    tcp_bytes_sent = "tcp_sock.bytes_sent";
    tcp_bytes_retrans = "tcp_sock.bytes_retrans";
    tcp_bytes_received = "tcp_sock.bytes_received";
    tcp_is_mptcp = "tcp_sock.is_mptcp", bit;
    tcp_fastopen_req = "tcp_sock.fastopen_req", optional;
    tcp_fastopen_connect = "tcp_sock.fastopen_connect", bit;
    tcp_repair = "tcp_sock.repair", bit;
    icsk_ulp_data = "inet_connection_sock.icsk_ulp_data", optional;
    subflow_conn = "mptcp_subflow_context.conn", optional;
    subflow_join = "mptcp_subflow_context.mp_join", bit;
    mptcp_bytes_sent = "mptcp_sock.bytes_sent", optional;
    mptcp_bytes_received = "mptcp_sock.bytes_received", optional;

    task_tgid = "task_struct.tgid";
    task_pid = "task_struct.pid";
    task_leader = "task_struct.group_leader";
    task_parent = "task_struct.real_parent";
    task_start = "task_struct.start_boottime";
    task_comm = "task_struct.comm";
    task_flags = "task_struct.flags";
    task_loginuid = "task_struct.loginuid.val", optional;
    task_cred = "task_struct.cred";
    task_cgroups = "task_struct.cgroups";
    task_mm = "task_struct.mm";
    task_signal = "task_struct.signal";
    task_nsproxy = "task_struct.nsproxy";
    task_exit_code = "task_struct.exit_code";
    task_slept = "task_struct.nvcsw";
    task_status = "task_struct.thread_info.status", optional;
    task_files = "task_struct.files";
    regs_syscall = "pt_regs.orig_ax", optional;
    cred_euid = "cred.euid.val";
    nsproxy_mnt = "nsproxy.mnt_ns";
    mnt_ns_inum = "mnt_namespace.ns.inum";
    signal_live = "signal_struct.live.counter";

    css_set_cgroup = "css_set.dfl_cgrp";
    cgroup_node = "cgroup.kn";
    cgroup_root = "cgroup.root";
    cgroup_root_hierarchy = "cgroup_root.hierarchy_id";
    kernfs_id = "kernfs_node.id";

    mm_arg_start = "mm_struct.arg_start";
    mm_arg_end = "mm_struct.arg_end";
    mm_exe_file = "mm_struct.exe_file";
    file_mnt = "file.f_path.mnt";
    file_dentry = "file.f_path.dentry";
    file_inode = "file.f_inode";
    file_private = "file.private_data";
    file_mode = "file.f_mode";
    kiocb_file = "kiocb.ki_filp";
    pipe_head = "pipe_inode_info.head", optional;
    pipe_tail = "pipe_inode_info.tail", optional;
    tty_file_tty = "tty_file_private.tty", optional;
    tty_link = "tty_struct.link", optional;
    inode_rdev = "inode.i_rdev";
    dentry_parent = "dentry.d_parent";
    dentry_name = "dentry.d_name.name";
    dentry_seq = "dentry.d_seq";
    inode_ino = "inode.i_ino";
    inode_mode = "inode.i_mode";
    inode_nlink = "inode.i_nlink";
    inode_sb = "inode.i_sb";
    sb_dev = "super_block.s_dev";
    mount_mnt = "mount.mnt";
    mount_parent = "mount.mnt_parent";
    mount_point = "mount.mnt_mountpoint";
    mnt_root = "vfsmount.mnt_root";
    files_fdt = "files_struct.fdt";
    fdt_fd = "fdtable.fd";
    fdt_max = "fdtable.max_fds";

    /// Not read. A kernel with this member counts nested runs of a program in it, and skips them.
    prog_active = "bpf_prog.active", optional;
}
