//! The output of `audit`: text, or JSON with one object per line.

mod json;
mod text;

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::audit::{Finding, Port, Report};
use crate::clock::BootClock;
use crate::model::NetnsId;
use json::Json;
use text::Text;

/// Writes text or JSON.
pub(crate) struct Writer(Spelling);

enum Spelling {
    Text(Text),
    Json(Json),
}

impl Writer {
    /// Writes text. Network namespaces other than `own_netns` are named.
    pub(crate) fn text(colour: bool, own_netns: NetnsId, zone: TimeZone) -> Self {
        Self(Spelling::Text(Text { colour, own_netns, zone }))
    }

    /// Writes one JSON object per line.
    pub(crate) fn json(clock: BootClock) -> Self {
        Self(Spelling::Json(Json { clock }))
    }

    /// Writes a whole report.
    pub(crate) fn report(&mut self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        match &mut self.0 {
            Spelling::Text(text) => text.report(report, out),
            Spelling::Json(json) => json.report(report, out),
        }
    }

    /// Writes a port that was first seen at `time`.
    pub(crate) fn port(&mut self, port: &Port, time: Timestamp, out: &mut dyn Write) -> io::Result<()> {
        match &mut self.0 {
            Spelling::Text(text) => {
                text.time(time, out)?;
                text.port(port, out)
            }
            Spelling::Json(json) => json.port(port, Some(time), out),
        }
    }

    /// Writes a finding that was first seen at `time`.
    pub(crate) fn finding(
        &mut self,
        finding: &Finding,
        time: Timestamp,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match &mut self.0 {
            Spelling::Text(text) => {
                text.time(time, out)?;
                text.finding(finding, out)
            }
            Spelling::Json(json) => json.finding(finding, Some(time), out),
        }
    }
}
