//! Simultaneous opens that began before netwatch started.

use serde_json::json;
use tests::{Actor, Netns, Watch, Wire, assert_has, end, loses, sysctl, until};

use crate::actor;
use crate::table::table_of_kernel;

/// Each connects to the other, and netwatch comes in between.
struct Crossing {
    wire: Wire,
    netns: [Netns; 2],
    ends: [Actor; 2],
    states: [&'static str; 2],
}

impl Crossing {
    /// As far as these states.
    fn begun(states: [&'static str; 2]) -> Self {
        let netns = [Netns::fresh(), Netns::fresh()];
        let wire = Wire::between(&netns[0], &netns[1]);
        let Wire { a, b, .. } = &wire;
        // With them an answer to a SYN that was repeated may come as one from before it, and is answered by a reset
        // (`net/ipv4/tcp_input.c`, tcp_rcv_synsent_state_process).
        for netns in &netns {
            netns.inside(|| sysctl("net/ipv4/tcp_timestamps", "0"));
        }
        let mut ends = [netns[0].inside(actor), netns[1].inside(actor)];
        netns[0].inside(|| loses(b));
        netns[1].inside(|| loses(a));
        ends[0].say(&format!("connect {a}:2000 {b}:6000 nonblocking"));
        ends[1].say(&format!("connect {b}:6000 {a}:2000 nonblocking"));
        if states[1] == "SYN_RECV" {
            // Not both ways for a moment: the SYN that is not to come may come just then.
            wire.mends_one_way(&netns[0]);
            until("the other's SYN came", || {
                let table = netns[1].inside(table_of_kernel);
                table.values().any(|(state, ..)| state == "SYN-RECV")
            });
        }
        Self { wire, netns, ends, states }
    }

    fn goes_on(mut self, watch: &mut Watch) {
        let at = [self.netns[0].inside(|| end(2000, 6000)), self.netns[1].inside(|| end(6000, 2000))];
        let seeds = at.map(|end| watch.at("seed", end));
        self.wire.mends(&self.netns[0], &self.netns[1]);
        for end in &mut self.ends {
            end.say("finish");
        }
        let opens = at.map(|end| watch.at("open", end));
        for (((seed, open), process), state) in seeds.iter().zip(&opens).zip(&self.ends).zip(self.states) {
            assert_eq!(seed["state"], state);
            assert_has(open, json!({"id": seed["id"], "process": process.object()}));
            assert_has(&open["origin"], json!({"confidence": "observed", "process": process.object()}));
            assert!(["local", "both"].iter().any(|side| open["origin"]["side"] == *side), "{open:#}");
            assert_ne!(open["origin"]["basis"], "none");
        }
        let both = opens.iter().any(|open| open["origin"]["side"] == "both");
        assert!(both, "{:#} {:#}", opens[0], opens[1]);
    }
}

/// When netwatch comes, both have tried once: as TCP has it, one may be answered before it tries again, and then only
/// the other sees that it was a crossing. And of another pair, one has heard of the other already, and its answer got
/// lost.
#[test]
fn simultaneous_opens_that_are_older_than_netwatch() {
    let crossings = [["SYN_SENT", "SYN_SENT"], ["SYN_SENT", "SYN_RECV"]].map(Crossing::begun);
    let mut watch = Watch::on_wires(&[]);
    for crossing in crossings {
        crossing.goes_on(&mut watch);
    }
}
