//! What explains a port. Each rule asks for a program that somebody answers for: a name alone is nobody's word.

use super::facts::{Ownership, Program, Script, Server};
use super::{By, Port, known};
use std::sync::Arc;

/// Judges one, without a baseline. Of several who have it open a package has to answer for each: any of them may serve.
pub(super) fn port(server: &Arc<Server>) -> Port {
    let mut by = Vec::new();
    let mut reasons = Vec::new();
    if server.is_answered() {
        if let Some((program, keeper, name)) = server.holders.iter().find_map(|program| kept(program)) {
            by.extend([By::Package, keeper]);
            let owner = program.package().map_or("", |owner| &owner.name);
            reasons.push(format!("{} of package {owner}, run by {name}", program.exe()));
        }
        if let Some((program, service)) = serves(server) {
            by.push(By::Service);
            reasons.push(format!("{} is what offers {service}", program.name()));
        }
    }
    if is_registered(server) {
        by.push(By::Portmapper);
        reasons.push(format!("registered with the portmapper: {}", rpc(server)));
    }
    if by.is_empty() {
        reasons = missing(server);
    }
    Port { server: server.clone(), by, reasons, listed: None }
}

/// A program from a package that its unit or a container runtime keeps, and which.
fn kept(program: &Arc<Program>) -> Option<(&Arc<Program>, By, &str)> {
    match (&program.container, &program.unit) {
        (Some(container), _) => Some((program, By::Container, container)),
        (None, Some(unit)) => Some((program, By::Unit, unit)),
        (None, None) => None,
    }
}

/// A program that offers what the port is registered for.
fn serves(server: &Server) -> Option<(&Arc<Program>, &str)> {
    let service = server.service.as_deref()?;
    let offers = |program: &&Arc<Program>| known::offers(service, program.name()) == Some(true);
    server.holders.iter().find(offers).map(|program| (program, service))
}

/// Whether the portmapper has it for a program that is known to offer that: anybody may register anything.
pub(super) fn is_registered(server: &Server) -> bool {
    let mut programs = server.rpc.iter().map(|(number, _)| *number);
    if server.is_kernels() {
        return programs.any(known::is_kernels_rpc);
    }
    server.is_answered()
        && programs
            .any(|number| server.holders.iter().any(|program| known::offers_rpc(number, program.name())))
}

fn rpc(server: &Server) -> String {
    let name = |(number, name): &(u32, Option<String>)| name.clone().unwrap_or_else(|| number.to_string());
    server.rpc.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Why nothing explains it.
fn missing(server: &Server) -> Vec<String> {
    let mut reasons = Vec::new();
    match server.program() {
        None if server.is_kernels() => {
            reasons.push(
                "nobody has it open: the kernel's own (a tunnel, NFS), or hidden from all views".into(),
            );
        }
        None => reasons.push("no process could be seen that has it open".into()),
        Some(first) => {
            let program = server.holders.iter().find(|program| program.package().is_none()).unwrap_or(first);
            reasons.push(unanswered(program));
            match (&program.unit, &program.container, &program.within) {
                (None, None, Some(within)) => {
                    reasons.push(format!("it is in {within}, and not what that runs"));
                }
                (None, None, None) => {
                    reasons.push("neither an installed unit nor a container runs it".into());
                }
                _ => {}
            }
        }
    }
    match &server.service {
        None => reasons.push(format!("port {} is no service's in /etc/services", server.local.port)),
        Some(service) => match server.program().and_then(|program| known::offers(service, program.name())) {
            None => reasons.push(format!("nothing is known of who offers {service}")),
            Some(false) => reasons.push(format!("the port is {service}'s, which is another program's")),
            Some(true) => {}
        },
    }
    if server.rpc.is_empty() {
        reasons.push("the portmapper does not have it".into());
    } else {
        reasons.push(format!("the portmapper has it ({}), which another program offers", rpc(server)));
    }
    reasons
}

/// Why no package answers for a program.
pub(super) fn unanswered(program: &Program) -> String {
    match (program.answers(), &program.script) {
        (Ownership::Unknown, _) => format!("it is not known whether a package owns {}", program.exe()),
        (Ownership::Nobody, Some(Script::File(path, _))) => format!("no package owns the script {path}"),
        (Ownership::Nobody, Some(Script::Text)) => {
            format!("{} runs what it reads, from no file", program.exe())
        }
        (Ownership::Nobody, Some(Script::Module(name))) => {
            format!("{} runs its module {name}", program.exe())
        }
        (Ownership::Nobody, Some(Script::Unknown)) => {
            format!("what {} runs is not to be told by its command line", program.exe())
        }
        (Ownership::Nobody, None) => format!("no package owns {}", program.exe()),
        (Ownership::Package(owner), _) if program.package().is_none() => {
            format!("package {} has {}, but that is not what runs", owner.name, program.exe())
        }
        (Ownership::Package(owner), _) => format!("package {} owns it", owner.name),
    }
}
