//! Syslog, judged by rsyslog.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tests::{Debian, Recorder, Running, Store, in_fresh_netns, until};

use super::play;

/// Messages are parsed by the parser for RFC 5424 alone; properties are separated by tabs.
const CONFIG: &str = r#"
global(parser.escapeControlCharactersOnReceive="on" maxMessageSize="64k")
module(load="imudp")
module(load="imtcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imudp" address="127.0.0.1" port="5140")
input(type="imtcp" address="127.0.0.1" port="5141")
input(type="imuxsock" Socket="/run/netwatch-test.sock" UseSpecialParser="off" UseSysTimeStamp="off" RateLimit.Interval="0")
template(name="all" type="string" string="%inputname%\t%protocol-version%\t%syslogpriority-text%\t%syslogfacility-text%\t%hostname%\t%app-name%\t%procid%\t%msgid%\t%structured-data%\t%msg%\n")
action(type="omfile" file="/run/netwatch-test.log" template="all")
"#;

struct Rsyslog {
    // Dropped first: the namespace is left to it.
    running: Running,
    debian: Debian,
}

impl Rsyslog {
    fn start(debian: Debian) -> Self {
        let running = debian.inside(|| {
            fs::write("/run/netwatch-test.conf", CONFIG).unwrap();
            let mut command = Command::new("/usr/sbin/rsyslogd");
            command.args(["-n", "-iNONE", "-f", "/run/netwatch-test.conf"]).env_clear();
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        });
        let rsyslog = Self { running, debian };
        until("rsyslog takes messages", || {
            rsyslog.debian.inside(|| fs::exists("/run/netwatch-test.sock").unwrap())
        });
        rsyslog
    }

    /// The messages that it has written, each as its properties.
    fn messages(&self) -> Vec<Vec<String>> {
        let text = self.debian.inside(|| fs::read_to_string("/run/netwatch-test.log").unwrap_or_default());
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

fn of<'a>(messages: &'a [Vec<String>], input: &str) -> Vec<&'a Vec<String>> {
    messages.iter().filter(|message| message[0] == input).collect()
}

#[test]
fn rsyslog_parses_messages_of_every_transport() {
    const TEST: &str = "outputs::syslog::rsyslog_parses_messages_of_every_transport";
    in_fresh_netns(|| {
        let Some(debian) = Debian::of_this_run(TEST) else { return };
        let rsyslog = Rsyslog::start(debian);
        let store = Store::new();
        let unix = format!("syslog:unix:/proc/{}/root/run/netwatch-test.sock", rsyslog.running.pid());
        let json = "syslog:tcp:127.0.0.1:5141,format=json,facility=local3,filter=event:close";
        let outputs = ["--output", &unix, "--output", "syslog:udp:127.0.0.1:5140", "--output", json];
        let recorder = Recorder::start(&store.path(), &outputs);
        let pid = recorder.pid().to_string();
        play(&store);
        recorder.finish();
        let inputs = ["imuxsock", "imudp", "imtcp"];
        until("all arrives", || {
            let messages = rsyslog.messages();
            inputs
                .iter()
                .all(|input| of(&messages, input).iter().filter(|message| message[7] == "close").count() == 2)
        });
        let messages = rsyslog.messages();
        for message in &messages {
            let [_, version, priority, facility, _, app, procid, kind, data, text] = &message[..] else {
                panic!("{message:?}")
            };
            assert_eq!((&**version, &**app, procid), ("1", "netwatch", &pid), "{message:?}");
            assert_eq!(priority, "info", "{message:?}");
            let is_json = message[0] == "imtcp";
            assert_eq!(facility, if is_json { "local3" } else { "daemon" });
            assert!(
                data.starts_with("[meta sequenceId=\"") && data.contains("[netwatch@32473 run=\""),
                "{data}"
            );
            if kind == "close" {
                assert!(data.contains("local=\"127.0.0.1:") && data.contains("origin=\""), "{data}");
                assert!(data.contains("basis=\"connect\"") || data.contains("basis=\"accept\""), "{data}");
                assert_eq!(text.trim_start().starts_with('{'), is_json, "{text}");
            }
        }
        // Both got the same, in order. The connection of the other output is left out where it would be delivered again.
        let kinds = |input, port: &str| {
            let about = of(&messages, input).into_iter().filter(|message| message[8].contains(port));
            about.map(|message| message[7].clone()).collect::<Vec<_>>()
        };
        let played = ["listen", "open", "open", "accept", "close", "close", "unlisten"];
        assert_eq!(kinds("imuxsock", ":6000"), played);
        assert_eq!(kinds("imudp", ":6000"), played);
        assert!(kinds("imuxsock", ":5140").contains(&"open".to_owned()));
        assert_eq!(kinds("imudp", "remote=\"127.0.0.1:5140"), [""; 0]);
    });
}

/// Whatever the server missed while it was down arrives when it is back, in order.
#[test]
fn messages_wait_for_a_server_that_is_down() {
    const TEST: &str = "outputs::syslog::messages_wait_for_a_server_that_is_down";
    in_fresh_netns(|| {
        let Some(debian) = Debian::of_this_run(TEST) else { return };
        let store = Store::new();
        let mut recorder = Recorder::begin(&store.path(), &["--output", "syslog:tcp:127.0.0.1:5141"]);
        // It tries once the probes are attached.
        recorder.says("output syslog:tcp:127.0.0.1:5141: cannot connect: Connection refused");
        play(&store);
        let rsyslog = Rsyslog::start(debian);
        recorder.says("output syslog:tcp:127.0.0.1:5141: delivers again");
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        assert_eq!((status.code(), said.len()), (Some(0), 3), "{said:?}");
        until("all arrives", || {
            rsyslog.messages().iter().filter(|message| message[7] == "close").count() == 2
        });
        let messages = rsyslog.messages();
        let seqs: Vec<_> =
            messages.iter().map(|message| message[8].split("seq=\"").nth(1).unwrap()).collect();
        let numbers: Vec<u64> =
            seqs.iter().map(|seq| seq.split('"').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    });
}
