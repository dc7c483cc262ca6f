//! A peer on another host.

use serde_json::Value;
use tests::{Actor, Far, Watch, in_fresh_netns, port};

/// A client whose socket is on another host: an address, and no process.
#[test]
fn client_on_another_host_has_no_process() {
    in_fresh_netns(|| {
        let far = Far::away();
        let mut server = Actor::start(Actor::program());
        let at = server.say("listen 0.0.0.0:0 8");
        let mut watch = Watch::shared();
        let client = far.connect(at.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port"));
        server.say("accept");
        let its = client.port;
        let of =
            |kind: &'static str| move |event: &Value| event["event"] == kind && port(event, "remote") == its;
        let accept = watch.expect("accept", of("accept"));
        assert_eq!(accept["remote"]["ip"], *far.ip);
        assert_eq!(accept["origin"]["side"], "remote");
        assert_eq!((&accept["peer"], &accept["origin"]["process"]), (&Value::Null, &Value::Null));
        client.close();
        server.say("close");
        watch.expect("close", of("close"));
        watch.finish();
    });
}
