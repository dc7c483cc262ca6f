//! Questions, as they stand in a URL: all of a page's state is there, with absolute times, so that a link is the page.

use std::borrow::Cow;

use form_urlencoded::Serializer;
use jiff::Timestamp;

use super::limits;

/// What a page asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// A filter expression.
    pub filter: String,
    /// At or after this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Rows on a page.
    pub rows: usize,
}

/// Rows on a page unless asked for otherwise.
const ROWS: usize = 100;

impl Question {
    /// Reads the query of a URL; other keys are left alone.
    ///
    /// # Errors
    /// What is wrong, for who asked.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut question = Self { rows: ROWS, ..Self::default() };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            match &*key {
                "q" => value.clone_into(&mut question.filter),
                "since" => question.since = time(value).map_err(|what| format!("since: {what}"))?,
                "until" => question.until = time(value).map_err(|what| format!("until: {what}"))?,
                "rows" => {
                    let rows = value.parse().ok().filter(|rows| (1..=limits::SERVED_ROWS).contains(rows));
                    let wrong = || format!("rows: expected a number from 1 to {}", limits::SERVED_ROWS);
                    question.rows = rows.ok_or_else(wrong)?;
                }
                _ => {}
            }
        }
        if question.filter.len() > limits::SERVED_FILTER {
            return Err(format!("the filter is longer than {} bytes", limits::SERVED_FILTER));
        }
        Ok(question)
    }

    /// The query of a URL, without `?`.
    #[must_use]
    pub fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        if !self.filter.is_empty() {
            query.append_pair("q", &self.filter);
        }
        for (key, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                query.append_pair(key, &time.to_string());
            }
        }
        if self.rows != ROWS {
            query.append_pair("rows", &self.rows.to_string());
        }
        query.finish()
    }

    /// The same with another term in the filter.
    #[must_use]
    pub fn with(&self, term: &str) -> Self {
        let filter = if self.filter.is_empty() { term.to_owned() } else { format!("{} {term}", self.filter) };
        Self { filter, ..self.clone() }
    }
}

fn time(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    moment(text).map(Some).ok_or_else(|| "expected a time such as 2026-11-24T10:00:00Z".into())
}

/// A time in RFC 3339; without an offset it is UTC, as a page shows it.
#[must_use]
pub fn moment(text: &str) -> Option<Timestamp> {
    let text = text.replacen(' ', "T", 1);
    let is_whole = text.ends_with('Z') || text.get(10..).is_some_and(|time| time.contains(['+', '-']));
    let text = if is_whole { Cow::from(text) } else { Cow::from(format!("{text}Z")) };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn question_comes_back_from_its_url() {
        let text = "q=process%3Acurl+%21port%3A53&since=2026-11-24T10%3A00%3A00Z&rows=7&other=1";
        let question = Question::parse(text).unwrap();
        assert_eq!((&*question.filter, question.rows, question.until), ("process:curl !port:53", 7, None));
        assert_eq!(Question::parse(&question.query()), Ok(question.clone()));
        assert_eq!(question.with("origin:local").filter, "process:curl !port:53 origin:local");
        let empty = Question::parse("").unwrap();
        assert_eq!((&*empty.query(), &*empty.with("port:1").query()), ("", "q=port%3A1"));
    }

    #[test]
    fn wrong_question_is_named() {
        for (query, what) in [
            ("since=yesterday", "since: expected a time"),
            ("until=1", "until: expected a time"),
            ("rows=0", "rows: expected"),
            ("rows=x", "rows: expected"),
            (&*format!("q={}", "x".repeat(limits::SERVED_FILTER + 1)), "the filter is longer"),
        ] {
            let error = Question::parse(query).unwrap_err();
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn times_without_an_offset_are_utc() {
        let expected: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for text in
            ["2026-11-24T10:00:00Z", "2026-11-24 10:00:00", "2026-11-24T10:00", "2026-11-24T12:00:00+02:00"]
        {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_a_question_or_an_error(query in ".{0,200}") {
            if let Ok(question) = Question::parse(&query) {
                prop_assert_eq!(Question::parse(&question.query()), Ok(question));
            }
        }
    }
}
