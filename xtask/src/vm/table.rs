//! The table of results, as text and as JSON.

use serde_json::json;

/// One kernel on one rung.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// As in `uname -r`; the requested name if the kernel is not available.
    pub(super) kernel: String,
    pub(super) rung: String,
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// `None` if no test ran or the run was interrupted.
    pub(super) seconds: Option<u64>,
    /// Why the counts are incomplete.
    pub(super) reason: Option<String>,
    /// Tests that skipped themselves, with their reasons.
    pub(super) skips: Vec<String>,
    /// Tests that failed.
    pub(super) names: Vec<String>,
    /// Output of the failed tests.
    pub(super) output: Vec<String>,
}

impl Row {
    /// No test was counted, passed or not.
    pub(super) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }

    /// Failed tests, or the rung as a whole, with the kernel and the rung.
    pub(super) fn failures(&self) -> Vec<String> {
        let Self { kernel, rung, .. } = self;
        let whole = self.reason.clone().filter(|_| self.failed > self.names.len());
        self.names.iter().cloned().chain(whole).map(|what| format!("{kernel}, {rung}: {what}")).collect()
    }

    /// One line of the log.
    pub(super) fn line(&self) -> String {
        let Self { kernel, rung, passed, failed, skipped, .. } = self;
        let counts = if self.is_empty() {
            String::new()
        } else {
            format!(" {passed} passed, {failed} failed, {skipped} skipped")
        };
        let seconds = self.seconds.map(|seconds| format!(" in {seconds} s"));
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})"));
        format!("{kernel}, {rung}:{counts}{}{}", seconds.unwrap_or_default(), reason.unwrap_or_default())
    }
}

const HEAD: [&str; 6] = ["kernel", "rung", "passed", "failed", "skipped", "seconds"];

/// One line per row, in columns, followed by the reason.
pub(super) fn text(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let count = |count: usize| if row.is_empty() { "-".to_owned() } else { count.to_string() };
        let seconds = row.seconds.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
        let [passed, failed, skipped] = [row.passed, row.failed, row.skipped].map(count);
        [row.kernel.clone(), row.rung.clone(), passed, failed, skipped, seconds]
    };
    let lines: Vec<_> = std::iter::once((HEAD.map(str::to_owned), ""))
        .chain(rows.iter().map(|row| (cells(row), row.reason.as_deref().unwrap_or_default())))
        .collect();
    let mut widths = [0; HEAD.len()];
    for (cells, _) in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for (cells, reason) in &lines {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            // Names are left-aligned, numbers right-aligned.
            let cell = if index < 2 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            line += &cell;
            line += "  ";
        }
        line += reason;
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// One JSON object per row.
pub(super) fn json(rows: &[Row]) -> String {
    let object = |row: &Row| {
        let object = json!({
            "kernel": row.kernel,
            "rung": row.rung,
            "passed": row.passed,
            "failed": row.failed,
            "skipped": row.skipped,
            "seconds": row.seconds,
            "reason": row.reason,
        });
        format!("{object}\n")
    };
    rows.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 2] {
        [
            Row {
                kernel: "6.12.117+deb13-cloud-amd64".to_owned(),
                rung: "best".to_owned(),
                passed: 160,
                failed: 2,
                skipped: 1,
                seconds: Some(95),
                ..Row::default()
            },
            Row {
                kernel: "5.10".to_owned(),
                rung: "kprobe".to_owned(),
                reason: Some("skipped: not available".to_owned()),
                ..Row::default()
            },
        ]
    }

    #[test]
    fn text_is_in_columns() {
        let expected = "\
kernel                      rung    passed  failed  skipped  seconds
6.12.117+deb13-cloud-amd64  best       160       2        1       95
5.10                        kprobe       -       -        -        -  skipped: not available
";
        assert_eq!(text(&rows()), expected);
    }

    #[test]
    fn objects_have_these_keys() {
        let json = json(&rows());
        let objects: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            objects,
            [
                json!({"kernel": "6.12.117+deb13-cloud-amd64", "rung": "best", "passed": 160, "failed": 2,
                    "skipped": 1, "seconds": 95, "reason": null}),
                json!({"kernel": "5.10", "rung": "kprobe", "passed": 0, "failed": 0, "skipped": 0,
                    "seconds": null, "reason": "skipped: not available"}),
            ]
        );
    }

    #[test]
    fn a_row_is_printed_in_one_line() {
        let [ran, not] = rows();
        assert_eq!(ran.line(), "6.12.117+deb13-cloud-amd64, best: 160 passed, 2 failed, 1 skipped in 95 s");
        assert_eq!(not.line(), "5.10, kprobe: (skipped: not available)");
    }
}
