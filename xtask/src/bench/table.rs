//! The figures: printed as a table, and saved as JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// All that was measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    figure: String,
    value: Option<f64>,
    unit: &'static str,
    goal: Option<Goal>,
}

/// The value that a figure is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most} {unit}"),
            Self::AtLeast(least) => format!("at least {least} {unit}"),
        }
    }
}

impl Table {
    /// A figure without a goal.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.add(what.into(), value, unit, None);
    }

    /// A figure with a goal.
    pub(crate) fn goal(&mut self, what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.add(what.into(), value, unit, Some(goal));
    }

    /// Something that could not be measured, and why.
    pub(crate) fn skipped(&mut self, what: impl Into<String>, why: impl std::fmt::Display) {
        let figure = format!("skipped: {why}");
        self.rows.push(Row { what: what.into(), figure, value: None, unit: "", goal: None });
    }

    /// A measurement that failed.
    pub(crate) fn failed(&mut self, what: &str, error: &anyhow::Error) {
        let figure = format!("failed: {error:#}");
        self.rows.push(Row { what: what.to_owned(), figure, value: None, unit: "", goal: None });
    }

    fn add(&mut self, what: String, value: f64, unit: &'static str, goal: Option<Goal>) {
        let figure = format!("{} {unit}", short(value));
        crate::exec::step(&format!("  {what}: {figure}"));
        self.rows.push(Row { what, figure, value: Some(value), unit, goal });
    }

    pub(crate) fn print(&self) {
        let width = |of: fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or_default();
        let (what, figure) = (width(|row| row.what.len()), width(|row| row.figure.len().min(40)));
        for row in &self.rows {
            let verdict = match (row.goal, row.value) {
                (Some(goal), Some(value)) => {
                    let met = if goal.is_met(value) { "met" } else { "NOT MET" };
                    format!("{met} ({})", goal.text(row.unit))
                }
                _ => String::new(),
            };
            println!("{:<what$}  {:>figure$}  {verdict}", row.what, row.figure);
        }
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let met = row.goal.zip(row.value).map(|(goal, value)| goal.is_met(value));
                let goal = row.goal.map(|goal| goal.text(row.unit));
                json!({"what": row.what, "value": row.value, "unit": row.unit, "figure": row.figure, "goal": goal, "met": met})
            })
            .collect();
        let text = serde_json::to_string_pretty(&json!({ "figures": rows }))?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_goals_are_held() {
        assert_eq!([short(1234.5), short(12.34), short(1.234), short(0.0)], ["1234", "12.3", "1.23", "0"]);
        assert!(Goal::AtMost(2.0).is_met(2.0) && !Goal::AtLeast(2.0).is_met(1.9));
        assert!(median(vec![3.0, 1.0, 2.0]) == 2.0 && median(Vec::new()).is_nan());
    }
}
