//! Parsers for files in `/proc`. Pure and total: an unexpected line gives no value instead of a panic, since processes
//! choose their names and users choose mount points.

use crate::model::NetnsId;
/// `PF_KTHREAD` of include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Values of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) ppid: u32,
    /// Start time since boot in clock ticks.
    pub(crate) start_ticks: u64,
    pub(crate) kernel: bool,
}

/// The name in parentheses may contain anything, including parentheses and newlines, so fields are counted from the
/// last one. Fields as in proc_pid_stat(5).
pub(crate) fn stat(bytes: &[u8]) -> Option<Stat> {
    let name_end = bytes.iter().rposition(|b| *b == b')')?;
    let tail = std::str::from_utf8(bytes.get(name_end + 1..)?).ok()?;
    // Field 3, the state, is the first after the name.
    let field = |number: usize| tail.split_ascii_whitespace().nth(number - 3);
    Some(Stat {
        ppid: field(4)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
        kernel: field(9)?.parse::<u64>().ok()? & PF_KTHREAD != 0,
    })
}

/// Length of the arguments in memory: `arg_start` and `arg_end` of `/proc/PID/stat`, which are 0 to whoever may not trace
/// the process (`do_task_stat` in fs/proc/array.c).
pub(crate) fn args_length(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let tail = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = tail.split_ascii_whitespace().skip(48 - 3).map(str::parse::<u64>);
    let (start, end) = (fields.next()?.ok()?, fields.next()?.ok()?);
    end.checked_sub(start).filter(|length| *length > 0)
}

/// The effective user: the second number of the `Uid:` line of `/proc/PID/status`.
pub(crate) fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `/proc/PID/loginuid`: unset reads as all ones.
pub(crate) fn login_uid(bytes: &[u8]) -> Option<u32> {
    let uid: u32 = std::str::from_utf8(bytes).ok()?.trim().parse().ok()?;
    Some(uid).filter(|uid| *uid != u32::MAX)
}

/// The path of `/proc/PID/cgroup` in the unified hierarchy; if that is the root (v1 only), that of systemd's hierarchy,
/// else the longest. The suffix of a removed cgroup is dropped.
pub(crate) fn cgroup(bytes: &[u8]) -> &[u8] {
    let mut unified: &[u8] = b"/";
    let mut systemd: &[u8] = b"/";
    let mut longest: &[u8] = b"/";
    for line in bytes.split(|b| *b == b'\n') {
        let mut parts = line.splitn(3, |b| *b == b':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        if id == b"0" && controllers.is_empty() {
            unified = path;
        } else if controllers == b"name=systemd" {
            systemd = path;
        } else if path.len() > longest.len() {
            longest = path;
        }
    }
    [unified, systemd].into_iter().find(|path| path.len() > 1).unwrap_or(longest)
}

/// Mount points of network namespaces (`ip netns add` makes them) in `/proc/self/mountinfo`, with the
/// namespace's inode number.
pub(crate) fn netns_mounts(mountinfo: &[u8]) -> Vec<(NetnsId, Vec<u8>)> {
    mountinfo.split(|b| *b == b'\n').filter_map(netns_mount).collect()
}

/// Fields as in proc_pid_mountinfo(5): the fourth is the root within the file system, `net:[INODE]`; the
/// fifth the mount point; the type follows a lone hyphen.
fn netns_mount(line: &[u8]) -> Option<(NetnsId, Vec<u8>)> {
    let mut fields = line.split(|b| *b == b' ');
    let inode = net_link(fields.nth(3)?)?;
    let point = fields.next()?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    (kind == b"nsfs").then(|| (inode, unescape_octal(point)))
}

/// The number in `net:[4026531840]`, which is what a namespace's link reads as.
pub(crate) fn net_link(link: &[u8]) -> Option<NetnsId> {
    bracketed(link, b"net:[").map(NetnsId::new)
}

/// The number in `mnt:[4026531840]`.
pub(crate) fn mnt_link(link: &[u8]) -> Option<u32> {
    bracketed(link, b"mnt:[")
}

/// The number in `socket:[12345]`, which is what a socket's descriptor reads as.
pub(crate) fn socket_link(link: &[u8]) -> Option<u64> {
    bracketed(link, b"socket:[")
}

/// The number in `pipe:[12345]`.
pub(crate) fn pipe_link(link: &[u8]) -> Option<u64> {
    bracketed(link, b"pipe:[")
}

fn bracketed<T: std::str::FromStr>(link: &[u8], prefix: &[u8]) -> Option<T> {
    let number = link.strip_prefix(prefix)?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Unescapes `\NNN` for space, tab, newline and backslash in a mount point (fs/proc_namespace.c, mangle(), v6.12).
fn unescape_octal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// `ip_local_port_range`: two numbers, inclusive.
pub(crate) fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Lines of `/proc/net/packet`: protocol, user and inode of each socket. Columns as `packet_seq_show` in
/// net/packet/af_packet.c writes them: sk RefCnt Type Proto Iface R Rmem User Inode.
pub(crate) fn packets(file: &[u8]) -> Vec<(u16, u32, u64)> {
    let text = String::from_utf8_lossy(file);
    let line = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(3);
        let protocol = u16::from_str_radix(columns.next()?, 16).ok()?;
        let user = columns.nth(3)?.parse().ok()?;
        Some((protocol, user, columns.next()?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_cannot_forge_fields() {
        let line = b"12 (a) S 1 (b)\n)) S 34 12 12 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(stat(line), Some(Stat { ppid: 34, start_ticks: 777, kernel: false }));
        let kthread = stat(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 1844").unwrap();
        assert!(kthread.kernel);
        assert_eq!((kthread.ppid, kthread.start_ticks), (0, 3));
        assert_eq!(stat(b"12 (a) S 1"), None);
        assert_eq!(stat(b""), None);
    }

    #[test]
    fn own_stat_is_read() {
        let own = stat(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(own.ppid, nix::unistd::getppid().as_raw().cast_unsigned());
        assert!(own.start_ticks > 0 && !own.kernel);
        let arguments = std::fs::read("/proc/self/cmdline").unwrap();
        let length = args_length(&std::fs::read("/proc/self/stat").unwrap());
        assert_eq!(length, Some(arguments.len() as u64));
        assert_eq!(args_length(b"12 (a) S 1"), None);
    }

    #[test]
    fn the_effective_user_is_the_second() {
        assert_eq!(effective_uid(b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t9\t9\t9\t9\n"), Some(2));
        assert_eq!(effective_uid(b"Name:\tx\n"), None);
        assert_eq!(login_uid(b"4294967295"), None);
        assert_eq!(login_uid(b"1000\n"), Some(1000));
    }

    #[test]
    fn cgroup_paths() {
        assert_eq!(cgroup(b"0::/system.slice/ssh.service\n"), b"/system.slice/ssh.service");
        assert_eq!(cgroup(b"12:cpu:/a/b\n1:name=systemd:/s\n0::/u\n"), b"/u");
        assert_eq!(cgroup(b"12:cpu:/a/b\n1:name=systemd:/s\n0::/\n"), b"/s");
        assert_eq!(cgroup(b"12:cpu:/a\n11:pids:/docker/abc\n1:name=systemd:/\n0::/\n"), b"/docker/abc");
        assert_eq!(cgroup(b"0::/with:colon (deleted)\n"), b"/with:colon");
        assert_eq!(cgroup(b""), b"/");
        assert_eq!(cgroup(b"nonsense\n0:\n"), b"/");
    }

    #[test]
    fn namespaces_are_found_among_mounts() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 22 0:4 net:[4026532281] /run/netns/a\\040b rw shared:9 master:1 - nsfs nsfs rw\n\
            41 22 0:4 mnt:[4026532282] /run/mnt rw - nsfs nsfs rw\n\
            42 22 0:5 net:[4026532283] /x rw - tmpfs tmpfs rw\n\
            43 22 0:4 net:[4026532284] /run/netns/c rw\n";
        assert_eq!(netns_mounts(mounts), [(NetnsId::new(4_026_532_281), b"/run/netns/a b".to_vec())]);
    }

    #[test]
    fn links_and_ranges() {
        assert_eq!(socket_link(b"socket:[17]"), Some(17));
        assert_eq!(socket_link(b"socket:[]"), None);
        assert_eq!(socket_link(b"pipe:[17]"), None);
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(port_range("32768"), None);
    }

    #[test]
    fn packet_sockets_are_read() {
        let file = b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
            0000000000000000 3      3    0003   2     1 0      0      12345\n\
            0000000000000000 3      10   88cc   0     1 0      101    77\nnonsense\n";
        assert_eq!(packets(file), [(3, 0, 12345), (0x88cc, 101, 77)]);
        assert_eq!(packets(b""), []);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            stat(&bytes);
            effective_uid(&bytes);
            login_uid(&bytes);
            cgroup(&bytes);
            netns_mounts(&bytes);
            net_link(&bytes);
            socket_link(&bytes);
            port_range(&String::from_utf8_lossy(&bytes));
            packets(&bytes);
        }

        /// Similar to the real form, to reach deeper branches.
        #[test]
        fn nothing_panics_near_the_form(text in r"[0-9]{0,3} ?[(][a)( ]{0,5}[)]( [-0-9S]{0,22}){0,25}") {
            stat(text.as_bytes());
        }

        #[test]
        fn no_mount_line_panics(line in r"([0-9]{1,2} ){3}net:\[[0-9]{0,12}\]? /[\\0-9a]{0,12}( [a-z:]{1,3}){0,3}( - nsfs)?") {
            netns_mounts(line.as_bytes());
        }

        #[test]
        fn a_name_never_changes_what_is_read(name in prop::collection::vec(any::<u8>(), 0..16)) {
            let mut line = b"7 (".to_vec();
            line.extend(name);
            line.extend(b") S 3 7 7 0 -1 64 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0");
            prop_assert_eq!(stat(&line), Some(Stat { ppid: 3, start_ticks: 99, kernel: false }));
        }
    }
}
