//! What of a pack of rules netwatch cannot do: fields that it never fills, and rules that can therefore never match.

use std::collections::BTreeSet;

use rsigma_parser::{ConditionExpr, Detection, DetectionItem, Modifier, Quantifier, SigmaRule, SigmaValue};

use super::event::{OF_CONNECTIONS, OF_PROGRAMS};
use super::load::{Category, Loaded, Pack};

/// What was found about a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The rule.
    pub title: String,
    /// Its file.
    pub file: std::path::PathBuf,
    /// The line in which it begins.
    pub line: usize,
    /// Fields in it that netwatch never fills.
    pub unfilled: Vec<String>,
    /// It can never match, because of them.
    pub is_dead: bool,
}

/// Remarks on the rules of a pack; one on which there is nothing to say has none.
#[must_use]
pub fn remarks(pack: &Pack) -> Vec<Remark> {
    pack.rules.iter().filter_map(remark).collect()
}

fn remark(loaded: &Loaded) -> Option<Remark> {
    let rule = &loaded.rule;
    let filled: &[&str] = match Category::of(rule)? {
        Category::Connection => &OF_CONNECTIONS,
        Category::Program => &OF_PROGRAMS,
    };
    let mut fields = BTreeSet::new();
    rule.detection.named.values().for_each(|detection| collect(detection, &mut fields));
    let unfilled: Vec<_> = fields.into_iter().filter(|field| !filled.contains(&field.as_str())).collect();
    let is_dead = !rule.detection.conditions.iter().any(|condition| may(condition, rule, filled).is_true);
    (!unfilled.is_empty() || is_dead).then(|| Remark {
        title: rule.title.clone(),
        file: loaded.file.clone(),
        line: loaded.line,
        unfilled,
        is_dead,
    })
}

fn collect(detection: &Detection, fields: &mut BTreeSet<String>) {
    match detection {
        Detection::AllOf(items) => fields.extend(items.iter().filter_map(|item| item.field.name.clone())),
        Detection::AnyOf(all) | Detection::And(all) => all.iter().for_each(|one| collect(one, fields)),
        Detection::ArrayMatch { field, .. } => _ = fields.insert(field.clone()),
        Detection::Keywords(_) | Detection::Conditional { .. } => {}
    }
}

/// Which results are possible.
#[derive(Clone, Copy)]
struct May {
    is_true: bool,
    is_false: bool,
}

impl May {
    const EITHER: Self = Self { is_true: true, is_false: true };

    fn all(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self { is_true: true, is_false: false }, |all, one| Self {
            is_true: all.is_true && one.is_true,
            is_false: all.is_false || one.is_false,
        })
    }

    fn any(parts: impl Iterator<Item = Self>) -> Self {
        Self::all(parts.map(Self::not)).not()
    }

    fn not(self) -> Self {
        Self { is_true: self.is_false, is_false: self.is_true }
    }
}

fn may(condition: &ConditionExpr, rule: &SigmaRule, filled: &[&str]) -> May {
    match condition {
        ConditionExpr::And(parts) => May::all(parts.iter().map(|part| may(part, rule, filled))),
        ConditionExpr::Or(parts) => May::any(parts.iter().map(|part| may(part, rule, filled))),
        ConditionExpr::Not(part) => may(part, rule, filled).not(),
        ConditionExpr::Identifier(name) => {
            rule.detection.named.get(name).map_or(May::EITHER, |detection| of(detection, filled))
        }
        ConditionExpr::Selector { quantifier, pattern } => {
            let named = rule.detection.named.iter().filter(|(name, _)| pattern.matches_detection_name(name));
            let parts = named.map(|(_, detection)| of(detection, filled));
            match quantifier {
                Quantifier::All => May::all(parts),
                Quantifier::Any => May::any(parts),
                Quantifier::Count(count) => {
                    let possible = parts.filter(|part| part.is_true).count() as u64;
                    May { is_true: possible >= *count, is_false: true }
                }
            }
        }
    }
}

fn of(detection: &Detection, filled: &[&str]) -> May {
    match detection {
        Detection::AllOf(items) => May::all(items.iter().map(|item| of_item(item, filled))),
        Detection::And(parts) => May::all(parts.iter().map(|part| of(part, filled))),
        Detection::AnyOf(parts) => May::any(parts.iter().map(|part| of(part, filled))),
        Detection::ArrayMatch { .. } => May { is_true: false, is_false: true },
        Detection::Keywords(_) | Detection::Conditional { .. } => May::EITHER,
    }
}

fn of_item(item: &DetectionItem, filled: &[&str]) -> May {
    let Some(name) = &item.field.name else { return May::EITHER };
    if filled.contains(&name.as_str()) {
        return May::EITHER;
    }
    // It is absent: null matches, and `exists: false`.
    let matches = |value: &SigmaValue| {
        let is_absence = item.field.has_modifier(Modifier::Exists) && *value == SigmaValue::Bool(false);
        is_absence || *value == SigmaValue::Null
    };
    let is_true = item.values.iter().any(matches);
    May { is_true, is_false: !is_true }
}
