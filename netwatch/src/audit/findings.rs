//! The rules for findings. A finding is less severe if a package owns the program, since it is then more likely the
//! normal behaviour of that program.

use std::sync::Arc;

use super::explain::{self, unanswered};
use super::facts::{
    Facts, Ownership, PORTMAPPER, Program, Raw, Reach, Relay, Script, Server, Stdio, Unknown,
};
use super::views::Disagreement;
use super::{Code, Finding, Place, Severity, forwards, known};
use crate::listeners::Listening;
use crate::model::{BootTime, ExeState, Proto, RawKind};

/// All findings, unsorted.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let servers = facts.servers.iter();
    servers
        .clone()
        .filter_map(shell)
        .chain(servers.clone().filter_map(wrong_program))
        .chain(servers.clone().filter_map(ephemeral))
        .chain(servers.clone().filter_map(only_local))
        .chain(servers.filter_map(kernel_socket))
        .chain(shared(&facts.servers))
        .chain(facts.stdio.iter().map(stdio))
        .chain(facts.programs.iter().flat_map(executable))
        .chain(facts.raw.iter().filter_map(raw))
        .chain(facts.unknown.iter().map(unknown))
        .chain(facts.disagreements.iter().map(disagreement))
        .collect()
}

fn at(server: &Server, program: Option<&Arc<Program>>) -> Place {
    Place {
        proto: Some(server.proto),
        local: Some(server.local),
        netns: Some(server.netns),
        program: program.cloned(),
    }
}

fn of(program: &Arc<Program>) -> Place {
    Place { program: Some(program.clone()), ..Place::default() }
}

fn finding(code: Code, severity: Severity, place: Place, evidence: String, next: String) -> Finding {
    Finding { code, severity, place, evidence, next, is_listed: false }
}

fn pid(program: &Program) -> u32 {
    program.actor.process.key.pid
}

/// `comm[pid]`
fn who(program: &Program) -> String {
    format!("{}[{}]", program.actor.process.comm, pid(program))
}

fn shell(server: &Arc<Server>) -> Option<Finding> {
    let program = server.holders.iter().find(|program| program.is_shell() && program.package().is_none())?;
    let severity = match &program.script {
        Some(Script::File(..) | Script::Module(_) | Script::Unknown) => Severity::Medium,
        Some(Script::Text) | None => Severity::High,
    };
    let evidence =
        format!("{} is a shell or an interpreter and listens; {}", who(program), unanswered(program));
    let next = format!(
        "read its arguments in /proc/{0}/cmdline; find out what started it: netwatch trace pid:{0}",
        pid(program)
    );
    Some(finding(Code::ShellListens, severity, at(server, Some(program)), evidence, next))
}

fn stdio(stdio: &Stdio) -> Finding {
    let program = &stdio.program;
    let answered = program.package().is_some();
    let severity = match (program.is_shell(), answered) {
        (true, false) => Severity::Critical,
        (_, false) => Severity::High,
        // A unit with Accept=yes does this, as inetd does.
        (_, true) if program.unit.is_some() => Severity::Low,
        (_, true) => Severity::Medium,
    };
    let names: Vec<_> =
        stdio.fds.iter().map(|fd| ["stdin", "stdout", "stderr"].get(*fd as usize).copied()).collect();
    let names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let verb = if stdio.fds.len() == 1 { "is" } else { "are" };
    let evidence = match &stdio.relay {
        None => format!("{names} of {} {verb} {}", who(program), stdio.what),
        Some(Relay { holder, between, kind }) => {
            let over = between.iter().fold(String::new(), |over, name| format!("{over} and {name}"));
            let kind = kind.phrase();
            format!(
                "{names} of {} lead over {kind}{over} to {}, which has {}",
                who(program),
                who(holder),
                stdio.what
            )
        }
    };
    let place =
        Place { proto: stdio.proto, local: stdio.local, netns: stdio.netns, program: Some(program.clone()) };
    let next = format!(
        "the remote side controls its input; find out who that is: netwatch trace pid:{}",
        pid(program)
    );
    finding(Code::StdioOnSocket, severity, place, evidence, next)
}

/// Findings about the executable of a program with network sockets.
fn executable(program: &Arc<Program>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name, exe, pid) = (who(program), program.exe(), pid(program));
    let owned = matches!(program.owned, Ownership::Package(_));
    let copy = format!("save a copy of the running executable: cp /proc/{pid}/exe FILE");
    match program.exe_status.state {
        ExeState::Deleted => {
            let evidence = format!("{name} has network sockets, and its executable {exe} was deleted");
            findings.push(finding(Code::ExeDeleted, Severity::High, of(program), evidence, copy));
        }
        ExeState::Memfd => {
            let evidence =
                format!("{name} has network sockets, and its executable exists only in memory ({exe})");
            findings.push(finding(Code::ExeMemfd, Severity::Critical, of(program), evidence, copy));
        }
        ExeState::Replaced => {
            let severity = if owned { Severity::Low } else { Severity::Medium };
            let evidence = format!("{name} has network sockets, and {exe} was replaced by another file");
            let next = if owned { "if the package was upgraded, restart it".into() } else { copy };
            findings.push(finding(Code::ExeReplaced, severity, of(program), evidence, next));
        }
        ExeState::Ok | ExeState::Unknown => {}
    }
    if program.exe_status.world_writable {
        let folder = exe.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let evidence = format!(
            "{name} has network sockets, and the directory of its executable, {folder}, is world-writable"
        );
        let next = format!(
            "check its owner: ls -lL /proc/{pid}/exe; find out what started it: netwatch trace pid:{pid}"
        );
        findings.push(finding(Code::ExeWorldWritable, Severity::High, of(program), evidence, next));
    }
    findings
}

fn wrong_program(server: &Arc<Server>) -> Option<Finding> {
    let service = server.service.as_deref()?;
    let program = server.program()?;
    let offers = |program: &Arc<Program>| known::offers(service, program.name());
    let stands_in = |program: &Arc<Program>| offers(program) == Some(true) || known::is_front(program.name());
    let is_forward = || forwards::of(server).is_some();
    if offers(program).is_none() || server.holders.iter().any(stands_in) || is_forward() {
        return None;
    }
    let severity = if program.package().is_some() { Severity::Medium } else { Severity::High };
    let evidence =
        format!("{} listens on the port of {service}, but is not a known program for it", who(program));
    let next = format!("check whether it is meant to be there: ls -l /proc/{}/exe", pid(program));
    Some(finding(Code::WrongProgram, severity, at(server, Some(program)), evidence, next))
}

fn ephemeral(server: &Arc<Server>) -> Option<Finding> {
    // UDP client sockets are bound to such ports too, and cannot be distinguished.
    if !server.is_ephemeral || server.proto != Proto::Tcp || explain::is_registered(server) {
        return None;
    }
    // Listeners of the kernel (NFS callbacks) use any port.
    let is_mild = server.is_answered() || server.is_kernels();
    let severity = if is_mild { Severity::Low } else { Severity::Medium };
    let name = server.program().map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} listens on {}, a port in the ephemeral range", server.local);
    let next = "check whether it can be configured to use a fixed port, which can be explained".into();
    Some(finding(Code::EphemeralListener, severity, at(server, server.program()), evidence, next))
}

fn only_local(server: &Arc<Server>) -> Option<Finding> {
    let history = server
        .history
        .as_ref()
        .filter(|history| history.only_local && !history.more && history.connections > 0)?;
    // Audits query the portmapper from this host, so its local connections are no evidence.
    if server.reach() != Reach::All || server.rpc.iter().any(|(program, _)| *program == PORTMAPPER) {
        return None;
    }
    let visits = match history.connections {
        1 => "its only recorded connection is from this host".into(),
        count => format!("all of its {count} recorded connections are from this host"),
    };
    let name = server.program().map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} listens on all addresses, and {visits}");
    let next = "consider making it listen on loopback only".into();
    Some(finding(Code::OnlyLocalPeers, Severity::Info, at(server, server.program()), evidence, next))
}

/// A socket that the kernel created, and that nothing in it owns up to.
fn kernel_socket(server: &Arc<Server>) -> Option<Finding> {
    let is_owned = server.owner.is_some() || explain::is_registered(server);
    if !server.holders.is_empty() || server.kernel != Some(true) || is_owned {
        return None;
    }
    let evidence = format!(
        "the kernel has a {} socket on {}, and no device or subsystem that netwatch knows has it",
        server.proto.name(),
        server.local
    );
    let next = "check the tunnels and kernel modules of the host: ip -d link, ip fou show, lsmod".into();
    Some(finding(Code::KernelSocket, Severity::Medium, at(server, None), evidence, next))
}

/// Ports on which several multicast listeners are normal.
const MULTICAST: [u16; 4] = [1900, 3702, 5353, 5355];

/// A second program on a port (`SO_REUSEPORT`), with another user or executable.
fn shared(servers: &[Arc<Server>]) -> Vec<Finding> {
    let mut order: Vec<&Arc<Server>> = servers.iter().filter(|server| !server.holders.is_empty()).collect();
    order.sort_by_key(|server| (server.netns, server.proto, server.local.port, began(server)));
    let same_port = |one: &&Arc<Server>, other: &&Arc<Server>| {
        (one.netns, one.proto, one.local.port) == (other.netns, other.proto, other.local.port)
    };
    let mut findings = Vec::new();
    for group in order.chunk_by(same_port) {
        let mut reported: Vec<(u32, &str)> = Vec::new();
        for (nth, second) in group.iter().enumerate() {
            let earlier = group.iter().take(nth);
            let Some(first) =
                earlier.into_iter().find(|first| overlap(first, second) && differ(first, second))
            else {
                continue;
            };
            let (Some(one), Some(other)) = (first.program(), second.program()) else { continue };
            // One finding for each pair of programs is enough.
            let pair = (second.uid, other.exe());
            if reported.contains(&pair) {
                continue;
            }
            reported.push(pair);
            let multicast = second.proto == Proto::Udp && MULTICAST.contains(&second.local.port);
            let severity = if multicast { Severity::Info } else { Severity::High };
            let evidence = format!(
                "{} ({}, uid {}) listens on {}, and {} ({}, uid {}) on {}: {}",
                who(other),
                other.exe(),
                second.uid,
                second.local,
                who(one),
                one.exe(),
                first.uid,
                first.local,
                division(first, second, servers),
            );
            let next = format!(
                "check which of the two is meant to be there; find out what started the second: netwatch trace pid:{}",
                pid(other)
            );
            findings.push(finding(Code::SharedPort, severity, at(second, Some(other)), evidence, next));
        }
    }
    findings
}

/// Who gets what of two sockets that overlap.
fn division(one: &Arc<Server>, other: &Arc<Server>, servers: &[Arc<Server>]) -> String {
    let name = |server: &Server| server.program().map_or_else(|| "the other".into(), |program| who(program));
    if one.local.ip != other.local.ip {
        let (narrow, wide) = if one.local.ip.is_unspecified() { (other, one) } else { (one, other) };
        return format!("{} gets what is sent to {}, {} the rest", name(narrow), narrow.local.ip, name(wide));
    }
    match (one.proto, one.reuseport, other.reuseport) {
        (Proto::Tcp, ..) => "each receives part of the connections (SO_REUSEPORT)".into(),
        (_, Some(true), Some(true)) => "each receives part of the traffic (SO_REUSEPORT)".into(),
        (_, None, _) | (_, _, None) => {
            "each receives part of the traffic (SO_REUSEPORT), or the one that was bound last all of it (SO_REUSEADDR)"
                .into()
        }
        _ => {
            // Every view lists the newest of the sockets with one address and port first, as the kernel looks them up
            // (net/ipv4/udp.c, udp_lib_get_port(), v6.12).
            let is_one = |server: &&Arc<Server>| Arc::ptr_eq(server, one) || Arc::ptr_eq(server, other);
            let last = servers.iter().find(is_one).map_or_else(|| "the last".into(), |server| name(server));
            format!(
                "{last} was bound last and receives all unicast datagrams (SO_REUSEADDR); multicast reaches both"
            )
        }
    }
}

/// Start time; within one clock tick the greater pid is usually the later process.
fn began(server: &Server) -> Option<(BootTime, u32)> {
    server.program().map(|program| (program.actor.process.key.start, pid(program)))
}

fn differ(one: &Server, other: &Server) -> bool {
    // In another mount namespace the same path is another file.
    let image = |server: &Server| {
        server.program().map(|program| (program.exe().to_owned(), program.actor.process.image.mntns))
    };
    one.uid != other.uid || image(one) != image(other)
}

/// Whether both may receive traffic to one address. The socket that is bound to an interface has precedence, and for
/// datagrams the one that is bound to the address (net/ipv4/inet_hashtables.c, compute_score(), v6.12).
fn overlap(one: &Server, other: &Server) -> bool {
    let listening = |server: &Server| Listening {
        netns: server.netns,
        proto: server.proto,
        local: server.local,
        v6only: server.v6only,
    };
    let same = one.local.ip == other.local.ip;
    let takes = listening(one).takes(other.local.ip) || listening(other).takes(one.local.ip);
    one.device == other.device && (same || one.proto == Proto::Tcp && takes)
}

fn raw(raw: &Raw) -> Option<Finding> {
    let program = raw.holders.first();
    // Sockets of the kernel have no file; and descriptors of other users may not be readable.
    if program.is_none() && (raw.inode == 0 || !raw.holders_seen) {
        return None;
    }
    let severity = match program {
        Some(program) if program.package().is_some() => Severity::Low,
        Some(_) => Severity::High,
        None => Severity::Medium,
    };
    let (code, can) = match raw.kind {
        RawKind::Raw(_) => (Code::RawSocket, "can read and send packets, bypassing every listener"),
        RawKind::Packet(_) => (Code::PacketSocket, "can read the traffic of all processes"),
    };
    let place = Place { netns: Some(raw.netns), program: program.cloned(), ..Place::default() };
    let name = program.map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} has a {}: it {can}", raw.kind);
    let what = "check whether it is a sniffer, or a backdoor that is triggered by a packet:";
    let next = match program {
        Some(program) => format!("{what} ls -lL /proc/{}/exe", pid(program)),
        None => format!("{what} inode {} in /proc/net/raw, raw6 or packet", raw.inode),
    };
    Some(finding(code, severity, place, evidence, next))
}

fn unknown(unknown: &Unknown) -> Finding {
    let name =
        unknown.program.as_ref().map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let others = match unknown.count {
        1 => String::new(),
        count => format!(", and {} others", count - 1),
    };
    let evidence =
        format!("the originator of {} - {} of {name} is unknown{others}", unknown.local, unknown.remote);
    let place = Place {
        proto: Some(unknown.proto),
        local: Some(unknown.local),
        netns: Some(unknown.netns),
        program: unknown.program.clone(),
    };
    let next = "the connection is older than netwatch; start netwatch record at boot".into();
    finding(Code::UnknownOriginator, Severity::Low, place, evidence, next)
}

fn disagreement(disagreement: &Disagreement) -> Finding {
    let place = Place {
        proto: disagreement.what.proto(),
        local: disagreement.what.local(),
        netns: disagreement.what.netns(),
        program: disagreement.program.clone(),
    };
    let next = "a rootkit hides entries like this; do not trust programs on this host: take an image of memory and disk"
        .into();
    finding(Code::ViewsDisagree, Severity::Critical, place, disagreement.to_string(), next)
}
