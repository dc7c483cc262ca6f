//! Slow, stuck and dead subscribers beside live ones.

use std::time::{Duration, Instant};

use super::*;
use crate::filter::{Condition, Term};
use crate::loss::Loss;
use crate::model::Proto;
use crate::process::Process;
use crate::stream::{Context, Ready};
use crate::tracker::{ConnectionEvent, EventKind, tests::event};

const SOON: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

fn subscription(reason: LossReason, most_waiting: usize) -> Subscription {
    Subscription { reason, most_waiting, is_announced: false, sees_all: false }
}

fn context() -> Context {
    Context::of_run("0123abcd").unwrap()
}

fn opened(port: u16) -> ConnectionEvent {
    event(EventKind::Open, &format!("10.0.0.1:{port}"), Some("10.0.0.2:443"))
}

fn batch(items: impl IntoIterator<Item = Item>) -> Batch {
    Batch { context: context(), items: items.into_iter().collect() }
}

fn ports(range: std::ops::Range<u16>) -> Batch {
    batch(range.map(opened).map(Item::Event))
}

/// What a receiver gets now, as words: local ports, and losses.
fn taken(receiver: &Receiver) -> Vec<String> {
    let gathered = receiver.gather(1, Duration::ZERO, SOON);
    let words = gathered.batches.iter().flat_map(|batch| &batch.items).map(|item| match item {
        Item::Event(event) => event.endpoint.local.port.to_string(),
        Item::Loss(_, Loss { reason, kinds, .. }) => format!("{} {kinds:?}", reason.name()),
        Item::Ready(_) => "ready".into(),
        Item::Exec(..) => "exec".into(),
        Item::Alert(alert) => alert.rule.id.to_string(),
        Item::Process(process, _) => process.comm.to_string(),
        Item::Table(events) => format!("table of {}", events.len()),
    });
    let words = words.collect();
    receiver.release(gathered.batches.iter().map(|batch| batch.items.len()).sum());
    words
}

#[test]
fn dead_and_stuck_subscribers_do_not_affect_a_live_one() {
    const BATCHES: usize = 2000;
    let mut bus = Bus::default();
    let live = bus.subscribe(subscription(LossReason::Store, usize::MAX));
    let stuck = bus.subscribe(subscription(LossReason::Stdout, 5000));
    drop(bus.subscribe(subscription(LossReason::Stdout, 5000)));
    assert!(bus.has_lost_one());
    let reader = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            let gathered = live.gather(1, Duration::ZERO, PATIENCE);
            for batch in &gathered.batches {
                assert!(batch.items.iter().all(|item| matches!(item, Item::Event(_))));
                count += batch.items.len();
                live.release(batch.items.len());
            }
            if gathered.is_over {
                return (count, gathered.ended.is_some());
            }
        }
    });
    for _ in 0..BATCHES {
        bus.publish(&mut ports(1..101));
    }
    bus.close(&context());
    assert_eq!(reader.join().unwrap(), (BATCHES * 100, true));
    // The other one got what it had room for, and the number of the rest.
    let words = taken(&stuck);
    assert_eq!(words.len(), 5001);
    assert_eq!(words.last().unwrap(), &format!("stdout {{\"open\": {}}}", BATCHES * 100 - 5000));
}

#[test]
fn missed_items_are_reported_in_order_once_half_of_the_queue_is_free() {
    let mut bus = Bus::default();
    let slow = bus.subscribe(subscription(LossReason::Stdout, 4));
    bus.publish(&mut ports(1..4));
    bus.publish(&mut ports(4..6));
    // There would be room for this one, but not for the gap before it.
    bus.publish(&mut ports(6..7));
    // Taken, and not released: it is still being processed.
    let gathered = slow.gather(1, Duration::ZERO, SOON);
    assert_eq!(gathered.batches.len(), 1);
    bus.publish(&mut batch([Item::Process(
        Process::bare(crate::model::ProcessKey::from_ticks(1, 1), "x".into()).into(),
        crate::process::tests::process(1, None).exe_status(),
    )]));
    bus.report_missed(&context());
    assert_eq!(taken(&slow), [""; 0]);
    slow.release(3);
    bus.publish(&mut ports(7..8));
    assert_eq!(taken(&slow), ["stdout {\"open\": 3, \"process\": 1}", "7"]);
}

#[test]
fn missed_losses_keep_their_reason_and_others_stay_in_order() {
    let mut bus = Bus::default();
    let other = bus.subscribe(subscription(LossReason::Stdout, 100));
    let slow = bus.subscribe(Subscription { is_announced: true, ..subscription(LossReason::Store, 1) });
    let lost = |count| Item::Loss(Timestamp::now(), Loss::new(LossReason::Ring, [("open", count)].into()));
    bus.publish(&mut ports(1..2));
    bus.publish(&mut batch([lost(5), Item::Event(opened(2)), lost(2)]));
    assert_eq!(taken(&other), ["1", "ring {\"open\": 5}", "2", "ring {\"open\": 2}"]);
    assert_eq!(taken(&slow), ["1"]);
    bus.report_missed(&context());
    assert_eq!(taken(&slow), ["ring {\"open\": 7}", "store {\"open\": 1}"]);
    // It has the others already.
    assert_eq!(taken(&other), ["store {\"open\": 1}"]);
}

#[test]
fn subscriber_that_gives_up_learns_what_it_misses() {
    let mut bus = Bus::default();
    let store = bus.subscribe(subscription(LossReason::Store, 3));
    bus.publish(&mut ports(1..4));
    bus.publish(&mut ports(4..6));
    store.give_up();
    assert!(bus.has_lost_one());
    let ring = Loss::new(LossReason::Ring, [("open", 5)].into());
    bus.publish(&mut batch([Item::Event(opened(6)), Item::Loss(Timestamp::now(), ring)]));
    bus.close(&context());
    let missed = store.missed_until_closed();
    assert_eq!((missed.of(LossReason::Store), missed.of(LossReason::Ring)), (6, 5));
}

#[test]
fn filter_hides_no_losses() {
    let shown = |filter: &Filter| {
        let lost = Loss::new(LossReason::Ring, [("open", 1)].into());
        let mut all = batch([Item::Ready(Ready { probes: Vec::new(), unseen: Vec::new(), seeded: 0 })]);
        all.items.extend(ports(1..5).items);
        all.items.push(Item::Loss(Timestamp::now(), lost));
        all.items.retain(|item| is_shown(item, filter));
        let mut bus = Bus::default();
        let receiver = bus.subscribe(subscription(LossReason::Stdout, 100));
        bus.publish(&mut all);
        taken(&receiver)
    };
    let udp = Filter::new([Term::any([Condition::Proto(crate::filter::Protos::One(Proto::Udp))])]);
    assert_eq!(shown(&Filter::new([Term::any([Condition::Port(3)])])), ["ready", "3", "ring {\"open\": 1}"]);
    assert_eq!(shown(&udp), ["ready", "ring {\"open\": 1}"]);
}

#[test]
fn table_is_delivered_in_order_and_only_to_who_requested_it() {
    let mut bus = Bus::default();
    let asking = bus.subscribe(subscription(LossReason::Stdout, 2));
    let other = bus.subscribe(subscription(LossReason::Stdout, 2));
    let table = || batch([Item::Table(vec![opened(7), opened(8)])]);
    bus.answer_requests(|| panic!("nobody asked"));
    bus.publish(&mut ports(1..3));
    asking.request_table();
    bus.answer_requests(table);
    bus.answer_requests(|| panic!("it was answered"));
    assert_eq!(taken(&asking), ["1", "2", "table of 2"]);
    assert_eq!(taken(&other), ["1", "2"]);
}

#[test]
fn failed_stream_does_not_end_cleanly() {
    let mut bus = Bus::default();
    let receiver = bus.subscribe(subscription(LossReason::Store, 10));
    bus.publish(&mut ports(1..2));
    drop(bus);
    let gathered = receiver.gather(1, Duration::ZERO, SOON);
    assert_eq!((gathered.batches.len(), gathered.is_over, gathered.ended), (1, true, None));
}

#[test]
fn items_come_in_small_batches_unless_the_subscriber_gathers() {
    let mut bus = Bus::default();
    let receiver = bus.subscribe(subscription(LossReason::Store, usize::MAX));
    bus.publish(&mut ports(0..60_000));
    let gathered = receiver.gather(60_000, PATIENCE, PATIENCE);
    assert_eq!(gathered.batches.len(), 60_000_usize.div_ceil(BATCH));
    // Less than enough, but the time of gathering has passed.
    bus.publish(&mut ports(0..1));
    let began = Instant::now();
    assert_eq!(receiver.gather(2, SOON, PATIENCE).batches.len(), 1);
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn there_is_room_if_every_live_subscriber_has_some() {
    let mut bus = Bus::default();
    drop(bus.subscribe(subscription(LossReason::Stdout, 0)));
    let slow = bus.subscribe(subscription(LossReason::Store, BATCH + 1));
    bus.publish(&mut ports(1..2));
    assert!(bus.has_room());
    bus.publish(&mut ports(1..2));
    assert!(!bus.has_room());
    assert_eq!(taken(&slow).len(), 2);
    assert!(bus.has_room());
}

#[test]
fn one_who_sees_all_gets_what_the_filter_hides() {
    let filter = Filter::new([Term::any([Condition::Port(2)])]);
    let mut bus = Bus::new(filter);
    let all = bus.subscribe(Subscription { sees_all: true, ..subscription(LossReason::Rules, 10) });
    let some = bus.subscribe(subscription(LossReason::Stdout, 10));
    let process = Arc::new(Process::clone(&crate::process::tests::process(5, None)));
    let mut items = ports(1..4);
    items.items.push(Item::Exec(crate::model::BootTime::default(), process));
    bus.publish(&mut items);
    bus.publish(&mut ports(4..6));
    assert_eq!(taken(&all), ["1", "2", "3", "exec", "4", "5"]);
    assert_eq!(taken(&some), ["2"]);
    // Only for them.
    bus.close_for_those_that_see_all(&context());
    bus.publish(&mut ports(2..3));
    assert!(all.is_over() && !some.is_over());
    assert_eq!(taken(&some), ["2"]);
}

/// A queue may be relieved between two looks at it: the loss is then noticed by whoever adds the next batch.
#[test]
fn loss_is_returned_to_whoever_notices_it() {
    let mut bus = Bus::default();
    let slow = bus.subscribe(Subscription { is_announced: true, ..subscription(LossReason::Rules, 2) });
    bus.publish(&mut ports(1..3));
    bus.publish(&mut ports(3..4));
    assert_eq!(taken(&slow), ["1", "2"]);
    let noticed = bus.subscribers[0].queue.push(Arc::new(ports(4..5)));
    assert!(
        matches!(noticed, Some(Item::Loss(_, loss)) if loss.reason == LossReason::Rules && loss.count() == 1)
    );
    assert_eq!(taken(&slow).len(), 2, "the loss, and then the batch");
    assert!(bus.subscribers[0].queue.push(Arc::new(ports(5..6))).is_none());
}
