//! `netwatch top`: the live screen, or the past in the same screen.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::boot;
use crate::bus::{Bus, Receiver, Subscription};
use crate::engine::{self, Pipeline, Supervisor};
use crate::enrich;
use crate::filter::Filter;
use crate::kernel;
use crate::loss::LossReason;
use crate::model::BootTime;
use crate::rights;
use crate::stream::{Batch, Context, Item};
use crate::top::terminal::{self, Input, Screen};
use crate::top::{Options, Request, Source, State, render};
use crate::{agent, bus, clock, escape, limits, stderr};

mod past;
mod traces;

/// Options of `top`.
#[derive(Debug)]
pub struct TopOptions {
    /// Options of the kernel side.
    pub kernel: kernel::Options,
    /// Show what is in this store.
    pub store: Option<PathBuf>,
    /// What is taken in.
    pub filter: Filter,
    /// The filter as options, for the screen; `None`: everything.
    pub only: Option<String>,
    /// Use colours.
    pub colour: bool,
    /// The key `P` panics (test equipment).
    pub panics: bool,
}

/// Time between two drawings, and how long a key is waited for while there is nothing else.
const PAUSE: Duration = Duration::from_millis(100);

/// Time between two drawings after keys.
const KEY_PAUSE: Duration = Duration::from_millis(30);

/// Time between two snapshots if there are no probes.
const POLL: Duration = Duration::from_secs(2);

/// How many messages to the screen may wait.
const WAITING: usize = 64;

/// Shows the screen until the user quits or a signal ends it.
///
/// # Errors
/// If the terminal cannot be used, the probes cannot be attached, or the store cannot be read.
pub fn run(options: &TopOptions) -> Result<()> {
    if let Some(path) = &options.store {
        return past::run(options, path);
    }
    match rights::require() {
        Ok(_) => live(options),
        Err(lacks) => polled(options, &format!("{lacks}")),
    }
}

fn live(options: &TopOptions) -> Result<()> {
    let ui = Ui::new(options, Source::Live)?;
    let pipeline = Pipeline {
        kernel: &options.kernel,
        seeds: true,
        duration: None,
        filter: options.filter.clone(),
        stages: enrich::live(),
        context: Context::of_run(&boot::id())?,
        command: "top",
        also: None,
        serves: false,
    };
    engine::run(pipeline, |bus: &mut Bus| {
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Stdout,
            most_waiting: limits::STDOUT_ITEMS,
            is_announced: false,
            sees_all: false,
        });
        // Taken here, so that a signal from now on finds its handler.
        let screen = Screen::enter().context("cannot use the terminal")?;
        let held = stderr::hold();
        let (messages, from) = mpsc::sync_channel(WAITING);
        let tracer: Tracer = Box::new(move |state: &State, id: String| {
            let (past, zone, messages) = (state.past(), state.zone(), messages.clone());
            // If there is no thread, there is no trace.
            let _ = thread::Builder::new().name("netwatch-trace".into()).spawn(move || {
                let lines = traces::lines(&past(), &id, &zone).unwrap_or_else(|never| match never {});
                let _ = messages.send(Message::Traced(id, lines));
            });
        });
        let run = move || ui.run(screen, &held, Some(&receiver), &from, &tracer);
        let thread = thread::Builder::new().name("netwatch-top".into());
        Ok(TopSupervisor(thread.spawn(run).context("cannot start a thread")?))
    })
}

struct TopSupervisor(JoinHandle<Result<()>>);

impl Supervisor for TopSupervisor {
    fn finish(self) -> Result<()> {
        ended(self.0)
    }
}

fn ended(thread: JoinHandle<Result<()>>) -> Result<()> {
    let deadline = Instant::now() + limits::STDOUT_WAIT;
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            // Blocked in a write to the terminal, or in its reader; the thread ends with the process.
            terminal::restore();
            return Ok(());
        }
        thread::sleep(Duration::from_millis(2));
    }
    thread.join().unwrap_or_else(|_| bail!("the thread of the screen panicked"))
}

/// Takes snapshots, as `list` does, since probes cannot be attached.
fn polled(options: &TopOptions, lacks: &str) -> Result<()> {
    let ui = Ui::new(options, Source::Polled(lacks.to_owned()))?;
    let screen = Screen::enter().context("cannot use the terminal")?;
    let held = stderr::hold();
    let (messages, from) = mpsc::sync_channel(WAITING);
    let (tell, traced) = (messages.clone(), messages.clone());
    let lacks = format!("no probes: top lacks {lacks}; it takes a snapshot every {} s", POLL.as_secs());
    let tracer: Tracer = Box::new(move |state, id| {
        let (past, zone, messages) = (state.past(), state.zone(), traced.clone());
        let _ = thread::Builder::new().name("netwatch-trace".into()).spawn(move || {
            let lines = traces::lines(&past(), &id, &zone).unwrap_or_else(|never| match never {});
            let _ = messages.send(Message::Traced(id, lines));
        });
    });
    rights::give_up(&rights::LIVE, &[], None);
    let thread = thread::Builder::new().name("netwatch-top".into());
    let shown =
        thread.spawn(move || ui.run(screen, &held, None, &from, &tracer)).context("cannot start a thread")?;
    // An error of `send`: the screen has ended.
    let polled = match tell.send(Message::Note(lacks)) {
        Ok(()) => poll(&options.filter, &messages, &shown),
        Err(_) => Ok(()),
    };
    let _ = messages.send(Message::Over);
    polled.and(ended(shown))
}

fn poll(
    filter: &Filter,
    messages: &mpsc::SyncSender<Message>,
    screen: &JoinHandle<Result<()>>,
) -> Result<()> {
    let mut stages = enrich::live();
    let mut context = Context::of_run(&boot::id())?;
    let mut is_first = true;
    while !screen.is_finished() {
        let begun = Instant::now();
        let (mut table, notes, _) = agent::snapshot()?;
        if std::mem::take(&mut is_first) {
            for note in notes {
                let _ = messages.send(Message::Note(note.to_string()));
            }
        }
        context.clock = context.clock.corrected()?;
        let seen =
            |event: &crate::tracker::ConnectionEvent| bus::is_shown(&Item::Event(event.clone()), filter);
        table.retain(seen);
        let mut batch = Batch { context: context.clone(), items: vec![Item::Table(table)] };
        stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
        context = batch.context.clone();
        if messages.send(Message::Batch(batch)).is_err() {
            break;
        }
        while begun.elapsed() < POLL && !screen.is_finished() {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// What threads tell the screen.
enum Message {
    Batch(Batch),
    Note(String),
    /// Everything was read.
    Complete,
    /// The lines of a trace, by the id of its connection.
    Traced(String, Vec<String>),
    /// The source ended.
    Over,
}

/// Traces a connection elsewhere, and sends the lines.
type Tracer = Box<dyn Fn(&State, String) + Send>;

/// The loop of the screen.
struct Ui {
    state: State,
    panics: bool,
}

impl Ui {
    fn new(options: &TopOptions, source: Source) -> Result<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let shown = Options {
            host: escape::terminal(&host).into_owned(),
            source,
            only: options.only.clone(),
            zone: TimeZone::system(),
            colour: options.colour,
        };
        Ok(Self { state: State::new(shown, now()?), panics: options.panics })
    }

    fn run(
        mut self,
        mut screen: Screen,
        held: &stderr::Held,
        receiver: Option<&Receiver>,
        messages: &mpsc::Receiver<Message>,
        tracer: &Tracer,
    ) -> Result<()> {
        let (width, height) = screen.size()?;
        self.state.resize(width, height);
        let mut drawn: Option<Instant> = None;
        let (mut is_due, mut by_key) = (true, false);
        loop {
            let waited = drawn.map_or(Duration::MAX, |drawn| drawn.elapsed());
            let pause = if by_key { KEY_PAUSE } else { PAUSE };
            if is_due && waited >= pause {
                screen.draw(|area, buffer| render(&self.state, area, buffer))?;
                (drawn, is_due, by_key) = (Some(Instant::now()), false, false);
            }
            let patience = if is_due { pause.saturating_sub(waited) } else { PAUSE };
            let mut input = screen.input(patience)?;
            while let Some(one) = input {
                is_due = true;
                match one {
                    Input::End => return Ok(()),
                    Input::Changed => {}
                    Input::Key(key) => {
                        by_key = true;
                        assert!(!(self.panics && key == crate::top::Key::Char('P')), "the key P was pressed");
                        match self.state.press(key, now()?) {
                            None => {}
                            Some(Request::Quit) => return Ok(()),
                            Some(Request::Suspend) => screen.suspend()?,
                            Some(Request::Redraw) => screen.forget(),
                            Some(Request::Trace(id)) => tracer(&self.state, id),
                            Some(Request::Copy(text)) => screen.copy(&text)?,
                        }
                    }
                }
                let (width, height) = screen.size()?;
                self.state.resize(width, height);
                input = screen.input(Duration::ZERO)?;
            }
            let is_over = self.take(receiver, messages, held)?;
            is_due |= self.state.tick(now()?);
            if is_over {
                return Ok(());
            }
        }
    }

    /// Takes in what came. Returns whether the source is over.
    fn take(
        &mut self,
        receiver: Option<&Receiver>,
        messages: &mpsc::Receiver<Message>,
        held: &stderr::Held,
    ) -> Result<bool> {
        let mut is_over = false;
        if let Some(receiver) = receiver {
            let gathered = receiver.gather(1, Duration::ZERO, Duration::ZERO);
            for batch in gathered.batches {
                self.state.take(&batch, now()?);
                receiver.release(batch.items.len());
                if batch.items.iter().any(is_own_loss) {
                    // What ended meanwhile is not known otherwise.
                    receiver.request_table();
                }
            }
            is_over = gathered.is_over;
        }
        loop {
            match messages.recv_timeout(Duration::ZERO) {
                Ok(Message::Batch(batch)) => self.state.take(&batch, now()?),
                Ok(Message::Note(text)) => self.state.note(text, Timestamp::now(), now()?),
                Ok(Message::Complete) => self.state.complete(now()?),
                Ok(Message::Traced(id, lines)) => self.state.traced(&id, lines),
                Ok(Message::Over) => is_over = true,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        for line in held.take() {
            let text = line.trim_end();
            let text = text.strip_prefix("netwatch: ").unwrap_or(text).to_owned();
            self.state.note(text, Timestamp::now(), now()?);
        }
        Ok(is_over)
    }
}

fn is_own_loss(item: &Item) -> bool {
    matches!(item, Item::Loss(_, loss) if loss.reason == LossReason::Stdout)
}

fn now() -> io::Result<BootTime> {
    clock::since_boot()
}
