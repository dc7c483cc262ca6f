//! Metrics, judged by Prometheus.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{Debian, Recorder, Running, Store, in_fresh_netns, output, until};

use super::play;

/// The page of a server.
fn page(mut stream: impl std::io::Read + std::io::Write) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

/// What promtool says, run in the folder `/run` of the Debian.
fn promtool(debian: &Debian, arguments: &[&str], stdin: Option<&str>) {
    let output = debian.inside(|| {
        let mut command = Command::new("/usr/bin/promtool");
        command.args(arguments).current_dir("/run").env_clear();
        if let Some(text) = stdin {
            fs::write("/run/stdin", text).unwrap();
            command.stdin(fs::File::open("/run/stdin").unwrap());
        }
        output(&mut command)
    });
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn prometheus_scrapes_what_was_recorded() {
    const TEST: &str = "outputs::metrics::prometheus_scrapes_what_was_recorded";
    const CONFIG: &str = "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: netwatch\n  static_configs:\n  - targets: ['127.0.0.1:9464']\n";
    in_fresh_netns(|| {
        let Some(debian) = Debian::of_this_run(TEST) else { return };
        let store = Store::new();
        let file = format!("file:{}", store.beside("events").display());
        let arguments = ["--metrics", "127.0.0.1:9464", "--output", &file];
        let recorder = Recorder::start(&store.path(), &arguments);
        play(&store);
        let metrics = || page(TcpStream::connect("127.0.0.1:9464").unwrap());
        let open =
            r#"netwatch_events_total{event="open",proto="tcp",side="local",basis="connect",errno=""} "#;
        until("all is counted", || {
            let page = metrics();
            page.contains(open) && page.contains("netwatch_output_up{output=\"file\"} 1")
        });
        let text = metrics();
        for part in [
            "netwatch_handshake_seconds_count ",
            "netwatch_queue_limit_events{subscriber=\"store\"} ",
            "netwatch_store_up 1\n",
            "netwatch_store_size_bytes ",
            "netwatch_probe_attached{job=\"state\"} 1\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        promtool(&debian, &["check", "metrics"], Some(&text));
        let prometheus = debian.inside(|| {
            fs::write("/run/prometheus.yml", CONFIG).unwrap();
            let mut command = Command::new("/usr/bin/prometheus");
            command.args(["--config.file=/run/prometheus.yml", "--storage.tsdb.path=/run/data"]);
            command.arg("--web.listen-address=127.0.0.1:9090").env_clear();
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        });
        until("Prometheus has scraped it", || {
            let Ok(mut stream) = TcpStream::connect("127.0.0.1:9090") else { return false };
            let ask = b"GET /api/v1/query?query=sum(netwatch_events_total{event=\"open\",basis=\"connect\"}) HTTP/1.0\r\n\r\n";
            stream.write_all(ask).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let Some((_, body)) = answer.split_once("\r\n\r\n") else { return false };
            let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
            let count = body["data"]["result"][0]["value"][1].as_str().unwrap_or_default();
            count.parse::<u64>().is_ok_and(|count| count >= 1)
        });
        drop(prometheus);
        recorder.finish();
    });
}

#[test]
fn alert_rules_are_valid_and_raise_what_they_say() {
    const TEST: &str = "outputs::metrics::alert_rules_are_valid_and_raise_what_they_say";
    let Some(debian) = Debian::of_this_run(TEST) else { return };
    debian.inside(|| {
        fs::write("/run/prometheus-rules.yml", include_str!("../../../../packaging/prometheus-rules.yml"))
            .unwrap();
        let tests = include_str!("../../../../packaging/prometheus-rules.test.yml");
        fs::write("/run/prometheus-rules.test.yml", tests).unwrap();
    });
    promtool(&debian, &["check", "rules", "prometheus-rules.yml"], None);
    promtool(&debian, &["test", "rules", "prometheus-rules.test.yml"], None);
}

#[test]
fn metrics_are_served_at_a_path() {
    in_fresh_netns(|| {
        let store = Store::new();
        let path = store.beside("metrics");
        let recorder = Recorder::start(&store.path(), &["--metrics", &format!("unix:{}", path.display())]);
        let text = page(UnixStream::connect(&path).unwrap());
        assert!(text.contains("netwatch_build_info{version="), "{text}");
        recorder.finish();
    });
}
