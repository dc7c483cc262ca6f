//! Outputs that fail, and come back.

use std::sync::Mutex;

use super::*;
use crate::bus::Bus;
use crate::filter::{Condition, Filter, Term};
use crate::stream::Batch;
use crate::tracker::{EventKind, tests::event};

/// A receiver that is told what to do.
#[derive(Default)]
struct Far {
    /// Messages that were delivered, with the number of their payload.
    got: Vec<(u64, String)>,
    fails: bool,
    /// A message that is never accepted.
    refuses: Option<&'static str>,
    tries: usize,
}

struct ToFar {
    far: Arc<Mutex<Far>>,
    /// Each message has this length.
    length: usize,
}

impl Output for ToFar {
    fn encode(&mut self, item: &Item, _: &Context, spool: &mut Spool) -> io::Result<()> {
        let text = match item {
            Item::Event(event) => event.endpoint.local.port.to_string(),
            Item::Loss(_, loss) => format!("{} {:?}", loss.reason.name(), loss.kinds),
            _ => return Err(io::Error::other("no other items are sent")),
        };
        spool.push(item.kind(), format!("{text:<0$}", self.length).as_bytes());
        Ok(())
    }

    fn deliver(&mut self, payload: &mut Payload) -> Result<(), Undelivered> {
        let mut far = self.far.lock().unwrap();
        far.tries += 1;
        while payload.left() > 0 {
            let message = payload.messages().next().unwrap();
            let text = str::from_utf8(message).unwrap().trim_end().to_owned();
            if far.fails {
                return Err(Undelivered::down("cannot connect", "it is down"));
            }
            if far.refuses.is_some_and(|refused| text == refused) {
                return Err(Undelivered::Refused { why: "it is refused".into(), count: 1 });
            }
            far.got.push((payload.number, text));
            payload.advance(1).count();
        }
        Ok(())
    }
}

struct Scene {
    bus: Bus,
    far: Arc<Mutex<Far>>,
    said: Arc<Mutex<Vec<String>>>,
    gauges: Arc<Gauges>,
    thread: JoinHandle<()>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Scene {
    fn new(length: usize, filter: Filter, fails: bool) -> Self {
        let (mut bus, said) = (Bus::default(), Arc::<Mutex<Vec<String>>>::default());
        let far = Arc::new(Mutex::new(Far { fails, ..Far::default() }));
        let gauges = Arc::new(Gauges::default());
        let says = said.clone();
        let worker = Worker {
            receiver: bus.subscribe(Subscription {
                reason: LossReason::Output(OutputKind::Webhook),
                most_waiting: limits::OUTPUT_ITEMS,
                is_announced: true,
                sees_all: false,
            }),
            output: Box::new(ToFar { far: far.clone(), length }),
            kind: OutputKind::Webhook,
            filter,
            name: "far".into(),
            gauges: gauges.clone(),
            say: Box::new(move |line| says.lock().unwrap().push(line.to_owned())),
            pending: VecDeque::new(),
            spool: Spool::default(),
            retry: Retry::default(),
            is_down: false,
            has_refused: false,
        };
        let thread = std::thread::spawn(move || worker.run());
        Self { bus, far, said, gauges, thread }
    }

    fn publish(&mut self, ports: std::ops::Range<u16>) {
        let opened =
            |port| Item::Event(event(EventKind::Open, &format!("10.0.0.1:{port}"), Some("10.0.0.2:443")));
        let mut batch = Batch { context: context(), items: ports.map(opened).collect() };
        self.bus.publish(&mut batch);
    }

    fn until(&self, what: &str, holds: impl Fn(&Far) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.far.lock().unwrap()) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Closes the bus. Returns what was delivered, what was said, and how much is left.
    fn end(self) -> (Vec<String>, Vec<String>, usize) {
        self.bus.close(&context());
        self.thread.join().unwrap();
        let got = self.far.lock().unwrap().got.iter().map(|(_, text)| text.clone()).collect();
        let said = self.said.lock().unwrap().clone();
        (got, said, self.gauges.waiting.load(Ordering::Relaxed))
    }
}

fn context() -> Context {
    Context::of_run("0123abcd").unwrap()
}

fn words(ports: std::ops::Range<u16>) -> Vec<String> {
    ports.map(|port| port.to_string()).collect()
}

#[test]
fn what_the_filter_selects_is_delivered() {
    let filter = Filter::new([Term::any([Condition::Port(3)])]);
    let mut scene = Scene::new(0, filter, false);
    scene.publish(1..5);
    assert_eq!(scene.end(), (words(3..4), vec![], 0));
}

#[test]
fn an_output_that_was_down_delivers_in_order_and_is_reported_once() {
    let mut scene = Scene::new(0, Filter::default(), true);
    scene.publish(1..5);
    scene.until("it is tried again", |far| far.tries >= 2);
    scene.publish(5..8);
    scene.far.lock().unwrap().fails = false;
    scene.until("all arrives", |far| far.got.len() == 7);
    let numbers: Vec<_> = scene.far.lock().unwrap().got.iter().map(|(number, _)| *number).collect();
    // The first payload was sent before the second was published.
    assert_eq!(numbers, [1, 1, 1, 1, 2, 2, 2]);
    let (got, said, left) = scene.end();
    assert_eq!((got, left), (words(1..8), 0));
    let down = "output far: cannot connect: it is down; retrying; events that cannot be queued meanwhile are counted \
                as lost";
    assert_eq!(said, [down, "output far: delivers again"]);
}

#[test]
fn a_message_that_is_refused_is_counted_and_the_next_are_delivered() {
    let mut scene = Scene::new(0, Filter::default(), true);
    scene.far.lock().unwrap().refuses = Some("2");
    scene.publish(1..4);
    scene.until("it is tried", |far| far.tries >= 1);
    scene.far.lock().unwrap().fails = false;
    scene.until("the rest arrives", |far| far.got.len() == 2);
    let (got, said, left) = scene.end();
    assert_eq!((got, left), (["1", "3", "webhook {\"open\": 1}"].map(str::to_owned).to_vec(), 0));
    assert!(
        said.iter().any(|line| line.contains("it is refused; such events are counted as lost")),
        "{said:?}"
    );
}

/// The spool takes some, the queue takes some, and the number of the rest comes after them.
#[test]
fn an_output_that_is_down_loses_only_what_has_no_room() {
    // The spool is full after two batches.
    let length = limits::OUTPUT_SPOOL / crate::bus::BATCH / 2 + 1;
    let mut scene = Scene::new(length, Filter::default(), true);
    let other = scene.bus.subscribe(Subscription {
        reason: LossReason::Stdout,
        most_waiting: usize::MAX,
        is_announced: false,
        sees_all: false,
    });
    let batch = u16::try_from(crate::bus::BATCH).unwrap();
    for n in 0..2 {
        scene.publish(n * batch..(n + 1) * batch);
        let spooled = |scene: &Scene| scene.gauges.waiting.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while spooled(&scene) < usize::from((n + 1) * batch) {
            assert!(Instant::now() < deadline, "it is encoded");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(scene.gauges.spooled.load(Ordering::Relaxed) >= limits::OUTPUT_SPOOL);
    let fits = u16::try_from(limits::OUTPUT_ITEMS / crate::bus::BATCH).unwrap();
    for n in 2..fits + 4 {
        scene.publish(n * batch..(n + 1) * batch);
    }
    scene.far.lock().unwrap().fails = false;
    let all = usize::from((fits + 2) * batch);
    scene.until("all that had room arrives", |far| far.got.len() >= all);
    let deadline = Instant::now() + PATIENCE;
    while scene.far.lock().unwrap().got.len() == all {
        assert!(Instant::now() < deadline, "the loss arrives");
        scene.bus.report_missed(&context());
        std::thread::sleep(Duration::from_millis(1));
    }
    let lost = format!("webhook {{\"open\": {}}}", 2 * usize::from(batch));
    let gathered = other.gather(1, Duration::ZERO, Duration::ZERO);
    let items = gathered.batches.iter().flat_map(|batch| &batch.items);
    let losses = items.filter(|item| matches!(item, Item::Loss(..))).count();
    let (got, _, left) = scene.end();
    assert_eq!((got[..all].to_vec(), left), (words(0..(fits + 2) * batch), 0));
    assert_eq!(got[all..], [lost]);
    // The others are told.
    assert_eq!(losses, 1);
}

#[test]
fn the_end_is_not_waited_for_any_longer_than_the_limit() {
    let mut scene = Scene::new(0, Filter::default(), true);
    scene.publish(1..5);
    let (got, _, left) = scene.end();
    assert_eq!((got, left), (vec![], 4));
}
