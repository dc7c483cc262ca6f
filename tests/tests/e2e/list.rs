//! `netwatch list`: its table against the real netstat, row by row and cell by cell.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use tests::{Lines, PATIENCE, Running, binary, in_fresh_netns, ip, stranger_s_copy, until};

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
            "lnp", "an4", "an6", "an46", "natup4", "natup6", "naul4", "ntl6", "n", "np", "na", "tulpen",
            "plunt", "anp", "anW", "anpW", "antpe", "ane", "aune6", "natupeW", "ntle", "ntlpe", "naw",
            "nawp", "nawe", "nwl", "nw4a", "nw6a", "natuwp", "lnwe",
        ];
        // Kernels differ in which sockets there are, not in what a letter hides.
        let letters = if tests::is_emulated() { &letters[..3] } else { &letters[..] };
        for letters in letters {
            let flag = format!("-{letters}");
            // Without a protocol netstat adds raw and UNIX sockets, which `list` does not have.
            let protocols = if letters.contains(['t', 'u', 'w']) { "" } else { "tu" };
            let (ours, theirs) = both(&[&flag], &[&format!("{flag}{protocols}")]);
            assert_same(&ours, &theirs, letters);
            assert!(ours.lines().count() > 2, "-{letters} shows too little to compare:\n{ours}");
        }
        // No letters: the usual ones.
        let (ours, theirs) = both(&[], &["-natup"]);
        assert_same(&ours, &theirs, "");
    });
}

/// Timers run, so what remains of each is not compared.
#[test]
fn timers_equal_those_of_netstat() {
    let without_times = |table: String| {
        let line = |line: &str| match line.split_once('(') {
            Some((name, times)) if times.contains('/') => {
                let (_, counts) = times.split_once('/').unwrap();
                format!("{name}(_/{counts}")
            }
            _ => line.to_owned(),
        };
        table.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    in_fresh_netns(|| {
        let _scene = one_of_each();
        for letters in ["nato", "antpo", "natupo", "anoe", "antpoe", "tulpeno", "ntlo", "nauo"] {
            let protocols = if letters.contains(['t', 'u']) { "" } else { "tu" };
            let theirs = format!("-{letters}{protocols}");
            let mut same = None;
            until("sockets hold still", || {
                let before = without_times(netstat(&[&theirs]));
                let ours = without_times(netwatch(&[&format!("-{letters}")]));
                let still = before == without_times(netstat(&[&theirs]));
                same = Some((ours, before));
                still
            });
            let (ours, theirs) = same.unwrap();
            assert_same(&ours, &theirs, letters);
        }
        assert!(netwatch(&["-nato"]).contains(" on ("), "a SYN is sent again");
    });
}

/// As people type it, without a command.
#[test]
fn letters_without_a_command_mean_list() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let bare = text(&run(Command::new(binary()).arg("-tulpen")));
        assert_eq!(bare, netwatch(&["--tcp", "--udp", "--listening", "--programs", "--extend", "--numeric"]));
        assert!(bare.contains("LISTEN"), "{bare}");
        for (letter, instead) in [
            ("-x", "ss -x"),
            ("-r", "ip route"),
            ("-i", "ip -s link"),
            ("-s", "nstat"),
            ("-g", "ip maddr"),
            ("-M", "conntrack"),
        ] {
            let output = Command::new(binary()).arg(letter).output().unwrap();
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), complaint.lines().count()), (Some(2), 1), "{complaint}");
            assert!(complaint.contains(instead), "{complaint}");
        }
    });
}

#[test]
fn states_order_and_filters_select_rows() {
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let cells = |arguments: &[&str], column: usize| -> Vec<String> {
            let table = netwatch(arguments);
            table
                .lines()
                .skip(2)
                .map(|line| line.split_whitespace().nth(column).unwrap().to_owned())
                .collect()
        };
        for arguments in [&["--state", "listen", "-t"][..], &["-t", "state", "listening"]] {
            let states = cells(arguments, 5);
            assert!(!states.is_empty() && states.iter().all(|state| state == "LISTEN"), "{states:?}");
        }
        let connected = cells(&["-t", "state", "connected", "exclude", "time-wait"], 5);
        assert!(connected.iter().any(|state| state == "ESTABLISHED"));
        assert!(connected.iter().all(|state| state != "LISTEN" && state != "TIME_WAIT"), "{connected:?}");

        let port = |address: &String| address.rsplit(':').next().unwrap().parse::<u32>().unwrap();
        let ports: Vec<_> = cells(&["-tan", "--sort", "-port"], 3).iter().map(port).collect();
        assert!(ports.len() > 3 && ports.is_sorted_by(|a, b| a >= b), "{ports:?}");

        let one = ports[0].to_string();
        assert!(cells(&["-tan", "--port", &one], 3).len() < ports.len());
        let own = std::process::id().to_string();
        // The table names the first of several holders, as netstat does; JSON names the owner.
        let rows = netwatch(&["-tan", "--json", "--pid", &own]);
        assert!(rows.lines().count() > 3);
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            assert_eq!(row["process"]["pid"], std::process::id(), "{row}");
        }
        for (arguments, complaint) in [
            (&["state", "open"][..], "not a state"),
            (&["dport", "=", ":22"], "only `state NAME`"),
            (&["--sort", "size"], "recv-q"),
            (&["-c", "never"], "number of seconds"),
        ] {
            let output = Command::new(binary()).arg("list").args(arguments).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
            assert!(error.contains(complaint), "{error}");
        }
    });
}

/// `-c` goes on until a signal ends it, with status 0.
#[test]
fn continuous_list_ends_with_a_signal() {
    in_fresh_netns(|| {
        let mut command = Command::new(binary());
        command.args(["-tnc", "0.2"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut list = Running::start(&mut command);
        let lines = Lines::of(list.stdout());
        let mut titles = 0;
        while titles < 3 {
            titles += usize::from(lines.next(PATIENCE).expect("it goes on").starts_with("Active"));
        }
        list.signal(Signal::SIGINT);
        assert!(list.ended("the list ends").success());
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
