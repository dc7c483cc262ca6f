#!/bin/sh
# The first process of a guest: mounts and loads what the tests need, and runs them rung by rung. Lines for the host
# begin with @netwatch; all output goes to the second serial port, which the kernel does not write to.

export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root NETWATCH_TEST_EMULATED=1 NETWATCH_TEST_DOCTOR=/tmp/doctor
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1

say() {
    # On a line of its own, even if a test left one unfinished.
    printf '\n@netwatch %s\n' "$*"
}

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
# Both hierarchies, as systemd has them in its hybrid mode: the tests use either.
mount -t tmpfs cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd
# Other modules are loaded on demand. These would be loaded so late that a test of the host's features may miss them.
modprobe -qa tun veth sch_tbf inet_diag tcp_diag udp_diag raw_diag mptcp_diag nfsv4
ip link set lo up

# The host stops the guest when it has read this line; a power-off might lose it.
over() {
    say over
    while :; do sleep 60; done
}

# Name, forced probes, arguments of the tests. Tests in $same are skipped by their names.
rung() {
    name=$1
    probes=$2
    shift 2
    say begin "$name"
    forced=
    for probe in $probes; do
        forced="$forced --probe $probe"
    done
    # Unquoted: split into words.
    if ! "$NETWATCH_BIN" doctor --json $forced >/tmp/doctor 2>/tmp/why; then
        why=
        read -r why </tmp/why
        say refused "$why"
        return
    fi
    if [ -n "$probes" ]; then
        export NETWATCH_TEST_PROBES="$probes"
    else
        unset NETWATCH_TEST_PROBES
    fi
    for prefix in $same; do
        "$E2E" --list "$prefix" >/tmp/same
        while read -r line; do
            case $line in
            "$prefix"*": test") say same "${line%: test}" ;;
            esac
        done </tmp/same
        set -- "$@" --skip "$prefix"
    done
    "$E2E" "$@"
    say end $?
}

say hello "$(cat /proc/sys/kernel/osrelease)"
. /programs
for program in "$NETWATCH_BIN" "$NETWATCH_ACTOR" "$E2E"; do
    if [ ! -x "$program" ]; then
        say broken "there is no program $program in the guest"
        over
    fi
done
. /plan
over
