//! The search: form, histogram, table.

use maud::{Markup, html};

use super::{address, arrow, clean, originator, path_of, process, text, time, whole};
use crate::serve::{Found, Histogram, Question, moment};

/// Width and height of the histogram, in pixels.
const WIDTH: u64 = 1000;
const HEIGHT: u64 = 60;

/// `found`: or what is wrong with the question.
pub(in crate::serve) fn search(
    question: &Question,
    found: Result<&Found, &str>,
    histogram: Option<&Histogram>,
) -> Markup {
    let content = html! {
        (form(question))
        @match found {
            Err(what) => p.error role="alert" { (clean(what)) },
            Ok(found) => {
                @if let Some(histogram) = histogram { (picture(question, histogram)) }
                (table(found))
                p.actions {
                    @if let Some(until) = found.more.as_deref().and_then(moment) {
                        a rel="next" href={ "/?" (Question { until: Some(until), ..question.clone() }.query()) } { "Older" }
                        " · "
                    }
                    a href={ "/originators?" (question.query()) } { "By originator" }
                    " · "
                    a href={ "/export/jsonl?" (question.query()) } { "JSON lines" }
                    " · "
                    a href={ "/export/csv?" (question.query()) } { "CSV" }
                }
            }
        }
    };
    whole("Search", &content)
}

fn form(question: &Question) -> Markup {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    html! {
        form method="get" action="/" role="search" {
            label.wide {
                "Filter, such as process:curl origin:local !port:53"
                input type="search" name="q" value=(question.filter) autocomplete="off" spellcheck="false";
            }
            label { "Since" input name="since" value=(time(question.since)) placeholder="2026-11-24T10:00:00Z"; }
            label { "Until" input name="until" value=(time(question.until)) placeholder="2026-11-24T11:00:00Z"; }
            button { "Search" }
        }
    }
}

fn table(found: &Found) -> Markup {
    if found.events.is_empty() {
        return html! { p role="status" { "Nothing matches." } };
    }
    html! {
        div.scroll {
            table {
                caption { (found.events.len()) " ends of connections, the newest first" }
                thead {
                    tr {
                        @for name in ["Last event", "", "Process", "Local", "", "Remote", "Name", "Originator", "How known", "Sent", "Received"] {
                            th scope="col" { (name) }
                        }
                    }
                }
                tbody {
                    @for event in &found.events {
                        tr {
                            td.word { a href=(path_of("c", &text(event, "/id"))) { (time(event, "ts")) } }
                            td.word { (text(event, "/event")) " " (text(event, "/proto")) }
                            td.name { (process(event, "/process")) }
                            td.address { (address(event, "/local")) }
                            td { (arrow(event)) }
                            td.address { (address(event, "/remote")) }
                            td.name { (text(event, "/remote_name/name")) }
                            @if event["origin"].is_null() {
                                // Nobody originated a listener.
                                td {} td {}
                            } @else {
                                td.name { a href=(path_of("walk", &text(event, "/id"))) { (originator(event)) } }
                                td class=(text(event, "/origin/confidence")) { (text(event, "/origin/basis")) " (" (text(event, "/origin/confidence")) ")" }
                            }
                            td { (text(event, "/bytes_sent")) }
                            td { (text(event, "/bytes_received")) }
                        }
                    }
                }
            }
        }
    }
}

/// Counts over time; each bar is a link to its part.
fn picture(question: &Question, histogram: &Histogram) -> Markup {
    let Histogram { span: (from, to), counts } = histogram;
    let (Some(most), parts) = (counts.iter().max().filter(|most| **most > 0), counts.len() as u64) else {
        return html! {};
    };
    let at = |nth: u64| {
        let span = i128::from(*to) - i128::from(*from);
        let time = i128::from(*from) + span * i128::from(nth) / i128::from(parts.max(1));
        jiff::Timestamp::from_nanosecond(time).ok()
    };
    let width = (WIDTH / parts.max(1)).max(1);
    let total: u64 = counts.iter().sum();
    html! {
        svg.histogram viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="group" aria-label={ "Recorded ends of connections over time: " (total) } {
            @for (nth, count) in (0_u64..).zip(counts) {
                @let height = (count * (HEIGHT - 2) / most).max(u64::from(*count > 0));
                @let part = Question { since: at(nth), until: at(nth + 1), ..question.clone() };
                @let label = format!("{} from {}", count, at(nth).map(|time| time.to_string()).unwrap_or_default());
                @if *count > 0 {
                    a href={ "/?" (part.query()) } aria-label=(label) {
                        rect.bar x=(nth * width) y=(HEIGHT - height) width=(width.saturating_sub(1).max(1)) height=(height) { title { (label) } }
                    }
                }
            }
        }
    }
}
