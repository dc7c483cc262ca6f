//! `top --store`: the newest events of a store in the screen.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use jiff::tz::TimeZone;

use super::traces;
use super::{Message, TopOptions, Tracer, Ui, WAITING, ended};
use crate::commands::log::readable;
use crate::filter::Filter;
use crate::store::{History, Narrow, Reader};
use crate::stream::Batch;
use crate::top::Source;
use crate::top::terminal::Screen;
use crate::{bus, enrich, escape, limits, rights, stderr};

/// Reads the store, and then answers requests for traces. The screen has a thread of its own, since a reader of a store
/// stays on the thread that opened it.
pub(super) fn run(options: &TopOptions, path: &Path) -> Result<()> {
    let reader = Reader::open(path)?;
    let ui = Ui::new(options, Source::Store(escape::path(path)))?;
    let screen = Screen::enter().context("cannot use the terminal")?;
    let held = stderr::hold();
    rights::give_up(&rights::READING, &readable(path), None);
    let (messages, from) = mpsc::sync_channel(WAITING);
    let (ask, asked) = mpsc::channel();
    // An error of `send`: this thread has ended, and says why.
    let tracer: Tracer = Box::new(move |state, id| _ = ask.send((id, state.zone())));
    let thread = thread::Builder::new().name("netwatch-top".into());
    let shown =
        thread.spawn(move || ui.run(screen, &held, None, &from, &tracer)).context("cannot start a thread")?;
    let served = serve(reader, &options.filter, &messages, &asked);
    let _ = messages.send(Message::Over);
    drop(messages);
    served.and(ended(shown))
}

fn serve(
    reader: Reader,
    filter: &Filter,
    messages: &mpsc::SyncSender<Message>,
    asked: &mpsc::Receiver<(String, TimeZone)>,
) -> Result<()> {
    let (batches, is_all) = newest(&reader, filter)?;
    let mut stages = enrich::recorded();
    for mut batch in batches {
        stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
        if messages.send(Message::Batch(batch)).is_err() {
            return Ok(());
        }
    }
    if !is_all {
        let most = limits::TOP_STORED;
        let note = format!(
            "the store has more than the newest {most} events, which are shown: `netwatch log` has all"
        );
        // An error of `send`: the screen has ended.
        let _ = messages.send(Message::Note(note));
    }
    let _ = messages.send(Message::Complete);
    let history = History::new(reader)?;
    // Until the screen has ended.
    while let Ok((id, zone)) = asked.recv() {
        let lines =
            traces::lines(&history, &id, &zone).unwrap_or_else(|error| vec![format!("{:#}", anyhow!(error))]);
        let _ = messages.send(Message::Traced(id, lines));
    }
    Ok(())
}

/// The newest events, in order, and whether these are all.
fn newest(reader: &Reader, filter: &Filter) -> Result<(Vec<Batch>, bool)> {
    let mut events = reader.events(Narrow::All, None, None, true)?;
    let (mut batches, mut count) = (Vec::new(), 0);
    while let Some(mut batch) = events.next_batch()? {
        batch.items.retain(|item| bus::is_shown(item, filter));
        count += batch.items.len();
        batches.push(batch);
        if count >= limits::TOP_STORED {
            batches.reverse();
            return Ok((batches, false));
        }
    }
    batches.reverse();
    Ok((batches, true))
}
