//! What this kernel offers, and whether it works.

use serde_json::{Value, json};
use tests::{Watch, assert_has, in_fresh_netns, netwatch};

#[test]
fn doctor_names_and_tests_a_probe_for_each_job() {
    in_fresh_netns(|| {
        let output = tests::doctor_says();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        let text = str::from_utf8(&output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let doctor: Value = serde_json::from_str(text).unwrap();
        assert_has(&doctor, json!({"kind": "doctor", "self_test": {"ok": true}}));

        // `ready` has the same probes.
        let watch = Watch::shared();
        let ready = watch.ready();
        let probes = ready["coverage"]["probes"].as_object().unwrap();
        let output = tests::doctor(&[]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        let text = String::from_utf8(output.stdout).unwrap();
        let jobs = doctor["jobs"].to_string();
        for (job, probe) in probes {
            let Some(probe) = probe.as_str() else {
                // Only functions that can be probed show writes to pipes and the end of packet sockets, and not every kernel
                // allows that.
                assert!(["pipe", "packet"].contains(&job.as_str()), "{job}");
                continue;
            };
            for said in [&text, &jobs] {
                assert!(said.contains(job.as_str()) && said.contains(probe), "{job} by {probe}: {said}");
            }
        }
        assert_eq!(doctor["unseen"], ready["coverage"]["unseen"]);
        for unseen in doctor["unseen"].as_array().unwrap() {
            assert!(text.contains(unseen.as_str().unwrap()), "{unseen}: {text}");
        }
        let limits = doctor["limits"].as_array().unwrap();
        let has = |what: &str| limits.iter().any(|limit| limit["what"].as_str().unwrap().starts_with(what));
        assert!(["ring", "arguments", "events that wait for the store"].into_iter().all(has), "{doctor}");
        assert_eq!(has("UDP flows"), probes["udp"].is_string(), "{doctor}");
        for limit in limits {
            assert_eq!(limit.as_object().unwrap().len(), 3, "{limit}");
            let [what, value, at_limit] =
                ["what", "value", "at_limit"].map(|key| limit[key].as_str().unwrap());
            assert!(text.contains(&format!(" {what}: {value}; {at_limit}\n")), "{limit}: {text}");
        }
        assert!(text.to_lowercase().contains("self-test"), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
    });
}

/// A wrong offset is either refused by the verifier or detected by the self-test; no event is emitted with it.
#[test]
fn wrong_offset_fails_the_self_test() {
    in_fresh_netns(|| {
        // Of the remote address, one that the verifier refuses, of a socket, of a process, of a path.
        let members = [
            "sock.__sk_common.skc_daddr",
            "sock.__sk_common.skc_num",
            "net.ns.inum",
            "task_struct.real_parent",
            "dentry.d_name.name",
        ];
        // A start takes seconds in an emulator.
        let members = if tests::is_emulated() { &members[..2] } else { &members[..] };
        for member in members {
            let sabotage = format!("offset={member}");
            let output = tests::doctor(&["--sabotage", &sabotage]);
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{member}: {said}");
            let errors = ["in place of", "works on this kernel", "did not arrive"];
            assert!(errors.iter().any(|words| said.contains(words)), "{member}: {said}");
        }
        let output = netwatch(&["watch", "--duration", "10", "--sabotage", "offset=net.ns.inum"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("network namespace"), "{stderr}");
    });
}

/// For every job that has a probe, the self-test expects some record.
#[test]
fn silent_probe_fails_the_self_test() {
    in_fresh_netns(|| {
        let whole: Value = serde_json::from_slice(&tests::doctor_says().stdout).unwrap();
        let jobs = whole["jobs"].as_array().unwrap();
        // Not the job cgroup: netwatch creates no cgroup for the self-test.
        let covered = |job: &str| jobs.iter().any(|seen| seen["job"] == job && seen["probe"].is_string());
        let output = tests::doctor(&["--json", "--sabotage", "deaf=all"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (output.status.code(), &said["self_test"]["ok"]),
            (Some(1), &Value::Bool(false)),
            "{said}"
        );
        let missing = said["self_test"]["missing"].as_array().unwrap();
        for (job, record) in [
            ("process", "exec"),
            ("state", "open (server)"),
            ("accept", "accept"),
            ("listen", "listen (unbound)"),
            ("use", "use"),
            ("connect", "fail"),
            ("udp", "datagram"),
        ] {
            assert_eq!(missing.contains(&json!(record)), covered(job), "{job}: {said}");
        }
        let output = netwatch(&["watch", "--duration", "100ms", "--sabotage", "deaf=accept"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("did not arrive: accept"), "{stderr}");
    });
}

/// A rung is forced, or refused with the reason; a job may be left out, which is reported.
#[test]
fn rung_can_be_forced() {
    in_fresh_netns(|| {
        let output = netwatch(&["doctor", "--json", "--probe", "accept=syscall", "--probe", "udp=none"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        let job =
            |name: &str| said["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).unwrap();
        assert_has(job("accept"), json!({"rung": "syscall", "probe": "tracepoint/sys_exit_accept{,4}"}));
        assert_has(job("udp"), json!({"rung": null, "probe": null}));
        assert!(
            said["unseen"]
                .as_array()
                .unwrap()
                .contains(&json!("flows of UDP, UDP-Lite, raw and ping sockets")),
            "{said}"
        );
        let output = netwatch(&["doctor", "--probe", "state=address"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("sockets by address"), "{said}");
        assert_eq!(netwatch(&["watch", "--probe", "accept=magic"]).status.code(), Some(2));
    });
}

/// Where functions can be probed, messages and pipes are followed by that as well.
#[test]
fn functions_of_unix_sockets_and_pipes_are_probed_like_others() {
    let said: Value = serde_json::from_slice(&tests::doctor_says().stdout).unwrap();
    let rung = |name: &str| {
        let job = said["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name);
        job.unwrap()["rung"].as_str().unwrap_or_default().to_owned()
    };
    if rung("accept") == "fexit" {
        assert_eq!(rung("unix"), "fentry", "{said}");
        assert!(["pipe", "anon_pipe"].contains(&rung("pipe").as_str()), "{said}");
    } else {
        assert_ne!(rung("unix"), "", "{said}");
    }
}
