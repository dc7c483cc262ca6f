//! Sums up the results that libtest prints for each test program.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Prefix of libtest's line with the counts.
const RESULT: &str = "test result: ";
/// How an end-to-end test says that this machine cannot run it: `SKIP name: reason`. libtest then calls it passed.
const SKIP: &str = "SKIP ";

/// How libtest begins the list of tests that failed, and how it indents each.
const FAILURES: &str = "failures:";
const SUCCESSES: &str = "successes:";
const INDENT: &str = "    ";

/// Tests that passed, failed or were skipped so far.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// The reason by name, because a test may give more than one.
    skipped: BTreeMap<String, String>,
    /// Failures, by the file that has the full output.
    failures: BTreeMap<Option<PathBuf>, Vec<String>>,
    /// File of the output that is being read.
    output: Option<PathBuf>,
    /// Names since libtest last began a list of failures.
    listed: Vec<String>,
    /// The lines that are being read are such a list; with `--show-output` there is one of successes too.
    lists_failures: bool,
}

impl Summary {
    /// The output that is read from now on is in this file.
    pub(crate) fn output_in(&mut self, file: &Path) {
        self.output = Some(file.to_owned());
        self.listed.clear();
    }

    /// Counts the results in a line of output.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(counts) = line.strip_prefix(RESULT) {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
            let listed = std::mem::take(&mut self.listed);
            self.lists_failures = false;
            self.name(listed);
        } else if line == FAILURES {
            // It comes twice: before the output of the tests, and before their names.
            self.listed.clear();
            self.lists_failures = true;
        } else if line == SUCCESSES {
            self.lists_failures = false;
        } else if let Some(name) = line.strip_prefix(INDENT).filter(|name| !name.contains(' ')) {
            if self.lists_failures {
                self.listed.push(name.to_owned());
            }
        } else if let Some((name, reason)) = skipped(line) {
            self.skipped.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
        }
    }

    /// Counts a failure outside libtest.
    pub(crate) fn failed(&mut self, what: &str) {
        self.failed += 1;
        self.name([what.to_owned()]);
    }

    /// Adds names of what failed to those of the current output.
    pub(crate) fn name(&mut self, what: impl IntoIterator<Item = String>) {
        let mut what = what.into_iter().peekable();
        if what.peek().is_some() {
            self.failures.entry(self.output.clone()).or_default().extend(what);
        }
    }

    /// Names of failures.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.failures.values().flatten().map(String::as_str)
    }

    /// The failures and the files with their full output; empty if there are none.
    pub(crate) fn failure_list(&self) -> String {
        let mut text = String::new();
        for (file, names) in &self.failures {
            let place = file.as_ref().map(|file| format!(", full output in {}", file.display()));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "failed{}:", place.unwrap_or_default());
            for name in names {
                let _ = writeln!(text, "    {name}");
            }
        }
        text
    }

    /// Counts a skip outside libtest.
    pub(crate) fn skipped(&mut self) {
        self.ignored += 1;
    }

    /// Counts tests that ran elsewhere.
    pub(crate) fn add(&mut self, passed: usize, failed: usize, skipped: usize) {
        self.passed += passed;
        self.failed += failed;
        self.ignored += skipped;
    }

    pub(crate) fn passes(&self) -> usize {
        self.passed.saturating_sub(self.skipped.len())
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed
    }

    pub(crate) fn skips(&self) -> usize {
        self.ignored + self.skipped.len()
    }

    /// The tests that skipped themselves, each with its reason.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&str, &str)> {
        self.skipped.iter().map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    pub(crate) fn is_success(&self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passes(), self.failures(), self.skips())
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(counts: &str, word: &str) -> usize {
    let number = |segment: &str| segment.trim().strip_suffix(word)?.trim_end().parse().ok();
    counts.split(['.', ';']).find_map(number).unwrap_or(0)
}

/// The test of a skip line and its reason; uncaptured, it may follow libtest's unfinished `test name ... `.
fn skipped(line: &str) -> Option<(&str, &str)> {
    let rest = match line.strip_prefix(SKIP) {
        Some(rest) => rest,
        None => line.strip_prefix("test ")?.split_once(" ... ")?.1.strip_prefix(SKIP)?,
    };
    rest.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> String {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.line(line));
        summary.to_string()
    }

    #[test]
    fn names_of_tests_that_passed_are_not_listed() {
        let mut summary = Summary::default();
        for line in
            ["successes:", "    a::passes", "", "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured"]
        {
            summary.line(line);
        }
        assert_eq!(summary.names().count(), 0);
        for line in [
            "successes:",
            "    a::passes",
            "failures:",
            "    a::fails",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ] {
            summary.line(line);
        }
        assert_eq!(summary.names().collect::<Vec<_>>(), ["a::fails"]);
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let lines = [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s\n",
        ];
        assert_eq!(of(&lines), "12 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_skips_itself_has_not_passed() {
        let lines = [
            "test dual::tcp ... SKIP dual::tcp: no IPv6 here",
            "ok",
            "SKIP netns: no CAP_SYS_ADMIN",
            "SKIP netns: and no veth either",
            "test netns ... ok",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        assert_eq!(of(&lines), "3 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn the_first_of_several_reasons_is_kept() {
        let mut summary = Summary::default();
        summary.line("SKIP netns: no CAP_SYS_ADMIN");
        summary.line("SKIP netns: and no veth: either");
        assert_eq!(summary.reasons().collect::<Vec<_>>(), [("netns", "no CAP_SYS_ADMIN")]);
        assert_eq!((summary.passes(), summary.failures(), summary.skips()), (0, 0, 1));
    }

    #[test]
    fn what_ran_elsewhere_is_added() {
        let mut summary = Summary::default();
        summary.line("SKIP netns: no CAP_SYS_ADMIN");
        summary.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured");
        summary.add(3, 2, 1);
        assert_eq!(summary.to_string(), "4 passed, 2 failed, 2 skipped");
        assert!(!summary.is_success());
    }

    #[test]
    fn what_failed_is_named_with_the_file_that_has_its_output() {
        let mut summary = Summary::default();
        assert_eq!(summary.failure_list(), "");
        summary.output_in(Path::new("/t/unit.log"));
        let lines = [
            "failures:",
            "",
            "---- store::one stdout ----",
            "    indented",
            "failures:",
            "    store::one",
            "    two",
            "",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured",
        ];
        lines.iter().for_each(|line| summary.line(line));
        summary.output_in(Path::new("/t/clippy.log"));
        summary.failed("cargo clippy");
        assert_eq!(
            summary.failure_list(),
            "failed, full output in /t/clippy.log:\n    cargo clippy\n\
             failed, full output in /t/unit.log:\n    store::one\n    two\n"
        );
        assert_eq!(summary.to_string(), "3 passed, 3 failed, 0 skipped");
    }

    #[test]
    fn lines_that_only_look_like_it_count_nothing() {
        assert_eq!(
            of(&["SKIP", "  SKIP x: y", "a test result: ok. 3 passed", "SKIPPED x: y"]),
            "0 passed, 0 failed, 0 skipped"
        );
    }

    #[test]
    fn a_failure_outside_libtest_fails_the_run() {
        let mut summary = Summary::default();
        assert!(summary.is_success());
        summary.failed("clippy");
        summary.skipped();
        assert!(!summary.is_success());
        assert_eq!(summary.to_string(), "0 passed, 1 failed, 1 skipped");
    }
}
