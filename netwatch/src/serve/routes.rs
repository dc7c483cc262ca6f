//! Which path is which page.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http_body_util::channel::Channel;
use maud::Markup;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::pages::{self, csv};
use super::{Found, IsGone, Own, Question, Record, Refusal, assets, guard, limits, moment};

struct App {
    record: Arc<dyn Record>,
    /// One for each question that is being answered.
    turns: Semaphore,
}

type Shared = State<Arc<App>>;

/// All pages, behind the guard.
pub fn router(record: Arc<dyn Record>, own: Own) -> Router {
    let app = Arc::new(App { record, turns: Semaphore::new(limits::SERVED_AT_ONCE) });
    Router::new()
        .route("/", get(search))
        .route("/c/{id}", get(connection))
        .route("/walk/{id}", get(walk))
        .route("/originators", get(originators))
        .route("/state", get(state))
        .route("/export/{format}", get(export))
        .route("/assets/{name}", get(asset))
        .fallback(async || page(StatusCode::NOT_FOUND, pages::message("Not found", "There is no such page.")))
        .layer(from_fn_with_state(Arc::new(own), guard::check))
        .with_state(app)
}

/// Set when nobody waits for an answer any more.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks the record on a thread that may block.
async fn ask<T: Send + 'static>(
    app: &Arc<App>,
    question: impl FnOnce(&dyn Record, IsGone) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let Ok(_turn) = app.turns.acquire().await else {
        return Err(Refusal::Busy("the server ends".into()));
    };
    let gone = Arc::new(AtomicBool::new(false));
    let _waits = Waits(gone.clone());
    let record = app.record.clone();
    let is_gone: IsGone = Arc::new(move || gone.load(Ordering::Relaxed));
    let answer = tokio::task::spawn_blocking(move || question(&*record, is_gone)).await;
    answer.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Wrong(text) => (StatusCode::BAD_REQUEST, "Not a question", text),
            Self::Missing(text) => (StatusCode::NOT_FOUND, "Not found", text),
            Self::Busy(text) => (StatusCode::SERVICE_UNAVAILABLE, "No answer in time", text),
            Self::Failed(text) => (StatusCode::INTERNAL_SERVER_ERROR, "The record cannot be read", text),
        };
        page(status, pages::message(title, &text))
    }
}

fn page(status: StatusCode, markup: Markup) -> Response {
    (status, Html(markup.into_string())).into_response()
}

fn asked(query: Option<&str>) -> Result<Question, Refusal> {
    Question::parse(query.unwrap_or_default()).map_err(Refusal::Wrong)
}

async fn search(State(app): Shared, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    // A form with a mistake keeps what was typed.
    let question = match Question::parse(query.as_deref().unwrap_or_default()) {
        Ok(question) => question,
        Err(what) => {
            return Ok(page(StatusCode::BAD_REQUEST, pages::search(&Question::default(), Err(&what), None)));
        }
    };
    let own = question.clone();
    let counted = question.clone();
    let found = ask(&app, move |record, is_gone| {
        let found = record.search(&own, is_gone.clone());
        // A filter that means nothing is said on the page.
        match found {
            Err(Refusal::Wrong(what)) => Ok(Err(what)),
            Ok(found) => Ok(Ok((found, record.histogram(&counted, is_gone)?))),
            Err(refusal) => Err(refusal),
        }
    })
    .await?;
    Ok(match found {
        Ok((found, histogram)) => {
            page(StatusCode::OK, pages::search(&question, Ok(&found), Some(&histogram)))
        }
        Err(what) => page(StatusCode::BAD_REQUEST, pages::search(&question, Err(&what), None)),
    })
}

async fn connection(State(app): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    let own = id.clone();
    let events = ask(&app, move |record, is_gone| record.connection(&own, is_gone)).await?;
    Ok(page(StatusCode::OK, pages::connection(&id, &events)))
}

async fn walk(State(app): Shared, Path(id): Path<String>) -> Result<Response, Refusal> {
    let own = id.clone();
    let walk = ask(&app, move |record, is_gone| record.walk(&own, is_gone)).await?;
    Ok(page(StatusCode::OK, pages::walk(&id, &walk)))
}

async fn originators(State(app): Shared, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let question = Question { rows: limits::SERVED_ROWS, ..asked(query.as_deref())? };
    let own = question.clone();
    let found = ask(&app, move |record, is_gone| record.search(&own, is_gone)).await?;
    Ok(page(StatusCode::OK, pages::originators(&question, &found)))
}

async fn state(State(app): Shared) -> Result<Response, Refusal> {
    let state = ask(&app, |record, is_gone| record.state(is_gone)).await?;
    Ok(page(StatusCode::OK, pages::state(&state)))
}

/// The rows of a search as a file, page by page, so that no export is held in memory.
async fn export(
    State(app): Shared,
    Path(format): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let (kind, write): (_, fn(&[Value], bool) -> String) = match &*format {
        "jsonl" => ("application/jsonl", |events, _| csv::lines(events)),
        "csv" => ("text/csv; charset=utf-8", csv::table),
        _ => return Err(Refusal::Missing("exports are jsonl and csv".into())),
    };
    let question = Question { rows: limits::SERVED_ROWS, ..asked(query.as_deref())? };
    // The first page before the status is sent, so that a mistake is no file.
    let first = next(&app, &question).await?;
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        let mut page = Some(first);
        let mut is_first = true;
        while let Some(found) = page.take() {
            let text = write(&found.events, is_first);
            is_first = false;
            // The reader has left.
            if sender.send_data(text.into()).await.is_err() {
                return;
            }
            let until = found.more.as_deref().and_then(moment);
            if until.is_some() {
                // An error ends the file early, which its reader sees: the connection is closed without an end.
                match next(&app, &Question { until, ..question.clone() }).await {
                    Ok(found) => page = Some(found),
                    Err(_) => return sender.abort(io::Error::other("no further page")),
                }
            }
        }
    });
    let name = format!("attachment; filename=\"netwatch.{format}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::new(body)).into_response())
}

async fn next(app: &Arc<App>, question: &Question) -> Result<Found, Refusal> {
    let own = question.clone();
    ask(app, move |record, is_gone| record.search(&own, is_gone)).await
}

async fn asset(Path(name): Path<String>) -> Response {
    assets::file(&name)
        .unwrap_or_else(|| page(StatusCode::NOT_FOUND, pages::message("Not found", "There is no such file.")))
}
