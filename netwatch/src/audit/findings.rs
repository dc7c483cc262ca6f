//! What speaks against those that listen. Each finding is milder where a package answers for the program: then it is
//! more likely a habit of that program's than somebody's trace.

use std::sync::Arc;

use super::explain::{self, unanswered};
use super::facts::{Facts, Ownership, PORTMAPPER, Program, Raw, Reach, Script, Server, Stdio, Unknown};
use super::views::Disagreement;
use super::{Code, Finding, Place, Severity, known};
use crate::listeners::Listening;
use crate::model::{BootTime, ExeState, Proto, RawKind};

/// All of them, in no order.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let servers = facts.servers.iter();
    servers
        .clone()
        .filter_map(shell)
        .chain(servers.clone().filter_map(wrong_program))
        .chain(servers.clone().filter_map(ephemeral))
        .chain(servers.filter_map(only_local))
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
    let evidence = format!("{} listens, and {}", who(program), unanswered(program));
    let next = format!(
        "what it was told to do: /proc/{0}/cmdline; who started it: netwatch trace pid:{0}",
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
        // An installed unit may want it so (Accept=yes), as inetd does.
        (_, true) if program.unit.is_some() => Severity::Low,
        (_, true) => Severity::Medium,
    };
    let names: Vec<_> =
        stdio.fds.iter().map(|fd| ["stdin", "stdout", "stderr"].get(*fd as usize).copied()).collect();
    let names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let verb = if stdio.fds.len() == 1 { "is" } else { "are" };
    let evidence = format!("{names} of {} {verb} {}", who(program), stdio.what);
    let place =
        Place { proto: stdio.proto, local: stdio.local, netns: stdio.netns, program: Some(program.clone()) };
    let next = format!("whoever is at the other end types into it: netwatch trace pid:{}", pid(program));
    finding(Code::StdioOnSocket, severity, place, evidence, next)
}

/// Of the file that a program with network sockets runs.
fn executable(program: &Arc<Program>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name, exe, pid) = (who(program), program.exe(), pid(program));
    let owned = matches!(program.owned, Ownership::Package(_));
    let copy = format!("what runs is still to be had: cp /proc/{pid}/exe FILE");
    match program.exe_status.state {
        ExeState::Deleted => {
            let evidence = format!("{name} has network sockets, and its program {exe} was deleted");
            findings.push(finding(Code::ExeDeleted, Severity::High, of(program), evidence, copy));
        }
        ExeState::Memfd => {
            let evidence = format!("{name} has network sockets, and its program never had a file ({exe})");
            findings.push(finding(Code::ExeMemfd, Severity::Critical, of(program), evidence, copy));
        }
        ExeState::Replaced => {
            let severity = if owned { Severity::Low } else { Severity::Medium };
            let evidence = format!("{name} has network sockets, and {exe} is another file by now");
            let next = if owned { "if the package was upgraded, restart it".into() } else { copy };
            findings.push(finding(Code::ExeReplaced, severity, of(program), evidence, next));
        }
        ExeState::Ok | ExeState::Unknown => {}
    }
    if program.exe_status.world_writable {
        let folder = exe.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let evidence =
            format!("{name} has network sockets, and everybody may write to {folder}, where its program is");
        let next =
            format!("who put it there: ls -lL /proc/{pid}/exe; who started it: netwatch trace pid:{pid}");
        findings.push(finding(Code::ExeWorldWritable, Severity::High, of(program), evidence, next));
    }
    findings
}

fn wrong_program(server: &Arc<Server>) -> Option<Finding> {
    let service = server.service.as_deref()?;
    let program = server.program()?;
    let offers = |program: &Arc<Program>| known::offers(service, program.name());
    let stands_in = |program: &Arc<Program>| offers(program) == Some(true) || known::is_front(program.name());
    if offers(program).is_none() || server.holders.iter().any(stands_in) {
        return None;
    }
    let severity = if program.package().is_some() { Severity::Medium } else { Severity::High };
    let evidence = format!("{} listens on the port of {service}, and is none of its programs", who(program));
    let next = format!("whether anybody meant it to be there: ls -l /proc/{}/exe", pid(program));
    Some(finding(Code::WrongProgram, severity, at(server, Some(program)), evidence, next))
}

fn ephemeral(server: &Arc<Server>) -> Option<Finding> {
    // A client's socket is bound to such a port too, and UDP does not tell the two apart.
    if !server.is_ephemeral || server.proto != Proto::Tcp || explain::is_registered(server) {
        return None;
    }
    // The kernel's own (NFS has one for callbacks) take any.
    let is_mild = server.is_answered() || server.is_kernels();
    let severity = if is_mild { Severity::Low } else { Severity::Medium };
    let name = server.program().map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} listens on {}, a port that the kernel gives to clients", server.local);
    let next = "whether it was told to take any port; one that is fixed can be explained".into();
    Some(finding(Code::EphemeralListener, severity, at(server, server.program()), evidence, next))
}

fn only_local(server: &Arc<Server>) -> Option<Finding> {
    let history = server
        .history
        .as_ref()
        .filter(|history| history.only_local && !history.more && history.connections > 0)?;
    // This host asks its portmapper, be it in an audit: that says nothing of who else may.
    if server.reach() != Reach::All || server.rpc.iter().any(|(program, _)| *program == PORTMAPPER) {
        return None;
    }
    let visits = match history.connections {
        1 => "the only connection that came to it is from this host".into(),
        count => format!("all of {count} connections that came to it are from this host"),
    };
    let name = server.program().map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} listens on all addresses, and {visits}");
    let next = "it could listen on loopback only".into();
    Some(finding(Code::OnlyLocalPeers, Severity::Info, at(server, server.program()), evidence, next))
}

/// Ports on which several multicast listeners are as it should be.
const MULTICAST: [u16; 4] = [1900, 3702, 5353, 5355];

/// A second program on a port (`SO_REUSEPORT`), under another user or of another file.
fn shared(servers: &[Arc<Server>]) -> Vec<Finding> {
    let mut order: Vec<&Arc<Server>> = servers.iter().filter(|server| !server.holders.is_empty()).collect();
    order.sort_by_key(|server| (server.netns, server.proto, server.local.port, began(server)));
    let same_port = |one: &&Arc<Server>, other: &&Arc<Server>| {
        (one.netns, one.proto, one.local.port) == (other.netns, other.proto, other.local.port)
    };
    let mut findings = Vec::new();
    for group in order.chunk_by(same_port) {
        let mut told: Vec<(u32, &str)> = Vec::new();
        for (nth, second) in group.iter().enumerate() {
            let earlier = group.iter().take(nth);
            let Some(first) =
                earlier.into_iter().find(|first| overlap(first, second) && differ(first, second))
            else {
                continue;
            };
            let (Some(one), Some(other)) = (first.program(), second.program()) else { continue };
            // Of many sockets of the same two programs one is enough.
            let pair = (second.uid, other.exe());
            if told.contains(&pair) {
                continue;
            }
            told.push(pair);
            let multicast = second.proto == Proto::Udp && MULTICAST.contains(&second.local.port);
            let severity = if multicast { Severity::Info } else { Severity::High };
            let evidence = format!(
                "{} ({}, uid {}) listens on {} as {} ({}, uid {}) does on {}: each gets a part of what comes",
                who(other),
                other.exe(),
                second.uid,
                second.local,
                who(one),
                one.exe(),
                first.uid,
                first.local,
            );
            let next = format!(
                "which of the two is meant to be there; who started it: netwatch trace pid:{}",
                pid(other)
            );
            findings.push(finding(Code::SharedPort, severity, at(second, Some(other)), evidence, next));
        }
    }
    findings
}

/// Within a clock tick the greater pid is the later, as a rule.
fn began(server: &Server) -> Option<(BootTime, u32)> {
    server.program().map(|program| (program.actor.process.key.start, pid(program)))
}

fn differ(one: &Server, other: &Server) -> bool {
    // One path is another file in another mount namespace.
    let image = |server: &Server| {
        server.program().map(|program| (program.exe().to_owned(), program.actor.process.image.mntns))
    };
    one.uid != other.uid || image(one) != image(other)
}

/// Whether both may get what comes to one address. Of datagrams the socket that is bound to the address gets all, and of
/// anything the one that is bound to the interface (`net/ipv4/inet_hashtables.c`, compute_score).
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
    // The kernel's own have no file; and who it is may not be for us to see.
    if program.is_none() && (raw.inode == 0 || !raw.holders_seen) {
        return None;
    }
    let severity = match program {
        Some(program) if program.package().is_some() => Severity::Low,
        Some(_) => Severity::High,
        None => Severity::Medium,
    };
    let (code, can) = match raw.kind {
        RawKind::Raw(_) => (Code::RawSocket, "reads and writes packets past every listener"),
        RawKind::Packet(_) => (Code::PacketSocket, "reads what others send and receive"),
    };
    let place = Place { netns: Some(raw.netns), program: program.cloned(), ..Place::default() };
    let name = program.map_or_else(|| "nobody that could be seen".into(), |program| who(program));
    let evidence = format!("{name} has a {}: it {can}", raw.kind);
    let what = "a sniffer, or a backdoor that waits for a certain packet?";
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
    let evidence = format!("nobody knows who began {} - {} of {name}{others}", unknown.local, unknown.remote);
    let place = Place {
        proto: Some(unknown.proto),
        local: Some(unknown.local),
        netns: Some(unknown.netns),
        program: unknown.program.clone(),
    };
    let next = "it is older than netwatch: netwatch record, from boot on, knows".into();
    finding(Code::UnknownOriginator, Severity::Low, place, evidence, next)
}

fn disagreement(disagreement: &Disagreement) -> Finding {
    let place = Place {
        proto: disagreement.what.proto(),
        local: disagreement.what.local(),
        netns: disagreement.what.netns(),
        program: disagreement.program.clone(),
    };
    let next =
        "what a rootkit does; trust no program of this host: take an image of the memory and the disk".into();
    finding(Code::ViewsDisagree, Severity::Critical, place, disagreement.to_string(), next)
}
