//! The thread that evaluates rules, behind a bounded queue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Exec;
use super::evaluator::{Evaluator, Setup};
use crate::alert::Alert;
use crate::bus::{Bus, Gathered, Receiver, Subscription};
use crate::limits;
use crate::loss::LossReason;
use crate::stream::{Batch, Context};
use crate::{clock, stderr};

/// How often time passes for rules if nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// Alerts that wait to be published.
#[derive(Debug, Default)]
struct Shared(Mutex<Vec<Alert>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Alert>> {
        // No code panics between related changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber that evaluates rules on everything, and has what they raise published.
pub struct Rules {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Rules {
    /// Subscribes to `bus`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(setup: Setup, context: Context, bus: &mut Bus) -> io::Result<Self> {
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Rules,
            most_waiting: limits::RULE_ITEMS,
            is_announced: true,
            sees_all: true,
        });
        let shared = Arc::new(Shared::default());
        let (work, notify) = (shared.clone(), bus.notifier());
        let thread = std::thread::Builder::new().name("netwatch-rules".into());
        let thread = thread.spawn(move || {
            let mut setup = setup;
            let exec = setup.exec.take();
            let evaluator = Evaluator::new(setup);
            Evaluating { evaluator, context, shared: work, notify, exec, panics: 0 }.run(&receiver);
        })?;
        Ok(Self { shared, thread })
    }

    /// The alerts since the last call.
    pub fn take(&mut self) -> Vec<Alert> {
        std::mem::take(&mut *self.shared.lock())
    }

    /// Waits until the rules have seen everything, for a limited time. Call it when their queue is closed.
    pub fn wait(&mut self) {
        let deadline = Instant::now() + limits::RULE_WAIT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.thread.is_finished() {
            stderr::print(
                "netwatch: the rules did not finish in time: what they would still have found is not told",
            );
        }
    }
}

struct Evaluating {
    evaluator: Evaluator,
    context: Context,
    shared: Arc<Shared>,
    notify: Arc<Notify>,
    exec: Option<Exec>,
    /// How often a rule panicked.
    panics: u64,
}

impl Evaluating {
    fn run(mut self, receiver: &Receiver) {
        let mut ticked = Instant::now();
        loop {
            let Gathered { batches, is_over, .. } = receiver.gather(1, Duration::ZERO, TICK);
            let mut out = Vec::new();
            for batch in batches {
                self.batch(&batch, &mut out);
                receiver.release(batch.items.len());
                if ticked.elapsed() >= TICK {
                    ticked = Instant::now();
                    self.tick(&mut out);
                }
                self.emit(&mut out);
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick(&mut out);
            }
            if is_over {
                self.guarded(|evaluator, context, out| evaluator.finish(context, out), &mut out);
            }
            self.emit(&mut out);
            if is_over {
                return;
            }
        }
    }

    fn batch(&mut self, batch: &Batch, out: &mut Vec<Alert>) {
        self.context = batch.context.clone();
        for item in &batch.items {
            self.guarded(|evaluator, context, out| evaluator.take(item, context, out), out);
        }
    }

    fn tick(&mut self, out: &mut Vec<Alert>) {
        if let Ok(now) = clock::since_boot() {
            self.guarded(|evaluator, context, out| evaluator.tick(now, context, out), out);
        }
    }

    /// A rule that panics on an item, which is a bug, costs that item and not the run.
    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Evaluator, &Context, &mut Vec<Alert>),
        out: &mut Vec<Alert>,
    ) {
        let Self { evaluator, context, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| work(evaluator, context, out))).is_err() {
            self.panics += 1;
            if self.panics == 1 {
                stderr::print(
                    "netwatch: a rule failed on an event, which is a bug; please report it. Others go on",
                );
            }
        }
    }

    fn emit(&mut self, out: &mut Vec<Alert>) {
        if let Some(exec) = &mut self.exec {
            out.iter().for_each(|alert| exec.pass(alert, &self.context));
        }
        if !out.is_empty() {
            self.shared.lock().append(out);
            self.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::Relayed;
    use crate::rules::Host;
    use crate::stream::Item;
    use crate::tracker::tests::event;
    use crate::tracker::{Endpoint, EndpointId, EventKind};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Answers when a lock is free.
    struct Slow(Arc<Mutex<()>>);

    impl Host for Slow {
        fn relayed(&mut self, _: &[u32], _: &dyn Fn(u32) -> bool) -> Vec<Relayed> {
            Vec::new()
        }

        fn judge(&mut self, endpoint: &Endpoint) -> bool {
            assert_ne!(endpoint.local.port, 666, "a bug");
            let _free = self.0.lock();
            true
        }

        fn unexplained(&mut self) -> Vec<(EndpointId, Vec<String>)> {
            Vec::new()
        }
    }

    fn started(lock: &Arc<Mutex<()>>, bus: &mut Bus, context: &Context) -> Rules {
        let host: Box<dyn Host> = Box::new(Slow(lock.clone()));
        let detect = "listener-unexplained,exe-memfd".parse().unwrap();
        let setup = Setup { detect, host: Some(host), ..Setup::default() };
        Rules::start(setup, context.clone(), bus).unwrap()
    }

    fn batch(context: &Context, items: Vec<Item>) -> Batch {
        Batch { context: context.clone(), items }
    }

    fn listen(port: u16) -> Item {
        Item::Event(event(EventKind::Listen, &format!("10.0.0.1:{port}"), None))
    }

    fn memfd() -> Item {
        let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("10.0.0.2:443"));
        open.endpoint.verdict = crate::origin::Verdict::CONNECT;
        open.facts.exe.process =
            Some(crate::process::ExeStatus { state: crate::model::ExeState::Memfd, world_writable: false });
        Item::Event(open)
    }

    fn until(mut what: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !what() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn rules_that_are_too_slow_lose_and_hold_up_nothing() {
        let context = Context::of_run("0123abcd").unwrap();
        let (lock, mut bus) = (Arc::default(), Bus::default());
        let other = bus.subscribe(Subscription {
            reason: LossReason::Stdout,
            most_waiting: usize::MAX,
            is_announced: false,
            sees_all: false,
        });
        let held = Mutex::lock(&lock).unwrap();
        let mut rules = started(&lock, &mut bus, &context);
        let most = limits::RULE_ITEMS / crate::bus::BATCH + 3;
        for _ in 0..most {
            bus.publish(&mut batch(&context, (0..crate::bus::BATCH).map(|_| listen(80)).collect()));
        }
        let lost = |gathered: Gathered| -> u64 {
            let items = gathered.batches.iter().flat_map(|batch| &batch.items);
            items
                .map(|item| match item {
                    Item::Loss(_, loss) if loss.reason == LossReason::Rules => loss.count(),
                    _ => 0,
                })
                .sum()
        };
        assert_eq!(lost(other.gather(1, Duration::ZERO, Duration::ZERO)), 0);
        drop(held);
        let total = std::cell::Cell::new(0);
        until(|| {
            bus.report_missed(&context);
            total.set(total.get() + lost(other.gather(1, Duration::ZERO, Duration::ZERO)));
            total.get() > 0
        });
        bus.close_for_those_that_see_all(&context);
        rules.wait();
        assert!(total.get() >= crate::bus::BATCH as u64);
    }

    #[test]
    fn panic_of_a_rule_costs_one_item() {
        let context = Context::of_run("0123abcd").unwrap();
        let (lock, mut bus) = (Arc::default(), Bus::default());
        let mut rules = started(&lock, &mut bus, &context);
        bus.publish(&mut batch(&context, vec![listen(666), memfd()]));
        bus.close_for_those_that_see_all(&context);
        rules.wait();
        let alerts = rules.take();
        assert_eq!(alerts.iter().map(|alert| &*alert.rule.id).collect::<Vec<_>>(), ["exe-memfd"]);
    }

    #[test]
    fn end_waits_for_rules_until_the_limit() {
        let context = Context::of_run("0123abcd").unwrap();
        let (lock, mut bus) = (Arc::default(), Bus::default());
        let held = Mutex::lock(&lock).unwrap();
        let mut rules = started(&lock, &mut bus, &context);
        bus.publish(&mut batch(&context, vec![listen(80)]));
        bus.close_for_those_that_see_all(&context);
        let began = Instant::now();
        rules.wait();
        assert!(began.elapsed() >= limits::RULE_WAIT && !rules.thread.is_finished());
        drop(held);
        until(|| rules.thread.is_finished());
    }
}
