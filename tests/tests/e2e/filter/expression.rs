//! `--filter EXPRESSION`: the same words on `watch`, `log` and `list`.

use serde_json::Value;
use tests::{Store, in_fresh_netns, kind, netwatch, port};

use super::{Case, NOBODY, compare, ip_is};
use crate::actor;

fn case(expression: &str, shows: impl Fn(&Value) -> bool + 'static) -> Case {
    Case { arguments: vec!["--filter".into(), expression.into()], shows: Box::new(shows) }
}

fn has_port(event: &Value, ports: &[u64]) -> bool {
    ["local", "remote"].iter().any(|side| ports.contains(&port(event, side).into()))
}

#[test]
fn terms_are_joined_and_negated() {
    compare(|cast| {
        let pid = cast.client.pid();
        vec![
            case("process:stranger !port:2001", |event| {
                event["process"]["comm"] == "stranger" && !has_port(event, &[2001])
            }),
            case(&format!("pid:{pid},1 event:open,fail"), move |event| {
                event["process"]["pid"] == pid && ["open", "fail"].contains(&kind(event))
            }),
            case("!pid:1 !origin:local !6", |event| {
                event["origin"]["side"] != "local" && event["family"] == "ipv4"
            }),
            case("basis:accept,handshake confidence:observed", |event| {
                ["accept", "handshake"].contains(&event["origin"]["basis"].as_str().unwrap_or_default())
            }),
            case("local:::1,127.0.0.1:7000", |event| {
                ip_is(event, "local", "::1")
                    || (ip_is(event, "local", "127.0.0.1") && port(event, "local") == 7000)
            }),
        ]
    });
}

#[test]
fn text_and_users() {
    compare(|_| {
        let of_stranger = |event: &Value| {
            ["comm", "exe"].iter().any(|key| {
                event["process"][key].as_str().is_some_and(|text| text.to_lowercase().contains("strange"))
            })
        };
        vec![
            case("STRANGE", of_stranger),
            case("!strange user:root", move |event| event["process"]["uid"] == 0 && !of_stranger(event)),
            case(&format!("user:{NOBODY}"), |event| event["process"]["uid"] == NOBODY),
            case("nobody", |event| event["process"]["uid"] == NOBODY),
            case("127.0.0.1:7000", |event| {
                ["local", "remote"]
                    .iter()
                    .any(|side| ip_is(event, side, "127.0.0.1") && port(event, side) == 7000)
            }),
            case("exe:stranger", |event| {
                event["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/stranger"))
            }),
        ]
    });
}

#[test]
fn a_store_is_searched_by_it() {
    in_fresh_netns(|| {
        let store = Store::new();
        // What is not selected is not recorded, and the run says by what.
        let recorder = tests::Recorder::start(&store.path(), &["--filter", "event:fail !port:2000"]);
        let mut client = actor();
        for port in 2000..2006 {
            assert!(client.try_say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000")).is_err());
        }
        tests::until("all is recorded", || store.log(&[]).len() == 5);
        recorder.finish();
        let filter: String = rusqlite::Connection::open(store.path())
            .and_then(|db| db.query_row("SELECT filter FROM segment", [], |row| row.get(0)))
            .unwrap();
        assert!(filter.contains("--filter 'event:fail !port:2000'"), "{filter}");
        let pid = client.pid();
        let none: [u16; 0] = [];
        for (expression, expected) in [
            ("port:2001,2003", &[2001, 2003][..]),
            ("!port:2001,2003", &[2002, 2004, 2005]),
            (&format!("pid:{pid} !port:2001"), &[2002, 2003, 2004, 2005]),
            (&format!("!pid:{pid}"), &none),
            (&format!("pid:1,{pid} port:2002"), &[2002]),
            ("local:127.0.0.1:2005", &[2005]),
            ("local:10.0.0.1,127.0.0.1:2005", &[2005]),
            ("!local:127.0.0.1:2005 !remote:10.0.0.1", &[2001, 2002, 2003, 2004]),
            ("remote:127.0.0.1 port:2004", &[2004]),
            ("process:act* !process:nobody port:2004", &[2004]),
            ("process:nobody,act* port:2004", &[2004]),
            ("!process:actor", &none),
            ("exe:actor !port:2001,2002,2003,2004", &[2005]),
            ("2003", &[2003]),
        ] {
            for more in [&[][..], &["--scan"]] {
                let shown = store.log(&[&["--filter", expression], more].concat());
                let ports: Vec<_> = shown.iter().map(|event| port(event, "local")).collect();
                assert_eq!(ports, expected, "{expression}");
            }
        }
    });
}

#[test]
fn sockets_are_selected_by_it() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        let mut client = actor();
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let rows = |expression: &str| {
            let output = netwatch(&["list", "-ta", "--json", "--filter", expression]);
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let mut ends: Vec<_> =
                rows.map(|row| (port(&row, "local"), row["remote"]["port"].as_u64())).collect();
            ends.sort_unstable();
            ends
        };
        let (listener, client_end, server_end) = ((6000, None), (2000, Some(6000)), (6000, Some(2000)));
        assert_eq!(rows("port:6000"), [client_end, listener, server_end]);
        assert_eq!(rows("!port:2000"), [listener]);
        assert_eq!(rows("origin:local,remote"), [client_end, server_end]);
        assert_eq!(rows("!origin:local,remote family:4"), [listener]);
        assert_eq!(rows(&format!("pid:{}", client.pid())), [client_end]);
        assert_eq!(rows("basis:peer confidence:inferred"), [client_end]);
        assert_eq!(rows("family:6"), []);
        assert_eq!(rows("127.0.0.1:2000 !basis:peer"), [server_end]);
    });
}

#[test]
fn an_error_is_one_line_with_the_term() {
    for (command, expression, expected) in [
        ("watch", "process:curl port:http", "`port:http`: expected a port number up to 65535"),
        ("record", "proces:curl", "no key `proces`; keys are pid, process,"),
        ("log", "\"a", "the quote is not closed"),
        ("list", "event:open", "`event` selects events"),
    ] {
        let output = netwatch(&[command, "--filter", expression]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
