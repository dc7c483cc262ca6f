//! `netwatch list`: its table against the real netstat, row by row and cell by cell.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use tests::{binary, in_fresh_netns, ip, stranger_s_copy, until};

mod namespaces;
mod objects;
mod scene;
mod source;

use scene::{one_of_each, pair};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn netwatch(arguments: &[&str]) -> String {
    text(&run(Command::new(binary()).arg("list").args(arguments)))
}

fn netstat(arguments: &[&str]) -> String {
    text(&run(Command::new("netstat").args(arguments)))
}

/// Both tables of the same moment: netstat printed the same before and after.
fn both(ours: &[&str], theirs: &[&str]) -> (String, String) {
    let mut pair = None;
    until("sockets hold still", || {
        let before = netstat(theirs);
        let table = netwatch(ours);
        let still = before == netstat(theirs);
        pair = Some((table, before));
        still
    });
    pair.unwrap()
}

/// Every line must be netstat's, byte for byte, followed by the origin.
fn assert_same(ours: &str, theirs: &str, letters: &str) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    assert_eq!(ours.len(), theirs.len(), "-{letters}:\n{}\n{}", ours.join("\n"), theirs.join("\n"));
    assert_eq!(ours[0], theirs[0]);
    for (ours, theirs) in ours.iter().zip(&theirs).skip(1) {
        // netstat pads its last column only where there is a program.
        let rest = ours.strip_prefix(*theirs).unwrap_or_else(|| panic!("-{letters}:\n{ours}\n{theirs}"));
        assert!(!rest.trim_start().is_empty() && rest.starts_with(' '), "-{letters}: no origin: {ours}");
    }
}

#[test]
fn table_equals_netstat_for_every_letter() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let letters = [
            "natup", "naul6", "lanp", "natu", "nat", "nau", "natp", "tn", "un", "tun", "ln", "tln", "uln",
            "lnp", "an4", "an6", "an46", "natup4", "natup6", "naul4", "ntl6", "n", "np", "na",
        ];
        // Kernels differ in which sockets there are, not in what a letter hides.
        let letters = if tests::is_emulated() { &letters[..3] } else { &letters[..] };
        for letters in letters {
            let flag = format!("-{letters}");
            // Without a protocol netstat adds raw and UNIX sockets, which `list` does not have.
            let protocols = if letters.contains(['t', 'u']) { "" } else { "tu" };
            let (ours, theirs) = both(&[&flag], &[&format!("{flag}{protocols}")]);
            assert_same(&ours, &theirs, letters);
            assert!(ours.lines().count() > 3, "-{letters} shows too little to compare:\n{ours}");
        }
        // No letters: the usual ones.
        let (ours, theirs) = both(&[], &["-natup"]);
        assert_same(&ours, &theirs, "");
    });
}

#[test]
fn scene_has_every_state() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        // An acknowledgement may be delayed (TCP_DELACK_MAX), and FIN_WAIT2 with it.
        for state in [
            "LISTEN",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT2",
            "CLOSE_WAIT",
            "TIME_WAIT",
            "tcp6",
            "udp6",
        ] {
            until(state, || netstat(&["-natup"]).contains(state));
        }
    });
}

fn local_routes() -> String {
    text(&run(Command::new("ip").args(["-6", "route", "show", "table", "local"])))
}

#[test]
fn long_addresses_are_whole_and_aligned() {
    in_fresh_netns(|| {
        const HOST: &str = "2001:db8:1111:2222:3333:4444:5555:6666";
        ip(&format!("-6 addr add {HOST}/64 dev lo nodad"));
        // An IPv6 address gets its routes a little later, one by one, from a work queue (addrconf_dad_work).
        let probe = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        until("the address is routed", || {
            std::net::TcpStream::connect((HOST, port)).is_ok() && local_routes().contains(HOST)
        });
        drop(probe);
        let server = format!("[{HOST}]:17001");
        let _long = pair(&format!("[{HOST}]:12001"), &server);
        let _short = pair("127.0.0.1:2000", "127.0.0.1:6000");
        // -W: without it netstat cuts long addresses.
        let (ours, theirs) = both(&["-natup"], &["-natupW"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (ours, theirs) in ours.lines().zip(theirs.lines()).skip(2) {
            let (ours, theirs) = (words(ours), words(theirs));
            assert_eq!(ours[..theirs.len()], theirs);
        }
        assert!(ours.contains(&format!(" {HOST}:12001 ")), "{ours}");
        let header = ours.lines().nth(1).unwrap();
        for column in ["State", "PID/Program name", "ORIGIN"] {
            let at = header.find(column).unwrap();
            for line in ours.lines().skip(2) {
                assert!(line.as_bytes()[at - 1] == b' ' && line.as_bytes()[at] != b' ', "{column}: {line}");
            }
        }
    });
}

#[test]
fn unprivileged_table_equals_netstat() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        // A path where any user may run it.
        let (_directory, copy) = stranger_s_copy(&binary(), "netwatch");
        // No other test uses this uid: otherwise their sockets would be shown.
        const NOBODY: u32 = 65533;
        let as_nobody = |command: &mut Command| run(command.uid(NOBODY).gid(NOBODY).current_dir("/"));
        let theirs = as_nobody(Command::new("netstat").arg("-natup"));
        let ours = as_nobody(Command::new(&copy).args(["list", "-natup"]));
        assert_same(&text(&ours), &text(&theirs), "natup");
        assert_eq!(String::from_utf8_lossy(&ours.stderr), String::from_utf8_lossy(&theirs.stderr));
        assert!(!ours.stderr.is_empty());
    });
}

#[test]
fn origin_column_has_side_process_and_basis() {
    in_fresh_netns(|| {
        let scene = one_of_each();
        let (_guess, _guessed, listener) = pair("127.0.0.1:50000", "127.0.0.1:6001");
        drop(listener);
        let table = netwatch(&["-nat"]);
        let row = |addresses: [&str; 2]| {
            let found = table.lines().find(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                words.len() > 4 && words[3..5] == addresses
            });
            found.unwrap_or_else(|| panic!("{addresses:?} in\n{table}"))
        };
        let connector = scene.holders[1].pid();
        let row = |local, remote| row([local, remote]);
        assert!(
            row("127.0.0.1:6000", "127.0.0.1:2000")
                .ends_with(&format!(" remote sleep[{connector}] (listener)"))
        );
        assert!(
            row("127.0.0.1:2000", "127.0.0.1:6000").ends_with(&format!(" local sleep[{connector}] (peer)"))
        );
        assert!(
            row("127.0.0.1:6001", "127.0.0.1:50000").ends_with(" remote 127.0.0.1:50000 (guess: port-range)")
        );
        assert!(row("127.0.0.1:6000", "0.0.0.0:*").ends_with(" -"));
    });
}
