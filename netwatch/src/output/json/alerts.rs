//! Alerts.

use std::io;

use jiff::Timestamp;

use super::Json;
use crate::alert::Alert;
use crate::output::keys::{self, Event};
use crate::stream::Context;

impl Json {
    pub(super) fn alert(
        &mut self,
        seq: u64,
        time: Timestamp,
        alert: &Alert,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut object = self.begin_line(seq, time, "alert", out);
        let rule = &alert.rule;
        let mut inner = object.object(Event::OfRule);
        inner.value(keys::Rule::Id, &rule.id)?;
        inner.value(keys::Rule::Title, &rule.title)?;
        inner.value(keys::Rule::Level, &rule.level)?;
        inner.value(keys::Rule::Tags, &rule.tags)?;
        inner.end();
        if let Some(code) = &rule.code {
            object.value(Event::Code, code)?;
        }
        object.value(Event::Detail, &alert.detail)?;
        match &alert.about {
            Some(about) => {
                object.string(Event::Connection, |out| self.id(about.id, out));
                object.word(Event::AlertProto, about.socket.proto.name());
                object.endpoint(Event::AlertLocal, Some(about.socket.local))?;
                if about.socket.remote.is_some() {
                    object.endpoint(Event::AlertRemote, about.socket.remote)?;
                    object.word(Event::AlertSide, about.verdict.side.name());
                }
            }
            None => object.null(Event::Connection),
        }
        let (actor, status) = match &alert.process {
            Some((actor, status)) => (Some(actor), Some(*status)),
            None => (None, None),
        };
        self.process(Event::AlertProcess, actor, status, context, &mut object)?;
        object.number(Event::Suppressed, alert.suppressed);
        match &alert.trace {
            Some(trace) => object.raw(Event::AlertTrace, trace),
            None => object.null(Event::AlertTrace),
        }
        object.end();
        Ok(())
    }
}
