//! Programs that listen in order to forward connections: for whom, by their arguments, or by the session of a client.

use super::facts::{Program, Server};
use crate::model::Proto;

/// A listener that forwards.
pub(super) struct Forward {
    /// What it forwards, in words: `127.0.0.1:22 by ssh`.
    pub(super) words: String,
    /// Who started the program: a login, a unit or a container; `None` if nobody that is known.
    pub(super) started_by: Option<String>,
}

/// The forward that a listener is for. Requires a program that a package owns.
pub(super) fn of(server: &Server) -> Option<Forward> {
    let program = server.program().filter(|_| server.is_answered())?;
    let args: Vec<&str> = program.actor.process.image.args.iter().collect();
    let args = args.get(1..).unwrap_or_default();
    let words = match program.name() {
        "ssh" => format!(
            "{} by ssh",
            ssh(args, server).unwrap_or_else(|| "a target that is not in its arguments".into())
        ),
        // The daemon itself is a server; only a session has a client.
        "sshd" | "sshd-session" => match server.client {
            Some(client) => format!("the ssh session from {client}"),
            None => return None,
        },
        "docker-proxy" => format!("{} by docker-proxy", docker(args, server)?),
        "kubectl" => format!("{} by kubectl", kubectl(args, server)?),
        "socat" => format!("{} by socat", socat(args, server)?),
        _ => return None,
    };
    Some(Forward { words, started_by: started_by(program) })
}

/// Who answers for the start of a program.
fn started_by(program: &Program) -> Option<String> {
    if let Some(container) = &program.container {
        return Some(format!("container {container}"));
    }
    if let Some(unit) = program.unit.as_ref().or(program.within.as_ref()) {
        return Some(format!("unit {unit}"));
    }
    let process = &program.actor.process;
    if let Some(auid) = process.auid {
        return Some(format!("login uid {auid}"));
    }
    // Without audit there is no login uid, but the login itself.
    let is_login =
        |comm: &str| matches!(comm, "sshd" | "sshd-session" | "login" | "dropbear" | "dockerd" | "systemd");
    let ancestor = process.ancestors().find(|ancestor| ancestor.key.pid != 1 && is_login(&ancestor.comm));
    match ancestor {
        Some(ancestor) => Some(format!("{}[{}]", ancestor.comm, ancestor.key.pid)),
        // A session of sshd is a login.
        None if matches!(program.name(), "sshd" | "sshd-session") => Some("its client's login".into()),
        None => None,
    }
}

/// Options of ssh(1) that are followed by a value.
const SSH_VALUES: &str = "BbcDEeFIiJLlmOopPQRSWw";

/// The target of the option of ssh that asks for this listener: `-L [ADDRESS:]PORT:HOST:PORT`, `-D [ADDRESS:]PORT`.
fn ssh(args: &[&str], server: &Server) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.starts_with('-')) else {
            continue;
        };
        let Some((at, letter)) = letters.char_indices().find(|(_, letter)| SSH_VALUES.contains(*letter))
        else {
            continue;
        };
        let attached = letters.get(at + letter.len_utf8()..).filter(|value| !value.is_empty());
        let value = match attached {
            Some(value) => value,
            None => args.next()?,
        };
        let target = match letter {
            'L' => local_forward(value, server.local.port),
            'D' => (last_port(value) == Some(server.local.port)).then(|| "any target (SOCKS)".into()),
            'o' => option(value, server.local.port),
            _ => None,
        };
        if target.is_some() {
            return target;
        }
    }
    None
}

/// `-o LocalForward=[ADDRESS:]PORT HOST:PORT` and `-o DynamicForward=[ADDRESS:]PORT`.
fn option(value: &str, port: u16) -> Option<String> {
    let (name, value) = value.split_once(['=', ' '])?;
    let value = value.trim();
    if name.eq_ignore_ascii_case("DynamicForward") {
        return (last_port(value) == Some(port)).then(|| "any target (SOCKS)".into());
    }
    if !name.eq_ignore_ascii_case("LocalForward") {
        return None;
    }
    let (listens, target) = value.split_once(' ')?;
    (last_port(listens) == Some(port)).then(|| target.trim().to_owned())
}

/// The target in `[ADDRESS:]PORT:HOST:PORT` or `[ADDRESS:]PORT:PATH`, if the first port is this one.
fn local_forward(value: &str, port: u16) -> Option<String> {
    let fields = fields(value);
    // A path has no colon.
    let (listens, target) = match fields.as_slice() {
        [_, listens, host, target] | [listens, host, target] => (listens, format!("{host}:{target}")),
        [listens, path] => (listens, (*path).to_owned()),
        _ => return None,
    };
    (listens.parse() == Ok(port)).then_some(target)
}

/// Splits at colons that are not in brackets.
fn fields(value: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    value
        .split(|c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ':' && depth == 0
        })
        .collect()
}

fn last_port(value: &str) -> Option<u16> {
    value.rsplit(':').next()?.parse().ok()
}

/// `docker-proxy -proto tcp -host-ip A -host-port P -container-ip A -container-port P`
fn docker(args: &[&str], server: &Server) -> Option<String> {
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg.trim_start_matches('-') == name)?;
        args.get(at + 1).copied()
    };
    let is_this = value("host-port")?.parse() == Ok(server.local.port);
    is_this.then_some(())?;
    Some(format!("{}:{}", value("container-ip")?, value("container-port")?))
}

/// `kubectl port-forward [OPTIONS] TYPE/NAME [LOCAL:]REMOTE…`
fn kubectl(args: &[&str], server: &Server) -> Option<String> {
    let mut words =
        args.iter().skip_while(|arg| **arg != "port-forward").skip(1).filter(|arg| !arg.starts_with('-'));
    // The value of an option that is a word of its own has no port either.
    let name = words.clone().find(|word| word.contains('/') || word.parse::<u16>().is_err())?;
    let remote = words.find_map(|word| {
        let (local, remote) = word.split_once(':').unwrap_or((word, word));
        (local.parse() == Ok(server.local.port)).then_some(remote)
    })?;
    Some(format!("{name}:{remote}"))
}

/// `socat TCP-LISTEN:PORT,… ADDRESS`, in either order.
fn socat(args: &[&str], server: &Server) -> Option<String> {
    let addresses: Vec<&&str> = args.iter().filter(|arg| !arg.starts_with('-') || **arg == "-").collect();
    let [.., one, other] = addresses.as_slice() else { return None };
    let listens = |address: &str| {
        let (kind, rest) = address.split_once(':')?;
        let kind = kind.to_ascii_lowercase();
        let proto = if kind.starts_with("udp") { Proto::Udp } else { Proto::Tcp };
        let is_listener = kind.ends_with("-listen") || kind.ends_with("-l") || kind.contains("-recv");
        let port = rest.split(',').next().and_then(|port| port.parse::<u16>().ok())?;
        (is_listener && proto == server.proto && port == server.local.port).then_some(())
    };
    let target = |address: &str| address.split(',').next().unwrap_or(address).to_owned();
    match (listens(one), listens(other)) {
        (Some(()), _) => Some(target(other)),
        (_, Some(())) => Some(target(one)),
        _ => None,
    }
    // What it runs is no target.
    .filter(|target| !is_command(target))
}

/// Whether an address of socat runs a program.
fn is_command(target: &str) -> bool {
    let kind = target.split(':').next().unwrap_or_default().to_ascii_lowercase();
    matches!(kind.as_str(), "exec" | "system" | "shell")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SockAddr;

    fn at(port: u16) -> SockAddr {
        SockAddr { ip: [127, 0, 0, 1].into(), port }
    }

    fn server(port: u16) -> Server {
        Server { local: at(port), ..super::super::tests::server("127.0.0.1:1", None, None) }
    }

    #[test]
    fn targets_of_ssh() {
        let target = |args: &[&str], port| ssh(args, &server(port));
        assert_eq!(target(&["-N", "-L", "127.0.0.1:5432:db:22", "host"], 5432).as_deref(), Some("db:22"));
        assert_eq!(target(&["-NL5432:db:22", "host"], 5432).as_deref(), Some("db:22"));
        assert_eq!(
            target(&["-L", "[::1]:80:[2001:db8::1]:8080", "host"], 80).as_deref(),
            Some("[2001:db8::1]:8080")
        );
        assert_eq!(
            target(&["-L", "8080:/run/docker.sock", "host"], 8080).as_deref(),
            Some("/run/docker.sock")
        );
        assert_eq!(target(&["-fND", "*:1080", "host"], 1080).as_deref(), Some("any target (SOCKS)"));
        assert_eq!(target(&["-o", "LocalForward=5432 db:22", "host"], 5432).as_deref(), Some("db:22"));
        assert_eq!(target(&["-oDynamicForward=1080", "host"], 1080).as_deref(), Some("any target (SOCKS)"));
        // Another port, and the value of another option.
        assert_eq!(target(&["-L", "5433:db:22", "host"], 5432), None);
        assert_eq!(target(&["-i", "-L5432:db:22", "host"], 5432), None);
        assert_eq!(target(&["-L"], 5432), None);
    }

    #[test]
    fn targets_of_other_forwarders() {
        let args = [
            "-proto",
            "tcp",
            "-host-ip",
            "0.0.0.0",
            "-host-port",
            "80",
            "-container-ip",
            "172.17.0.2",
            "-container-port",
            "8080",
        ];
        assert_eq!(docker(&args, &server(80)).as_deref(), Some("172.17.0.2:8080"));
        assert_eq!(docker(&args, &server(81)), None);
        let args = ["port-forward", "svc/web", "8080:80"];
        assert_eq!(kubectl(&args, &server(8080)).as_deref(), Some("svc/web:80"));
        assert_eq!(kubectl(&args, &server(80)), None);
        assert_eq!(
            socat(&["-d", "TCP-LISTEN:80,fork", "TCP:db:5432,x"], &server(80)).as_deref(),
            Some("TCP:db:5432")
        );
        assert_eq!(socat(&["TCP:db:5432", "tcp4-l:80"], &server(80)).as_deref(), Some("TCP:db:5432"));
        assert_eq!(socat(&["TCP-LISTEN:81", "TCP:db:5432"], &server(80)), None);
        assert_eq!(socat(&["UDP-LISTEN:80", "UDP:db:5432"], &server(80)), None);
        assert_eq!(socat(&["TCP-LISTEN:80", "EXEC:/bin/sh"], &server(80)), None);
    }

    proptest::proptest! {
        #[test]
        fn no_arguments_panic(args in proptest::collection::vec("[-LDo:\\[\\]a0-9é=, ]{0,12}", 0..5)) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let server = server(80);
            let _ = (ssh(&args, &server), docker(&args, &server), kubectl(&args, &server), socat(&args, &server));
        }
    }
}
