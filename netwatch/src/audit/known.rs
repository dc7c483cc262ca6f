//! Which programs offer a service. Names of services are those in `/etc/services`, names of programs those of the
//! executables in Debian and Fedora.

/// Services and their programs. Services that are not listed are not judged.
const SERVICES: &[(&[&str], &[&str])] = &[
    (&["ssh"], &["sshd", "sshd-session", "dropbear", "tinysshd"]),
    (&["telnet"], &["telnetd", "in.telnetd"]),
    (&["ftp", "ftps"], &["vsftpd", "proftpd", "pure-ftpd", "ftpd", "in.ftpd"]),
    (
        &["smtp", "submission", "submissions", "urd"],
        &["master", "exim4", "exim", "sendmail", "sendmail-mta", "smtpd", "opensmtpd", "msmtpd"],
    ),
    (&["lmtp"], &["master", "dovecot", "lmtpd"]),
    (
        &["domain", "domain-s"],
        &[
            "named",
            "unbound",
            "dnsmasq",
            "systemd-resolved",
            "pdns_server",
            "pdns_recursor",
            "knotd",
            "kresd",
            "nsd",
            "coredns",
            "aardvark-dns",
        ],
    ),
    (&["bootps"], &["dhcpd", "dnsmasq", "kea-dhcp4", "systemd-networkd"]),
    (&["bootpc"], &["dhclient", "dhcpcd", "systemd-networkd", "NetworkManager", "udhcpc", "busybox"]),
    (&["tftp"], &["in.tftpd", "atftpd", "dnsmasq"]),
    (
        &["http", "https", "http-alt", "webcache", "ipp"],
        &[
            "nginx", "apache2", "httpd", "lighttpd", "caddy", "h2o", "thttpd", "webfsd", "squid", "varnishd",
            "cupsd", "java",
        ],
    ),
    (&["kerberos", "kerberos-adm", "kpasswd"], &["krb5kdc", "kadmind", "kdc", "samba"]),
    (
        &["pop3", "pop3s", "imap2", "imaps", "sieve"],
        &["dovecot", "cyrmaster", "imapd", "courierd", "couriertcpd"],
    ),
    (&["sunrpc"], &["rpcbind", "portmap"]),
    (&["ntp"], &["ntpd", "chronyd", "openntpd", "systemd-timesyncd"]),
    (&["snmp", "snmp-trap"], &["snmpd", "snmptrapd"]),
    (&["ldap", "ldaps"], &["slapd", "ns-slapd", "samba"]),
    (&["microsoft-ds", "netbios-ssn", "netbios-ns", "netbios-dgm"], &["smbd", "nmbd", "samba"]),
    (&["syslog", "syslog-tls"], &["rsyslogd", "syslog-ng"]),
    (&["rsync"], &["rsync"]),
    (&["nfs"], &["rpc.nfsd", "ganesha.nfsd"]),
    (&["ms-sql-s"], &["sqlservr"]),
    (&["mysql"], &["mysqld", "mariadbd", "mysqlrouter", "proxysql"]),
    (&["postgresql"], &["postgres", "pgbouncer", "pgpool", "odyssey"]),
    (&["redis"], &["redis-server", "redis-check-rdb", "redis-sentinel", "valkey-server", "keydb-server"]),
    (&["amqp", "amqps"], &["beam.smp", "qpidd"]),
    (&["epmd"], &["epmd"]),
    (&["mdns"], &["avahi-daemon", "systemd-resolved", "mdnsd"]),
    (
        &["x11", "x11-1", "x11-2", "x11-3"],
        &["Xorg", "X", "Xvnc", "Xtigervnc", "Xwayland", "Xvfb", "Xnest", "Xephyr"],
    ),
    (&["munin"], &["munin-node"]),
    (&["git"], &["git-daemon", "git"]),
    (&["svn"], &["svnserve"]),
    (&["openvpn"], &["openvpn"]),
    (&["isakmp", "ipsec-nat-t"], &["charon", "charon-systemd", "pluto"]),
    (&["nut"], &["upsd"]),
    (&["zabbix-agent"], &["zabbix_agentd", "zabbix_agent2"]),
    (&["zabbix-trapper"], &["zabbix_server", "zabbix_proxy"]),
];

/// Programs that listen on behalf of others.
const FRONTS: &[&str] = &[
    "systemd",
    "inetd",
    "xinetd",
    "openbsd-inetd",
    "systemd-socket-proxyd",
    "docker-proxy",
    "rootlessport",
    "haproxy",
    "envoy",
    "traefik",
    "stunnel4",
    "stunnel",
    "conmon",
    "slirp4netns",
    "passt",
    "passt.avx2",
    "pasta",
    "passt",
    "passt.avx2",
];

/// RPC programs (`/etc/rpc`) and the programs that offer them, except the kernel.
const RPC: &[(u32, &[&str])] = &[
    (100_000, &["rpcbind", "portmap"]),
    (100_004, &["ypserv"]),
    (100_005, &["rpc.mountd"]),
    (100_007, &["ypbind"]),
    (100_009, &["rpc.yppasswdd"]),
    (100_011, &["rpc.rquotad"]),
    (100_024, &["rpc.statd"]),
    (391_002, &["famd"]),
];

/// NFS, its locks, and its access lists: `include/uapi/linux/nfs.h`, `include/linux/lockd/lockd.h`, `nfsacl.h`.
const KERNEL_RPC: [u32; 3] = [100_003, 100_021, 100_227];

/// Whether a program offers a service; `None` if the service is not listed.
pub(super) fn offers(service: &str, program: &str) -> Option<bool> {
    let (_, programs) = SERVICES.iter().find(|(services, _)| services.contains(&service))?;
    Some(programs.iter().any(|name| is(program, name)))
}

/// Whether a program listens on behalf of others.
pub(super) fn is_front(program: &str) -> bool {
    FRONTS.iter().any(|name| is(program, name))
}

/// Whether a program offers an RPC program.
pub(super) fn offers_rpc(number: u32, program: &str) -> bool {
    RPC.iter().any(|(known, programs)| *known == number && programs.iter().any(|name| is(program, name)))
}

/// Whether the kernel offers it.
pub(super) fn is_kernels_rpc(number: u32) -> bool {
    KERNEL_RPC.contains(&number)
}

fn is(program: &str, name: &str) -> bool {
    program.strip_prefix(name).is_some_and(is_version)
}

/// Whether the rest is empty or a version, like `-15` or `8.2`.
fn is_version(rest: &str) -> bool {
    rest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_programs() {
        for (service, program, expected) in [
            ("ssh", "sshd", Some(true)),
            ("ssh", "nc.openbsd", Some(false)),
            ("ssh", "sshd.evil", Some(false)),
            ("postgresql", "postgres", Some(true)),
            ("http", "nginx", Some(true)),
            ("ssh", "systemd", Some(false)),
            ("no-such-service", "sshd", None),
        ] {
            assert_eq!(offers(service, program), expected, "{service} {program}");
        }
    }
}
