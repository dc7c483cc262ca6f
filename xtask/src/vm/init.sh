#!/bin/sh
# The first process of a guest: brings the system up as far as the tests need it, and runs them rung by rung.
# What is for the host begins with @netwatch; all of it goes over the second serial port, which the kernel
# does not write to.

export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root NETWATCH_TEST_EMULATED=1 NETWATCH_TEST_DOCTOR=/tmp/doctor
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS1 2>&1

say() {
    # On a line of its own, whatever a test has left unfinished.
    printf '\n@netwatch %s\n' "$*"
}

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
# Both trees, as systemd has them in its hybrid mode: the tests look into either.
mount -t tmpfs cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd
# The rest is loaded on demand. These would be so late that a test of what the host has may miss them.
modprobe -qa tun veth sch_tbf inet_diag tcp_diag udp_diag raw_diag mptcp_diag nfsv4
ip link set lo up

# The host ends the guest once it has read this; a power-off might lose it.
over() {
    say over
    while :; do sleep 60; done
}

# Name, forced probes, arguments of the tests. Those in $same are told by their names and left out.
rung() {
    name=$1
    probes=$2
    shift 2
    say begin "$name"
    forced=
    for probe in $probes; do
        forced="$forced --probe $probe"
    done
    # Unquoted: words of their own.
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
