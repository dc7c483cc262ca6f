//! The rules that explain a port. Each requires a program that a package owns: anybody can choose a process name.

use super::facts::{Ownership, Program, Script, Server};
use super::forwards::{self, Forward};
use super::{By, Port, known};
use std::sync::Arc;

/// Judges a port without a baseline. A package must own the program of every holder, since any of them may serve.
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
            reasons.push(format!("{} is a program for {service}", program.name()));
        }
    }
    if is_registered(server) {
        by.push(By::Portmapper);
        reasons.push(format!("registered with the portmapper: {}", rpc(server)));
    }
    if server.is_kernels()
        && let Some(owner) = &server.owner
    {
        by.push(By::Kernel(owner.clone()));
        reasons.push(format!("a socket of the kernel, for {owner}"));
    }
    let forward = forwards::of(server);
    if let Some(Forward { words, started_by: Some(started_by) }) = &forward {
        by.push(By::Forward(words.clone()));
        reasons.push(format!("a forward of {words}, started by {started_by}"));
    }
    if by.is_empty() {
        reasons = missing(server);
        if let Some(Forward { words, .. }) = forward {
            reasons.push(format!(
                "it is a forward of {words}, but no login and no unit is known to have started it"
            ));
        }
    }
    Port { server: server.clone(), by, reasons, listed: None }
}

/// A program that a unit or a container runs, and its name.
fn kept(program: &Arc<Program>) -> Option<(&Arc<Program>, By, &str)> {
    match (&program.container, &program.unit) {
        (Some(container), _) => Some((program, By::Container, container)),
        (None, Some(unit)) => Some((program, By::Unit, unit)),
        (None, None) => None,
    }
}

/// A program that is known to offer the registered service of the port.
fn serves(server: &Server) -> Option<(&Arc<Program>, &str)> {
    let service = server.service.as_deref()?;
    let offers = |program: &&Arc<Program>| known::offers(service, program.name()) == Some(true);
    server.holders.iter().find(offers).map(|program| (program, service))
}

/// Whether the portmapper has the port for an RPC program that the holder is known to offer: any process may register.
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

/// Why nothing explains the port.
fn missing(server: &Server) -> Vec<String> {
    let mut reasons = Vec::new();
    match server.program() {
        None if server.kernel == Some(true) => {
            reasons.push("the kernel created it, and no device or subsystem is known to have it".into());
        }
        None if server.is_kernels() => {
            reasons.push(
                "no process has it open: it belongs to the kernel (a tunnel, NFS), or its process is hidden"
                    .into(),
            );
        }
        None if server.kernel == Some(false) && server.holders_seen => {
            reasons.push("no process has it open, and it is not the kernel's: its process is hidden, or it is being passed on".into());
        }
        None => reasons.push("cannot determine which process has it open".into()),
        Some(first) => {
            let program = server.holders.iter().find(|program| program.package().is_none()).unwrap_or(first);
            reasons.push(unanswered(program));
            match (&program.unit, &program.container, &program.within) {
                (None, None, Some(within)) => {
                    reasons.push(format!(
                        "it runs in the cgroup of {within}, but is not the program of that unit"
                    ));
                }
                (None, None, None) => {
                    reasons.push("no installed unit and no container runs it".into());
                }
                _ => {}
            }
        }
    }
    match &server.service {
        None => reasons.push(format!("port {} is not in /etc/services", server.local.port)),
        Some(service) => match server.program().and_then(|program| known::offers(service, program.name())) {
            None => reasons.push(format!("netwatch does not know which programs offer {service}")),
            Some(false) => {
                reasons.push(format!("the port is for {service}, which this program does not offer"));
            }
            Some(true) => {}
        },
    }
    if server.rpc.is_empty() {
        reasons.push("it is not registered with the portmapper".into());
    } else {
        reasons.push(format!("registered with the portmapper ({}), but not for this program", rpc(server)));
    }
    reasons
}

/// Why no package vouches for a program.
pub(super) fn unanswered(program: &Program) -> String {
    match (program.answers(), &program.script) {
        (Ownership::Unknown, _) => format!("cannot determine whether a package owns {}", program.exe()),
        (Ownership::Nobody, Some(Script::File(path, _))) => format!("no package owns the script {path}"),
        (Ownership::Nobody, Some(Script::Text)) => {
            format!("{} runs commands from its arguments or its input", program.exe())
        }
        (Ownership::Nobody, Some(Script::Module(name))) => {
            format!("{} runs the module {name}", program.exe())
        }
        (Ownership::Nobody, Some(Script::Unknown)) => {
            format!("cannot determine from its command line what {} runs", program.exe())
        }
        (Ownership::Nobody, None) => format!("no package owns {}", program.exe()),
        (Ownership::Package(owner), _) if program.package().is_none() => {
            format!("package {} owns {}, but the running file is another one", owner.name, program.exe())
        }
        (Ownership::Package(owner), _) => format!("package {} owns it", owner.name),
    }
}
