//! The report of a guest: markers of `init.sh`, and the output of libtest between them.

use std::time::Duration;

use super::rungs::BEST;
use super::table::Row;
use crate::summary::Summary;

/// Prefix of lines of `init.sh`.
const MARKER: &str = "@netwatch ";

/// A report, as far as it was received.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Release of the kernel; `None` until it has booted.
    pub(super) release: Option<String>,
    /// The guest said that it is done.
    pub(super) is_over: bool,
    /// Why it cannot run the tests.
    pub(super) broken: Option<String>,
    /// Finished rungs.
    pub(super) rows: Vec<Row>,
    running: Option<Running>,
}

/// A rung that is running.
#[derive(Debug)]
struct Running {
    rung: String,
    begun: Duration,
    summary: Summary,
    lines: Vec<String>,
    /// Tests that are left out: no kernel has a part in what they are about.
    same: Vec<String>,
}

impl Report {
    /// Reads one line, which came so long after the guest was started. Returns the row that it ended, if any.
    pub(super) fn line(&mut self, line: &str, at: Duration) -> Option<&Row> {
        let line = line.trim_end();
        let Some(marker) = line.strip_prefix(MARKER) else {
            if let Some(running) = &mut self.running {
                running.summary.line(line);
                running.lines.push(line.to_owned());
            }
            return None;
        };
        let (word, rest) = marker.split_once(' ').unwrap_or((marker, ""));
        let rows = self.rows.len();
        match word {
            "hello" => self.release = Some(rest.to_owned()),
            "begin" => {
                let (summary, lines, same) = Default::default();
                self.running = Some(Running { rung: rest.to_owned(), begun: at, summary, lines, same });
            }
            "refused" => self.refused(rest),
            "same" => self.running.iter_mut().for_each(|running| running.same.push(rest.to_owned())),
            "end" => self.end(rest, at),
            "broken" => self.broken = Some(rest.to_owned()),
            "over" => self.is_over = true,
            _ => {}
        }
        self.rows.get(rows)
    }

    /// The kernel does not offer a rung. Every kernel must offer the best rung, which is what netwatch chooses.
    fn refused(&mut self, why: &str) {
        if let Some(Running { rung, .. }) = self.running.take() {
            let reason =
                format!("not offered: {}", if why.is_empty() { "netwatch did not say why" } else { why });
            let failed = usize::from(rung == BEST);
            self.rows.push(Row { failed, reason: Some(reason), ..self.row(rung) });
        }
    }

    fn end(&mut self, status: &str, at: Duration) {
        if let Some(running) = self.running.take() {
            let seconds = at.saturating_sub(running.begun).as_secs();
            let last = running.lines.iter().rev().find(|line| !line.is_empty()).cloned().unwrap_or_default();
            let row = self.counted(running);
            let reason = match (status, row.is_empty()) {
                // A shell's way to say that a program is not there, or cannot be started: it has said why.
                ("126" | "127", true) => Some(format!("the guest cannot start the test program: {last}")),
                ("0", true) => Some("no test ran".to_owned()),
                ("0", false) => None,
                // libtest's own way to say that a test failed.
                ("101", _) if row.failed > 0 => None,
                _ => Some(format!("the test program ended with status {status}")),
            };
            let failed = if reason.is_some() { row.failed.max(1) } else { row.failed };
            self.rows.push(Row { failed, reason, seconds: Some(seconds), ..row });
        }
    }

    /// The guest has ended: rungs without a report have failed.
    pub(super) fn give_up<'a>(&mut self, rungs: impl Iterator<Item = &'a str>, why: &str) -> &[Row] {
        let done = self.rows.len();
        if let Some(running) = self.running.take() {
            let row = self.counted(running);
            self.rows.push(Row { failed: row.failed.max(1), reason: Some(why.to_owned()), ..row });
        }
        for rung in rungs {
            if self.rows.iter().all(|row| row.rung != rung) {
                let row = self.row(rung.to_owned());
                self.rows.push(Row { failed: 1, reason: Some(format!("not begun: {why}")), ..row });
            }
        }
        self.rows.get(done..).unwrap_or_default()
    }

    fn row(&self, rung: String) -> Row {
        Row { kernel: self.release.clone().unwrap_or_default(), rung, ..Row::default() }
    }

    fn counted(&self, running: Running) -> Row {
        let Running { rung, summary, lines, same, .. } = running;
        let skips = summary.reasons().map(|(name, reason)| format!("{name}: {reason}"));
        let left_out =
            same.iter().map(|name| format!("{name}: no kernel has a part in it, the host tests it"));
        Row {
            passed: summary.passes(),
            failed: summary.failures(),
            names: summary.names().map(str::to_owned).collect(),
            skipped: summary.skips() + same.len(),
            skips: skips.chain(left_out).collect(),
            output: failures(&lines).unwrap_or(lines),
            ..self.row(rung)
        }
    }
}

/// What libtest repeats at the end: the output of the tests that failed, and their names. Nothing where it did
/// not come that far.
fn failures(lines: &[String]) -> Option<Vec<String>> {
    let end = lines.iter().rposition(|line| line.starts_with("test result: "))?;
    let begin = lines.iter().position(|line| line == "failures:").unwrap_or(end);
    Some(lines.get(begin..end).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for (at, line) in lines.iter().enumerate() {
            report.line(line, Duration::from_secs(at as u64));
        }
        report
    }

    const HELLO: &str = "@netwatch hello 6.1.0-50-cloud-amd64\r\n";

    #[test]
    fn a_rung_is_counted_between_its_markers() {
        let report = report(&[
            "modprobe: noise",
            "test result: ok. 9 passed; 0 failed; 0 ignored",
            HELLO,
            "@netwatch begin best",
            "@netwatch same log::four",
            "running 4 tests",
            "test accept::one ... ok",
            "SKIP ways::two: no 32-bit calls\r",
            "test ways::two ... ok",
            "test fail::three ... FAILED",
            "failures:",
            "",
            "---- fail::three stdout ----",
            "in vain: fail of it",
            "failures:",
            "    fail::three",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "",
            "@netwatch end 101",
            "@netwatch over",
        ]);
        assert_eq!(report.release.as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert!(report.is_over);
        let [row] = report.rows.as_slice() else { panic!("{:?}", report.rows) };
        assert_eq!((row.kernel.as_str(), row.rung.as_str()), ("6.1.0-50-cloud-amd64", "best"));
        assert_eq!((row.passed, row.failed, row.skipped, row.seconds), (1, 1, 3, Some(15)));
        assert_eq!(row.reason, None);
        assert_eq!(row.names, ["fail::three"]);
        let same = "log::four: no kernel has a part in it, the host tests it";
        assert_eq!(row.skips, ["ways::two: no 32-bit calls", same]);
        assert_eq!(
            row.output,
            [
                "failures:",
                "",
                "---- fail::three stdout ----",
                "in vain: fail of it",
                "failures:",
                "    fail::three"
            ]
        );
    }

    #[test]
    fn a_refused_rung_has_its_reason_and_fails_only_where_it_is_the_best() {
        let lines = [
            "@netwatch begin best",
            "@netwatch refused no BTF",
            "@netwatch begin kprobe",
            "@netwatch refused ",
        ];
        let rows = report(&lines).rows;
        let seen: Vec<_> = rows.iter().map(|row| (row.failed, row.reason.as_deref().unwrap())).collect();
        assert_eq!(seen, [(1, "not offered: no BTF"), (0, "not offered: netwatch did not say why")]);
        assert!(rows[1].is_empty() && rows[1].seconds.is_none());
    }

    #[test]
    fn a_program_that_ends_otherwise_than_it_counted_has_failed() {
        let ok = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let absent = "/init: 59: /netwatch-tests/e2e: not found";
        let rows = report(&["@netwatch begin best", absent, "", "@netwatch end 127"]).rows;
        let why = format!("the guest cannot start the test program: {absent}");
        assert_eq!((rows[0].failed, rows[0].reason.as_ref()), (1, Some(&why)));
        for (line, status, failed) in [(ok, "0", 0), (ok, "139", 1), ("", "101", 1), ("", "0", 1)] {
            let rows = report(&["@netwatch begin best", line, &format!("@netwatch end {status}")]).rows;
            assert_eq!((rows[0].failed, rows[0].reason.is_some()), (failed, failed > 0), "{line} {status}");
        }
    }

    #[test]
    fn a_guest_that_cannot_run_the_tests_says_why() {
        let mut report =
            report(&[HELLO, "@netwatch broken there is no /netwatch-tests/e2e", "@netwatch over"]);
        let why = report.broken.clone().unwrap();
        assert_eq!(why, "there is no /netwatch-tests/e2e");
        assert!(report.is_over);
        assert_eq!(
            report.give_up(["best"].into_iter(), &why)[0].line(),
            "6.1.0-50-cloud-amd64, best: 0 passed, 1 failed, 0 skipped (not begun: there is no /netwatch-tests/e2e)"
        );
    }

    #[test]
    fn what_a_lost_guest_did_not_report_has_failed() {
        let ok = "test result: ok. 3 passed; 0 failed; 0 ignored";
        let mut report = report(&[
            HELLO,
            "@netwatch begin best",
            ok,
            "@netwatch end 0",
            "@netwatch begin kprobe",
            "test accept::one ... ok",
        ]);
        let lost = report.give_up(["best", "kprobe", "tracepoint"].into_iter(), "it is gone");
        let seen: Vec<_> =
            lost.iter().map(|row| (row.rung.as_str(), row.failed, row.reason.as_deref())).collect();
        let gone = Some("it is gone");
        assert_eq!(seen, [("kprobe", 1, gone), ("tracepoint", 1, Some("not begun: it is gone"))]);
        assert_eq!(lost[0].output, ["test accept::one ... ok"]);
        assert_eq!(report.rows.len(), 3);
    }
}
