//! What this kernel offers, and whether it works.

use serde_json::{Value, json};
use tests::{Watch, in_fresh_netns, netwatch};

#[test]
fn it_names_a_probe_for_each_job_and_tries_them() {
    in_fresh_netns(|| {
        let output = netwatch(&["doctor", "--json"]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let doctor: Value = serde_json::from_str(&text).unwrap();
        tests::assert_has(&doctor, json!({"kind": "doctor", "self_test": {"ok": true}}));

        // What it says is what a log is made with.
        let ready = Watch::start(&[]).finish().events[0].clone();
        let probes = ready["coverage"]["probes"].as_object().unwrap();
        let output = netwatch(&["doctor"]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        let text = String::from_utf8(output.stdout).unwrap();
        let jobs = doctor["jobs"].to_string();
        for (job, probe) in probes {
            let probe = probe.as_str().unwrap();
            for said in [&text, &jobs] {
                assert!(said.contains(job.as_str()) && said.contains(probe), "{job} by {probe}: {said}");
            }
        }
        assert_eq!(doctor["unseen"], ready["coverage"]["unseen"]);
        for unseen in doctor["unseen"].as_array().unwrap() {
            assert!(text.contains(unseen.as_str().unwrap()), "{unseen}: {text}");
        }
        assert!(text.to_lowercase().contains("self-test"), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
    });
}
