//! What the schemas of others have no key for: the object `netwatch`, with the keys of netwatch's own JSON.

use serde_json::{Value, json};

use super::{brief, id_of};
use crate::alert::Alert;
use crate::loss::Loss;
use crate::model::{Cookie, Nat};
use crate::origin::Origin;
use crate::output::{HostNameView, exe_status};
use crate::process::Actor;
use crate::signs;
use crate::stream::{Context, Ready};
use crate::tracker::{ConnectionEvent, Party};
use crate::where_it_runs;

/// Of a connection or a listener. Has nulls.
pub(super) fn event(event: &ConnectionEvent, context: &Context) -> Value {
    let endpoint = &event.endpoint;
    let origin = endpoint
        .remote
        .map(|remote| Origin::new(endpoint.verdict, endpoint.local, remote, endpoint.originator.as_ref()));
    let party =
        |party: &Party| json!({"id": id_of(party.id, context), "process": brief(party.process.as_ref())});
    let signs: Vec<_> = signs::of_end(endpoint).collect();
    json!({
        "event": event.kind.name(),
        "id": id_of(endpoint.id, context),
        "flow": endpoint.remote.map(|_| id_of(endpoint.flow, context)),
        "side": origin.as_ref().map(|origin| origin.side),
        "basis": origin.as_ref().map(|origin| origin.basis),
        "confidence": origin.as_ref().map(|origin| origin.confidence),
        "port_rule": origin.as_ref().map(|origin| origin.port_rule),
        "originator": brief(origin.and_then(|origin| origin.process)),
        "key": endpoint.process.as_ref().map(|actor| actor.process.key),
        "process_basis": endpoint.process_basis,
        "process": endpoint.process.as_ref().map(|actor| process(event, actor)),
        "listener": endpoint.listener.as_deref().map(party),
        "peer": endpoint.peer.as_ref().map(party),
        "netns": endpoint.netns.number(),
        "cookie": Cookie::number(endpoint.cookie),
        "inode": endpoint.inode,
        "mapped": endpoint.mapped.then_some(true),
        "state": endpoint.state.name(),
        "service": event.facts.service,
        "handshake_us": endpoint.handshake.map(|nanoseconds| nanoseconds.get() / 1000),
        "closed_by": event.outcome.closed_by,
        "via": endpoint.via,
        "nat": endpoint.nat.translation().map(|seen| {
            json!({"local": seen.local, "remote": seen.remote, "basis": Nat::BASIS})
        }),
        "remote_name": endpoint.names.remote().map(|name| HostNameView::new(name, endpoint.id.began)),
        "local_name": endpoint.names.local().map(|name| HostNameView::new(name, endpoint.id.began)),
        "device": event.facts.device.filter(|_| endpoint.device.is_some_and(|device| device.is_bound())),
        "scope": event.facts.device.filter(|_| endpoint.scope().is_some()),
        "signs": (!signs.is_empty()).then_some(signs),
        "repaired": event.repaired.then_some(true),
    })
}

fn process(event: &ConnectionEvent, actor: &Actor) -> Value {
    let process = &actor.process;
    let status = exe_status(event.facts.exe.process, process);
    let signs: Vec<_> = signs::of_process(process, status).collect();
    json!({
        "exe_state": status.state,
        "auid": process.auid,
        "unit": where_it_runs::of_cgroup(&process.cgroup).unit,
        "cgroup": &*process.cgroup,
        "kernel": process.kernel.then_some(true),
        "args_truncated": process.image.args.cut().map(|_| true),
        "signs": (!signs.is_empty()).then_some(signs),
    })
}

/// Of the start of a run.
pub(super) fn ready(ready: &Ready) -> Value {
    let probes: std::collections::BTreeMap<_, _> = ready.probes.iter().copied().collect();
    json!({"event": "ready", "seeded": ready.seeded, "coverage": {"probes": probes, "unseen": ready.unseen}})
}

/// Of an alert.
pub(super) fn alert(alert: &Alert, context: &Context) -> Value {
    json!({
        "event": "alert",
        "code": alert.rule.code,
        "id": alert.about.as_ref().map(|about| id_of(about.id, context)),
        "side": alert.about.as_ref().filter(|about| about.socket.remote.is_some()).map(|about| about.verdict.side),
        "key": alert.process.as_ref().map(|(actor, _)| actor.process.key),
        "exe_state": alert.process.as_ref().map(|(_, status)| status.state),
        "suppressed": alert.suppressed,
        "trace": alert.trace,
    })
}

pub(super) fn loss(loss: &Loss) -> Value {
    json!({"event": "loss", "reason": loss.reason.name(), "count": loss.count(), "kinds": loss.kinds})
}
