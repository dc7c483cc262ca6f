//! Limits of what is known of messages between processes.

use serde_json::json;
use tests::{Actor, Far, Watch, assert_has, in_fresh_netns};

use crate::actor;
use crate::trace::{OUT, Recording, answered, came_from, listens};

/// Over which a cause is followed: `MESSAGES_MAX`.
const MOST: usize = 4;

/// The longest name that a socket can have: `struct sockaddr_un` has 108 bytes for it and its NUL.
const LONGEST: usize = 107;

/// What `trace` finds for a request that goes over so many UNIX sockets.
fn over(hops: usize, check: impl Fn(&serde_json::Value, &Far, u16) + Send + Sync) {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let folder = tempfile::tempdir().unwrap();
        let path = |hop: usize| {
            format!("{}/{hop:0>1$}", folder.path().display(), LONGEST - 1 - folder.path().as_os_str().len())
        };
        let out = far.listen(OUT);
        let mut chain: Vec<Actor> = (0..hops).map(|_| actor()).collect();
        for (hop, one) in chain.iter_mut().enumerate() {
            one.say(&format!("unix-listen {}", path(hop)));
            let next = path(hop + 1);
            one.begin(&if hop + 1 < hops {
                format!("serve ask {next}")
            } else {
                format!("serve call {}:{OUT}", far.ip)
            });
        }
        let mut web = actor();
        let at = listens(&mut web);
        let client = far.connect(at);
        web.say("accept");
        web.begin(&format!("on-request ask {}", path(0)));
        client.send("x");
        answered(out);
        for one in chain.iter_mut().chain([&mut web]) {
            one.answer().expect("it has its answer");
        }
        drop((chain, web));
        check(&recording.ask(&far.ip), &far, client.port);
    });
}

#[test]
fn cause_is_followed_over_a_limited_number_of_messages() {
    over(MOST, |found, far, port| {
        came_from(found, far, port);
        let chain = found["chain"].as_array().unwrap();
        let messages: Vec<_> = chain.iter().filter(|step| step["kind"] == "message").collect();
        assert_eq!(messages.len(), MOST, "{found:#}");
        let is_whole = |step: &&serde_json::Value| step.to_string().contains(&format!("{:0>60}", ""));
        assert!(messages.iter().all(is_whole), "{found:#}");
    });
    over(MOST + 1, |found, _, _| assert_ne!(found["origin"]["kind"], "remote", "{found:#}"));
}

#[test]
fn names_beyond_the_budget_are_counted() {
    /// More than are reported in advance (`MOST_PAIRS`), and in the seconds that this may take.
    const CHILDREN: u64 = 1500;
    const BUDGET: u64 = 256;
    in_fresh_netns(|| {
        // Other logs would report a loss as well, which their tests do not expect.
        let mut watch = Watch::alone(&["--ring", "16777216"]);
        if watch.ready()["coverage"]["probes"]["unix"].is_null() {
            return tests::skip(
                "messages::names_beyond_the_budget_are_counted",
                "no probe observes messages",
            );
        }
        actor().say(&format!("pairs {CHILDREN}"));
        let lost = watch.expect("a loss", |event| tests::kind(event) == "loss");
        assert_has(&lost, json!({"reason": "limit"}));
        let count = lost["kinds"]["unix_names_not_followed"].as_u64().unwrap();
        assert!((1..=CHILDREN - BUDGET).contains(&count), "{lost:#}");
    });
}
