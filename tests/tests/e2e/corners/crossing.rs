//! Simultaneous connects that began before netwatch started.

use serde_json::json;
use tests::{Actor, Netns, Watch, Wire, assert_has, endpoint, loses, sysctl, until};

use crate::actor;
use crate::table::table_of_kernel;

/// Each connects to the other, and netwatch starts in between.
struct Crossing {
    wire: Wire,
    netns: [Netns; 2],
    actors: [Actor; 2],
    states: [&'static str; 2],
}

impl Crossing {
    /// Until the sockets have these states.
    fn begun(states: [&'static str; 2]) -> Self {
        let netns = [Netns::fresh(), Netns::fresh()];
        let wire = Wire::between(&netns[0], &netns[1]);
        let Wire { a, b, .. } = &wire;
        // With timestamps, an answer to a retransmitted SYN may be taken for one to an earlier SYN, and is answered by
        // a reset (`net/ipv4/tcp_input.c`, tcp_rcv_synsent_state_process).
        for netns in &netns {
            netns.inside(|| sysctl("net/ipv4/tcp_timestamps", "0"));
        }
        let mut actors = [netns[0].inside(actor), netns[1].inside(actor)];
        netns[0].inside(|| loses(b));
        netns[1].inside(|| loses(a));
        actors[0].say(&format!("connect {a}:2000 {b}:6000 nonblocking"));
        actors[1].say(&format!("connect {b}:6000 {a}:2000 nonblocking"));
        if states[1] == "SYN_RECV" {
            // Not in both directions for a moment: the SYN that must be lost might arrive.
            wire.mends_one_way(&netns[0]);
            until("the other's SYN came", || {
                let table = netns[1].inside(table_of_kernel);
                table.values().any(|(state, ..)| state == "SYN-RECV")
            });
        }
        Self { wire, netns, actors, states }
    }

    fn goes_on(mut self, watch: &mut Watch) {
        let at =
            [self.netns[0].inside(|| endpoint(2000, 6000)), self.netns[1].inside(|| endpoint(6000, 2000))];
        let seeds = at.map(|endpoint| watch.at("seed", endpoint));
        self.wire.mends(&self.netns[0], &self.netns[1]);
        for actor in &mut self.actors {
            actor.say("finish");
        }
        let opens = at.map(|endpoint| watch.at("open", endpoint));
        for (((seed, open), process), state) in seeds.iter().zip(&opens).zip(&self.actors).zip(self.states) {
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

/// When netwatch starts, both have sent one SYN: one may receive the other's before it sends again, and then only that
/// other one sees that they crossed. In the second pair, one has received the other's SYN already, and its answer was
/// lost.
#[test]
fn simultaneous_connects_before_the_start_get_side_both() {
    let crossings = [["SYN_SENT", "SYN_SENT"], ["SYN_SENT", "SYN_RECV"]].map(Crossing::begun);
    let mut watch = Watch::on_wires(&[]);
    for crossing in crossings {
        crossing.goes_on(&mut watch);
    }
}
