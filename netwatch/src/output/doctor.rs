//! The report of `doctor`: the probe of each job, what is not seen, limits, and the result of the self-test.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::kernel::{Coverage, Covered};
use crate::rights::{GivenUp, Need, STAGES, Stage};

/// The report.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    kind: &'static str,
    kernel: &'a str,
    jobs: Vec<JobView<'a>>,
    unseen: Vec<Cow<'static, str>>,
    limits: Vec<Limit>,
    rights: RightsView<'a>,
    self_test: SelfTestView<'a>,
}

/// What commands give up.
#[derive(Serialize)]
struct RightsView<'a> {
    stages: Vec<StageView>,
    /// What this kernel does not offer, or `doctor` itself could not give up.
    lacks: &'a [String],
}

#[derive(Serialize)]
struct StageView {
    what: &'static str,
    /// Capabilities that it keeps.
    keeps: Vec<&'static str>,
    files: &'static str,
    calls: &'static str,
}

impl StageView {
    fn of(stage: &Stage) -> Self {
        let files = if stage.closes_files {
            "reads only a store, time zones and names of services; no network"
        } else {
            "all, as its user"
        };
        let keeps = stage.keep.iter().map(Need::name).collect();
        Self { what: stage.what, keeps, files, calls: stage.calls.sentence() }
    }

    fn sentence(&self) -> String {
        let keeps = if self.keeps.is_empty() { "none".to_owned() } else { self.keeps.join(", ") };
        format!("{}: capabilities: {keeps}; files: {}; system calls: {}", self.what, self.files, self.calls)
    }
}

/// A limit, and what happens when it is reached. All of them are in docs/limits.md.
#[derive(Serialize)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    pub(crate) at_limit: &'static str,
}

#[derive(Serialize)]
struct JobView<'a> {
    job: &'a str,
    #[serde(flatten)]
    covered: &'a Covered,
}

/// Result of the self-test. At most one of the lists is not empty.
#[derive(Default, Serialize)]
pub(crate) struct SelfTestView<'a> {
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) came: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) missing: &'a [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) misread: &'a [String],
    /// Why the self-test was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_done: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// `kernel`: the release, as uname(2) has it.
    pub(crate) fn new(
        kernel: &'a str,
        coverage: &'a Coverage,
        limits: Vec<Limit>,
        self_test: SelfTestView<'a>,
        given: &'a GivenUp,
    ) -> Self {
        Self {
            kind: "doctor",
            kernel,
            jobs: coverage.jobs.iter().map(|(job, covered)| JobView { job, covered }).collect(),
            unseen: coverage.unseen().into_iter().map(Cow::from).collect(),
            limits,
            rights: RightsView { stages: STAGES.iter().map(StageView::of).collect(), lacks: &given.lacks },
            self_test,
        }
    }

    /// The same if the connection tracking table cannot be asked, with the error.
    pub(crate) fn with_nat(mut self, error: Option<&io::Error>) -> Self {
        self.unseen.extend(error.map(|error| {
            format!("address translation: the connection tracking table cannot be asked: {error}").into()
        }));
        self
    }

    /// Writes one JSON object.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }

    /// Writes text.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "kernel      {}", self.kernel)?;
        for JobView { job, covered } in &self.jobs {
            let rung = covered.rung.map(|rung| format!("{rung}: ")).unwrap_or_default();
            writeln!(out, "{job:<11} {rung}{}", covered.probe.unwrap_or("no probe available"))?;
            for refused in &covered.refused {
                writeln!(out, "            refused: {}: {}", refused.probe, refused.reason)?;
            }
        }
        for (i, unseen) in self.unseen.iter().enumerate() {
            writeln!(out, "{:<11} {unseen}", if i == 0 { "not seen" } else { "" })?;
        }
        for (i, Limit { what, value, at_limit }) in self.limits.iter().enumerate() {
            writeln!(out, "{:<11} {what}: {value}; {at_limit}", if i == 0 { "limits" } else { "" })?;
        }
        for (i, stage) in self.rights.stages.iter().enumerate() {
            writeln!(out, "{:<11} {}", if i == 0 { "gives up" } else { "" }, stage.sentence())?;
        }
        for (i, lacks) in self.rights.lacks.iter().enumerate() {
            writeln!(out, "{:<11} {lacks}", if i == 0 { "cannot" } else { "" })?;
        }
        writeln!(out, "{:<11} {}", "self-test", self.self_test.sentence())
    }
}

impl SelfTestView<'_> {
    fn sentence(&self) -> String {
        match (self.ok, self.not_done) {
            (true, _) => {
                format!("passed: received all records of a test connection ({})", self.came.join(", "))
            }
            (false, Some(why)) => {
                format!("not run: cannot make a test connection (is loopback up?): {why}")
            }
            (false, None) if !self.misread.is_empty() => {
                format!("FAILED: the kernel side misreads kernel structures: {}", self.misread.join(", "))
            }
            (false, None) => format!("FAILED: records that did not arrive: {}", self.missing.join(", ")),
        }
    }
}
